//! Opens one connection to a peer: TCP or a unix socket, with or without TLS.
//!
//! Used towards upstreams and token endpoints alike; who keeps the connection, and for how long,
//! is their business.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::Scheme;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom to connect to.
#[derive(Clone)]
pub struct Peer {
    /// Where it listens.
    pub address: Address,
    /// How it is verified; `None` = plaintext.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A name or IP address (IPv6 without brackets) and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why there is no connection. Nothing was sent to the application behind it.
#[derive(Debug, Error)]
pub enum DialError {
    /// Not reachable.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed, or the certificate is not acceptable.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// HTTP/2 was asked for, and the peer did not agree in the handshake.
    #[error("the peer does not speak HTTP/2 (ALPN)")]
    NoHttp2,
    /// The deadline passed.
    #[error("connecting took too long")]
    Timeout,
}

impl Peer {
    /// The same peer, offered `protocols` in the handshake (ALPN, RFC 7301), the preferred first.
    #[must_use]
    pub fn with_protocols(&self, protocols: &[&[u8]]) -> Self {
        let mut peer = self.clone();
        if let Some((config, _)) = &mut peer.tls {
            let mut offering = ClientConfig::clone(config);
            offering.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            *config = Arc::new(offering);
        }
        peer
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Connects, and shakes hands if there is TLS, before `deadline`.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect(&self, deadline: Instant) -> Result<Stream, DialError> {
        timeout_at(deadline, self.dial()).await.map_err(|_| DialError::Timeout)?
    }

    async fn dial(&self) -> Result<Stream, DialError> {
        let tcp = match &self.address {
            Address::Tcp(host, port) => {
                TcpStream::connect((host.as_str(), *port)).await.map_err(DialError::Connect)?
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(DialError::Connect)?;
                return Ok(Stream::Unix(stream));
            }
        };
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        let Some((config, name)) = &self.tls else {
            return Ok(Stream::Tcp(tcp));
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(name.clone(), tcp).await.map_err(DialError::Tls)?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

/// A connection to a peer.
pub enum Stream {
    /// Plaintext over TCP.
    Tcp(TcpStream),
    /// TLS over TCP; boxed, since its state is large.
    Tls(Box<TlsStream<TcpStream>>),
    /// Plaintext over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// True if it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
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
        forward!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
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
