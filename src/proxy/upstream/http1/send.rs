//! A request on its way up, as HTTP/1.1 (RFC 9112).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::{Body, Frame};
use thiserror::Error;
use tokio::io::AsyncWrite;

use crate::proxy::replay::{BodyError, Outbound};
use crate::proxy::upstream::Outgoing;

/// Frames up to this size are copied behind what stands before them; larger ones are written from
/// where they are.
const COPIED: usize = 4096;

/// Why a request did not get out whole.
#[derive(Debug, Error)]
pub(super) enum SendError {
    /// The upstream does not take it.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The caller broke off, or its body is none.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The body is not as long as was said; the upstream must not take it for whole.
    #[error("body of another length than was said")]
    Length,
}

/// How the upstream finds the end of the body (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
}

impl Framing {
    fn of(body: &impl Body, headers: &HeaderMap) -> Self {
        if body.is_end_stream() {
            // A length of 0 is said again if the caller said it: some servers want it of a POST.
            let said = headers.contains_key(CONTENT_LENGTH);
            return if said { Self::Length(0) } else { Self::None };
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head only, until the upstream wants the body.
    Held,
    Streaming,
    Done,
}

/// One request being sent.
pub(super) struct Upload<B = Outbound> {
    /// Let go of once all of it was taken: the response may last much longer.
    body: Option<B>,
    framing: Framing,
    state: State,
    /// Head, chunk sizes and small frames.
    out: BytesMut,
    /// A large frame, after `out`.
    data: Bytes,
    /// The end of a chunk, after `data`.
    chunk_ends: bool,
    written: Written,
    taken: bool,
}

/// How much the stream has of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    Unflushed,
    Flushed,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Upload<B> {
    /// `request` with `body`, to be written by way of the buffer `out`. If it is to be `held`, the
    /// body waits for [`Self::go_on`].
    pub(super) fn new(request: &Outgoing, body: B, held: bool, mut out: BytesMut) -> Self {
        let framing = Framing::of(&body, &request.headers);
        write_head(&mut out, request, framing);
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            _ if held => State::Held,
            _ => State::Streaming,
        };
        let data = Bytes::new();
        let (chunk_ends, taken, written) = (false, false, Written::Nothing);
        let body = Some(body);
        Self { body, framing, state, out, data, chunk_ends, written, taken }
    }

    /// The upstream wants the body (RFC 9110 §10.1.1).
    pub(super) fn go_on(&mut self) {
        if self.state == State::Held {
            self.state = State::Streaming;
        }
    }

    /// True while the body waits.
    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// True while more of the body has to come, and all that came has been written.
    pub(super) fn awaits_body(&self) -> bool {
        let written = self.out.is_empty() && self.data.is_empty();
        self.state == State::Streaming && written && self.written == Written::Flushed
    }

    /// True once all of it has been written.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done && self.out.is_empty() && self.written == Written::Flushed
    }

    /// What it was sent by way of.
    pub(super) fn into_buffer(self) -> BytesMut {
        self.out
    }

    /// True once a byte of the request may have reached the upstream.
    pub(super) fn has_written(&self) -> bool {
        self.written != Written::Nothing
    }

    /// The body, if nothing was taken of it.
    pub(super) fn into_untouched(self) -> Option<B> {
        self.body.filter(|_| !self.taken)
    }

    /// Writes what can be written; ready when there is no more to come.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let waits = self.fill(cx)?;
            if self.out.has_remaining() || self.data.has_remaining() {
                let n = ready!(self.write(cx, stream))?;
                self.written = Written::Unflushed;
                let head = n.min(self.out.len());
                self.out.advance(head);
                self.data.advance(n - head);
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
        let written = match (self.out.is_empty(), self.data.is_empty()) {
            (_, true) => stream.poll_write(cx, &self.out),
            (true, _) => stream.poll_write(cx, &self.data),
            _ => {
                let slices = [IoSlice::new(&self.out), IoSlice::new(&self.data)];
                stream.poll_write_vectored(cx, &slices)
            }
        };
        written.map(|written| match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        })
    }

    /// Takes frames of the body as long as they are there and small; true if more is to be waited
    /// for.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, SendError> {
        while self.data.is_empty() && self.out.len() < COPIED {
            if std::mem::take(&mut self.chunk_ends) {
                self.out.put_slice(b"\r\n");
            }
            if self.state != State::Streaming {
                return Ok(self.state == State::Held);
            }
            let Some(body) = &mut self.body else { return Ok(false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(frame)) => {
                    self.taken = true;
                    self.take(frame?)?;
                }
                Poll::Ready(None) => self.end(None)?,
            }
            // Said at once, so that the end goes out with the last frame.
            let ended = self.body.as_ref().is_some_and(Body::is_end_stream);
            if self.state == State::Streaming && self.data.is_empty() && ended {
                self.chunk_end();
                self.end(None)?;
            }
        }
        Ok(false)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), SendError> {
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
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(SendError::Length)?;
            }
            Framing::Chunked => {
                self.out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.chunk_ends = true;
            }
        }
        if data.len() <= COPIED {
            self.out.put_slice(&data);
        } else {
            self.data = data;
        }
        Ok(())
    }

    fn chunk_end(&mut self) {
        if std::mem::take(&mut self.chunk_ends) {
            self.out.put_slice(b"\r\n");
        }
    }

    /// Trailers have a place in chunks only (RFC 9112 §7.1.2).
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), SendError> {
        match self.framing {
            Framing::None | Framing::Length(0) => {}
            Framing::Length(_) => return Err(SendError::Length),
            Framing::Chunked => {
                self.chunk_end();
                self.out.put_slice(b"0\r\n");
                write_fields(&mut self.out, trailers.into_iter().flatten());
                self.out.put_slice(b"\r\n");
            }
        }
        self.state = State::Done;
        self.body.take_if(|_| self.taken);
        Ok(())
    }
}

fn write_head(out: &mut BytesMut, request: &Outgoing, framing: Framing) {
    // What a usual head needs, so that the buffer grows once.
    out.reserve(512 + request.target.as_str().len());
    out.put_slice(request.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(request.target.as_str().as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    let own = |name: &http::HeaderName| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    write_fields(out, request.headers.iter().filter(|(name, _)| !own(name)));
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            out.put_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.put_slice(b"\r\n");
}

fn write_fields<'h>(
    out: &mut BytesMut,
    fields: impl Iterator<Item = (&'h http::HeaderName, &'h http::HeaderValue)>,
) {
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
