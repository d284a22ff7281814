//! A response on its way down: passed on as it arrives, its upstream connection driven by the task
//! that reads it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use super::hop;
use super::http1::lines::FieldLines;
use super::route::Route;
use super::upstream::{Call, UpstreamError};
use super::watchdog::Watchdog;
use super::wire::Wire;
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
    /// The same, of which the beginning was read already.
    Begun(Box<Begun>),
}

/// A response whose beginning was read before its head went down.
pub struct Begun {
    first: VecDeque<Frame<Bytes>>,
    rest: Relay,
}

impl Downstream {
    /// Relays `first` and then the rest.
    #[must_use]
    pub fn relayed(first: VecDeque<Frame<Bytes>>, rest: Relay) -> Self {
        if first.is_empty() {
            return Self::Relayed(rest);
        }
        Self::Begun(Box::new(Begun { first, rest }))
    }

    /// The fields of the answer that are lines and not in its head, until its [head is written](Self::begin).
    pub(super) fn lines(&self) -> Option<&FieldLines> {
        match self {
            Self::Relayed(relay) => relay.lines(),
            Self::Own { .. } | Self::Begun(_) => None,
        }
    }

    /// The head is written: what it came from may be used again.
    pub(super) fn begin(&mut self) {
        if let Self::Relayed(relay) = self {
            relay.finish_if_done();
        }
    }
}

/// A response body cut short; the caller's connection is cut short too (RFC 9112 §8).
#[derive(Debug, Error)]
pub enum RelayError {
    /// The upstream broke off.
    #[error("response cut short by the upstream")]
    Upstream(#[source] UpstreamError),
    /// Nothing moved for the route's idle time.
    #[error("response idle for too long")]
    Idle,
}

/// An upstream's response body.
pub struct Relay {
    /// Gone when the response is over.
    call: Option<Source>,
    /// What cut it short, told after all that came before it.
    broken: Option<Box<UpstreamError>>,
    /// Counts when dropped: the end of the response, however it ends.
    record: Record,
}

/// Where a response comes from.
enum Source {
    /// The usual case: the request is out.
    Own(Call),
    /// The rest of the request goes up meanwhile, whether or not the caller reads the response.
    Shared(Arc<Mutex<Call>>),
}

impl Source {
    fn with<T>(&mut self, act: impl FnOnce(&mut Call) -> T) -> T {
        match self {
            Self::Own(call) => act(call),
            Self::Shared(call) => act(&mut call.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn finish(self) {
        match self {
            Self::Own(call) => call.finish(),
            Self::Shared(call) => {
                if let Some(call) = Arc::into_inner(call) {
                    call.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
                }
            }
        }
    }
}

impl Relay {
    /// Relays what `call` has still to bring.
    #[must_use]
    pub fn new(call: Call, record: Record) -> Self {
        let has_lines = call.lines().is_some();
        let source = if call.is_uploading() {
            let call = Arc::new(Mutex::new(call));
            record.wire.leave_upload(Arc::downgrade(&call));
            Source::Shared(call)
        } else {
            Source::Own(call)
        };
        let mut relay = Self { call: Some(source), broken: None, record };
        // Its lines are written first.
        if !has_lines {
            relay.finish_if_done();
        }
        relay
    }

    fn lines(&self) -> Option<&FieldLines> {
        match &self.call {
            Some(Source::Own(call)) => call.lines(),
            Some(Source::Shared(_)) | None => None,
        }
    }

    fn finish_if_done(&mut self) {
        if let Some(call) = self.call.take_if(|call| call.with(|call| call.is_end_stream())) {
            call.finish();
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
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(RelayError::Upstream(*error))));
        }
        let Some(call) = &mut this.call else { return Poll::Ready(None) };
        let wire = &this.record.wire;
        ready!(wire.mover.poll_piece(cx));
        match call.with(|call| call.poll_frame(cx)) {
            Poll::Ready(Some(Ok(mut frame))) => {
                wire.watchdog.progress();
                wire.mover.moved(frame.data_ref().map_or(0, Bytes::len));
                if let Some(trailers) = frame.trailers_mut() {
                    hop::strip_trailers(trailers, None);
                }
                this.finish_if_done();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.call = None;
                tracing::warn!(
                    error = crate::telemetry::chain(&error),
                    "upstream broke its answer off"
                );
                // Who sends it may forget what it has not written when it is told, so it writes that first.
                this.broken = Some(Box::new(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.finish_if_done();
                this.call = None;
                Poll::Ready(None)
            }
            Poll::Pending if this.record.wire.watchdog.expired() => {
                this.call = None;
                Poll::Ready(Some(Err(RelayError::Idle)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.call {
            Some(Source::Own(call)) => call.size_hint(),
            Some(Source::Shared(call)) => {
                call.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
            }
            None => SizeHint::with_exact(0),
        }
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
            Self::Begun(begun) => begun.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_none(),
            Self::Relayed(relay) => relay.is_end_stream(),
            Self::Begun(begun) => begun.first.is_empty() && begun.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Relayed(relay) => relay.size_hint(),
            Self::Begun(begun) => begun.size_hint(),
        }
    }
}

impl Begun {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let Some(mut frame) = self.first.pop_front() else {
            return Pin::new(&mut self.rest).poll_frame(cx);
        };
        if let Some(trailers) = frame.trailers_mut() {
            hop::strip_trailers(trailers, None);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.iter().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>();
        let (first, rest) = (first as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        // RFC 9112 §7.1.2: trailers have a place in chunks only.
        let chunked = self.first.iter().any(Frame::is_trailers);
        if let Some(upper) = rest.upper().filter(|_| !chunked) {
            hint.set_upper(upper + first);
        }
        hint
    }
}

/// One request's place in the metrics, from its admission to the end of its response.
pub struct Record {
    route: Arc<Route>,
    wire: Arc<Wire>,
    started: Moment,
    status: u16,
}

impl Record {
    /// Begins counting.
    #[must_use]
    pub fn begin(route: Arc<Route>, wire: Arc<Wire>, started: Moment) -> Self {
        route.metrics.begin();
        Self { route, wire, started, status: 0 }
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

    /// The connection that the request came on.
    #[must_use]
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// The deadline of what the request is at.
    #[must_use]
    pub fn watchdog(&self) -> &Watchdog {
        &self.wire.watchdog
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A caller that left before there was an answer: nginx's 499, which no server sends.
        let status = if self.status == 0 { 499 } else { self.status };
        let now = monotonic();
        let took = now.saturating_duration_since(self.started.mono);
        self.wire.watchdog.rest(now);
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
