//! A dialect file: the format of `src/source/vendor/*.toml` and of `provider = "custom"`.

use std::time::Duration;

use http::{HeaderName, Method};
use toml::de::DeValue;

use super::reader::{Item, Section};
use super::server::number;
use crate::source::dialect::{
    Body, BodyKind, Dialect, Exchange, Json, Key, Kind, Matcher, Ok as OkRules, Status, Test,
};
use crate::source::expiry::{Rule, Shape};
use crate::source::oauth2::standard_ok;
use crate::source::template::Template;
use crate::source::{Class, Reason};

/// The only version of the format.
const FORMAT: u64 = 1;

pub(super) fn read(root: Section<'_>) -> Option<Dialect> {
    root.require("format", "format = 1").and_then(|item| item.number(FORMAT..=FORMAT));
    let name = root.require("name", "the dialect's name").and_then(|item| item.text());
    let keys = root.require("keys", "a [keys] table").and_then(|item| keys(&item));
    let variants = root.take("inject").map_or(Some(Vec::new()), |item| {
        let section = item.section()?;
        let variants = section.take("variants").map_or(Some(Vec::new()), |item| item.texts());
        section.finish();
        variants
    });
    let grace = number(&root, "rotation_grace_seconds", 0, 0..=86_400);
    let rotates = root.take("rotates").map_or(Some(true), |item| item.bool());
    let defaults = root.take("defaults").map_or(Some(Defaults::default()), |i| Defaults::read(&i));
    let exchanges = root
        .require("exchange", "at least one [exchange.NAME] table")
        .and_then(|item| exchanges(&item, keys.as_deref()?, &defaults?));
    let flow = root
        .require("flow", "flow = { obtain = [\"NAME\"] }")
        .and_then(|item| flow(&item, exchanges.as_deref()?));
    root.finish();
    let (obtain, revoke) = flow?;
    Some(Dialect {
        name: name?,
        keys: keys?,
        obtain,
        revoke,
        variants: variants?,
        rotation_grace: Some(Duration::from_secs(grace?)).filter(|grace| !grace.is_zero()),
        rotates: rotates?,
    })
}

fn keys(item: &Item<'_>) -> Option<Vec<Key>> {
    item.section()?.entries().into_iter().map(|(name, item)| key(name, &item)).collect()
}

fn key(name: String, item: &Item<'_>) -> Option<Key> {
    let section = item.section()?;
    let kind = section.require("kind", "kind = \"text\"").and_then(|item| {
        item.choice(&[
            ("host", Kind::Host),
            ("path", Kind::Path),
            ("text", Kind::Text),
            ("secret", Kind::Secret),
            ("bool", Kind::Bool),
            ("choice", Kind::Choice),
        ])
    });
    let flag = |key| section.take(key).map_or(Some(false), |item| item.bool());
    let (required, rotating, one_time) = (flag("required"), flag("rotating"), flag("one_time"));
    let default = section.take("default").map_or(Some(None), |item| item.text().map(Some));
    let of = section.take("of").map_or(Some(Vec::new()), |item| item.texts());
    section.finish();
    Some(Key {
        name,
        kind: kind?,
        required: required?,
        default: default?,
        of: of?,
        rotating: rotating?,
        one_time: one_time?,
    })
}

/// What an exchange leaves out.
#[derive(Clone)]
struct Defaults {
    url: Option<Template>,
    headers: Vec<(HeaderName, Template)>,
    ok: OkRules,
    errors: Vec<Matcher>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { url: None, headers: Vec::new(), ok: standard_ok(), errors: Vec::new() }
    }
}

impl Defaults {
    fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.section()?;
        let url = section.take("url").map_or(Some(None), |item| template(&item).map(Some));
        let headers = section.take("headers").map_or(Some(Vec::new()), |item| headers(&item));
        let ok = section.take("ok").map_or(Some(standard_ok()), |item| ok(&item, standard_ok()));
        let errors = section.take("error").map_or(Some(Vec::new()), |item| matchers(&item));
        section.finish();
        Some(Self { url: url?, headers: headers?, ok: ok?, errors: errors? })
    }
}

fn exchanges(item: &Item<'_>, keys: &[Key], defaults: &Defaults) -> Option<Vec<Exchange>> {
    let entries = item.section()?.entries();
    entries.into_iter().map(|(name, item)| exchange(name, &item, keys, defaults)).collect()
}

fn exchange(name: String, item: &Item<'_>, keys: &[Key], defaults: &Defaults) -> Option<Exchange> {
    let section = item.section()?;
    let method = section.take("method").map_or(Some(Method::POST), |item| method(&item));
    let url = match section.take("url") {
        Some(item) => template(&item),
        None => defaults.url.clone().or_else(|| {
            section.wrong("has no url, and [defaults] has none; write url = \"{host}/token\"");
            None
        }),
    };
    let own_headers = section.take("headers").map_or(Some(Vec::new()), |item| headers(&item));
    let when = section.take("when").map_or(Some(Vec::new()), |item| pairs_of_text(&item));
    let needs = section.take("needs").map_or(Some(Vec::new()), |item| item.texts());
    let body = body(&section);
    let basic = section.take("basic").map_or(Some(None), |item| basic(&item).map(Some));
    let bearer = section.take("bearer").map_or(Some(None), |item| template(&item).map(Some));
    let ok = section.take("ok").map_or(Some(defaults.ok.clone()), |i| ok(&i, defaults.ok.clone()));
    let errors = section.take("error").map_or(Some(Vec::new()), |item| matchers(&item));
    section.finish();
    let exchange = Exchange {
        name,
        method: method?,
        url: url?,
        headers: own_headers?.into_iter().chain(defaults.headers.clone()).collect(),
        when: when?,
        needs: needs?,
        body: body?,
        basic: basic?,
        bearer: bearer?,
        ok: ok?,
        errors: errors?.into_iter().chain(defaults.errors.clone()).collect(),
    };
    check_placeholders(item, &exchange, keys)?;
    Some(exchange)
}

/// Placeholders must be keys, and a secret must not stand in the URL (RFC 6749 §2.3.1): URLs end up
/// in logs.
fn check_placeholders(item: &Item<'_>, exchange: &Exchange, keys: &[Key]) -> Option<()> {
    let known = |name: &str| name == "access_token" || keys.iter().any(|key| key.name == name);
    let named = exchange.when.iter().map(|(key, _)| key).chain(&exchange.needs);
    let placeholders = exchange.templates().flat_map(Template::keys);
    if let Some(name) = placeholders.chain(named.map(String::as_str)).find(|name| !known(name)) {
        item.wrong(format!("uses {{{name}}}, which is not among the [keys]"));
        return None;
    }
    let secret = |name: &&str| {
        *name == "access_token" || keys.iter().any(|k| k.name == **name && k.kind == Kind::Secret)
    };
    if let Some(name) = exchange.url.keys().find(secret) {
        item.wrong(format!("puts the secret {{{name}}} into the url; write it into the form"));
        return None;
    }
    Some(())
}

fn method(item: &Item<'_>) -> Option<Method> {
    let methods = ["GET", "POST", "PUT", "DELETE"].map(|name| (name, name));
    let name = item.choice(&methods)?;
    Method::from_bytes(name.as_bytes()).ok()
}

fn template(item: &Item<'_>) -> Option<Template> {
    Template::parse(&item.text()?).map_err(|problem| item.wrong(problem)).ok()
}

fn headers(item: &Item<'_>) -> Option<Vec<(HeaderName, Template)>> {
    let header = |(name, item): (String, Item<'_>)| {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            item.wrong("is no header name");
            return None;
        };
        Some((parsed, template(&item)?))
    };
    item.section()?.entries().into_iter().map(header).collect()
}

fn pairs_of_text(item: &Item<'_>) -> Option<Vec<(String, String)>> {
    item.section()?.entries().into_iter().map(|(key, item)| Some((key, item.text()?))).collect()
}

fn body(section: &Section<'_>) -> Option<Body> {
    match (section.take("form"), section.take("json")) {
        (Some(_), Some(json)) => {
            json.wrong("stands beside a form; write only one of them");
            None
        }
        (Some(form), None) => {
            form.items().iter().map(form_pair).collect::<Option<_>>().map(Body::Form)
        }
        (None, Some(item)) => json(&item).map(Body::Json),
        (None, None) => Some(Body::Empty),
    }
}

fn form_pair(item: &Item<'_>) -> Option<(String, Template)> {
    let pair = item.items();
    let [name, value] = pair.as_slice() else {
        item.wrong("is no pair; write [\"name\", \"value or {key}\"]");
        return None;
    };
    Some((name.text()?, template(value)?))
}

fn basic(item: &Item<'_>) -> Option<(Template, Template)> {
    let pair = item.items();
    let [user, password] = pair.as_slice() else {
        item.wrong("is no pair; write [\"{client_id}\", \"{client_secret}\"]");
        return None;
    };
    Some((template(user)?, template(password)?))
}

fn json(item: &Item<'_>) -> Option<Json> {
    Some(match item.value() {
        DeValue::String(_) => Json::Text(template(item)?),
        DeValue::Boolean(value) => Json::Plain((*value).into()),
        DeValue::Integer(number) => {
            Json::Plain(number.as_str().parse::<i64>().map(Into::into).unwrap_or_default())
        }
        DeValue::Array(_) => Json::List(item.items().iter().map(json).collect::<Option<_>>()?),
        DeValue::Table(_) => {
            let entries = item.section()?.entries();
            let entry = |(key, item): (String, Item<'_>)| Some((key, json(&item)?));
            Json::Object(entries.into_iter().map(entry).collect::<Option<_>>()?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) => {
            item.wrong("cannot stand in a request; write it as a string");
            return None;
        }
    })
}

/// `ok`, with what it leaves out taken from `base`.
fn ok(item: &Item<'_>, base: OkRules) -> Option<OkRules> {
    let section = item.section()?;
    let status = section.take("status").map_or(Some(base.status), |item| statuses(&item));
    let access_token = section.take("access_token").map_or(Some(base.access_token), |i| i.text());
    let refresh_token = section.take("refresh_token").map_or(Some(base.refresh_token), |item| {
        item.text().map(|pointer| Some(pointer).filter(|pointer| !pointer.is_empty()))
    });
    let token_type = section.take("token_type").map_or(Some(base.token_type.clone()), |item| {
        let section = item.section()?;
        let mut kind = base.token_type.clone();
        kind.at = section.take("at").map_or(Some(kind.at), |item| item.text())?;
        kind.accept = section.take("accept").map_or(Some(kind.accept), |item| item.texts())?;
        section.finish();
        Some(kind)
    });
    let body = section.take("body").map_or(Some(base.body), |item| {
        item.choice(&[("json", BodyKind::Json), ("form", BodyKind::Form), ("text", BodyKind::Text)])
    });
    let expiry = section
        .take("expiry")
        .map_or(Some(base.expiry), |item| item.items().iter().map(expiry).collect());
    section.finish();
    Some(OkRules {
        status: status?,
        access_token: access_token?,
        refresh_token: refresh_token?,
        token_type: token_type?,
        body: body?,
        expiry: expiry?,
    })
}

fn expiry(item: &Item<'_>) -> Option<Rule> {
    let section = item.section()?;
    let shape = section.require("as", "as = \"seconds\"").and_then(|item| {
        item.choice(&[
            ("seconds", Shape::Seconds),
            ("epoch_seconds", Shape::EpochSeconds),
            ("epoch_milliseconds", Shape::EpochMilliseconds),
            ("rfc3339", Shape::Rfc3339),
            ("jwt_exp", Shape::JwtExp),
        ])
    });
    let at = match shape {
        Some(Shape::JwtExp) => Some(String::new()),
        _ => section.require("at", "at = \"/expires_in\"").and_then(|item| item.text()),
    };
    let issued = section.take("issued").map_or(Some(None), |item| item.text().map(Some));
    let zero_is_never = section
        .take("zero")
        .map_or(Some(false), |item| item.choice(&[("unknown", false), ("never", true)]));
    section.finish();
    Some(Rule { at: at?, shape: shape?, issued: issued?, zero_is_never: zero_is_never? })
}

fn matchers(item: &Item<'_>) -> Option<Vec<Matcher>> {
    item.items().iter().map(matcher).collect()
}

fn matcher(item: &Item<'_>) -> Option<Matcher> {
    let section = item.section()?;
    let id = section.require("id", "id = \"E1\"").and_then(|item| item.text());
    let status = section.take("status").map_or(Some(Vec::new()), |item| statuses(&item));
    let at = section.take("at").map_or(Some(None), |item| item.text().map(Some));
    let is = section.take("is").map_or(Some(None), |item| item.text().map(|t| Some(Test::Is(t))));
    let has = section.take("has").map_or(Some(None), |i| i.text().map(|t| Some(Test::Has(t))));
    let exists = section
        .take("exists")
        .map_or(Some(None), |item| item.bool().map(|wanted| wanted.then_some(Test::Exists)));
    let missing = section.take("missing").map_or(Some(None), |item| item.text().map(Some));
    let empty = section.take("empty").map_or(Some(false), |item| item.bool());
    let media_type = section.take("type").map_or(Some(None), |item| item.text().map(Some));
    let class = section.require("outcome", "\"terminal\" or \"transient\"").and_then(|item| {
        item.choice(&[("terminal", Class::Terminal), ("transient", Class::Transient)])
    });
    let reason = section.take("reason").map_or(Some(Reason::BadRequest), |item| reason(&item));
    let try_next = section.take("then").map_or(Some(false), |item| item.choice(&[("next", true)]));
    let hint = section.take("hint").map_or(Some(None), |item| item.text().map(Some));
    section.finish();
    let test = match (at?, is?.or(has?).or(exists?)) {
        (Some(at), Some(test)) => Some((at, test)),
        (None, None) => None,
        _ => {
            item.wrong("needs `at` together with one of `is`, `has` and `exists`");
            return None;
        }
    };
    Some(Matcher {
        id: id?,
        status: status?,
        test,
        missing: missing?,
        empty: empty?,
        media_type: media_type?,
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
            if class.is_none() {
                item.wrong("is no class of statuses; write a number or one such as \"5xx\"");
            }
            class.map(Status::Class)
        }
        _ => u16::try_from(item.number(100..=599)?).ok().map(Status::Exactly),
    };
    item.items().iter().map(status).collect()
}

fn flow(item: &Item<'_>, exchanges: &[Exchange]) -> Option<(Vec<Exchange>, Option<Exchange>)> {
    let section = item.section()?;
    let named = |item: &Item<'_>| {
        let name = item.text()?;
        let found = exchanges.iter().find(|exchange| exchange.name == name).cloned();
        if found.is_none() {
            let names: Vec<String> = exchanges.iter().map(|e| e.name.clone()).collect();
            item.not_among(&name, &names);
        }
        found
    };
    let obtain = section
        .require("obtain", "obtain = [\"NAME\"]")
        .and_then(|item| item.items().iter().map(named).collect::<Option<Vec<_>>>());
    let revoke = section.take("revoke").map_or(Some(None), |item| named(&item).map(Some));
    section.finish();
    Some((obtain?, revoke?))
}

#[cfg(test)]
mod tests {
    use crate::config::parse_dialect;
    use crate::source::vendor;

    #[test]
    fn every_vendor_dialect_loads() {
        for (name, text) in vendor::ALL {
            let dialect =
                parse_dialect(text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            assert_eq!(dialect.name, name);
        }
    }

    #[test]
    fn a_secret_in_a_url_is_refused_at_load() {
        let text = "format = 1\nname = \"x\"\nflow = { obtain = [\"a\"] }\n\
                    [keys]\ns = { kind = \"secret\" }\n[exchange.a]\nurl = \"https://h/{s}\"\n";
        let problems = parse_dialect(text).unwrap_err();
        assert_eq!(problems.len(), 1);
        let told = problems[0].to_string();
        assert_eq!(
            told,
            "line 6: exchange.a: puts the secret {s} into the url; write it into the form"
        );
    }
}
