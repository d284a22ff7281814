//! One exchange with an upstream over HTTP/1.1, in the task of the request that it is for.
//!
//! No task is spawned and no channel crossed: polling the exchange writes what can be written and
//! reads what can be read. `send` knows how a request looks on the wire, `receive` a response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Failed, Outgoing, UpstreamError, pool};
use crate::proxy::http1::Malformed;
use crate::proxy::http1::body::{Body, Next};
use crate::proxy::http1::fields::emptied;
use crate::proxy::http1::inbox::{Inbox, MAX_READ};
use crate::proxy::http1::lines::FieldLines;
use crate::proxy::http1::send::{Framing, SendError, Sending};
use crate::proxy::replay::{BodyError, Outbound};
use crate::stream::Stream;

mod receive;
mod send;

use receive::Head;

/// The largest head of a response.
pub(in crate::proxy) use receive::MAX_HEAD;
/// What is read of a response before its head is whole, at most.
pub(in crate::proxy) const MAX_BUFFERED: usize = MAX_HEAD + MAX_READ;
/// The most interim responses to one request.
pub(super) const MAX_INTERIM: usize = 16;
/// A body is sent without the upstream's word after this (RFC 9110 §10.1.1 leaves the time open).
pub(super) const CONTINUE: Duration = Duration::from_secs(1);

/// A connection, and the request that is on it, if there is one. Dropped before the end of that, it is
/// closed: that is how a caller that goes away, or a message cut short, reaches the upstream.
pub struct Connection {
    stream: Stream,
    inbox: Inbox,
    outbox: BytesMut,
    /// An empty map with room for fields, which the next response's are put into.
    spare: HeaderMap,
    /// The fields of a response that nobody has to read.
    lines: FieldLines,
    /// When its last use began: idle time is overestimated by that use, and a clock is not read.
    pub(super) used_at: Instant,
    /// From then on it takes no other request, so that a changed name is looked up again.
    pub(super) good_until: Instant,
    upload: Sending<Outbound>,
    /// What broke the upload; the upstream may have answered all the same.
    broken: Option<SendError<BodyError>>,
    method: Method,
    body: Body,
    persistent: bool,
    fields: Fields,
    /// Of the response.
    begun: bool,
    scanned: usize,
    interim: usize,
    early: Vec<response::Parts>,
    hold: Option<Pin<Box<Sleep>>>,
    /// Whose pool it came from and goes to.
    slot: usize,
    pooled: bool,
}

/// What becomes of the fields of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fields {
    /// They are put into a map.
    Read,
    /// They may stay lines.
    Unread,
    /// They are lines.
    Lines,
}

impl Connection {
    pub(super) fn new(stream: Stream, now: Instant, good_until: Instant) -> Box<Self> {
        let nothing = Sending::new(Outbound::Empty, Framing::None, false, BytesMut::new());
        Box::new(Self {
            stream,
            inbox: Inbox::new(BytesMut::new()),
            outbox: BytesMut::new(),
            spare: HeaderMap::new(),
            lines: FieldLines::default(),
            used_at: now,
            good_until,
            upload: nothing,
            broken: None,
            method: Method::GET,
            body: Body::Length(0),
            persistent: false,
            fields: Fields::Read,
            begun: false,
            scanned: 0,
            interim: 0,
            early: Vec::new(),
            hold: None,
            slot: 0,
            pooled: false,
        })
    }

    /// False if the upstream closed it, or said something unasked: that must not become an answer.
    pub(super) fn is_open(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// Puts `request` and `body` on it, where no other request is; polling sends them.
    pub(super) fn begin(&mut self, request: &Outgoing, body: Outbound, slot: usize, pooled: bool) {
        let held = !body.is_end_stream() && request.expects_continue();
        let outbox = std::mem::take(&mut self.outbox);
        self.upload = send::send(request, body, held, outbox);
        self.method.clone_from(&request.method);
        (self.body, self.persistent) = (Body::Length(0), false);
        self.fields = if request.answer_in_lines { Fields::Unread } else { Fields::Read };
        (self.begun, self.scanned, self.interim) = (false, 0, 0);
        (self.slot, self.pooled) = (slot, pooled);
    }

    /// Sends, and reads the response head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, UpstreamError>> {
        let _ = self.poll_upload(cx);
        loop {
            let lines = (self.fields == Fields::Unread).then_some(&mut self.lines);
            let (inbox, spare) = (&mut self.inbox.bytes, &mut self.spare);
            let head = receive::head(inbox, &mut self.scanned, &self.method, spare, lines)?;
            if let Some(head) = head {
                self.scanned = 0;
                if let Some(parts) = self.arrived(head, cx)? {
                    return Poll::Ready(Ok(parts));
                }
                if !self.early.is_empty() {
                    // What comes next may be the final head: this one is passed on before it.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            if ready!(self.poll_read(cx)).map_err(|error| self.cause(error))? == 0 {
                let error = self.cause(io::ErrorKind::UnexpectedEof.into());
                return Poll::Ready(Err(error));
            }
            self.begun = true;
        }
    }

    /// The final head, or `None` after an interim one (RFC 9110 §15.2).
    fn arrived(
        &mut self,
        head: Head,
        cx: &mut Context<'_>,
    ) -> Result<Option<response::Parts>, Malformed> {
        let status = head.parts.status;
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            (self.body, self.persistent) = (head.body, head.persistent);
            if head.in_lines {
                self.fields = Fields::Lines;
            }
            return Ok(Some(head.parts));
        }
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(Malformed("too many interim responses"));
        }
        if status == StatusCode::CONTINUE {
            self.upload.go_on();
            let _ = self.poll_upload(cx);
        } else {
            self.early.push(head.parts);
        }
        Ok(None)
    }

    /// The interim responses that came since this was last asked, but for 100.
    pub(super) fn take_early(&mut self) -> Vec<response::Parts> {
        std::mem::take(&mut self.early)
    }

    /// Sends what can be sent. An upload that breaks is no end: the upstream may have answered
    /// before it stopped reading (RFC 9112 §9.5).
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upload.is_held() {
            let hold = self.hold.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE)));
            if hold.as_mut().poll(cx).is_ready() {
                self.upload.go_on();
            }
        }
        if self.is_uploading()
            && let Poll::Ready(Err(error)) = self.upload.poll(cx, &mut self.stream)
        {
            self.broken = Some(error);
        }
        if self.is_uploading() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// True while it is the caller who has to go on: all that it sent is with the upstream.
    pub(super) fn awaits_caller(&self) -> bool {
        self.broken.is_none() && self.upload.awaits_body()
    }

    /// True while the request is neither all out nor given up.
    pub(super) fn is_uploading(&self) -> bool {
        self.broken.is_none() && !self.upload.is_done()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A caller that broke off: nobody wants the answer to half a request.
        if matches!(self.broken, Some(SendError::Body(_) | SendError::Length)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.inbox.poll_fill(cx, &mut self.stream)
    }

    /// What the upload broke on comes before what its end looked like from the reading side.
    fn cause(&mut self, error: io::Error) -> UpstreamError {
        match self.broken.take() {
            Some(SendError::Body(error)) => UpstreamError::Caller(error),
            Some(SendError::Length) => UpstreamError::CallerLength,
            Some(SendError::Write(error)) => UpstreamError::Broken(error),
            None => UpstreamError::Broken(error),
        }
    }

    /// What is known about how far the request came, after `error`.
    pub(super) fn failed(self: Box<Self>, error: UpstreamError) -> Failed {
        let stale = self.pooled && !self.begun && is_gone(&error);
        let sent = self.upload.has_written();
        Failed { error, sent, body: self.upload.into_untouched(), stale }
    }

    /// What is next of the response body. What is left of the request goes up by
    /// [`Self::poll_upload`], for a task of its own perhaps.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        loop {
            match self.body.next(&mut self.inbox.bytes, receive::BOUNDS) {
                Ok(Next::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Next::End) => return Poll::Ready(None),
                Ok(Next::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if self.body.ends_at_close() => {
                    self.body = Body::Length(0);
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    let error = UpstreamError::Broken(io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Some(Err(error)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.cause(error)))),
            }
        }
    }

    /// The fields of the response, if they are lines and not in its head.
    pub(super) fn lines(&self) -> Option<&FieldLines> {
        (self.fields == Fields::Lines).then_some(&self.lines)
    }

    /// The same, to be changed.
    pub(super) fn lines_mut(&mut self) -> Option<&mut FieldLines> {
        (self.fields == Fields::Lines).then_some(&mut self.lines)
    }

    /// Puts them into the map `fields` after all.
    pub(super) fn read_lines(&mut self, fields: &mut HeaderMap) -> Result<(), Malformed> {
        match std::mem::replace(&mut self.fields, Fields::Read) {
            Fields::Lines => std::mem::take(&mut self.lines).read(fields),
            Fields::Read | Fields::Unread => Ok(()),
        }
    }

    /// Room for the fields of the next response on this connection: a map that nobody needs.
    pub(super) fn leave_room(&mut self, fields: HeaderMap) {
        self.spare = emptied(fields);
    }

    /// True if the response has been read to its end.
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end()
    }

    /// How much of the response is to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.length().map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    /// After a 101: the stream, and what was read of it already.
    pub(super) fn into_upgraded(mut self: Box<Self>) -> (Stream, Bytes) {
        (self.stream, self.inbox.bytes.split().freeze())
    }

    /// Puts it back if it can carry another request: both messages have ended, and nothing came after.
    pub(super) fn finish(mut self: Box<Self>) {
        let clean = self.persistent && self.body.is_end() && self.inbox.bytes.is_empty();
        if clean && self.upload.is_done() {
            self.outbox = self.upload.take_buffer();
            self.inbox.settle();
            self.lines.settle();
            self.hold = None;
            pool::put(self.slot, self);
        }
    }
}

/// The peer had closed the connection, in one of the ways that this shows.
fn is_gone(error: &UpstreamError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        UpstreamError::Broken(error) => {
            [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
