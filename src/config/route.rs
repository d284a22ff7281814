//! `[[routes]]`

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method};

use super::answers::signs;
use super::reader::{Item, Section};
use super::server::{host_name, number};
use super::tls::tls;
use super::url::{check_plaintext, http_url, is_metadata};
use super::{
    ClientAuthorization, CredentialConfig, ReplayConfig, RouteConfig, SourceConfig, Timeouts,
    UpstreamConfig,
};
use crate::credential::Scheme;
use crate::credential::sign::Sign;
use crate::dial::Address;
use crate::tls::TlsSettings;

/// Header fields that bearerd itself sets or removes: nothing can be injected there.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// How long a connection takes requests if the configuration does not say.
const MAX_AGE: Duration = Duration::from_mins(5);

pub(super) fn read_all(
    root: &Section<'_>,
    credentials: Option<&[CredentialConfig]>,
) -> Option<Vec<RouteConfig>> {
    let item = root.require("routes", "at least one [[routes]] with upstream and credential")?;
    let mut routes: Vec<RouteConfig> = Vec::new();
    let mut complete = true;
    for item in item.items() {
        match read(&item, credentials, &routes) {
            Some(route) => routes.push(route),
            None => complete = false,
        }
    }
    complete.then_some(routes)
}

fn read(
    item: &Item<'_>,
    credentials: Option<&[CredentialConfig]>,
    earlier: &[RouteConfig],
) -> Option<RouteConfig> {
    let section = item.section()?;
    let credential = section
        .require("credential", "credential = \"NAME\" of one of the [credentials.NAME] tables")
        .and_then(|item| credential(&item, credentials));
    let name = name(&section, credential.as_deref(), earlier);
    let host = optional(&section, "host", host_name);
    let path_prefix = section.take("path_prefix").map_or(Some("/".to_owned()), |i| path_prefix(&i));
    let methods = section.take("methods").map_or(Some(Vec::new()), |item| methods(&item));
    let allow_plaintext = section.take("allow_plaintext").map_or(Some(false), |item| item.bool());
    let tls = section.take("tls").map_or(Some(TlsSettings::default()), |item| tls(&item));
    let http2 = optional(&section, "http2", Item::bool);
    let max_age = max_age(section.take("pool"));
    let upstream = section
        .require("upstream", "upstream = \"https://api.example.com\"")
        .and_then(|item| upstream(&item, tls?, allow_plaintext?))
        .and_then(|upstream| Some(UpstreamConfig { http2: http2?, max_age: max_age?, ..upstream }));
    let header =
        section.take("header").map_or(Some(http::header::AUTHORIZATION), |item| header(&item));
    let scheme = section.take("scheme").map_or(Some(Scheme::Bearer), |item| scheme(&item));
    let client_authorization =
        section.take("client_authorization").map_or(Some(ClientAuthorization::Replace), |item| {
            item.choice(&[
                ("replace", ClientAuthorization::Replace),
                ("reject", ClientAuthorization::Reject),
                ("keep", ClientAuthorization::Keep),
            ])
        });
    let known = dialects_signs(credential.as_deref(), credentials);
    let replay = replay(section.take("replay"), known);
    let timeouts = timeouts(section.take("timeouts"));
    let wait = number(&section, "wait_ms", 5000, 0..=600_000);
    let strip_cookies = section.take("strip_cookies").map_or(Some(false), |item| item.bool());
    let forwarded = section
        .take("forwarded")
        .map_or(Some(false), |item| item.choice(&[("drop", false), ("keep", true)]));
    section.finish();
    Some(RouteConfig {
        name: name?,
        host: host?,
        path_prefix: path_prefix?,
        methods: methods?,
        upstream: upstream?,
        credential: credential?,
        header: header?,
        scheme: scheme?,
        client_authorization: client_authorization?,
        replay: replay?,
        timeouts: timeouts?,
        wait: Duration::from_millis(wait?),
        strip_cookies: strip_cookies?,
        forwarded: forwarded?,
    })
}

/// `Some(None)` if the key is absent, `None` if it is wrong.
#[allow(clippy::option_option)]
pub(super) fn optional<'a, T>(
    section: &Section<'a>,
    key: &str,
    read: impl Fn(&Item<'a>) -> Option<T>,
) -> Option<Option<T>> {
    section.take(key).map_or(Some(None), |item| read(&item).map(Some))
}

fn credential(item: &Item<'_>, credentials: Option<&[CredentialConfig]>) -> Option<String> {
    let name = item.text()?;
    // Without the table of credentials, what is wrong with that has been said already.
    let Some(credentials) = credentials else {
        return Some(name);
    };
    if !credentials.iter().any(|credential| credential.name == name) {
        let known: Vec<String> = credentials.iter().map(|c| c.name.clone()).collect();
        item.not_among(&name, &known);
        return None;
    }
    Some(name)
}

/// The name given, or the credential's with a number where that is taken.
fn name(
    section: &Section<'_>,
    credential: Option<&str>,
    earlier: &[RouteConfig],
) -> Option<String> {
    let taken = |name: &str| earlier.iter().any(|route| route.name == name);
    let Some(item) = section.take("name") else {
        let base = credential?;
        let numbered = (2..).map(|n| format!("{base}-{n}"));
        return std::iter::once(base.to_owned()).chain(numbered).find(|name| !taken(name));
    };
    let name = item.text()?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
        item.wrong("is no name for a metric label; write letters, digits, - _ . (at most 63)");
        return None;
    }
    if taken(&name) {
        item.wrong(format!("{name:?} is the name of an earlier route; write another one"));
        return None;
    }
    Some(name)
}

fn path_prefix(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if !text.starts_with('/') || !text.bytes().all(sendable) {
        item.wrong("is no path as it is sent; write \"/\" or \"/v1/orders\", percent-encoded");
        return None;
    }
    Some(text)
}

fn methods(item: &Item<'_>) -> Option<Vec<Method>> {
    let method = |item: &Item<'_>| {
        let text = item.text()?;
        let parsed = Method::from_bytes(text.as_bytes()).ok();
        let fit = parsed.filter(|method| {
            text.bytes().all(|b| !b.is_ascii_lowercase())
                && *method != Method::CONNECT
                && *method != Method::TRACE
        });
        if fit.is_none() {
            item.wrong(format!(
                "{text:?} is never forwarded; write methods such as \"GET\", in capitals"
            ));
        }
        fit
    };
    item.each(method)
}

fn upstream(item: &Item<'_>, tls: TlsSettings, allow_plaintext: bool) -> Option<UpstreamConfig> {
    let url = item.text()?;
    if let Some(path) = url.strip_prefix("unix:") {
        if !path.starts_with('/') {
            item.wrong("a unix socket needs an absolute path; write \"unix:/run/api.sock\"");
            return None;
        }
        let address = Address::Unix(PathBuf::from(path));
        let authority = "localhost".to_owned();
        return Some(UpstreamConfig {
            url,
            address,
            authority,
            tls: None,
            http2: None,
            max_age: MAX_AGE,
        });
    }
    let parsed = http_url(item, &url, "https://api.example.com")?;
    if !matches!(parsed.target.as_str(), "" | "/") {
        item.wrong("has a path; write scheme and host only: paths are passed on unchanged");
        return None;
    }
    if is_metadata(&parsed.host) {
        item.wrong(
            "is where machines get their own identity, and every caller would get it too; write the \
             API's host",
        );
        return None;
    }
    check_plaintext(item, &parsed, allow_plaintext)?;
    if !parsed.secure && tls != TlsSettings::default() {
        item.wrong("is plaintext although the route has a tls table; write https://");
        return None;
    }
    Some(UpstreamConfig {
        url,
        address: Address::Tcp(parsed.host, parsed.port),
        authority: parsed.authority,
        tls: parsed.secure.then_some(tls),
        http2: None,
        max_age: MAX_AGE,
    })
}

pub(super) fn header(item: &Item<'_>) -> Option<HeaderName> {
    let text = item.text()?;
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        item.wrong(format!("{text:?} is no header name; write one such as \"authorization\""));
        return None;
    };
    let reason = if RESERVED.contains(&name.as_str()) {
        "belongs to the connection or the proxy"
    } else if text.contains('_') {
        "has a _, which many servers drop"
    } else {
        return Some(name);
    };
    item.wrong(format!("{text:?} {reason}; write \"authorization\" or the API's own header"));
    None
}

fn scheme(item: &Item<'_>) -> Option<Scheme> {
    let text = item.text()?;
    match text.as_str() {
        "" => Some(Scheme::Bare),
        "Bearer" => Some(Scheme::Bearer),
        word if word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => {
            Some(Scheme::Other(text))
        }
        _ => {
            item.wrong("is no scheme; write one word such as \"Bearer\", or \"\" for a bare token");
            None
        }
    }
}

/// `pool = { max_age_seconds = … }`
fn max_age(item: Option<Item<'_>>) -> Option<Duration> {
    let Some(item) = item else { return Some(MAX_AGE) };
    let section = item.section()?;
    let seconds = number(&section, "max_age_seconds", MAX_AGE.as_secs(), 1..=86_400);
    section.finish();
    seconds.map(Duration::from_secs)
}

/// What the dialect of the route's credential knows about its APIs.
fn dialects_signs(name: Option<&str>, credentials: Option<&[CredentialConfig]>) -> Vec<Sign> {
    let named = |credential: &&CredentialConfig| Some(credential.name.as_str()) == name;
    match credentials.into_iter().flatten().find(named).map(|credential| &credential.source) {
        Some(SourceConfig::Dialect { dialect, .. }) => dialect.expired.clone(),
        _ => Vec::new(),
    }
}

fn replay(item: Option<Item<'_>>, known: Vec<Sign>) -> Option<ReplayConfig> {
    let usual = ReplayConfig { statuses: vec![401], expired: Vec::new(), body_bytes: 64 << 10 };
    let Some(item) = item else { return Some(with_signs(usual, known)) };
    let section = item.section()?;
    let statuses = section.take("statuses").map_or(Some(usual.statuses), |item| {
        let status = |item: &Item<'_>| u16::try_from(item.number(400..=499)?).ok();
        item.each(status)
    });
    let own = section.take("expired").map_or(Some(Vec::new()), |item| signs(&item));
    let body_bytes = number(&section, "body_bytes", usual.body_bytes as u64, 0..=64 << 20);
    section.finish();
    let body_bytes = usize::try_from(body_bytes?).ok()?;
    let written = ReplayConfig { statuses: statuses?, expired: own?, body_bytes };
    Some(with_signs(written, known))
}

/// A sign without words is a status like the others.
fn with_signs(mut replay: ReplayConfig, known: Vec<Sign>) -> ReplayConfig {
    replay.expired.extend(known);
    let (worded, plain) = replay.expired.into_iter().partition(|sign| sign.words.is_some());
    replay.expired = worded;
    replay.statuses.extend(Vec::into_iter(plain).flat_map(|sign: Sign| sign.statuses));
    replay
}

fn timeouts(item: Option<Item<'_>>) -> Option<Timeouts> {
    let (connect, response, idle) = (5000, 60_000, 300_000);
    let milliseconds = |section: &Section<'_>, key, default| {
        number(section, key, default, 1..=86_400_000).map(Duration::from_millis)
    };
    let Some(item) = item else {
        return Some(Timeouts {
            connect: Duration::from_millis(connect),
            response: Duration::from_millis(response),
            idle: Duration::from_millis(idle),
        });
    };
    let section = item.section()?;
    let connect = milliseconds(&section, "connect_ms", connect);
    let response = milliseconds(&section, "response_ms", response);
    let idle = milliseconds(&section, "idle_ms", idle);
    section.finish();
    Some(Timeouts { connect: connect?, response: response?, idle: idle? })
}
