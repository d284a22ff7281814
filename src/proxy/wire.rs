//! A caller's connection as hyper sees it, and what its requests need to know of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Follower;
use super::watchdog::Watchdog;

/// What a connection and the requests on it share.
pub struct Wire {
    /// The deadline of what it is at.
    pub watchdog: Watchdog,
    /// A head with both framings has come; from then on no chunked request is believed.
    ambiguous: AtomicBool,
}

impl Wire {
    /// A connection under `watchdog`.
    #[must_use]
    pub fn new(watchdog: Watchdog) -> Self {
        Self { watchdog, ambiguous: AtomicBool::new(false) }
    }

    /// True if a request that says that it is chunked may have said a length as well.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Relaxed)
    }
}

/// The stream beneath hyper's HTTP/1 server.
pub(super) struct Wired<I> {
    io: I,
    /// What was read to tell the protocol.
    prefix: Bytes,
    follower: Follower,
    wire: Arc<Wire>,
}

impl<I> Wired<I> {
    pub(super) fn new(io: I, prefix: Bytes, wire: Arc<Wire>) -> Self {
        Self { io, prefix, follower: Follower::new(), wire }
    }

    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = result {
            self.wire.watchdog.written();
        }
        result
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Wired<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = if this.prefix.has_remaining() {
            let here = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix.split_to(here));
            Poll::Ready(Ok(()))
        } else {
            Pin::new(&mut this.io).poll_read(cx, buffer)
        };
        if let Poll::Ready(Ok(())) = result {
            this.wire.watchdog.progress();
            if this.follower.sees_both(&buffer.filled()[before..]) {
                this.wire.ambiguous.store(true, Relaxed);
            }
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wired<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
