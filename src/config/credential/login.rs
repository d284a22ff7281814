//! What a credential says for a person's login.

use crate::config::reader::{Item, Section};
use crate::config::{LoginConfig, Redirect};
use crate::source::dialect::Dialect;
use crate::source::dialect::login::{Login, RESERVED};
use crate::source::template::{Value, Values};

/// Parameters that have keys of their own.
const OWN_KEYS: [&str; 2] = ["client_id", "scope"];
/// The same, which go along from there (RFC 8707 §2.1).
const GO_ALONG: [&str; 2] = ["audience", "resource"];

/// The keys of a login, where the dialect has one that uses them; `None` after a mistake. `params` are
/// those of the token request.
pub(super) fn read(
    section: &Section<'_>,
    dialect: &Dialect,
    params: &[(String, String)],
) -> Option<LoginConfig> {
    let login = dialect.login.as_ref();
    let code = login.is_some_and(|login| login.code.is_some());
    let device = login.is_some_and(|login| login.device.is_some());
    let redirect = code.then(|| section.take("redirect_url")).flatten();
    let extra = (code || device).then(|| section.take("authorization_params")).flatten();
    let redirect = redirect.map_or(Some(Redirect::default()), |item| redirect_url(&item));
    let extra = extra.map_or(Some(Vec::new()), |item| parameters(&item, login, params));
    Some(LoginConfig { redirect: redirect?, authorization_params: extra? })
}

/// Whether what a credential says leaves a person a way to sign in, as far as that is known before the
/// issuer was asked.
pub(super) fn is_possible(dialect: &Dialect, values: &Values) -> bool {
    let value = |key: &str| values.get(key).and_then(Value::said);
    dialect.login.as_ref().is_some_and(|login| {
        let code = login.code.iter().flat_map(|way| &way.exchanges).any(|e| e.chosen(value));
        let device = login.device.iter().flat_map(|way| &way.start).any(|e| e.chosen(value));
        let second = login.second_step.iter().flat_map(|way| &way.first);
        code || device || second.into_iter().any(|exchange| exchange.applies(value))
    })
}

/// RFC 8252 §7.3: loopback, by address or by the name that some servers insist on (§8.3).
fn redirect_url(item: &Item<'_>) -> Option<Redirect> {
    let text = item.text()?;
    let redirect = redirect(&text);
    if redirect.is_none() {
        item.wrong(
            "is no plain address on this machine; write \"http://127.0.0.1/callback\", with a port if the \
             identity provider wants an exact one, or [::1] or localhost for 127.0.0.1",
        );
    }
    redirect
}

fn redirect(text: &str) -> Option<Redirect> {
    let rest = text.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host =
        ["127.0.0.1", "[::1]", "localhost"].into_iter().find(|h| authority.starts_with(h))?;
    let port = match &authority[host.len()..] {
        "" => None,
        port => {
            let digits = port.strip_prefix(':').filter(|port| !port.starts_with('+'))?;
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
    };
    // What a browser would send otherwise than it is written, or not at all.
    let changed = |byte: u8| !byte.is_ascii_graphic() || b"?#\"<>`{}^|\\".contains(&byte);
    let dots = |part: &str| matches!(&*part.to_ascii_lowercase().replace("%2e", "."), "." | "..");
    let kept = !path.bytes().any(changed) && !path.split('/').any(dots);
    let host = Some(host.to_owned());
    kept.then(|| Redirect { host, port, path: path.to_owned() })
}

/// RFC 6749 §3.1: no parameter twice.
fn parameters(
    item: &Item<'_>,
    login: Option<&Login>,
    params: &[(String, String)],
) -> Option<Vec<(String, String)>> {
    let query = || login.and_then(|login| login.code.as_ref()).into_iter().flat_map(|c| &c.query);
    item.each_entry(|name, item| {
        let made = RESERVED.contains(&name.as_str()) || query().any(|(own, _)| *own == name);
        let goes_along =
            GO_ALONG.contains(&name.as_str()) && params.iter().any(|(sent, _)| *sent == name);
        if OWN_KEYS.contains(&name.as_str()) {
            item.wrong("has a key of its own; write it there");
        } else if made {
            item.wrong("is for the login itself to say; leave it out");
        } else if goes_along {
            item.wrong("goes along with the sign-in already; leave it out");
        } else {
            return Some((name, item.text()?));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_this_machine_only() {
        let read = |text: &str| redirect(text).map(|r| (r.host.unwrap(), r.port, r.path));
        let here = |host: &str, port, path: &str| Some((host.to_owned(), port, path.to_owned()));
        for (text, meant) in [
            ("http://127.0.0.1/callback", here("127.0.0.1", None, "/callback")),
            ("http://[::1]:8400/a/b", here("[::1]", Some(8400), "/a/b")),
            ("http://localhost", here("localhost", None, "")),
            ("http://localhost:8400/", here("localhost", Some(8400), "/")),
            ("https://127.0.0.1/callback", None),
            ("http://127.0.0.10/callback", None),
            ("http://127.0.0.1.evil.example/", None),
            ("http://localhost@evil.example/", None),
            ("http://127.0.0.1:0/", None),
            ("http://127.0.0.1:+80/", None),
            ("http://127.0.0.1:99999/", None),
            ("http://127.0.0.1/?a=b", None),
            ("http://10.0.0.1/", None),
            ("com.example:/callback", None),
            ("http://127.0.0.1:80/callback", here("127.0.0.1", Some(80), "/callback")),
            ("http://127.0.0.1/a%20b/~c", here("127.0.0.1", None, "/a%20b/~c")),
            ("http://127.0.0.1/a/../b", None),
            ("http://127.0.0.1/a/%2e%2E/b", None),
            ("http://127.0.0.1/.", None),
            ("http://127.0.0.1/{tenant}", None),
            ("http://127.0.0.1/a\\b", None),
            ("http://127.0.0.1/a b", None),
            ("http://127.0.0.1/é", None),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
    }
}
