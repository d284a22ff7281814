//! Which requests are let in, and on which route.
//!
//! An input is a line `METHOD TARGET`, then header fields, one a line.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bearerd::config::{self, RouteConfig};
use bearerd::credential::publish;
use bearerd::dial::{Address, Peer};
use bearerd::metrics::Metrics;
use bearerd::proxy::budget::Budget;
use bearerd::proxy::reject::Reason;
use bearerd::proxy::route::{Route, Routes, own_hosts};
use bearerd::proxy::upstream::{Terms, Upstream};
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version};

const CONFIGURATION: &str = r#"
[credentials.c]
provider = "file"
path = "/nowhere"
[[routes]]
name = "methods"
path_prefix = "/v1/orders"
methods = ["GET", "POST"]
upstream = "http://127.0.0.1:1"
credential = "c"
[[routes]]
name = "host"
host = "orders.localhost"
path_prefix = "/v2/"
upstream = "http://127.0.0.1:1"
credential = "c"
[[routes]]
name = "rest"
host = "rest.localhost"
upstream = "http://127.0.0.1:1"
credential = "c"
"#;

static ROUTES: LazyLock<Routes> = LazyLock::new(routes);

fn routes() -> Routes {
    let config = config::parse(CONFIGURATION).unwrap_or_else(|problems| panic!("{problems:?}"));
    let metrics = Metrics::new().expect("names that are not taken");
    let (via, limits) = (HeaderValue::from_static("1.1 bearerd-f022"), config.server.limits);
    Routes {
        routes: config.routes.iter().map(|route| Arc::new(wired(route, &metrics))).collect(),
        hosts: own_hosts(&[]),
        via: via.clone(),
        via_http10: via,
        pseudonym: "bearerd-f022".to_owned(),
        limits,
        keys: None,
        peer_uids: Vec::new(),
        tls: None,
        copies: Arc::new(Budget::new(limits.replay_bytes)),
        http2_requests: Arc::new(Budget::new(limits.http2_requests)),
        refused: Reason::WORDS.map(|word| metrics.refused(word)),
    }
}

fn wired(config: &RouteConfig, metrics: &Metrics) -> Route {
    let peer = Peer::new(Address::Tcp("127.0.0.1".to_owned(), 1), None);
    let (connect_timeout, max_age) = (Duration::from_secs(1), Duration::from_secs(1));
    Route {
        config: config.clone(),
        credential: publish(&config.credential, 0).1,
        upstream: Arc::new(Upstream::new(&peer, Terms { http2: None, connect_timeout, max_age })),
        authority: HeaderValue::from_static("127.0.0.1:1"),
        metrics: metrics.route(&config.name),
        credential_metrics: metrics.credential(&config.credential),
    }
}

/// Who is let in asked for a host of ours from no page of elsewhere, and for a path that lies below
/// the route's prefix also for those who read it in the most liberal way.
pub fn check(data: &[u8]) -> bool {
    let Some(head) = head(data) else { return false };
    let Ok(route) = ROUTES.admit(&head) else { return false };
    let config = &route.config;
    assert!(head.method != Method::TRACE && head.method != Method::CONNECT);
    assert!(config.methods.is_empty() || config.methods.contains(&head.method));
    let ours = ["localhost", "127.0.0.1", "[::1]", "orders.localhost", "rest.localhost"];
    let hosts = head.headers.get_all(HOST).iter().count();
    assert!(hosts <= 1 && (hosts == 1 || head.version != Version::HTTP_11));
    if let Some(host) = head.headers.get(HOST) {
        let host = host.to_str().expect("text").to_ascii_lowercase();
        let name = ours.iter().find(|name| host.strip_prefix(**name).is_some_and(is_port));
        assert!(name.is_some(), "{host}");
        assert!(config.host.as_ref().is_none_or(|wanted| name == Some(&wanted.as_str())));
    }
    if let Some(origin) = head.headers.get(ORIGIN) {
        let origin = origin.to_str().expect("text").to_ascii_lowercase();
        assert!(ours.iter().any(|name| origin.contains(name)), "{origin}");
    }
    let prefix = config.path_prefix.trim_end_matches('/');
    let liberal = liberally(head.uri.path());
    let below = liberal.strip_prefix(prefix);
    assert!(below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "{liberal}");
    true
}

fn is_port(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
}

/// A path as the most obliging server reads it: decoded, `\` for `/`, without parameters, resolved.
fn liberally(path: &str) -> String {
    let decoded = decode(path.as_bytes());
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let text = text.split('\0').next().unwrap_or_default();
    let mut resolved: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(resolved.pop()),
            segment => resolved.push(segment),
        }
    }
    ["/", &resolved.join("/")].concat()
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    decoded
}

fn head(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    if data.len().is_multiple_of(8) {
        request = request.version(Version::HTTP_2);
    }
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    request.body(()).ok().map(|request| request.into_parts().0)
}
