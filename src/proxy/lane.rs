//! A caller's HTTP/1 connection: what it says is read message by message, and it is told what is
//! written here. The task that serves it and the body of the request under way have it in common.

use std::cell::{RefCell, RefMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fragile::Fragile;
use http::HeaderMap;
use http_body::Frame;
use thiserror::Error;
use tokio::io::AsyncWrite;

use super::http1::body::{Body, Next};
use super::http1::fields::emptied;
use super::http1::inbox::Inbox;
use super::http1::send::write_fields;
use super::http1::{Bounds, Malformed};
use super::inbound::Inbound;
use super::prefixed::Prefixed;
use super::reject::Reason;
use super::wire::Wire;
use crate::stream::Stream;

mod request;

pub(super) use request::Head;

/// What a caller that leaves half a message unread may have sent of it meanwhile, in bytes.
const LEFT_OVER: usize = 64 << 10;

/// Why a request body did not come to its end.
#[derive(Debug, Error)]
pub enum LaneError {
    /// The connection broke.
    #[error("the caller's connection failed")]
    Broken(#[source] io::Error),
    /// Its chunks are none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection has gone on to another request.
    #[error("the request is over")]
    Over,
}

/// A caller's HTTP/1 connection. It is used by one thread only, which is cheaper to hold it to than a lock
/// would be: that would be taken seventeen times for a request.
#[derive(Clone)]
pub(super) struct Lane(Arc<Fragile<RefCell<Ends>>>);

struct Ends {
    /// `None` once it was taken for a tunnel.
    stream: Option<Stream>,
    inbox: Inbox,
    /// Interim responses until they are out; the final head follows them.
    outbox: BytesMut,
    /// Some of them are with TLS still.
    unflushed: bool,
    bounds: Bounds,
    /// How far the end of the next head was looked for.
    scanned: usize,
    /// How many requests there were, the one under way included.
    number: usize,
    /// What was heard of that one, until it is taken.
    head: Option<Head>,
    /// What is still to come of it.
    body: Body,
    /// Its caller waits for a word before it sends its body (RFC 9110 §10.1.1).
    expects: bool,
    /// Its caller understands interim responses (RFC 9110 §15.2), and the final one is not written.
    takes_interim: bool,
    /// An empty map with room for fields, which the next request's are put into.
    spare: HeaderMap,
}

/// What comes next on a connection.
pub(super) enum Heard {
    /// A request, which can be [taken](Lane::take).
    Request,
    /// None, and this is to be said about it.
    Refused(Reason),
    /// Part of one.
    Part,
    /// Nothing yet.
    Nothing,
}

impl Lane {
    /// The connection `stream`, of which `prefix` was read already. Heads and trailers may be as
    /// large as `bounds`.
    pub(super) fn new(stream: Stream, prefix: BytesMut, bounds: Bounds) -> Self {
        Self(Arc::new(Fragile::new(RefCell::new(Ends {
            stream: Some(stream),
            inbox: Inbox::new(prefix),
            outbox: BytesMut::new(),
            unflushed: false,
            bounds,
            scanned: 0,
            number: 0,
            head: None,
            body: Body::Length(0),
            expects: false,
            takes_interim: false,
            spare: HeaderMap::new(),
        }))))
    }

    fn ends(&self) -> RefMut<'_, Ends> {
        self.0.get().borrow_mut()
    }

    /// The request that was read, if it is all there.
    pub(super) fn hear(&self) -> Heard {
        let ends = &mut *self.ends();
        let inbox = &mut ends.inbox.bytes;
        skip_empty_lines(inbox);
        if inbox.is_empty() {
            return Heard::Nothing;
        }
        match request::head(inbox, &mut ends.scanned, ends.bounds, &mut ends.spare) {
            Ok(None) => Heard::Part,
            Ok(Some((head, body, expects))) => {
                ends.scanned = 0;
                ends.number += 1;
                ends.takes_interim = head.takes_interim();
                ends.expects = expects && !body.is_end();
                ends.body = body;
                ends.head = Some(head);
                Heard::Request
            }
            Err(reason) => Heard::Refused(reason),
        }
    }

    /// The request that was heard.
    pub(super) fn take(&self, wire: &Arc<Wire>) -> Option<Head> {
        let ends = &mut *self.ends();
        let mut head = ends.head.take()?;
        if !ends.body.is_end() {
            *head.request.body_mut() = Inbound::http1(self.clone(), ends.number, Arc::clone(wire));
        }
        Some(head)
    }

    /// Reads more between requests; 0 = the caller has left.
    pub(super) fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let ends = &mut *self.ends();
        let stream = ends.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        ends.inbox.poll_wait(cx, stream)
    }

    /// Ready when the caller has left while its request, which has been read, is answered. It looks, and
    /// wakes, only if nothing else is to be read: the rest of a body is asked for by who sends it on.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let ends = self.ends();
            // What follows a request is not looked at before that is answered.
            if !ends.body.is_end() || !ends.inbox.bytes.is_empty() {
                return Poll::Pending;
            }
        }
        match ready!(self.poll_wait(cx)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// How much is to come of the body of the request with that `number`, if that was said.
    pub(super) fn length(&self, number: usize) -> Option<u64> {
        let ends = self.ends();
        ends.body.length().filter(|_| ends.number == number)
    }

    /// True if nothing is to come of the body of the request with that `number`.
    pub(super) fn is_end(&self, number: usize) -> bool {
        let ends = self.ends();
        ends.number == number && ends.body.is_end()
    }

    /// True if the caller of the request under way was not asked for the body that it holds back.
    pub(super) fn is_held(&self) -> bool {
        self.ends().expects
    }

    /// What is next of the body of the request with that `number`.
    pub(super) fn poll_frame(
        &self,
        number: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LaneError>>> {
        let ends = &mut *self.ends();
        if ends.number != number {
            return Poll::Ready(Some(Err(LaneError::Over)));
        }
        ends.invite();
        if ends.poll_say(cx)?.is_pending() {
            return Poll::Pending;
        }
        ends.poll_frame(cx)
    }

    /// Says a 103 with `fields` before anything else that is to be said.
    pub(super) fn say_early(&self, fields: &HeaderMap) {
        let ends = &mut *self.ends();
        if ends.takes_interim {
            ends.outbox.put_slice(b"HTTP/1.1 103 Early Hints\r\n");
            write_fields(&mut ends.outbox, fields.iter());
            ends.outbox.put_slice(b"\r\n");
        }
    }

    /// True if something is to be said before the final head.
    pub(super) fn has_to_say(&self) -> bool {
        self.ends().has_to_say()
    }

    /// Says what is to be said before the final head.
    pub(super) fn poll_say(&self, cx: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        self.ends().poll_say(cx)
    }

    /// The buffer for the final response: no other may be said from now on.
    pub(super) fn take_outbox(&self) -> BytesMut {
        let ends = &mut *self.ends();
        (ends.takes_interim, ends.unflushed) = (false, false);
        std::mem::take(&mut ends.outbox)
    }

    /// Ends the answer, whose buffer and fields are used again.
    pub(super) fn put_back(&self, outbox: BytesMut, fields: HeaderMap) {
        let ends = &mut *self.ends();
        (ends.outbox, ends.spare) = (outbox, emptied(fields));
    }

    /// True if the request has been read to its end, once what has come of it was thrown away.
    pub(super) fn is_over(&self, cx: &mut Context<'_>) -> bool {
        let ends = &mut *self.ends();
        let mut left = LEFT_OVER;
        while !ends.body.is_end() {
            match ends.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(length) else { return false };
                    left = rest;
                }
                Poll::Ready(None) => break,
                _ => return false,
            }
        }
        ends.inbox.settle();
        true
    }

    /// True if the caller has said nothing that is not answered, as far as that was read.
    pub(super) fn is_heard(&self) -> bool {
        let ends = self.ends();
        ends.body.is_end() && ends.inbox.bytes.is_empty()
    }

    /// Has the connection end as one that broke, where closing it would look like the end of a message.
    pub(super) fn abort(&self) {
        if let Some(Stream::Tcp(stream)) = &self.ends().stream {
            // Where that fails, it is broken already.
            let _ = stream.set_zero_linger();
        }
    }

    /// Reads, and throws away, until the caller has nothing more to say.
    pub(super) fn poll_forget(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.ends().inbox.bytes.clear();
            if let Ok(0) | Err(_) = ready!(self.poll_wait(cx)) {
                return Poll::Ready(());
            }
        }
    }

    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut self.ends().stream;
        let stream = Pin::new(stream.as_mut().ok_or(io::ErrorKind::NotConnected)?);
        match slices {
            [only] => stream.poll_write(cx, only),
            _ => stream.poll_write_vectored(cx, slices),
        }
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.ends().stream;
        Pin::new(stream.as_mut().ok_or(io::ErrorKind::NotConnected)?).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.ends().stream;
        Pin::new(stream.as_mut().ok_or(io::ErrorKind::NotConnected)?).poll_shutdown(cx)
    }

    /// Gives back what can be had again.
    pub(super) fn forget(&self) {
        let ends = &mut *self.ends();
        ends.inbox.forget();
        if ends.outbox.is_empty() {
            ends.outbox = BytesMut::new();
        }
        ends.spare = HeaderMap::new();
    }

    /// The connection, for a tunnel: nothing of HTTP is on it any more.
    pub(super) fn take_stream(&self) -> Option<Prefixed<Stream>> {
        let ends = &mut *self.ends();
        let prefix = ends.inbox.bytes.split().freeze();
        ends.stream.take().map(|io| Prefixed { io, prefix })
    }
}

impl Ends {
    /// RFC 9110 §10.1.1: a caller that already sends needs no word.
    fn invite(&mut self) {
        if std::mem::take(&mut self.expects) && self.takes_interim && self.inbox.bytes.is_empty() {
            self.outbox.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    fn has_to_say(&self) -> bool {
        self.takes_interim && (self.unflushed || !self.outbox.is_empty())
    }

    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        if !self.has_to_say() {
            return Poll::Ready(Ok(()));
        }
        let stream = self.stream.as_mut().ok_or(LaneError::Over)?;
        while !self.outbox.is_empty() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, &self.outbox));
            match n.map_err(LaneError::Broken)? {
                0 => return Poll::Ready(Err(LaneError::Broken(io::ErrorKind::WriteZero.into()))),
                n => self.outbox.advance(n),
            }
            self.unflushed = true;
        }
        ready!(Pin::new(stream).poll_flush(cx)).map_err(LaneError::Broken)?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LaneError>>> {
        loop {
            match self.body.next(&mut self.inbox.bytes, self.bounds) {
                Ok(Next::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Next::End) => return Poll::Ready(None),
                Ok(Next::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            let stream = self.stream.as_mut().ok_or(LaneError::Over)?;
            let read = ready!(self.inbox.poll_fill(cx, stream)).map_err(LaneError::Broken)?;
            if read == 0 {
                let cut = io::ErrorKind::UnexpectedEof.into();
                return Poll::Ready(Some(Err(LaneError::Broken(cut))));
            }
        }
    }
}

/// RFC 9112 §2.2: they may precede a request.
fn skip_empty_lines(inbox: &mut BytesMut) {
    loop {
        match inbox.as_ref() {
            [b'\n', ..] => inbox.advance(1),
            [b'\r', b'\n', ..] => inbox.advance(2),
            _ => return,
        }
    }
}
