//! Somebody to send requests to, and one exchange with it: on a connection from this thread's pool
//! or on a new one, driven by the task of the request that it is for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method};
use thiserror::Error;
use tokio::time::Instant;

use super::http1::Malformed;
use super::replay::{BodyError, Outbound};
use crate::dial::{DialError, Peer};

mod call;
pub(super) mod http1;
pub(super) mod http2;
pub(super) mod pool;

pub use call::Call;
use http1::Connection;

/// Somebody to send requests to.
pub struct Upstream {
    /// The peer, which decides by ALPN what is spoken if there is TLS.
    peer: Peer,
    /// The same, but for HTTP/1.1 only: what an upgrade needs.
    peer_http1: Peer,
    /// HTTP/2 and nothing else.
    only_http2: bool,
    /// Requests share its connections, as far as is known: it speaks HTTP/2, or may do so.
    shares: AtomicBool,
    connect_timeout: Duration,
    /// How long a connection takes requests.
    max_age: Duration,
    /// Where this upstream's idle connections are in each thread's pools; never used again.
    slot: usize,
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `Some(true)`: HTTP/2 only; `Some(false)`: HTTP/1.1 only; `None`: with TLS what both can,
    /// HTTP/2 first, and else HTTP/1.1.
    pub http2: Option<bool>,
    /// For connecting and the TLS handshake.
    pub connect_timeout: Duration,
    /// How long a connection takes requests.
    pub max_age: Duration,
}

/// A request as it goes out, but for its body. It stays with its exchange, which may send it twice.
pub struct Outgoing {
    /// Unchanged.
    pub method: Method,
    /// In origin-form (RFC 9112 §3.2.1), or `*`; bytes unchanged.
    pub target: PathAndQuery,
    /// Stripped and injected.
    pub headers: HeaderMap,
    /// Nobody has to read the fields of a usual answer.
    pub answer_in_lines: bool,
}

/// Why an exchange did not come to its end.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    #[error("upstream not reachable")]
    Unreachable(#[from] DialError),
    /// No response head in time.
    #[error("upstream did not answer in time")]
    Timeout,
    /// The caller's body stopped coming before there was a response head.
    #[error("the caller's body did not come in time")]
    CallerTimeout,
    /// The connection broke.
    #[error("upstream connection failed")]
    Broken(#[source] io::Error),
    /// What came was not HTTP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The HTTP/2 connection or the stream broke.
    #[error("upstream connection failed")]
    Http2(#[source] h2::Error),
    /// All connections to it are as full as they may be, and there may be no more.
    #[error("upstream has too many requests already")]
    Full,
    /// What another request was told for which this one waited.
    #[error(transparent)]
    Shared(Arc<UpstreamError>),
    /// The caller's body broke off, or its chunks are none (RFC 9112 §7.1).
    #[error("the caller's body failed")]
    Caller(#[source] BodyError),
    /// The caller's body is not as long as it said.
    #[error("the caller's body has another length than it said")]
    CallerLength,
}

/// An attempt that failed before there was a response head.
pub struct Failed {
    /// Why.
    pub error: UpstreamError,
    /// Something of the request may have reached the upstream.
    pub sent: bool,
    /// The body, if nothing was taken of it.
    pub body: Option<Outbound>,
    /// A pooled connection that closed before a byte of the response: it may have been closing
    /// already when the request was written.
    pub stale: bool,
}

impl Upstream {
    /// An upstream at `peer`.
    #[must_use]
    pub fn new(peer: &Peer, terms: Terms) -> Self {
        static SLOTS: AtomicUsize = AtomicUsize::new(0);
        let only_http2 = terms.http2 == Some(true);
        let protocols: &[&[u8]] = match terms.http2 {
            Some(true) => &[b"h2"],
            Some(false) => &[b"http/1.1"],
            None => &[b"h2", b"http/1.1"],
        };
        let may_agree = terms.http2.is_none() && peer.scheme() == Scheme::HTTPS;
        Self {
            peer: peer.with_protocols(protocols),
            peer_http1: peer.with_protocols(&[b"http/1.1"]),
            only_http2,
            shares: AtomicBool::new(only_http2 || may_agree),
            connect_timeout: terms.connect_timeout,
            max_age: terms.max_age,
            slot: SLOTS.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn shares(&self) -> bool {
        self.shares.load(Ordering::Relaxed)
    }

    /// A pooled connection that can take `request`.
    #[must_use]
    pub fn pooled(&self, request: &Outgoing, now: Instant) -> Option<Lease> {
        let may_share = self.shares() && !request.upgrades();
        let place = may_share.then(|| self.shared(now)).flatten();
        place.or_else(|| {
            let line = Line::Http1(pool::take(self.slot, now)?);
            Some(Lease { line, slot: self.slot, pooled: true })
        })
    }

    /// A place on an open HTTP/2 connection.
    fn shared(&self, now: Instant) -> Option<Lease> {
        let line = Line::Http2(http2::take(self.slot, now)?, self.peer.scheme());
        Some(Lease { line, slot: self.slot, pooled: true })
    }

    /// A new connection for `request`, or a place on a shared one that was opened meanwhile.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn connect(&self, request: &Outgoing, now: Instant) -> Result<Lease, UpstreamError> {
        let upgrades = request.upgrades() && !self.only_http2;
        if upgrades || !self.shares() {
            return self.open(upgrades, now).await;
        }
        let present = || match self.shared(now) {
            Some(lease) => Some(Ok(Some(lease))),
            // It has turned out to speak HTTP/1.1: to each its own, all at once.
            None if !self.shares() => Some(Ok(None)),
            None if http2::is_full(self.slot) => Some(Err(UpstreamError::Full)),
            None => None,
        };
        let opening = async { self.open(false, now).await.map(Some) };
        let waiting = http2::waiting(self.slot);
        let lease = waiting.take_turns(now + self.connect_timeout, present, opening).await?;
        match lease {
            Some(lease) => Ok(lease),
            None => self.open(false, now).await,
        }
    }

    /// A new connection.
    async fn open(&self, upgrades: bool, now: Instant) -> Result<Lease, UpstreamError> {
        let peer = if upgrades { &self.peer_http1 } else { &self.peer };
        let deadline = now + self.connect_timeout;
        let stream = peer.connect(deadline).await?;
        let agreed = stream.agreed_protocol();
        let good_until = now + self.max_age;
        let is_http2 = agreed == Some(b"h2") || (self.only_http2 && !stream.is_tls());
        if self.only_http2 && !is_http2 {
            return Err(DialError::NoHttp2.into());
        }
        if !upgrades {
            self.shares.store(is_http2, Ordering::Relaxed);
        }
        let line = if is_http2 {
            let place = http2::open(stream, self.slot, now, good_until, deadline).await?;
            Line::Http2(place, self.peer.scheme())
        } else {
            Line::Http1(Connection::new(stream, now, good_until))
        };
        Ok(Lease { line, slot: self.slot, pooled: false })
    }
}

impl Outgoing {
    /// It asks for another protocol (RFC 9110 §7.8), which only HTTP/1.1 has a way to.
    #[must_use]
    pub fn upgrades(&self) -> bool {
        self.headers.contains_key(http::header::UPGRADE)
    }

    /// Its caller holds the body back until the upstream has said that it wants it (RFC 9110 §10.1.1).
    fn expects_continue(&self) -> bool {
        let expects = |line: &HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"100-continue");
        self.headers.get(http::header::EXPECT).is_some_and(expects)
    }
}

enum Line {
    Http1(Box<Connection>),
    Http2(http2::Place, Scheme),
}

/// A connection that can take a request.
pub struct Lease {
    line: Line,
    slot: usize,
    pooled: bool,
}

impl Lease {
    /// Puts `request` and `body` on it; polling the call sends them.
    #[must_use]
    pub fn start(self, request: &Outgoing, body: Outbound) -> Call {
        match self.line {
            Line::Http1(mut connection) => {
                connection.begin(request, body, self.slot, self.pooled);
                Call::Http1(connection)
            }
            Line::Http2(place, scheme) => {
                let call = http2::Call::new(place, request, body, &scheme, self.pooled);
                Call::Http2(Box::new(call))
            }
        }
    }
}

/// Closes this thread's idle connections that are old or closed by the upstream.
pub fn sweep(now: Instant) {
    pool::sweep(now);
    http2::sweep(now);
}
