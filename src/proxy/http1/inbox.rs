//! What has been read of a connection and not been taken yet.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::stream::Stream;

/// Room for one read; it doubles as long as reads fill it.
const READ: usize = 8 << 10;
/// The largest room for one read. What is read at once is written at once, perhaps with something small
/// before it, and 64 KiB are a little more than one segment of loopback holds: an upload in such pieces
/// costs twice as much.
pub(in crate::proxy) const MAX_READ: usize = 47 << 10;
/// What is kept of a room between messages.
pub(in crate::proxy) const KEPT: usize = 2 * READ;
/// Room for what is only waited for: more than a usual request head.
const WAIT: usize = 4 << 10;

/// What has been read of a connection and not been taken yet.
pub(in crate::proxy) struct Inbox {
    /// For messages to be taken from.
    pub(in crate::proxy) bytes: BytesMut,
    read_size: usize,
    last_read: usize,
}

impl Inbox {
    /// One that begins with `bytes`.
    pub(in crate::proxy) fn new(bytes: BytesMut) -> Self {
        Self { bytes, read_size: READ, last_read: 0 }
    }

    /// What one large message needed is not kept for the next one.
    pub(in crate::proxy) fn settle(&mut self) {
        (self.read_size, self.last_read) = (READ, 0);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = BytesMut::new();
        }
    }

    /// Nothing is kept, if nothing is in it.
    pub(in crate::proxy) fn forget(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }

    /// Reads what comes next of a message; 0 = the end.
    pub(in crate::proxy) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        // A frame keeps all of the room that it was read into: what drips in shares one, or a reader
        // that is slow would be a way to hold a large room for each drop.
        let drips = self.last_read < self.read_size / 2;
        let least = if drips { READ } else { self.read_size };
        if self.bytes.capacity() - self.bytes.len() < least {
            self.bytes.reserve(self.read_size);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.bytes))?;
        self.last_read = read;
        if read == room {
            self.read_size = (self.read_size * 2).min(MAX_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads by way of the stack, so that to wait takes no room; 0 = the end.
    pub(in crate::proxy) fn poll_wait(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); WAIT];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        self.bytes.extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    }

    /// The size that the next read may have.
    #[cfg(test)]
    pub(in crate::proxy) fn read_size(&self) -> usize {
        self.read_size
    }
}
