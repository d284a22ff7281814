//! Which requests are let in, and where they go. Nothing about tokens is decided here.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, ORIGIN, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use prometheus::IntCounter;

use super::budget::Budget;
use super::hop;
use super::key::CallerKeys;
use super::reject::Reason;
use super::upstream::Upstream;
use crate::config::{Limits, RouteConfig};
use crate::credential::Credential;
use crate::metrics::{CredentialMetrics, RouteMetrics};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// One route, wired.
pub struct Route {
    /// What the configuration says.
    pub config: RouteConfig,
    /// Where its tokens come from.
    pub credential: Credential,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// What is sent as `Host`.
    pub authority: HeaderValue,
    /// Its series.
    pub metrics: Arc<RouteMetrics>,
    /// Its credential's series.
    pub credential_metrics: Arc<CredentialMetrics>,
}

impl Route {
    /// What it wants of the caller's fields.
    #[must_use]
    pub fn policy(&self, keep_client_authorization: bool) -> hop::Policy<'_> {
        hop::Policy {
            injected: &self.config.header,
            strip_cookies: self.config.strip_cookies,
            keep_forwarded: self.config.forwarded,
            keep_client_authorization,
        }
    }

    fn matches(&self, host: &str, path: &str) -> bool {
        let host_fits = self.config.host.as_ref().is_none_or(|wanted| wanted == host);
        host_fits && under(path, &self.config.path_prefix)
    }

    /// A path that an allow list judges must mean the same to the upstream.
    fn judges_requests(&self) -> bool {
        self.config.path_prefix != "/" || !self.config.methods.is_empty()
    }
}

/// True if `path` is `prefix` or lies below it, at a segment's end.
fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Everything that all requests share.
pub struct Routes {
    /// In the order of the configuration.
    pub routes: Vec<Arc<Route>>,
    /// Host names that this process answers to, in lowercase, without port.
    pub hosts: Vec<String>,
    /// Our entry in `Via`.
    pub via: HeaderValue,
    /// The same, for requests that came as HTTP/1.0.
    pub via_http10: HeaderValue,
    /// What tells our entry from others'.
    pub pseudonym: String,
    /// Bounds.
    pub limits: Limits,
    /// What callers have to show, if anything.
    pub keys: Option<CallerKeys>,
    /// Users who may connect to unix sockets; empty = whoever the sockets' mode lets.
    pub peer_uids: Vec<u32>,
    /// For TLS listeners.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Bytes for the copies of request bodies.
    pub copies: Arc<Budget>,
    /// Requests over HTTP/2.
    pub http2_requests: Arc<Budget>,
    /// By [`Reason::index`].
    pub refused: [IntCounter; Reason::WORDS.len()],
}

/// The host names that listeners answer to by themselves.
#[must_use]
pub fn own_hosts(listeners: &[SocketAddr]) -> Vec<String> {
    let mut hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
    for address in listeners.iter().filter(|address| !address.ip().is_unspecified()) {
        hosts.push(match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
    }
    hosts
}

impl Routes {
    /// The route of a request that may be forwarded.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(&self, head: &Parts) -> Result<&Arc<Route>, Reason> {
        // RFC 9110 §9.3.8, §9.3.6: TRACE would echo the token, CONNECT would make a tunnel.
        if head.method == Method::TRACE || head.method == Method::CONNECT {
            return Err(Reason::MethodNotAllowed);
        }
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        if target.len() > self.limits.target_bytes {
            return Err(Reason::TooLarge);
        }
        // In HTTP/1 they are counted when the head is read.
        if head.version == Version::HTTP_2 && head.headers.len() > self.limits.head_fields {
            return Err(Reason::HeadTooLarge);
        }
        let telling = Telling::scan(&head.headers)?;
        let host = host(telling.host, head)?;
        if !self.answers_to(&host) {
            return Err(Reason::HostNotAllowed);
        }
        self.check_origin(&telling)?;
        if let Some(keys) = &self.keys {
            keys.check(&head.headers)?;
        }
        // RFC 9110 §7.6.3: our own pseudonym in Via is a loop.
        if telling.via && self.has_passed_here(&head.headers) {
            return Err(Reason::Loop);
        }
        let path = path(&head.uri, &head.method)?;
        let mut method_refused = false;
        for route in &self.routes {
            if !route.matches(&host, path) {
                continue;
            }
            if !route.config.methods.is_empty() && !route.config.methods.contains(&head.method) {
                method_refused = true;
                continue;
            }
            if route.judges_requests() && is_ambiguous(path) {
                return Err(Reason::BadRequest);
            }
            return Ok(route);
        }
        Err(if method_refused { Reason::MethodNotAllowed } else { Reason::NoRoute })
    }

    fn answers_to(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| known == host)
            || self.routes.iter().any(|route| route.config.host.as_deref() == Some(host))
    }

    /// A page from elsewhere must not use the token (a browser tells where a request comes from).
    fn check_origin(&self, telling: &Telling<'_>) -> Result<(), Reason> {
        if let Some(origin) = telling.origin {
            let known = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"))
                .and_then(|(_, authority)| without_port(authority))
                .is_some_and(|host| self.answers_to(&host));
            return if known { Ok(()) } else { Err(Reason::OriginNotAllowed) };
        }
        match telling.fetch_site.map(HeaderValue::as_bytes) {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) => Err(Reason::OriginNotAllowed),
        }
    }

    fn has_passed_here(&self, headers: &HeaderMap) -> bool {
        let ours = |line: &HeaderValue| {
            line.to_str().is_ok_and(|line| line.contains(self.pseudonym.as_str()))
        };
        headers.get_all(VIA).iter().any(ours)
    }
}

/// The fields that tell where a request comes from and where it thinks it goes, in one pass.
#[derive(Default)]
struct Telling<'h> {
    host: Option<&'h HeaderValue>,
    origin: Option<&'h HeaderValue>,
    fetch_site: Option<&'h HeaderValue>,
    via: bool,
}

impl<'h> Telling<'h> {
    fn scan(headers: &'h HeaderMap) -> Result<Self, Reason> {
        let mut telling = Self::default();
        for (name, value) in headers {
            // RFC 9112 §3.2: two Host lines are refused. So are two lines of the others: which of
            // them counts would be anybody's guess.
            let twice = if *name == HOST {
                telling.host.replace(value).is_some()
            } else if *name == ORIGIN {
                telling.origin.replace(value).is_some()
            } else if *name == SEC_FETCH_SITE {
                telling.fetch_site.replace(value).is_some()
            } else {
                telling.via |= *name == VIA;
                false
            };
            if twice {
                return Err(Reason::BadRequest);
            }
        }
        Ok(telling)
    }
}

/// The host that a request names (RFC 9112 §3.2), in lowercase, without port.
fn host<'h>(named: Option<&'h HeaderValue>, head: &'h Parts) -> Result<Cow<'h, str>, Reason> {
    let named = named.map(HeaderValue::to_str).transpose().map_err(|_| Reason::BadRequest)?;
    let in_target = head.uri.authority().map(http::uri::Authority::as_str);
    let host = match (named, in_target) {
        (Some(named), Some(target)) if !named.eq_ignore_ascii_case(target) => {
            return Err(Reason::BadRequest);
        }
        (Some(host), _) => host,
        // RFC 9112 §3.2: HTTP/1.0 may leave it out; RFC 9113 §8.3.1: HTTP/2 says it there.
        (None, Some(host)) if head.version != Version::HTTP_11 => host,
        (None, _) => return Err(Reason::BadRequest),
    };
    without_port(host).ok_or(Reason::BadRequest)
}

/// `host[:port]` without its port, in lowercase; `None` if it is no such thing.
fn without_port(authority: &str) -> Option<Cow<'_, str>> {
    // The usual one, in one pass: a name in lowercase or an IPv4 address.
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let end = authority.bytes().position(|b| !plain(&b)).unwrap_or(authority.len());
    let (host, rest) = authority.split_at(end);
    match rest.as_bytes() {
        [] if end > 0 => return Some(Cow::Borrowed(host)),
        [b':', port @ ..] if end > 0 && port.len() <= 5 && port.iter().all(u8::is_ascii_digit) => {
            return Some(Cow::Borrowed(host));
        }
        _ => {}
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match bracketed {
        Some(ip) => ip.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')),
        None => host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    let port_valid = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    (valid && port_valid && !host.is_empty()).then(|| {
        let lowercase = !host.bytes().any(|b| b.is_ascii_uppercase());
        if lowercase { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) }
    })
}

/// The path of an origin-form target, or `*` of OPTIONS (RFC 9112 §3.2.4).
fn path<'u>(uri: &'u Uri, method: &Method) -> Result<&'u str, Reason> {
    match uri.path() {
        "*" if method == Method::OPTIONS => Ok("/"),
        path if path.starts_with('/') => Ok(path),
        _ => Err(Reason::BadRequest),
    }
}

/// Spellings that an upstream may read as another path than the one that was judged.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%00"].iter().any(|code| lower.contains(code));
    let dots = path.split('/').any(|segment| segment == "." || segment == "..");
    encoded || dots || path.contains("//") || path.contains(['\\', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_segments_end() {
        for (path, prefix, fits) in [
            ("/", "/", true),
            ("/v1", "/", true),
            ("/v1", "/v1", true),
            ("/v1/x", "/v1", true),
            ("/v1x", "/v1", false),
            ("/v1/x", "/v1/", true),
            ("/v1", "/v1/", false),
            ("/V1", "/v1", false),
        ] {
            assert_eq!(under(path, prefix), fits, "{path} under {prefix}");
        }
    }

    #[test]
    fn hosts_lose_their_port_and_nothing_else_passes_for_one() {
        for (authority, host) in [
            ("localhost", Some("localhost")),
            ("LocalHost:8080", Some("localhost")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("[::1]:8080", Some("[::1]")),
            ("", None),
            (":80", None),
            ("a b", None),
            ("a,b", None),
            ("user@host", None),
            ("host:port", None),
            ("host:123456", None),
            ("[::1", None),
            ("::1", None),
            ("host/path", None),
        ] {
            assert_eq!(without_port(authority).as_deref(), host, "{authority}");
        }
    }

    #[test]
    fn ambiguous_paths_are_recognised() {
        for path in
            ["/a/../b", "/a/./b", "/a%2Eb", "/a%2f", "/a%5Cb", "/a\\b", "//a", "/a;b", "/%00"]
        {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in ["/a.b/..c", "/a%20b", "/a~b", "/a-b_c"] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }
}
