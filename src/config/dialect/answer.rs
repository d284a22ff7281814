//! How an exchange's answer is read: success, expiry, errors.

use http::HeaderName;
use toml::de::DeValue;

use crate::config::answers::{pointer, test};
use crate::config::reader::Item;
use crate::source::dialect::{BodyKind, Matcher, Ok as OkRules, Status};
use crate::source::expiry::{Rule, Shape};
use crate::source::{Class, Reason};

/// `ok`, with what it leaves out taken from `base`.
pub(super) fn ok(item: &Item<'_>, base: OkRules) -> Option<OkRules> {
    let section = item.section()?;
    let status = section.take("status").map_or(Some(base.status), |item| statuses(&item));
    let headers = section.take("headers").map_or(Some(base.headers), |item| headers(&item));
    let written = section.has("access_token");
    let access_token =
        section.take("access_token").map_or(Some(base.access_token), |item| pointer(&item));
    let refresh_token = section.take("refresh_token").map_or(Some(base.refresh_token), |item| {
        pointer(&item).map(|pointer| Some(pointer).filter(|pointer| !pointer.is_empty()))
    });
    let token_type = section.take("token_type").map_or(Some(base.token_type.clone()), |item| {
        let section = item.section()?;
        let mut kind = base.token_type.clone();
        kind.at = section.take("at").map_or(Some(kind.at), |item| pointer(&item))?;
        kind.accept = section.take("accept").map_or(Some(kind.accept), |item| item.texts())?;
        section.finish();
        Some(kind)
    });
    let body = section.take("body").map_or(Some(base.body), |item| {
        item.choice(&[("json", BodyKind::Json), ("form", BodyKind::Form), ("text", BodyKind::Text)])
    });
    let expiry = section.take("expiry").map_or(Some(base.expiry), |item| item.each(expiry));
    let renewable =
        section.take("renewable").map_or(Some(base.renewable), |item| pointer(&item).map(Some));
    section.finish();
    // The whole of a text is the token.
    let whole = !written && body == Some(BodyKind::Text);
    Some(OkRules {
        status: status?,
        headers: headers?,
        access_token: if whole { String::new() } else { access_token? },
        refresh_token: refresh_token?,
        renewable: renewable?,
        token_type: token_type?,
        body: body?,
        expiry: expiry?,
    })
}

fn headers(item: &Item<'_>) -> Option<Vec<(HeaderName, String)>> {
    item.each_entry(|name, item| {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let wrong = |_| item.wrong("is no header name; write one such as \"metadata-flavor\"");
        Some((parsed.map_err(wrong).ok()?, item.text()?))
    })
}

pub(in crate::config) fn expiry(item: &Item<'_>) -> Option<Rule> {
    let section = item.section()?;
    let shape = section.require("as", "as = \"seconds\"").and_then(|item| {
        item.choice(&[
            ("seconds", Shape::Seconds),
            ("epoch_seconds", Shape::EpochSeconds),
            ("epoch_milliseconds", Shape::EpochMilliseconds),
            ("rfc3339", Shape::Rfc3339),
            ("http_date", Shape::HttpDate),
            ("jwt_exp", Shape::JwtExp),
        ])
    });
    let at = match shape {
        Some(Shape::JwtExp) => Some(String::new()),
        _ => section.require("at", "at = \"/expires_in\"").and_then(|item| pointer(&item)),
    };
    let only_for = |key, wanted: &[(&str, Shape)]| {
        let item = section.take(key)?;
        if shape.is_some_and(|shape| !wanted.iter().any(|(_, wanted)| *wanted == shape)) {
            let words: Vec<String> = wanted.iter().map(|(word, _)| format!("{word:?}")).collect();
            item.wrong(format!("is only for as = {}; leave it out", words.join(" or ")));
        }
        Some(item)
    };
    let issued = only_for("issued", &[("rfc3339", Shape::Rfc3339), ("http_date", Shape::HttpDate)])
        .map_or(Some(None), |item| pointer(&item).map(Some));
    let zero_is_never = only_for("zero", &[("seconds", Shape::Seconds)])
        .map_or(Some(false), |item| item.choice(&[("unknown", false), ("never", true)]));
    section.finish();
    Some(Rule { at: at?, shape: shape?, issued: issued?, zero_is_never: zero_is_never? })
}

pub(super) fn matchers(item: &Item<'_>) -> Option<Vec<Matcher>> {
    item.each(matcher)
}

fn matcher(item: &Item<'_>) -> Option<Matcher> {
    let section = item.section()?;
    let id = section.require("id", "id = \"E1\"").and_then(|item| item.text());
    let status = section.take("status").map_or(Some(Vec::new()), |item| statuses(&item));
    let at = section.take("at").map_or(Some(None), |item| pointer(&item).map(Some));
    let test = test(&section, true);
    let missing = section.take("missing").map_or(Some(None), |item| pointer(&item).map(Some));
    let empty = section.take("empty").map_or(Some(false), |item| item.bool());
    let media_type = section.take("type").map_or(Some(None), |item| item.text().map(Some));
    let class = section.require("outcome", "\"terminal\" or \"transient\"").and_then(|item| {
        item.choice(&[("terminal", Class::Terminal), ("transient", Class::Transient)])
    });
    let reason = section.take("reason").map_or(Some(Reason::BadRequest), |item| reason(&item));
    let try_next = section.take("then").map_or(Some(false), |item| item.choice(&[("next", true)]));
    let hint = section.take("hint").map_or(Some(None), |item| item.text().map(Some));
    section.finish();
    let test = match (at?, test?) {
        (Some(at), Some(test)) => Some((at, test)),
        (None, None) => None,
        _ => {
            item.wrong("needs `at` together with one of `is`, `has` and `exists`");
            return None;
        }
    };
    let (status, missing, empty, media_type) = (status?, missing?, empty?, media_type?);
    if status.is_empty() && test.is_none() && missing.is_none() && !empty && media_type.is_none() {
        item.wrong("fits every answer; write status = 400, or `at` with what tells an error");
        return None;
    }
    Some(Matcher {
        id: id?,
        status,
        test,
        missing,
        empty,
        media_type,
        class: class?,
        reason: reason?,
        try_next: try_next?,
        hint: hint?,
    })
}

fn reason(item: &Item<'_>) -> Option<Reason> {
    let reasons = [
        Reason::BadRequest,
        Reason::BadGrant,
        Reason::BadClient,
        Reason::NeedsOperator,
        Reason::NotFound,
        Reason::Conflict,
        Reason::RateLimited,
        Reason::Server,
        Reason::Unusable,
    ];
    item.choice(&reasons.map(|reason| (reason.as_str(), reason)))
}

/// A number, `"5xx"`, or a list of them.
fn statuses(item: &Item<'_>) -> Option<Vec<Status>> {
    let status = |item: &Item<'_>| match item.value() {
        DeValue::String(text) => {
            let class = text.strip_suffix("xx").and_then(|class| class.parse().ok());
            let class = class.filter(|class| (1..=5).contains(class));
            if class.is_none() {
                item.wrong("is no class of statuses; write a number or one such as \"5xx\"");
            }
            class.map(Status::Class)
        }
        _ => u16::try_from(item.number(100..=599)?).ok().map(Status::Exactly),
    };
    item.each(status)
}
