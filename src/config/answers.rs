//! What a configuration may say about an answer: where to look, what to look for, and how an
//! upstream says that a token has expired.

use super::reader::{Item, Section};
use crate::credential::sign::{Sign, Test, Words};

/// A JSON pointer (RFC 6901 §3); an empty one is the whole document.
pub(super) fn pointer(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !text.is_empty() && !text.starts_with('/') {
        item.wrong(format!(
            "is no JSON pointer; write {:?}",
            format!("/{}", text.replace('.', "/"))
        ));
        return None;
    }
    Some(text)
}

/// `is`, `has` or `exists`: at most one of them. What must not be there is said by `missing`, where that
/// is known.
#[allow(clippy::option_option)] // none, and wrong
pub(super) fn test(section: &Section<'_>, missing: bool) -> Option<Option<Test>> {
    let write = if missing {
        "is false; write missing = \"/pointer\" for what must not be there"
    } else {
        "is false; write true, or `is` or `has`: only what is there can be told"
    };
    let is = section.take("is").map(|item| item.text().map(Test::Is));
    let has = section.take("has").map(|item| item.text().map(Test::Has));
    let exists = section.take("exists").map(|item| item.bool().map(|wanted| (wanted, item)));
    let exists = exists.map(|wanted| match wanted? {
        (true, _) => Some(Test::Exists),
        (false, item) => {
            item.wrong(write);
            None
        }
    });
    let tests: Vec<_> = [is, has, exists].into_iter().flatten().collect();
    if tests.len() > 1 {
        section.wrong("has more than one of `is`, `has` and `exists`; write only one of them");
        return None;
    }
    tests.into_iter().next().map_or(Some(None), |test| test.map(Some))
}

/// `expired = [{ status = 403, at = "/code", is = "…" }]`
pub(super) fn signs(item: &Item<'_>) -> Option<Vec<Sign>> {
    item.each(sign)
}

fn sign(item: &Item<'_>) -> Option<Sign> {
    let section = item.section()?;
    let statuses = section.require("status", "status = 403").and_then(|item| {
        let status = |item: &Item<'_>| u16::try_from(item.number(200..=599)?).ok();
        item.each(status)
    });
    let at = section.take("at").map_or(Some(None), |item| pointer(&item).map(Some));
    let test = test(&section, false);
    section.finish();
    let (statuses, words) = match (statuses?, at?, test?) {
        (_, Some(_), None) => {
            item.wrong("needs `at` together with one of `is`, `has` and `exists`");
            return None;
        }
        (statuses, at, Some(test)) => (statuses, Some(Words { at, test })),
        (statuses, None, None) => (statuses, None),
    };
    if words.is_none() && statuses.iter().any(|status| *status < 400) {
        item.wrong("is what every success is; write `has`, or `at` with what tells an error");
        return None;
    }
    Some(Sign { statuses, words })
}
