//! Somebody to send requests to, and one exchange with it: on a connection from this thread's pool
//! or on a new one, driven by the task of the request that it is for.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, response};
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::time::Instant;

use super::replay::Outbound;
use super::watchdog::Watchdog;
use crate::dial::{DialError, Peer};

pub(super) mod http1;
mod pool;

use http1::{Connection, Malformed};

/// Somebody to send requests to.
pub struct Upstream {
    peer: Peer,
    connect_timeout: Duration,
    /// How long a connection takes requests.
    max_age: Duration,
    /// Where this upstream's idle connections are in each thread's pool; never used again.
    slot: usize,
}

/// A request as it goes out, but for its body. It stays with its exchange, which may send it twice.
pub struct Outgoing {
    /// Unchanged.
    pub method: Method,
    /// In origin-form (RFC 9112 §3.2.1), or `*`; bytes unchanged.
    pub target: PathAndQuery,
    /// Stripped and injected.
    pub headers: HeaderMap,
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
    /// The connection broke.
    #[error("upstream connection failed")]
    Broken(#[source] io::Error),
    /// What came was not HTTP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The caller's body broke off, or its chunks are none (RFC 9112 §7.1).
    #[error("the caller's body failed")]
    Caller(#[source] hyper::Error),
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
    pub fn new(peer: Peer, connect_timeout: Duration, max_age: Duration) -> Self {
        static SLOTS: AtomicUsize = AtomicUsize::new(0);
        Self { peer, connect_timeout, max_age, slot: SLOTS.fetch_add(1, Ordering::Relaxed) }
    }

    /// A pooled connection that can take a request.
    #[must_use]
    pub fn pooled(&self, now: Instant) -> Option<Lease> {
        let connection = pool::take(self.slot, now)?;
        Some(Lease { connection, slot: self.slot, pooled: true })
    }

    /// A new connection.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn connect(&self, now: Instant) -> Result<Lease, UpstreamError> {
        let stream = self.peer.connect(now + self.connect_timeout).await?;
        let connection = Connection::new(stream, now, now + self.max_age);
        Ok(Lease { connection, slot: self.slot, pooled: false })
    }
}

/// A connection that can take a request.
pub struct Lease {
    connection: Box<Connection>,
    slot: usize,
    pooled: bool,
}

impl Lease {
    /// Puts `request` and `body` on it; polling the call sends them.
    #[must_use]
    pub fn start(self, request: &Outgoing, body: Outbound) -> Call {
        Call::Http1(Box::new(http1::Call::new(
            self.connection,
            request,
            body,
            self.slot,
            self.pooled,
        )))
    }
}

/// One request to an upstream and its response. Dropped before its end, it is broken off: that is
/// how a caller that goes away, or a message cut short, reaches the upstream.
pub enum Call {
    /// Over HTTP/1.1.
    Http1(Box<http1::Call>),
}

impl Call {
    /// Drives the call until the response head is there, or `watchdog` says that time is up.
    ///
    /// # Errors
    /// [`Failed`] says what is known about how far the request came.
    pub async fn head(
        mut self,
        watchdog: &Watchdog,
    ) -> Result<(response::Parts, Self), Box<Failed>> {
        let result = poll_fn(|cx| match self.poll_head(cx) {
            Poll::Pending if watchdog.expired() => Poll::Ready(Err(UpstreamError::Timeout)),
            polled => polled,
        })
        .await;
        match result {
            Ok(head) => Ok((head, self)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, UpstreamError>> {
        match self {
            Self::Http1(call) => call.poll_head(cx),
        }
    }

    fn failed(self, error: UpstreamError) -> Box<Failed> {
        match self {
            Self::Http1(call) => call.failed(error),
        }
    }

    /// What is next of the response body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self {
            Self::Http1(call) => call.poll_frame(cx),
        }
    }

    /// True if the response has been read to its end.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(call) => call.is_end_stream(),
        }
    }

    /// How much of the response is to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(call) => call.size_hint(),
        }
    }

    /// The response has been read to its end: its connection may carry another request.
    pub fn finish(self) {
        match self {
            Self::Http1(call) => call.finish(),
        }
    }
}

/// Closes this thread's idle connections that are old or closed by the upstream.
pub fn sweep(now: Instant) {
    pool::sweep(now);
}
