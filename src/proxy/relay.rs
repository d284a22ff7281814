//! A response on its way down: passed on as it arrives, and its upstream connection driven and put
//! back by the task that reads it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::hop;
use super::route::Route;
use super::upstream::{Lease, Progress};
use super::watchdog::Watchdog;
use crate::clock::{Moment, monotonic};

/// The body of every answer.
pub enum Downstream {
    /// An answer of our own.
    Own {
        /// The text, until it is sent.
        text: Option<Bytes>,
        /// Set if a route had been chosen.
        record: Option<Record>,
    },
    /// An upstream's.
    Relayed(Relay),
}

/// A response body cut short; the caller's connection is cut short too (RFC 9112 §8).
#[derive(Debug, Error)]
pub enum RelayError {
    /// The upstream broke off.
    #[error("response cut short by the upstream")]
    Upstream(#[source] hyper::Error),
    /// Nothing moved for the route's idle time.
    #[error("response idle for too long")]
    Idle,
}

/// An upstream's body and the connection that it comes from.
pub struct Relay {
    body: Incoming,
    lease: Option<Lease>,
    /// Counts when dropped: the end of the response, however it ends.
    record: Record,
}

impl Relay {
    /// Relays `body` from `lease`.
    #[must_use]
    pub fn new(body: Incoming, lease: Lease, record: Record) -> Self {
        let mut relay = Self { body, lease: Some(lease), record };
        relay.release_if_done();
        relay
    }

    fn release_if_done(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    /// Reads what has already arrived of a body that nobody wants; if that was all, the connection
    /// can be used again.
    pub fn drain(mut body: Incoming, mut lease: Lease) {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            lease.drive(Waker::noop());
            if body.is_end_stream() {
                return lease.give_back();
            }
            match lease.reading(|| Pin::new(&mut body).poll_frame(&mut cx)) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return lease.give_back(),
                Poll::Ready(Some(Err(_))) | Poll::Pending => return,
            }
        }
    }
}

/// Reads from `body`, letting its connection fill it as long as that gets anywhere.
fn read(
    body: &mut Incoming,
    lease: &mut Lease,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    loop {
        let frame = lease.reading(|| Pin::new(&mut *body).poll_frame(cx));
        if frame.is_ready() || lease.drive(cx.waker()) == Progress::None {
            return frame;
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let this = &mut *self;
        let body = &mut this.body;
        let frame = match &mut this.lease {
            Some(lease) => read(body, lease, cx),
            None => Pin::new(body).poll_frame(cx),
        };
        match frame {
            Poll::Ready(Some(Ok(mut frame))) => {
                this.record.watchdog.progress();
                if let Some(trailers) = frame.trailers_mut() {
                    hop::strip_trailers(trailers, None);
                    // The end, although hyper does not say so until it is asked once more.
                    if let Some(lease) = this.lease.take() {
                        lease.give_back();
                    }
                }
                this.release_if_done();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(RelayError::Upstream(error))))
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending if this.record.watchdog.expired() => {
                this.lease = None;
                Poll::Ready(Some(Err(RelayError::Idle)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Body for Downstream {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match self.get_mut() {
            Self::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Relayed(relay) => Pin::new(relay).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_none(),
            Self::Relayed(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Relayed(relay) => relay.size_hint(),
        }
    }
}

/// One request's place in the metrics, from its admission to the end of its response.
pub struct Record {
    route: Arc<Route>,
    watchdog: Arc<Watchdog>,
    started: Moment,
    status: u16,
}

impl Record {
    /// Begins counting.
    #[must_use]
    pub fn begin(route: Arc<Route>, watchdog: Arc<Watchdog>, started: Moment) -> Self {
        route.metrics.begin();
        Self { route, watchdog, started, status: 0 }
    }

    /// The status that the caller sees.
    pub fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// The route.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The deadline of what the request is at.
    #[must_use]
    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A caller that left before there was an answer: nginx's 499, which no server sends.
        let status = if self.status == 0 { 499 } else { self.status };
        let now = monotonic();
        let took = now.saturating_duration_since(self.started.mono);
        self.watchdog.rest(now);
        self.route.metrics.end(status, took);
        tracing::debug!(
            target: "bearerd::access",
            route = self.route.metrics.name(),
            status,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
