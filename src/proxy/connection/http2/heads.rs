//! The time that a request head may take in HTTP/2. Nothing else can come on a connection while a
//! head is incomplete (RFC 9113 §4.3), and hyper waits for it as long as it takes.
//!
//! It also tells the connection's load what h2 is writing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::load::{Load, Open};

/// RFC 9113 §4.1.
const FRAME_HEAD: usize = 9;
/// RFC 9113 §3.4: what precedes the frames.
const PREFACE: usize = 24;
/// Frame types (RFC 9113 §6.2, §6.10) and the flag that ends a head.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A stream whose heads come in time or not at all.
pub(super) struct Heads<I> {
    io: I,
    limit: Duration,
    frames: Frames,
    late: Option<Pin<Box<Sleep>>>,
    load: Load,
    /// Something has been written that is not flushed yet.
    unsaid: Option<Open>,
}

impl<I> Heads<I> {
    pub(super) fn new(io: I, limit: Duration, load: Load) -> Self {
        Self { io, limit, frames: Frames::default(), late: None, load, unsaid: None }
    }

    fn writes(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.unsaid.get_or_insert_with(|| self.load.unsaid());
        self.load.writes(true);
        if written.is_ready() {
            self.load.wrote();
        }
        written
    }
}

/// Follows frames, as far as that tells whether a head is incomplete.
#[derive(Default)]
struct Frames {
    /// Bytes of the preface so far.
    preface: usize,
    head: [u8; FRAME_HEAD],
    /// Bytes of `head` that are there.
    held: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    /// A head has begun and not ended.
    open: bool,
}

impl Frames {
    /// True if `bytes` end within a head, or where one may begin.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let preface = bytes.len().min(PREFACE - self.preface);
        self.preface += preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len());
                self.left -= here;
                bytes = &bytes[here..];
            } else {
                let here = (FRAME_HEAD - self.held).min(bytes.len());
                self.head[self.held..self.held + here].copy_from_slice(&bytes[..here]);
                self.held += here;
                bytes = &bytes[here..];
                if self.held == FRAME_HEAD {
                    self.held = 0;
                    self.begin();
                }
            }
        }
        self.open || self.held > 0 || (self.left > 0 && self.is_head())
    }

    fn begin(&mut self) {
        let [a, b, c, _, flags, ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if self.is_head() {
            self.open = flags & END_HEADERS == 0;
        }
    }

    fn is_head(&self) -> bool {
        matches!(self.head[3], HEADERS | CONTINUATION)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Heads<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = result {
            if !this.frames.follow(&buffer.filled()[before..]) {
                this.late = None;
            } else if this.late.is_none() {
                this.late = Some(Box::pin(tokio::time::sleep(this.limit)));
            }
        }
        if let Some(late) = &mut this.late
            && late.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heads<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.writes(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.writes(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unsaid = None;
        self.load.writes(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What is told after all of `bytes`, however they are cut.
    fn told(bytes: &[u8]) -> bool {
        let mut whole = Frames::default();
        let told = whole.follow(bytes);
        for cut in 0..bytes.len() {
            let mut frames = Frames::default();
            frames.follow(&bytes[..cut]);
            assert_eq!(frames.follow(&bytes[cut..]), told, "cut at {cut}");
        }
        told
    }

    #[test]
    fn a_head_is_incomplete_until_the_frame_that_ends_it_has_come() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = frame(4, 0, b"123456");
        let whole = frame(HEADERS, END_HEADERS, b"abc");
        let begun = frame(HEADERS, 0, b"abc");
        let goes_on = frame(CONTINUATION, 0, b"");
        let ended = frame(CONTINUATION, END_HEADERS, b"x");
        let data = frame(0, 0, b"data");
        for (frames, incomplete) in [
            (vec![], false),
            (vec![&settings[..]], false),
            (vec![&settings, &whole], false),
            (vec![&settings, &whole, &data], false),
            (vec![&whole[..11]], true),
            (vec![&whole[..5]], true),
            (vec![&begun], true),
            (vec![&begun, &goes_on, &goes_on], true),
            (vec![&begun, &goes_on, &ended], false),
            (vec![&begun, &ended, &data[..11]], false),
        ] {
            let bytes = [&preface, frames.concat().as_slice()].concat();
            assert_eq!(told(&bytes), incomplete, "{frames:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_flushed_is_not_said() {
        let (near, mut far) = tokio::io::duplex(4);
        let load = Load::default();
        let io = BufWriter::new(near);
        let mut heads = Heads::new(io, Duration::from_secs(1), load.clone());
        assert!(load.is_none());
        heads.write_all(b"0123456789").await.unwrap();
        assert!(!load.is_none());
        let mut said = [0; 10];
        let (flushed, read) = tokio::join!(heads.flush(), far.read_exact(&mut said));
        assert!(flushed.is_ok() && read.is_ok() && load.is_none());
    }
}
