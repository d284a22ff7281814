//! One call to the API server, as a pod makes it: who it must be and who we are stands in the
//! directory of the service account, read anew for each call. Bounded in time and size, one connection,
//! no redirects.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout_at};
use zeroize::Zeroizing;

use super::watch::Watch;
use crate::clock::monotonic;
use crate::dial::{Address, DialError, Peer};
use crate::secret::{Fingerprint, SecretError, read_file};
use crate::tls::{self, TlsError, TlsSettings};

/// The largest answer that is read, in bytes: no object of a cluster is larger.
pub(super) const MAX_ANSWER_BYTES: usize = 3 << 20;
/// From the first byte to the last one read, connecting included.
const TOTAL: Duration = Duration::from_secs(5);
/// For connecting and the TLS handshake.
const CONNECT: Duration = Duration::from_millis(1500);
/// A `Retry-After` is honoured up to here: nobody may hold a new refresh token in memory for long.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What stands between us and the object.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// Not in a pod.
    #[error(
        "is only to be had in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
    )]
    NoCluster,
    /// No token.
    #[error("the service account's token is not there")]
    Token(#[from] SecretError),
    /// No usable authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address that is none.
    #[error("the host is no name that TLS could verify")]
    Name,
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No whole answer.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// Too much of an answer.
    #[error("the answer is cut short, or larger than 3 MiB")]
    Body,
    /// No answer.
    #[error("no answer in time")]
    Silent,
    /// Another answer than was asked for.
    #[error("the API server answered {0}")]
    Status(StatusCode),
    /// It asked for patience a moment ago.
    #[error("the API server asked us to wait")]
    Patience,
}

/// An answer, whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Api {
    server: Option<(String, u16)>,
    account: PathBuf,
    /// It asked not to be asked before.
    not_before: Option<Instant>,
}

/// A connection on which nothing was sent yet, and what is needed for one request.
struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    host: String,
    token: HeaderValue,
    token_digest: Fingerprint,
}

/// What moves the bytes of a connection, until it has ended.
pub(super) struct Driver(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

impl Driver {
    /// Moves them during `exchange`. It may be given up if that may.
    pub(super) async fn during<T>(&mut self, exchange: impl Future<Output = T>) -> T {
        let mut exchange = std::pin::pin!(exchange);
        if let Some(connection) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut exchange => return done,
                _ = connection => {}
            }
            self.0 = None;
        }
        // The connection has ended: what it delivered is still to be read.
        exchange.await
    }
}

impl Api {
    pub(super) fn new(server: Option<(String, u16)>, account: PathBuf) -> Self {
        Self { server, account, not_before: None }
    }

    /// Makes one call. The error says whether the request may have been carried out.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, (Trouble, bool)> {
        let started = monotonic();
        self.patience(started).await.map_err(|trouble| (trouble, false))?;
        let deadline = started + TOTAL;
        let body = body.map(Bytes::from_owner).unwrap_or_default();
        let mut link = self.connect().await.map_err(|trouble| (trouble, false))?;
        loop {
            let used = link.token_digest;
            let request = link.request(method.clone(), path, body.clone());
            let answer = timeout_at(deadline, link.exchange(request)).await;
            let (answer, retry_after) =
                answer.unwrap_or(Err(Trouble::Silent)).map_err(|trouble| (trouble, true))?;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                self.not_before = retry_after.map(|wait| monotonic() + wait.min(MAX_RETRY_AFTER));
            }
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            // The kubelet may have replaced the token between our look and the server's.
            match self.connect().await {
                Ok(anew) if anew.token_digest != used => link = anew,
                _ => return Ok(answer),
            }
        }
    }

    /// Asks for an answer without an end.
    pub(super) async fn watch(self, target: String) -> Result<Watch, Trouble> {
        let mut link = self.connect().await?;
        let request = link.request(Method::GET, &target, Bytes::new());
        let begun = timeout_at(monotonic() + TOTAL, link.send(request)).await;
        let answer = begun.unwrap_or(Err(Trouble::Silent))?;
        match answer.status() {
            StatusCode::OK => Ok(Watch::new(answer.into_body(), link.driver)),
            status => Err(Trouble::Status(status)),
        }
    }

    /// Waits if the API server asked for it and it is short.
    async fn patience(&mut self, now: Instant) -> Result<(), Trouble> {
        let Some(until) = self.not_before else { return Ok(()) };
        if until.saturating_duration_since(now) > Duration::from_secs(1) {
            return Err(Trouble::Patience);
        }
        sleep_until(until).await;
        self.not_before = None;
        Ok(())
    }

    async fn connect(&self) -> Result<Link, Trouble> {
        let (host, port) = self.server.clone().ok_or(Trouble::NoCluster)?;
        let token = read_file(&self.account.join("token"))?;
        let settings =
            TlsSettings { ca_file: Some(self.account.join("ca.crt")), ..TlsSettings::default() };
        let name = host.clone().try_into().map_err(|_| Trouble::Name)?;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let tls = Some((tls::client(&settings)?, name));
        let peer = Peer::new(Address::Tcp(host, port), tls);
        let stream = peer.connect(monotonic() + CONNECT).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(Trouble::Broken)?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut header = HeaderValue::from_str(&bearer).map_err(|_| Trouble::Name)?;
        header.set_sensitive(true);
        let (driver, token_digest) = (Driver(Some(Box::pin(connection))), token.fingerprint());
        Ok(Link { sender, driver, host: authority, token: header, token_digest })
    }
}

impl Link {
    fn request(&self, method: Method, target: &str, body: Bytes) -> Request<Full<Bytes>> {
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // Names that the configuration admits need no encoding.
        *request.uri_mut() = target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.token.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        if let Ok(host) = HeaderValue::from_str(&self.host) {
            headers.insert(HOST, host);
        }
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, Trouble> {
        let answer = self.driver.during(self.sender.send_request(request)).await;
        answer.map_err(Trouble::Broken)
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<Duration>), Trouble> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect();
        let body = self.driver.during(body).await.map_err(|_| Trouble::Body)?;
        let body = Zeroizing::new(body.to_bytes().to_vec());
        let seconds = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        Ok((Answer { status: head.status, body }, seconds.map(Duration::from_secs)))
    }
}
