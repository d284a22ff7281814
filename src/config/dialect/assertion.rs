//! `[assertion.NAME]`: a JWT that is signed for each request that mentions `{NAME}`.

use std::time::Duration;

use super::request::template;
use super::{key_of, unknown_key};
use crate::config::reader::Item;
use crate::config::server::number;
use crate::source::assertion::{Assertion, Key as SignedWith};
use crate::source::dialect::Key;
use crate::source::template::Template;

pub(super) fn assertions(item: &Item<'_>, keys: &[Key]) -> Option<Vec<Assertion>> {
    item.each_entry(|name, item| assertion(name, item, keys))
}

fn assertion(name: String, item: &Item<'_>, keys: &[Key]) -> Option<Assertion> {
    let section = item.section()?;
    if keys.iter().any(|key| key.name == name) {
        item.wrong("is also the name of a key; write another one");
    }
    let key = section.take("key").map(|item| template(&item).map(SignedWith::Private));
    let secret = section.take("secret").map(|item| template(&item).map(SignedWith::Secret));
    let optional = |key| section.take(key).map_or(Some(None), |item| template(&item).map(Some));
    let (algorithm, key_id) = (optional("algorithm"), optional("key_id"));
    let claims = section
        .require("claims", "claims = { iss = \"{client_id}\" }")
        .and_then(|item| claims(&item));
    let lifetime = number(&section, "lifetime_seconds", 180, 1..=86_400);
    let backdated = number(&section, "backdated_seconds", 0, 0..=3600);
    section.finish();
    let ((Some(key), None) | (None, Some(key))) = (key, secret) else {
        item.wrong("needs one key to sign with; write key = \"{private_key}\", or secret = \"…\"");
        return None;
    };
    let assertion = Assertion {
        name,
        key: key?,
        algorithm: algorithm?,
        key_id: key_id?,
        claims: claims?,
        lifetime: Duration::from_secs(lifetime?),
        backdated: Duration::from_secs(backdated?),
    };
    let unknown = |name: &&str| key_of(name, keys).is_none();
    if let Some(unknown) = assertion.templates().flat_map(Template::keys).find(unknown) {
        item.wrong(unknown_key(unknown, keys));
        return None;
    }
    Some(assertion)
}

fn claims(item: &Item<'_>) -> Option<Vec<(String, Template)>> {
    item.each_entry(|name, item| Some((name, template(item)?)))
}
