//! A connection's bytes: TCP or a unix socket, with or without TLS, whichever side opened it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

pub mod loopback;

/// An open connection.
pub enum Stream {
    /// Plaintext over TCP.
    Tcp(TcpStream),
    /// TLS over TCP; boxed, since its state is large.
    Tls(Box<TlsStream<TcpStream>>),
    /// Plaintext over a unix socket.
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Stream {
    /// A connection on which hands have been shaken.
    pub fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self::Tls(Box::new(stream.into()))
    }

    /// True if it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// True if nothing has arrived on it, not even its end.
    pub fn is_quiet(&mut self) -> bool {
        let nothing = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        match self {
            // Without a waker, which would cost the registration of the next reader's.
            Self::Tcp(stream) => nothing(stream.try_read(&mut [0])),
            Self::Unix(stream) => nothing(stream.try_read(&mut [0])),
            // Something may arrive that is TLS's own affair, such as a ticket.
            Self::Tls(stream) => {
                let mut byte = [0];
                let mut cx = Context::from_waker(Waker::noop());
                let read =
                    Pin::new(stream.as_mut()).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
                read.is_pending()
            }
        }
    }

    /// What was agreed in the handshake (ALPN, RFC 7301).
    #[must_use]
    pub fn agreed_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// Writes without the C library, whose `send` is a point where a thread can be cancelled: to say so and to
/// take it back are two atomic operations for each call.
fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let send = || Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?);
        match stream.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

macro_rules! forward {
    ($stream:expr, $method:ident $(, $argument:expr)*) => {
        match $stream.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Self::Tcp(stream) = self.as_ref().get_ref() {
            return poll_send(stream, cx, bytes);
        }
        forward!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_write_that_finds_no_room_goes_on_when_there_is_some() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender =
            Stream::from(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut reader, _) = listener.accept().await.unwrap();
        let (piece, mut length) = (vec![7; 1 << 20], 0);
        poll_fn(|cx| {
            while let Poll::Ready(sent) = Pin::new(&mut sender).poll_write(cx, &piece) {
                length += sent.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        let mut received = Vec::new();
        let write = async {
            sender.write_all(b"end").await.unwrap();
            sender.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(write, reader.read_to_end(&mut received));
        assert_eq!((read.unwrap(), received.ends_with(b"\x07end")), (length + 3, true));
    }
}
