//! `params`: extra form fields of the token request.

use crate::config::reader::Item;
use crate::source::dialect::{Body, Dialect};

pub(super) fn read(item: &Item<'_>) -> Option<Vec<(String, String)>> {
    item.each_entry(|name, item| Some((name, item.text()?)))
}

/// Whether they can go along with the requests of `dialect`: no parameter goes twice (RFC 6749 §3.2).
pub(super) fn fit(item: &Item<'_>, dialect: &Dialect) -> bool {
    let forms = dialect.obtain.iter().filter_map(|exchange| match &exchange.body {
        Body::Form(pairs) => Some(pairs),
        Body::Empty | Body::Json(_) => None,
    });
    let forms: Vec<_> = forms.collect();
    if forms.is_empty() {
        item.wrong(format!("are for a form, and {} sends none; leave them out", dialect.name));
        return false;
    }
    let own = |name: &str| forms.iter().any(|form| form.iter().any(|(field, _)| field == name));
    let fit = item.each_entry(|name, item| {
        if !own(&name) {
            return Some(());
        }
        item.wrong(if dialect.keys.iter().any(|key| key.name == name) {
            "has a key of its own; write it there"
        } else {
            "is for the request itself to say; leave it out"
        });
        None
    });
    fit.is_some()
}
