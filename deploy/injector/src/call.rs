//! One request by HTTPS to a server of the cluster: the API server, or a webhook.

use std::path::PathBuf;
use std::time::Duration;

use bearerd::clock::monotonic;
use bearerd::dial::{Address, DialError, Peer};
use bearerd::tls::{self, TlsError, TlsSettings};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::timeout;

/// For the whole exchange, connecting included.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Server {
    /// A name or an address, without brackets; its certificate must say it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whose certificates are trusted, PEM.
    pub ca_file: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// Whom to trust cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The host is no name that TLS could verify.
    #[error("{0:?} is no name that TLS could verify")]
    Name(String),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke.
    #[error("the connection failed")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer came within 5 seconds")]
    Timeout,
    /// It refuses.
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// The answer broke off, or is above 64 KiB.
    #[error("the answer could not be read")]
    Body,
}

impl Server {
    /// The body of the answer to `request`, if that is 200.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        timeout(DEADLINE, self.exchange(request)).await.map_err(|_| CallError::Timeout)?
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        let ca_file = Some(self.ca_file.clone());
        let tls = tls::client(&TlsSettings { ca_file, ..TlsSettings::default() })?;
        let name = self.host.clone().try_into().map_err(|_| CallError::Name(self.host.clone()))?;
        let peer = Peer::new(Address::Tcp(self.host.clone(), self.port), Some((tls, name)));
        let stream = peer.connect(monotonic() + DEADLINE).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        if let Ok(host) = self.authority().parse() {
            request.headers_mut().insert(HOST, host);
        }
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|_| CallError::Body)?.to_bytes();
            Ok::<_, CallError>((head.status, body))
        };
        let mut exchange = std::pin::pin!(exchange);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut exchange => answer?,
            // The connection may end first: what it delivered is still to be read.
            _ = connection => exchange.await?,
        };
        if status == StatusCode::OK { Ok(body) } else { Err(CallError::Status(status)) }
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Host, without brackets, and port of `HOST:PORT`.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
}
