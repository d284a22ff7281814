//! `[login]`: how a person signs in.

use super::request::template;
use super::{key_of, sound, unknown_key};
use crate::config::answers::pointer;
use crate::config::reader::{Item, Section};
use crate::source::dialect::login::{CodeLogin, DeviceLogin, Login, MADE, RESERVED, SecondStep};
use crate::source::dialect::{Exchange, Key};
use crate::source::template::Template;

pub(super) fn login(item: &Item<'_>, keys: &[Key], exchanges: &[Exchange]) -> Option<Login> {
    let section = item.section()?;
    let issuer =
        section.take("issuer").map_or(Some(None), |item| address(&item, keys, "{host}").map(Some));
    let code = section.take("code").map_or(Some(None), |i| code(&i, keys, exchanges).map(Some));
    let device = section.take("device").map_or(Some(None), |i| device(&i, exchanges).map(Some));
    let second_step =
        section.take("second_step").map_or(Some(None), |i| second_step(&i, exchanges).map(Some));
    section.finish();
    let login = Login { issuer: issuer?, code: code?, device: device?, second_step: second_step? };
    if login.exchanges().next().is_none() {
        item.wrong("has no way to sign in; write login.code, login.device or login.second_step");
        return None;
    }
    Some(login)
}

fn code(item: &Item<'_>, keys: &[Key], exchanges: &[Exchange]) -> Option<CodeLogin> {
    let section = item.section()?;
    let url = section
        .require("url", "url = \"{authorization_url}\"")
        .and_then(|item| address(&item, keys, "{host}/authorize"));
    let query = section.take("query").map_or(Some(Vec::new()), |item| query(&item, keys));
    // RFC 6749 §4.1.3, RFC 7636 §4.5: without the verifier a server that knows PKCE says no.
    let way =
        Way { own: &["code", "redirect_uri", "code_verifier"], sent: &["code", "code_verifier"] };
    let exchanges = named(&section, "exchange", exchanges, way);
    section.finish();
    Some(CodeLogin { url: url?, query: query?, exchanges: exchanges? })
}

fn device(item: &Item<'_>, exchanges: &[Exchange]) -> Option<DeviceLogin> {
    let section = item.section()?;
    let start = named(&section, "start", exchanges, Way { own: &[], sent: &[] });
    let way = Way { own: &["device_code"], sent: &["device_code"] };
    let exchanges = named(&section, "exchange", exchanges, way);
    section.finish();
    Some(DeviceLogin { start: start?, exchanges: exchanges? })
}

fn second_step(item: &Item<'_>, exchanges: &[Exchange]) -> Option<SecondStep> {
    let section = item.section()?;
    let first = named(&section, "first", exchanges, Way { own: &[], sent: &[] });
    let token = section.require("token", "token = \"/mfa_token\"").and_then(|item| pointer(&item));
    let way = Way { own: &["mfa_token", "mfa_code"], sent: &["mfa_code"] };
    let exchanges = named(&section, "exchange", exchanges, way);
    section.finish();
    Some(SecondStep { first: first?, token: token?, exchanges: exchanges? })
}

/// A URL that is opened in a browser, or asked before anybody has signed in.
fn address(item: &Item<'_>, keys: &[Key], example: &str) -> Option<Template> {
    let url = open(item, keys)?;
    // A fragment would swallow the query that follows.
    let sendable = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !url.literals().flat_map(str::bytes).all(sendable) {
        item.wrong(format!("is no URL without a fragment; write {example:?}"));
        return None;
    }
    if let Some(problem) = sound::url(&url, keys, example) {
        item.wrong(format!("is a url {problem}"));
        return None;
    }
    Some(url)
}

/// RFC 6749 §3.1: each parameter once.
fn query(item: &Item<'_>, keys: &[Key]) -> Option<Vec<(String, Template)>> {
    let mut names: Vec<String> = Vec::new();
    item.each(|item| {
        let pair = item.items();
        let [name, value] = pair.as_slice() else {
            item.wrong("is no pair; write [\"name\", \"value or {key}\"]");
            return None;
        };
        let (written, value) = (name.text()?, open(value, keys));
        if RESERVED.contains(&written.as_str()) {
            name.wrong(format!(
                "is {written:?}, which is for the login itself to say; leave it out"
            ));
            return None;
        }
        if names.contains(&written) {
            name.wrong(format!("is {written:?} for the second time; write it once"));
            return None;
        }
        names.push(written.clone());
        Some((written, value?))
    })
}

/// A template of keys that anybody may see: a browser shows its address, and remembers it.
fn open(item: &Item<'_>, keys: &[Key]) -> Option<Template> {
    let template = template(item)?;
    for name in template.keys() {
        match key_of(name, keys) {
            None if MADE.contains(&name) => item.wrong(format!(
                "uses {{{name}}}, which is there only after the browser has come back; leave it out"
            )),
            None => item.wrong(unknown_key(name, keys)),
            Some(key) if key.kind.is_secret() => item.wrong(format!(
                "puts the secret {{{name}}} into an address that a browser keeps; leave it out"
            )),
            Some(_) => continue,
        }
        return None;
    }
    Some(template)
}

/// Placeholders that only a login fills, as one way to sign in has them.
#[derive(Clone, Copy)]
struct Way {
    /// Those that it fills.
    own: &'static [&'static str],
    /// Those without which its requests could not succeed.
    sent: &'static [&'static str],
}

fn named(
    section: &Section<'_>,
    key: &str,
    exchanges: &[Exchange],
    way: Way,
) -> Option<Vec<Exchange>> {
    let item = section.require(key, &format!("{key} = [\"NAME\"]"))?;
    let read = |item: &Item<'_>| {
        let exchange = super::named(item, exchanges)?;
        let (name, mentions) = (&exchange.name, |made: &&&str| exchange.mentions(made));
        let foreign = MADE.iter().filter(|made| !way.own.contains(made)).find(mentions);
        let absent = way.sent.iter().find(|made| !mentions(made));
        if let Some(made) = foreign {
            item.wrong(format!(
                "is {name:?}, which uses {{{made}}}: nothing fills that here; leave it out"
            ));
        } else if let Some(made) = absent {
            item.wrong(format!(
                "is {name:?}, which does not send {{{made}}}; write it into exchange.{name}"
            ));
        } else {
            return Some(exchange);
        }
        None
    };
    item.each(read)
}
