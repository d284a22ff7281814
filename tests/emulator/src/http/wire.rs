//! One connection's bytes: a stream, plain or TLS, and what was read ahead of it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::server::reset_on_close;

/// A stream that can be told to end in a reset.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {
    fn reset_on_close(&self);
}

impl Io for TcpStream {
    fn reset_on_close(&self) {
        reset_on_close(self);
    }
}

impl Io for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        reset_on_close(self.get_ref().0);
    }
}

pub(super) struct Wire {
    io: Box<dyn Io>,
    ahead: Vec<u8>,
}

impl Wire {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self { io, ahead: Vec::with_capacity(4096) }
    }

    /// What was read and not taken yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes the first `length` bytes of what was read ahead.
    pub(super) fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Drops the first `length` bytes of what was read ahead.
    pub(super) fn skip(&mut self, length: usize) {
        self.ahead.drain(..length);
    }

    /// Reads more; 0 is the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.ahead.reserve(16 * 1024);
        self.io.read_buf(&mut self.ahead).await
    }

    /// Reads more; the end of the stream is an error here.
    pub(super) async fn fill_some(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Says that nothing more will be sent.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Reads and drops until the client closes.
    pub(super) async fn drain(&mut self) {
        loop {
            self.ahead.clear();
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
    }

    pub(super) fn reset_on_close(&self) {
        self.io.reset_on_close();
    }
}
