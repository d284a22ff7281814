//! One request to an upstream and its response, whatever is spoken there.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, response};
use http_body::{Frame, SizeHint};

use super::{Failed, UpstreamError, http1, http2};
use crate::proxy::http1::Malformed;
use crate::proxy::http1::lines::FieldLines;
use crate::proxy::wire::Wire;
use crate::stream::Stream;

/// One request to an upstream and its response. Dropped before its end, it is broken off: that is
/// how a caller that goes away, or a message cut short, reaches the upstream.
pub enum Call {
    /// Over HTTP/1.1.
    Http1(Box<http1::Connection>),
    /// Over HTTP/2.
    Http2(Box<http2::Call>),
    /// It has been read to its end, and its connection is free.
    Over,
}

impl Call {
    /// Drives the call until the response head is there, or the watchdog of `wire`, on which the
    /// request came, says that time is up.
    ///
    /// # Errors
    /// [`Failed`] says what is known about how far the request came.
    pub async fn head(mut self, wire: &Wire) -> Result<(response::Parts, Self), Box<Failed>> {
        let result = poll_fn(|cx| {
            let polled = self.poll_head(cx);
            self.take_early().into_iter().for_each(|early| wire.say_early(early));
            match polled {
                Poll::Pending if wire.watchdog.expired() => {
                    Poll::Ready(Err(if self.awaits_caller() {
                        UpstreamError::CallerTimeout
                    } else {
                        UpstreamError::Timeout
                    }))
                }
                polled => polled,
            }
        })
        .await;
        match result {
            Ok(head) => Ok((head, self)),
            Err(error) => Err(Box::new(self.failed(error))),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, UpstreamError>> {
        match self {
            Self::Http1(call) => call.poll_head(cx),
            Self::Http2(call) => call.poll_head(cx),
            Self::Over => Poll::Ready(Err(over())),
        }
    }

    fn awaits_caller(&self) -> bool {
        match self {
            Self::Http1(call) => call.awaits_caller(),
            Self::Http2(call) => call.awaits_caller(),
            Self::Over => false,
        }
    }

    fn take_early(&mut self) -> Vec<response::Parts> {
        match self {
            Self::Http1(call) => call.take_early(),
            Self::Http2(call) => call.take_early(),
            Self::Over => Vec::new(),
        }
    }

    fn failed(self, error: UpstreamError) -> Failed {
        match self {
            Self::Http1(call) => call.failed(error),
            Self::Http2(call) => call.failed(error),
            Self::Over => Failed { error, sent: true, body: None, stale: false },
        }
    }

    /// What is next of the response body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self {
            Self::Http1(call) => call.poll_frame(cx),
            Self::Http2(call) => call.poll_frame(cx),
            Self::Over => Poll::Ready(None),
        }
    }

    /// True while the request is not all out and this call has to send it.
    #[must_use]
    pub fn is_uploading(&self) -> bool {
        match self {
            Self::Http1(call) => call.is_uploading(),
            Self::Http2(call) => call.is_uploading(),
            Self::Over => false,
        }
    }

    /// Sends what can be sent of a request whose response has begun; ready when nothing is left.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(call) => call.poll_upload(cx),
            Self::Http2(call) => call.poll_upload(cx),
            Self::Over => Poll::Ready(()),
        }
    }

    /// The fields of the response, if they are lines and not in its head.
    pub(in crate::proxy) fn lines(&self) -> Option<&FieldLines> {
        match self {
            Self::Http1(call) => call.lines(),
            Self::Http2(_) | Self::Over => None,
        }
    }

    /// The same, to be changed.
    pub(in crate::proxy) fn lines_mut(&mut self) -> Option<&mut FieldLines> {
        match self {
            Self::Http1(call) => call.lines_mut(),
            Self::Http2(_) | Self::Over => None,
        }
    }

    /// Puts them into the map `fields` after all.
    pub(in crate::proxy) fn read_lines(&mut self, fields: &mut HeaderMap) -> Result<(), Malformed> {
        match self {
            Self::Http1(call) => call.read_lines(fields),
            Self::Http2(_) | Self::Over => Ok(()),
        }
    }

    /// Room for the fields of another response: a map that nobody needs.
    pub fn leave_room(&mut self, fields: HeaderMap) {
        if let Self::Http1(call) = self {
            call.leave_room(fields);
        }
    }

    /// True if the response has been read to its end.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(call) => call.is_end_stream(),
            Self::Http2(call) => call.is_end_stream(),
            Self::Over => true,
        }
    }

    /// How much of the response is to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(call) => call.size_hint(),
            Self::Http2(call) => call.size_hint(),
            Self::Over => SizeHint::with_exact(0),
        }
    }

    /// After a 101: the stream, and what was read of it already.
    #[must_use]
    pub fn into_upgraded(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Http1(call) => Some(call.into_upgraded()),
            Self::Http2(_) | Self::Over => None,
        }
    }

    /// The response has been read to its end: its connection may carry another request.
    pub fn finish(self) {
        match self {
            Self::Http1(call) => call.finish(),
            // It is shared and goes on anyway.
            Self::Http2(_) | Self::Over => {}
        }
    }
}

/// Nothing more can come of a call.
pub(super) fn over() -> UpstreamError {
    UpstreamError::Broken(io::ErrorKind::UnexpectedEof.into())
}
