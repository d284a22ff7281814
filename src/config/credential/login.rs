//! What a credential says for a person's login.

use crate::config::reader::{Item, Section};
use crate::config::{LoginConfig, Redirect};
use crate::source::dialect::Dialect;
use crate::source::template::{Value, Values};

/// What the login itself puts into the authorization request: not for a configuration to say.
const RESERVED: [&str; 7] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
];

/// The keys of a login, where the dialect has one that uses them; `None` after a mistake.
pub(super) fn read(section: &Section<'_>, dialect: &Dialect) -> Option<LoginConfig> {
    let login = dialect.login.as_ref();
    let code = login.is_some_and(|login| login.code.is_some());
    let device = login.is_some_and(|login| login.device.is_some());
    let redirect = code.then(|| section.take("redirect_url")).flatten();
    let params = (code || device).then(|| section.take("authorization_params")).flatten();
    let redirect = redirect.map_or(Some(Redirect::default()), |item| redirect_url(&item));
    let authorization_params = params.map_or(Some(Vec::new()), |item| parameters(&item));
    Some(LoginConfig { redirect: redirect?, authorization_params: authorization_params? })
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
            "is no address on this machine; write \"http://127.0.0.1/callback\", with a port if the \
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
        port => Some(port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?),
    };
    let sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'<');
    let host = Some(host.to_owned());
    path.bytes().all(sendable).then(|| Redirect { host, port, path: path.to_owned() })
}

fn parameters(item: &Item<'_>) -> Option<Vec<(String, String)>> {
    let parameter = |(name, item): (String, Item<'_>)| {
        if RESERVED.contains(&name.as_str()) {
            item.wrong("is made by the login itself; leave it out");
            return None;
        }
        Some((name, item.text()?))
    };
    item.section()?.entries().into_iter().map(parameter).collect()
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
            ("http://127.0.0.1:99999/", None),
            ("http://127.0.0.1/?a=b", None),
            ("http://10.0.0.1/", None),
            ("com.example:/callback", None),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
    }
}
