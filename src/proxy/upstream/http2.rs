//! One exchange with an upstream over HTTP/2, in the task of the request that it is for: a stream of
//! a connection that requests share.
//!
//! The connection has a task of its own (`shared`), which writes what streams have for it and reads
//! what is for them. Everything else happens here: nothing is taken of the caller's body but by
//! polling the exchange.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::call::over;
use super::http1::{CONTINUE, MAX_INTERIM};
use super::{Failed, Outgoing, UpstreamError};
use crate::proxy::http1::Malformed;
use crate::proxy::replay::{BodyError, Outbound};

mod shared;
mod upload;

pub(in crate::proxy) use shared::{MAX_BUFFERED, MAX_POOLED};
pub(super) use shared::{Place, is_full, open, sweep, take, waiting};
use upload::Upload;

/// One request and its response. Dropped before its end, its stream is reset: that is how a caller
/// that goes away, or a message cut short, reaches the upstream.
pub struct Call {
    sent: Result<Sent, Unsent>,
    pooled: bool,
}

/// A request that the connection did not take.
struct Unsent {
    body: Outbound,
    /// Why, until it is told.
    error: Option<h2::Error>,
}

/// A request that has a stream.
struct Sent {
    upload: Upload,
    /// What broke the caller's body, until it is told.
    broken: Option<BodyError>,
    head: ResponseFuture,
    interim: usize,
    early: Vec<response::Parts>,
    /// Until when the body waits for the upstream's word.
    hold: Option<Pin<Box<Sleep>>>,
    body: Option<Answer>,
    refused: bool,
    place: Place,
}

/// A response body.
struct Answer {
    stream: RecvStream,
    /// How much of it is to come, if that was said.
    left: Option<u64>,
    /// What comes next is trailers or the end.
    data_ended: bool,
}

impl Call {
    /// Hands `request` to the connection of `place`; polling sends `body`.
    pub(super) fn new(
        mut place: Place,
        request: &Outgoing,
        body: Outbound,
        scheme: &Scheme,
        pooled: bool,
    ) -> Self {
        let empty = body.is_end_stream();
        let waits = !empty && request.expects_continue();
        let sent = match place.send(message(request, empty, waits, scheme), empty) {
            Ok((head, stream)) => Ok(Sent {
                upload: Upload::new(stream, body, waits),
                broken: None,
                head,
                interim: 0,
                early: Vec::new(),
                hold: None,
                body: None,
                refused: false,
                place,
            }),
            Err(error) => Err(Unsent { body, error: Some(error) }),
        };
        Self { sent, pooled }
    }

    /// Sends, and waits for the response head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, UpstreamError>> {
        match &mut self.sent {
            Ok(sent) => sent.poll_head(cx),
            Err(unsent) => {
                let error = unsent.error.take().map(UpstreamError::Http2);
                Poll::Ready(Err(error.unwrap_or_else(over)))
            }
        }
    }

    /// The interim responses that came since this was last asked, but for 100.
    pub(super) fn take_early(&mut self) -> Vec<response::Parts> {
        self.sent.as_mut().map(|sent| std::mem::take(&mut sent.early)).unwrap_or_default()
    }

    /// True while it is the caller who has to go on: all that it sent is with the upstream.
    pub(super) fn awaits_caller(&self) -> bool {
        self.sent.as_ref().is_ok_and(|sent| sent.upload.awaits_body())
    }

    /// What is known about how far the request came, after `error`.
    pub(super) fn failed(self, error: UpstreamError) -> Failed {
        // Then the connection broke, rather than this request on it.
        let broke = matches!(&error, UpstreamError::Http2(error) if error.is_io());
        let (sent, body) = match self.sent {
            Ok(sent) => (!sent.refused, None),
            Err(unsent) => (false, Some(unsent.body)),
        };
        Failed { error, sent, body, stale: self.pooled && broke }
    }

    /// True while the request is neither all out nor given up.
    pub(super) fn is_uploading(&self) -> bool {
        self.sent.as_ref().is_ok_and(|sent| sent.upload.is_streaming())
    }

    /// Sends what can be sent. An upstream that wants no more may have answered all the same.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sent.as_mut().map_or(Poll::Ready(()), |sent| sent.poll_upload(cx))
    }

    /// What is next of the response body. What is left of the request goes up by
    /// [`Self::poll_upload`], for a task of its own perhaps.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match &mut self.sent {
            Ok(sent) => sent.poll_frame(cx),
            Err(_) => Poll::Ready(None),
        }
    }

    /// True if the response has been read to its end.
    pub(super) fn is_end_stream(&self) -> bool {
        self.answer().is_none_or(|answer| answer.stream.is_end_stream())
    }

    /// How much of the response is to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        let left = self.answer().and_then(|answer| answer.left);
        left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    fn answer(&self) -> Option<&Answer> {
        self.sent.as_ref().ok()?.body.as_ref()
    }
}

impl Sent {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, UpstreamError>> {
        let _ = self.poll_upload(cx);
        self.hear_early(cx)?;
        // Nobody wants the answer to half a request.
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(UpstreamError::Caller(error)));
        }
        if !self.early.is_empty() {
            // What comes next may be the final head: these are passed on before it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.head).poll(cx)) {
            Ok(response) => {
                self.place.heard();
                let (head, answer) = Answer::begin(response);
                self.body = Some(answer);
                Poll::Ready(Ok(head))
            }
            Err(error) => {
                self.refused = is_refusal(&error);
                if self.refused {
                    self.place.retire();
                }
                Poll::Ready(Err(UpstreamError::Http2(error)))
            }
        }
    }

    /// RFC 9110 §15.2. What ends the stream is left to who waits for the final head.
    fn hear_early(&mut self, cx: &mut Context<'_>) -> Result<(), Malformed> {
        while let Poll::Ready(Some(Ok(response))) = self.head.poll_informational(cx) {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(Malformed("too many interim responses"));
            }
            if response.status() == StatusCode::CONTINUE {
                self.upload.go_on();
                let _ = self.poll_upload(cx);
            } else {
                self.early.push(response.into_parts().0);
            }
        }
        Ok(())
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upload.is_held() {
            let hold = self.hold.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE)));
            if hold.as_mut().poll(cx).is_ready() {
                self.upload.go_on();
            }
        }
        if let Err(error) = ready!(self.upload.poll(cx)) {
            self.broken = Some(error);
        }
        Poll::Ready(())
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(UpstreamError::Caller(error))));
        }
        let Some(answer) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(answer.poll_frame(cx));
        self.place.heard();
        Poll::Ready(frame.map(|frame| frame.map_err(UpstreamError::Http2)))
    }
}

impl Drop for Sent {
    /// Said, not left to the stream's own end: that would wait behind what waits for a window, which an
    /// upstream that has answered may never open. A stream that has ended says nothing more.
    fn drop(&mut self) {
        let answered = self.body.as_ref().is_some_and(|answer| answer.stream.is_end_stream());
        if !answered || self.upload.has_body() {
            self.upload.reset(Reason::CANCEL);
        }
    }
}

impl Answer {
    fn begin(response: Response<RecvStream>) -> (response::Parts, Self) {
        let (head, stream) = response.into_parts();
        let left = if stream.is_end_stream() { Some(0) } else { length(&head.headers) };
        (head, Self { stream, left, data_ended: false })
    }

    /// RFC 9113 §8.1: only `END_STREAM` ends a response. A stream that is reset before is an error,
    /// also if it is reset with `NO_ERROR`; one that is reset after that is whole.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            if let Some(data) = ready!(self.stream.poll_data(cx)?) {
                // Its place in the windows is free once it is passed on.
                self.stream.flow_control().release_capacity(data.len())?;
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.data_ended = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }
}

/// h2 has seen to it that the lines agree.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// RFC 9113 §8.3.1: the target in pseudo-fields, and no field of the connection's own (§8.2.2).
fn message(request: &Outgoing, empty: bool, waits: bool, scheme: &Scheme) -> Request<()> {
    let mut message = Request::new(());
    *message.method_mut() = request.method.clone();
    *message.version_mut() = Version::HTTP_2;
    let mut headers = request.headers.clone();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    // RFC 9110 §10.1.1: whoever does not wait for the upstream's word does not ask for it.
    if !waits {
        headers.remove(EXPECT);
    }
    // RFC 9110 §8.6: of these methods a body is expected, so that there is none is said.
    if empty && matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
        headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    let authority = headers.remove(HOST);
    *message.uri_mut() = uri(scheme, authority.as_ref().map(AsRef::as_ref), &request.target);
    *message.headers_mut() = headers;
    message
}

fn uri(scheme: &Scheme, authority: Option<&[u8]>, target: &PathAndQuery) -> Uri {
    Uri::builder()
        .scheme(scheme.clone())
        .authority(authority.unwrap_or_default())
        .path_and_query(target.clone())
        .build()
        // An authority that went into a field goes into a URI, and every target is one.
        .unwrap_or_default()
}

/// The upstream says that it has not looked at the request: RFC 9113 §8.7, or §6.8, whatever its
/// reason to leave is; h2 tells a farewell only to the requests beyond the last one it names.
fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}
