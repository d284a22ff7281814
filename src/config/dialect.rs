//! A dialect file: the format of `src/source/vendor/*.toml` and of `provider = "custom"`.

use std::time::Duration;

use http::{HeaderName, Method};

use super::answers::signs;
use super::reader::{Item, Section};
use super::server::number;
use crate::source::assertion::Assertion;
use crate::source::dialect::login::MADE;
use crate::source::dialect::{Dialect, Exchange, Key, Kind, Matcher, Ok as OkRules};
use crate::source::oauth2::standard_ok;
use crate::source::template::Template;

mod answer;
mod assertion;
mod login;
mod request;
mod sound;

pub(super) use answer::expiry;
use answer::{matchers, ok};
use assertion::assertions;
use login::login;
use request::{basic, body, headers, method, pairs_of_text, template};

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
    let expired = root.take("expired").map_or(Some(Vec::new()), |item| signs(&item));
    let grace = number(&root, "rotation_grace_seconds", 0, 0..=86_400);
    let rotates = root.take("rotates").map_or(Some(true), |item| item.bool());
    let defaults = root.take("defaults").map_or(Some(Defaults::default()), |i| Defaults::read(&i));
    let assertions =
        root.take("assertion").map_or(Some(Vec::new()), |item| assertions(&item, keys.as_deref()?));
    let exchanges = root
        .require("exchange", "at least one [exchange.NAME] table")
        .and_then(|item| exchanges(&item, keys.as_deref()?, assertions.as_deref()?, &defaults?));
    let flow = root
        .require("flow", "flow = { obtain = [\"NAME\"] }")
        .and_then(|item| flow(&item, exchanges.as_deref()?));
    let login = root
        .take("login")
        .map_or(Some(None), |item| login(&item, keys.as_deref()?, exchanges.as_deref()?).map(Some));
    if let (Some(exchanges), Some(flow), Some(login)) = (&exchanges, &flow, &login) {
        sound::flow(&root, exchanges, flow, login.as_ref());
    }
    root.finish();
    let Flow { obtain, renew, revoke } = flow?;
    Some(Dialect {
        name: name?,
        keys: keys?,
        obtain,
        renew,
        revoke,
        variants: variants?,
        expired: expired?,
        rotation_grace: Some(Duration::from_secs(grace?)).filter(|grace| !grace.is_zero()),
        rotates: rotates?,
        assertions: assertions?,
        discovery: None,
        login: login?,
        dpop: false,
    })
}

fn keys(item: &Item<'_>) -> Option<Vec<Key>> {
    let keys = item.each_entry(key)?;
    sound::keys(&item.section()?.entries(), &keys);
    Some(keys)
}

fn key(name: String, item: &Item<'_>) -> Option<Key> {
    let section = item.section()?;
    let kind = section.require("kind", "kind = \"text\"").and_then(|item| {
        item.choice(&[
            ("host", Kind::Host),
            ("path", Kind::Path),
            ("url", Kind::Url),
            ("text", Kind::Text),
            ("secret", Kind::Secret),
            ("file", Kind::File),
            ("signing_key", Kind::SigningKey),
            ("document", Kind::Document),
            ("token", Kind::Token),
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
    method: Method,
    url: Option<Template>,
    headers: Vec<(HeaderName, Template)>,
    ok: OkRules,
    errors: Vec<Matcher>,
}

impl Default for Defaults {
    fn default() -> Self {
        let (headers, errors) = (Vec::new(), Vec::new());
        Self { method: Method::POST, url: None, headers, ok: standard_ok(), errors }
    }
}

impl Defaults {
    fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.section()?;
        let method = section.take("method").map_or(Some(Method::POST), |item| method(&item));
        let url = section.take("url").map_or(Some(None), |item| template(&item).map(Some));
        let headers = section.take("headers").map_or(Some(Vec::new()), |item| headers(&item));
        let ok = section.take("ok").map_or(Some(standard_ok()), |item| ok(&item, standard_ok()));
        let errors = section.take("error").map_or(Some(Vec::new()), |item| matchers(&item));
        section.finish();
        Some(Self { method: method?, url: url?, headers: headers?, ok: ok?, errors: errors? })
    }
}

fn exchanges(
    item: &Item<'_>,
    keys: &[Key],
    assertions: &[Assertion],
    defaults: &Defaults,
) -> Option<Vec<Exchange>> {
    item.each_entry(|name, item| {
        let exchange = exchange(name, item, defaults)?;
        check_placeholders(item, &exchange, keys, assertions)?;
        sound::exchange(item, &exchange, keys);
        Some(exchange)
    })
}

fn exchange(name: String, item: &Item<'_>, defaults: &Defaults) -> Option<Exchange> {
    let section = item.section()?;
    let method = section.take("method").map_or(Some(defaults.method.clone()), |i| method(&i));
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
    let basic = basic(&section);
    let bearer = section.take("bearer").map_or(Some(None), |item| template(&item).map(Some));
    let ok = section.take("ok").map_or(Some(defaults.ok.clone()), |i| ok(&i, defaults.ok.clone()));
    let errors = section.take("error").map_or(Some(Vec::new()), |item| matchers(&item));
    section.finish();
    Some(Exchange {
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
    })
}

/// Placeholders must be keys or assertions, and a secret must not stand in the URL (RFC 6749
/// §2.3.1): URLs end up in logs.
fn check_placeholders(
    item: &Item<'_>,
    exchange: &Exchange,
    keys: &[Key],
    assertions: &[Assertion],
) -> Option<()> {
    let made = |name: &str| {
        name == "access_token" || MADE.contains(&name) || assertions.iter().any(|a| a.name == name)
    };
    let named = exchange.when.iter().map(|(key, _)| key).chain(&exchange.needs);
    let placeholders = exchange.templates().flat_map(Template::keys);
    let mut all = placeholders.chain(named.map(String::as_str));
    if let Some(name) = all.find(|name| !made(name) && key_of(name, keys).is_none()) {
        item.wrong(unknown_key(name, keys));
        return None;
    }
    let secret =
        |name: &&str| made(name) || key_of(name, keys).is_some_and(|key| key.kind.is_secret());
    if let Some(name) = exchange.url.keys().find(secret) {
        item.wrong(format!("puts the secret {{{name}}} into the url; write it into the form"));
        return None;
    }
    Some(())
}

fn unknown_key(name: &str, keys: &[Key]) -> String {
    let known: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    let known = known.join(", ");
    format!("uses {{{name}}}, which is not among the [keys]; add it there, or write one of {known}")
}

/// The key that a placeholder stands for: itself, or the document that it is a member of.
fn key_of<'k>(placeholder: &str, keys: &'k [Key]) -> Option<&'k Key> {
    let member = placeholder.split_once('.').map(|(document, _)| document);
    keys.iter().find(|key| match member {
        Some(document) => key.kind == Kind::Document && key.name == document,
        None => key.name == placeholder,
    })
}

/// What is sent when.
struct Flow {
    obtain: Vec<Exchange>,
    renew: Option<Exchange>,
    revoke: Option<Exchange>,
}

fn flow(item: &Item<'_>, exchanges: &[Exchange]) -> Option<Flow> {
    let section = item.section()?;
    let named = |item: &Item<'_>| named(item, exchanges);
    let obtain = section.require("obtain", "obtain = [\"NAME\"]").and_then(|item| item.each(named));
    let optional = |key| section.take(key).map_or(Some(None), |item| named(&item).map(Some));
    let (renew, revoke) = (optional("renew"), optional("revoke"));
    section.finish();
    Some(Flow { obtain: obtain?, renew: renew?, revoke: revoke? })
}

/// The exchange that is named.
fn named(item: &Item<'_>, exchanges: &[Exchange]) -> Option<Exchange> {
    let name = item.text()?;
    let found = exchanges.iter().find(|exchange| exchange.name == name).cloned();
    if found.is_none() {
        let names: Vec<String> = exchanges.iter().map(|e| e.name.clone()).collect();
        item.not_among(&name, &names);
    }
    found
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
