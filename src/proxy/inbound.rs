//! A request body as its caller sends it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::wire::Wire;

/// A request body as its caller sends it.
pub struct Inbound {
    body: Incoming,
    /// Whose deadline each frame moves. HTTP/1 needs none: its stream tells what comes in; a stream
    /// beneath HTTP/2 does not know for whom.
    wire: Option<Arc<Wire>>,
}

impl Inbound {
    /// The `body` of an HTTP/1 request.
    pub(super) fn http1(body: Incoming) -> Self {
        Self { body, wire: None }
    }

    /// The `body` of an HTTP/2 request on `wire`.
    pub(super) fn http2(body: Incoming, wire: Arc<Wire>) -> Self {
        Self { body, wire: Some(wire) }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(_))), Some(wire)) = (&polled, &self.wire) {
            wire.watchdog.progress();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
