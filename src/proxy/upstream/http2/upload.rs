//! A request's body on its way up a stream, as far as the upstream's windows are open.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::proxy::replay::{BodyError, Outbound};

/// A body being sent.
pub(super) struct Upload<B = Outbound> {
    stream: SendStream<Bytes>,
    /// Let go of once all of it was taken: the response may last much longer.
    body: Option<B>,
    /// What was taken of it and waits for a window.
    waiting: Option<Bytes>,
    state: State,
    /// Something was to be sent.
    has_body: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head only, until the upstream wants the body.
    Held,
    Streaming,
    /// All of it is the connection's to send.
    Sent,
    /// The caller broke off, or the upstream wants no more.
    GivenUp,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Upload<B> {
    /// `body` on `stream`. If it is to be `held`, it waits for [`Self::go_on`].
    pub(super) fn new(stream: SendStream<Bytes>, body: B, held: bool) -> Self {
        let has_body = !body.is_end_stream();
        let state = match (has_body, held) {
            (false, _) => State::Sent,
            (true, true) => State::Held,
            (true, false) => State::Streaming,
        };
        let body = has_body.then_some(body);
        Self { stream, body, waiting: None, state, has_body }
    }

    /// Sends what can be sent; ready when there is no more to come. The error is the caller's.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while self.is_streaming() {
            // RFC 9113 §8.1: an upstream may answer and then ask for no more; what its reset means
            // for the answer is seen there.
            if self.stream.poll_reset(cx).is_ready() {
                self.state = State::GivenUp;
            } else if self.is_held() {
                return Poll::Pending;
            } else if self.waiting.is_some() {
                ready!(self.poll_window(cx));
            } else {
                ready!(self.poll_body(cx))?;
            }
        }
        self.body = None;
        Poll::Ready(Ok(()))
    }

    /// Takes what is next of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(body) = &mut self.body else {
            self.state = State::GivenUp;
            return Poll::Ready(Ok(()));
        };
        let frame = match ready!(Pin::new(body).poll_frame(cx)).transpose() {
            Ok(frame) => frame,
            Err(error) => {
                self.state = State::GivenUp;
                return Poll::Ready(Err(error));
            }
        };
        match frame.map(http_body::Frame::into_data) {
            None => self.send(Bytes::new(), true),
            // Without a window it can be sent only to end the body.
            Some(Ok(data)) if data.is_empty() => {
                if self.body_ended() {
                    self.send(data, true);
                }
            }
            Some(Ok(data)) => {
                // One byte's room is asked for: the rest of it is once it is handed over, and nobody
                // holds windows back that others could use.
                self.stream.reserve_capacity(1);
                self.waiting = Some(data);
            }
            Some(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let sent = self.stream.send_trailers(trailers);
                self.state = if sent.is_ok() { State::Sent } else { State::GivenUp };
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands over what waits, once there is room for some of it.
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                self.state = State::GivenUp;
                return Poll::Ready(());
            }
        }
        let data = self.waiting.take().unwrap_or_default();
        // Said at once, so that the end goes out with the last frame.
        let ends = self.body_ended();
        self.send(data, ends);
        Poll::Ready(())
    }

    fn body_ended(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn send(&mut self, data: Bytes, ends: bool) {
        self.state = match self.stream.send_data(data, ends) {
            Ok(()) if ends => State::Sent,
            Ok(()) => State::Streaming,
            Err(_) => State::GivenUp,
        };
    }
}

impl<B> Upload<B> {
    /// The upstream wants the body (RFC 9110 §10.1.1).
    pub(super) fn go_on(&mut self) {
        if self.is_held() {
            self.state = State::Streaming;
        }
    }

    /// True while the body waits for that.
    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// True while there is more to come.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.state, State::Held | State::Streaming)
    }

    /// True while more of the body has to come, and all that came has been handed over.
    pub(super) fn awaits_body(&self) -> bool {
        self.state == State::Streaming && self.waiting.is_none()
    }

    /// True if there was a body: of what was handed over, nobody knows whether it was written.
    pub(super) fn has_body(&self) -> bool {
        self.has_body
    }

    /// Ends the stream, with what of it has not been written.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}
