//! Opens one connection to a peer: TCP or a unix socket, with or without TLS.
//!
//! Used towards upstreams and token endpoints alike; who keeps the connection, and for how long,
//! is their business.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::stream::Stream;
use crate::stream::loopback::unpaced;

mod names;

use names::Names;

/// How long an attempt stays alone (RFC 8305 §8 recommends this).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Whom to connect to.
#[derive(Clone)]
pub struct Peer {
    address: Address,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Shared by all who connect to it.
    names: Arc<Names>,
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
    /// Who listens at `address`, and is verified by `tls`; `None` = plaintext.
    #[must_use]
    pub fn new(address: Address, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>) -> Self {
        Self { address, tls, names: Arc::new(Names::new()) }
    }

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
                self.connect_tcp(host, *port).await.map_err(DialError::Connect)?
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
        Ok(Stream::tls(tls))
    }

    /// Connects to whichever of a name's addresses answers first; names are looked up each time.
    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return connect(SocketAddr::new(address, port)).await;
        }
        let resolver = async { Ok(lookup_host((host, port)).await?.collect()) };
        let found = self.names.look_up(resolver).await?;
        attempt(&alternating(&found), connect).await
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    unpaced(&socket, address.ip());
    socket.connect(address).await
}

/// RFC 8305 §4: families in turn, in the resolver's order, beginning with the family that it
/// prefers.
fn alternating(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let preferred = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.iter().copied().partition(|address| address.is_ipv6() == preferred);
    let turns = first.len().max(second.len());
    let each = (0..turns).flat_map(|turn| [first.get(turn), second.get(turn)]);
    each.flatten().copied().take(MAX_ADDRESSES).collect()
}

/// RFC 8305 §5: the next address is tried beside one that takes long, and at once after one that
/// failed.
fn attempt<'a, T, F>(
    addresses: &'a [SocketAddr],
    connect: fn(SocketAddr) -> F,
) -> Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>
where
    T: Send + 'a,
    F: Future<Output = io::Result<T>> + Send + 'a,
{
    Box::pin(async move {
        let Some((address, rest)) = addresses.split_first() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        };
        let mut this = pin!(connect(*address));
        if rest.is_empty() {
            return this.await;
        }
        let in_time = timeout(ATTEMPT_DELAY, &mut this).await;
        let mut others = attempt(rest, connect);
        match in_time {
            Ok(Ok(stream)) => return Ok(stream),
            // The preferred address's reason says more than the last one's.
            Ok(Err(error)) => return others.await.map_err(|_| error),
            Err(_) => {}
        }
        tokio::select! {
            stream = &mut this => match stream {
                Ok(stream) => Ok(stream),
                Err(error) => others.await.map_err(|_| error),
            },
            stream = &mut others => match stream {
                Ok(stream) => Ok(stream),
                Err(_) => this.await,
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_dialled_on_loopback_is_sent_to_without_pacing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(rustix::net::sockopt::tcp_congestion(&stream).unwrap(), "reno");
    }

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"];
        let turns = ["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"];
        assert_eq!(alternating(&addresses(&found)), addresses(&turns));
        let found = ["1.0.0.1:1", "1.0.0.2:1", "[::1]:1"];
        let turns = ["1.0.0.1:1", "[::1]:1", "1.0.0.2:1"];
        assert_eq!(alternating(&addresses(&found)), addresses(&turns));
        assert!(alternating(&[]).is_empty());
    }

    /// Port 1 accepts after a second, 2 refuses, 3 is silent, 4 refuses after a second.
    async fn scripted(address: SocketAddr) -> io::Result<u16> {
        let second = Duration::from_secs(1);
        match address.port() {
            1 => tokio::time::sleep(second).await,
            2 => return Err(io::ErrorKind::ConnectionRefused.into()),
            3 => std::future::pending().await,
            _ => {
                tokio::time::sleep(second).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(address.port())
    }

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods)] // a paused clock
    async fn an_address_that_does_not_answer_costs_a_quarter_of_a_second() {
        for (ports, milliseconds, connects) in [
            (&[1][..], 1000, true),
            (&[2, 1], 1000, true),
            (&[3, 1], 1250, true),
            (&[3, 3, 1], 1500, true),
            (&[3, 2, 1], 1250, true),
            (&[4, 1], 1250, true),
            (&[1, 2], 1000, true),
            (&[1, 4, 1], 1000, true),
            (&[2, 2], 0, false),
            (&[4, 2], 1000, false),
            (&[4, 4], 1250, false),
        ] {
            let begun = Instant::now();
            let addresses: Vec<_> =
                ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
            let connected = attempt(&addresses, scripted).await;
            assert_eq!(connected.is_ok(), connects, "{ports:?}");
            let took = begun.elapsed().as_millis();
            assert!((milliseconds..milliseconds + 5).contains(&took), "{ports:?}: {took} ms");
        }
        assert_eq!(attempt(&[], scripted).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
