//! What a route says: which requests it takes, where they go, and how.

use std::time::Duration;

use http::{HeaderName, Method};

use crate::credential::Scheme;
use crate::credential::sign::Sign;
use crate::dial::Address;
use crate::tls::TlsSettings;

/// `[[routes]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The `route` label.
    pub name: String,
    /// Only requests for this host, in lowercase, without port.
    pub host: Option<String>,
    /// Only requests whose path begins with this, at a segment's end.
    pub path_prefix: String,
    /// Only these methods; empty = all.
    pub methods: Vec<Method>,
    /// Where requests go.
    pub upstream: UpstreamConfig,
    /// The credential's name.
    pub credential: String,
    /// The header injected into.
    pub header: HeaderName,
    /// What stands before the token.
    pub scheme: Scheme,
    /// What to do with the caller's own copy of that header.
    pub client_authorization: ClientAuthorization,
    /// When and how far a request is kept for a replay.
    pub replay: ReplayConfig,
    /// Bounds on waiting for the upstream.
    pub timeouts: Timeouts,
    /// How long a request waits for a token.
    pub wait: Duration,
    /// Drop `Cookie` upstream and `Set-Cookie` downstream.
    pub strip_cookies: bool,
    /// Pass `Forwarded` and `X-Forwarded-*` on instead of dropping them.
    pub forwarded: bool,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// As written, for tables and logs.
    pub url: String,
    /// Where it listens.
    pub address: Address,
    /// What is sent as `Host`.
    pub authority: String,
    /// `None` = plaintext.
    pub tls: Option<TlsSettings>,
    /// Only HTTP/2, or only HTTP/1.1; `None` = what TLS agrees on.
    pub http2: Option<bool>,
    /// How long a connection takes requests before another is opened.
    pub max_age: Duration,
}

/// What to do with the caller's own copy of the injected header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthorization {
    /// Drop it.
    Replace,
    /// Refuse the request.
    Reject,
    /// Send it instead of ours.
    Keep,
}

/// `replay = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayConfig {
    /// The statuses that mean "token refused".
    pub statuses: Vec<u16>,
    /// What means it beside those: words in the body of an answer.
    pub expired: Vec<Sign>,
    /// The largest copy of a request body.
    pub body_bytes: usize,
}

impl ReplayConfig {
    /// Whether an answer with `status` may mean "token refused".
    #[must_use]
    pub fn concerns(&self, status: u16) -> bool {
        self.statuses.contains(&status)
            || self.expired.iter().any(|sign| sign.statuses.contains(&status))
    }
}

/// `timeouts = { … }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For connecting and the TLS handshake.
    pub connect: Duration,
    /// From the request's last byte to the response head.
    pub response: Duration,
    /// Without a byte in either direction, once the response has begun.
    pub idle: Duration,
}
