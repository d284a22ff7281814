//! A message on its way out, as HTTP/1.1 (RFC 9112): requests up, responses down.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use thiserror::Error;
use tokio::io::AsyncWrite;

use super::inbox::KEPT;

/// Frames up to this size are copied behind what stands before them; larger ones are written from
/// where they are.
pub(in crate::proxy) const COPIED: usize = 4096;
/// So much is worth a write: more frames are not taken before it.
const ENOUGH: usize = 16 << 10;
/// Of a 64-bit number in decimal.
const MAX_DIGITS: usize = 20;
/// The most pieces of one write.
const PIECES: usize = 8;
/// A chunk's size, its data, its end.
const PIECES_OF_FRAME: usize = 3;

/// Why a message did not get out whole.
#[derive(Debug, Error)]
pub(in crate::proxy) enum SendError<E> {
    /// The receiver does not take it.
    #[error("the connection does not take it")]
    Write(#[from] io::Error),
    /// Its body broke off, or is none.
    #[error("its body failed")]
    Body(#[source] E),
    /// The body is not as long as was said; the receiver must not take it for whole.
    #[error("body of another length than was said")]
    Length,
}

/// How the receiver finds the end of the body (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// The connection is closed after it: responses to HTTP/1.0 only.
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head only, until the receiver wants the body.
    Held,
    Streaming,
    Done,
}

/// One message being sent.
pub(in crate::proxy) struct Sending<B> {
    /// Let go of once all of it was taken: what answers a request may last much longer.
    body: Option<B>,
    framing: Framing,
    state: State,
    /// The head, and what is small.
    out: BytesMut,
    /// After `out`: large frames, and what is between them and after them.
    data: VecDeque<Bytes>,
    written: Written,
    taken: bool,
}

/// How much the stream has of the message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    Unflushed,
    Flushed,
}

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// `body` behind the head that is in `out`. If it is to be `held`, the body waits for
    /// [`Self::go_on`].
    pub(in crate::proxy) fn new(body: B, framing: Framing, held: bool, out: BytesMut) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            _ if held => State::Held,
            _ => State::Streaming,
        };
        let (body, data) = (Some(body), VecDeque::new());
        Self { body, framing, state, out, data, written: Written::Nothing, taken: false }
    }

    /// The receiver wants the body (RFC 9110 §10.1.1).
    pub(in crate::proxy) fn go_on(&mut self) {
        if self.state == State::Held {
            self.state = State::Streaming;
        }
    }

    /// True while the body waits.
    pub(in crate::proxy) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// True while more of the body has to come, and all that came has been written.
    pub(in crate::proxy) fn awaits_body(&self) -> bool {
        let written = self.out.is_empty() && self.data.is_empty();
        self.state == State::Streaming && written && self.written == Written::Flushed
    }

    /// True once all of it has been written.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        let written = self.out.is_empty() && self.data.is_empty();
        self.state == State::Done && written && self.written == Written::Flushed
    }

    /// What it was sent by way of, unless that has grown large. Nothing else is kept of the message: its body
    /// may have ended without a frame, and holds on to the connection that it came on.
    pub(in crate::proxy) fn take_buffer(&mut self) -> BytesMut {
        (self.body, self.data) = (None, VecDeque::new());
        let out = std::mem::take(&mut self.out);
        if out.capacity() > KEPT { BytesMut::new() } else { out }
    }

    /// True once a byte of the message may have reached the receiver.
    pub(in crate::proxy) fn has_written(&self) -> bool {
        self.written != Written::Nothing
    }

    /// The body, if nothing was taken of it.
    pub(in crate::proxy) fn into_untouched(self) -> Option<B> {
        self.body.filter(|_| !self.taken)
    }

    /// Writes what can be written; ready when there is no more to come.
    pub(in crate::proxy) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<Result<(), SendError<B::Error>>> {
        loop {
            let waits = self.fill(cx)?;
            if !self.out.is_empty() || !self.data.is_empty() {
                let n = ready!(self.write(cx, stream))?;
                self.written = Written::Unflushed;
                self.advance(n);
                continue;
            }
            if self.written == Written::Unflushed {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                self.written = Written::Flushed;
            }
            if self.state == State::Done {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn write<W: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let written = if self.data.is_empty() {
            stream.poll_write(cx, &self.out)
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let pieces =
                std::iter::once(&self.out[..]).chain(self.data.iter().map(|data| &data[..]));
            let pieces = pieces.filter(|piece| !piece.is_empty());
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            stream.poll_write_vectored(cx, &slices[..count])
        };
        written.map(|written| match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        })
    }

    /// Forgets `n` bytes, which are written.
    fn advance(&mut self, mut n: usize) {
        let here = n.min(self.out.len());
        self.out.advance(here);
        n -= here;
        while let Some(first) = self.data.front_mut()
            && n > 0
        {
            let here = n.min(first.len());
            first.advance(here);
            n -= here;
            if first.is_empty() {
                self.data.pop_front();
            }
        }
    }

    /// After all that is to be written already.
    fn put(&mut self, piece: &[u8]) {
        if self.data.is_empty() {
            self.out.put_slice(piece);
        } else {
            self.data.push_back(Bytes::copy_from_slice(piece));
        }
    }

    fn is_enough(&self) -> bool {
        let data: usize = self.data.iter().map(Bytes::len).sum();
        self.out.len() + data >= ENOUGH || self.data.len() + PIECES_OF_FRAME > PIECES
    }

    /// Takes frames of the body as long as they are there and not enough; true if more is to be waited
    /// for.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, SendError<B::Error>> {
        while !self.is_enough() {
            if self.state != State::Streaming {
                return Ok(self.state == State::Held);
            }
            let Some(body) = &mut self.body else { return Ok(false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(frame)) => {
                    self.taken = true;
                    self.take(frame.map_err(SendError::Body)?)?;
                }
                Poll::Ready(None) => self.end(None)?,
            }
            // Said at once, so that the end goes out with the last frame.
            let ended = self.body.as_ref().is_some_and(Body::is_end_stream);
            if self.state == State::Streaming && ended {
                self.end(None)?;
            }
        }
        Ok(false)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), SendError<B::Error>> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        // An empty chunk would be the end (RFC 9112 §7.1).
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::None => return Err(SendError::Length),
            Framing::Close => {}
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(SendError::Length)?;
            }
            Framing::Chunked => {
                let mut line = [0; MAX_DIGITS + 2];
                let (digits, end) = line.split_at_mut(MAX_DIGITS);
                end.copy_from_slice(b"\r\n");
                let begin = put_digits(data.len() as u64, 16, digits);
                self.put(&line[begin..]);
            }
        }
        if self.data.is_empty() && data.len() <= COPIED {
            self.out.put_slice(&data);
        } else {
            self.data.push_back(data);
        }
        if self.framing == Framing::Chunked {
            self.put(b"\r\n");
        }
        Ok(())
    }

    /// Trailers have a place in chunks only (RFC 9112 §7.1.2).
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), SendError<B::Error>> {
        match self.framing {
            Framing::None | Framing::Length(0) | Framing::Close => {}
            Framing::Length(_) => return Err(SendError::Length),
            Framing::Chunked => {
                let mut last = BytesMut::from(&b"0\r\n"[..]);
                write_fields(&mut last, trailers.into_iter().flatten());
                last.put_slice(b"\r\n");
                self.put(&last);
            }
        }
        self.state = State::Done;
        self.body.take_if(|_| self.taken);
        Ok(())
    }
}

/// A length, as a field.
pub(in crate::proxy) fn put_length(out: &mut BytesMut, length: u64) {
    let mut digits = [0; MAX_DIGITS];
    let begin = put_digits(length, 10, &mut digits);
    out.put_slice(b"content-length: ");
    out.put_slice(&digits[begin..]);
    out.put_slice(b"\r\n");
}

/// `number` in `base` at the end of `room`: where it begins. The formatter costs ten times as much.
fn put_digits(mut number: u64, base: u8, room: &mut [u8]) -> usize {
    let mut begin = room.len();
    loop {
        begin -= 1;
        let digit = (number % u64::from(base)).to_le_bytes()[0];
        room[begin] = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        number /= u64::from(base);
        if number == 0 {
            return begin;
        }
    }
}

/// Field lines.
pub(in crate::proxy) fn write_fields<'h>(
    out: &mut BytesMut,
    fields: impl Iterator<Item = (&'h http::HeaderName, &'h http::HeaderValue)>,
) {
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}
