//! What is well formed in a dialect file and cannot be meant.

use super::{Flow, key_of};
use crate::config::reader::{Item, Section};
use crate::source::dialect::login::{Login, MADE};
use crate::source::dialect::{Exchange, Key, Kind};
use crate::source::template::Template;

/// Hosts on this machine, and of metadata servers: no network lies between.
const LOCAL: [&str; 4] = ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"];

/// Keys whose parts do not go together.
pub(super) fn keys(entries: &[(String, Item<'_>)], keys: &[Key]) {
    let mut rotating = None;
    for ((_, item), key) in entries.iter().zip(keys) {
        let choice = key.kind == Kind::Choice;
        if choice && key.of.is_empty() {
            item.wrong("is a choice of nothing; write of = [\"one\", \"other\"]");
        }
        if !choice && !key.of.is_empty() {
            item.wrong("has choices but is none; write kind = \"choice\"");
        }
        if let Some(default) = key.default.as_ref().filter(|d| choice && !key.of.contains(d)) {
            item.wrong(format!(
                "has the default {default:?}, which is not in `of`; write one of them"
            ));
        }
        if key.default.is_some() && key.kind.is_secret() {
            item.wrong("is a secret with a default; leave the default out");
        }
        if key.rotating && key.kind != Kind::Secret {
            item.wrong("rotates but is no secret; write kind = \"secret\"");
        }
        if let (true, Some(first)) = (key.rotating, &rotating) {
            item.wrong(format!("rotates, as {first} does already; leave one of them out"));
        }
        if key.rotating {
            rotating.get_or_insert_with(|| key.name.clone());
        }
    }
}

/// An exchange that could never be sent, or not as it looks.
pub(super) fn exchange(item: &Item<'_>, exchange: &Exchange, keys: &[Key]) {
    if exchange.basic.is_some() && exchange.bearer.is_some() {
        item.wrong("has basic and bearer; write only one of them");
    }
    for (name, wanted) in &exchange.when {
        let Some(key) = key_of(name, keys) else { continue };
        let possible: &[&str] = match key.kind {
            Kind::Bool => &["true"],
            Kind::Choice => &key.of.iter().map(String::as_str).collect::<Vec<_>>(),
            Kind::Text => continue,
            _ => &[],
        };
        if !possible.contains(&wanted.as_str()) {
            let write = possible.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>();
            let write =
                if write.is_empty() { "another key".to_owned() } else { write.join(" or ") };
            item.wrong(format!(
                "is sent when {name} is {wanted:?}, which never holds; write {write}"
            ));
        }
    }
    if let Some(problem) = url(&exchange.url, keys, "{host}/token") {
        item.wrong(format!("has a url {problem}"));
    }
}

/// A URL begins with its scheme, or with a key that has one; and secrets do not go over a network in
/// plaintext. What is wrong with this one, and what to write, such as `example`.
pub(super) fn url(url: &Template, keys: &[Key], example: &str) -> Option<String> {
    let literal = url.beginning();
    let first = url.keys().next().filter(|_| literal.is_empty());
    let told = first
        .and_then(|name| key_of(name, keys))
        .is_some_and(|key| matches!(key.kind, Kind::Host | Kind::Url));
    let plain = literal.strip_prefix("http://");
    let after = |host: &&str| plain.and_then(|rest| rest.strip_prefix(*host));
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['/', ':', '?']);
    let local = LOCAL.iter().filter_map(after).any(ends) && !literal.contains('@');
    if plain.is_some() && !local {
        return Some("in plaintext; write https://".to_owned());
    }
    let begun = told || local || literal.starts_with("https://");
    (!begun).then(|| format!("that does not begin with https:// or a host; write {example:?}"))
}

/// Exchanges that nobody sends, and tokens that are not there yet.
pub(super) fn flow(root: &Section<'_>, exchanges: &[Exchange], flow: &Flow, login: Option<&Login>) {
    let Some(section) = root.take("exchange").and_then(|item| item.section()) else { return };
    let sent = || {
        let login = login.into_iter().flat_map(Login::exchanges);
        flow.obtain.iter().chain(&flow.renew).chain(&flow.revoke).chain(login)
    };
    for exchange in exchanges {
        let Some(item) = section.take(&exchange.name) else { continue };
        let same = |one: &Exchange| one.name == exchange.name;
        let obtains = flow.obtain.iter().any(same);
        let signs_in = login.is_some_and(|login| login.exchanges().any(same));
        if !sent().any(|one| one.name == exchange.name) {
            item.wrong("is not in the flow; write it into flow.obtain, or leave it out");
        } else if (obtains || signs_in) && exchange.mentions("access_token") {
            item.wrong("obtains a token and uses {access_token}, which is there only after that");
        } else if let Some(made) = MADE.iter().find(|made| obtains && exchange.mentions(made)) {
            item.wrong(format!("uses {{{made}}}, which only a [login] has; leave it out of flow"));
        }
    }
    if let Some(item) = root.take("flow").filter(|_| flow.obtain.is_empty()) {
        item.wrong("obtains nothing; write obtain = [\"NAME\"]");
    }
}
