//! A request body as its caller sends it. Each frame moves the deadline of its wire.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::lane::{Lane, LaneError};
use super::wire::Wire;

/// Why a request body did not come to its end.
#[derive(Debug, Error)]
pub enum InboundError {
    /// In HTTP/1.
    #[error(transparent)]
    Http1(#[from] LaneError),
    /// In HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// A request body as its caller sends it.
pub struct Inbound(Kind);

enum Kind {
    /// None at all.
    Empty,
    /// In HTTP/1: of the request with that number.
    Http1(Lane, usize, Arc<Wire>),
    /// In HTTP/2.
    Http2(Incoming, Arc<Wire>),
}

impl Inbound {
    /// The body of a request that has none.
    pub(super) fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// The body of the HTTP/1 request with that `number` on `lane`.
    pub(super) fn http1(lane: Lane, number: usize, wire: Arc<Wire>) -> Self {
        Self(Kind::Http1(lane, number, wire))
    }

    /// The `body` of an HTTP/2 request on `wire`.
    pub(super) fn http2(body: Incoming, wire: Arc<Wire>) -> Self {
        Self(Kind::Http2(body, wire))
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        let (polled, wire) = match &mut self.0 {
            Kind::Empty => return Poll::Ready(None),
            Kind::Http1(lane, number, wire) => {
                ready!(wire.mover.poll_piece(cx));
                (lane.poll_frame(*number, cx).map(|next| next.map(|next| Ok(next?))), wire)
            }
            Kind::Http2(body, wire) => {
                (Pin::new(body).poll_frame(cx).map(|next| next.map(|next| Ok(next?))), wire)
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            wire.watchdog.progress();
            wire.mover.moved(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Http1(lane, number, _) => lane.is_end(*number),
            Kind::Http2(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Http1(lane, number, _) => {
                lane.length(*number).map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Kind::Http2(body, _) => body.size_hint(),
        }
    }
}
