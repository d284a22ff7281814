//! Whether the cluster knows native sidecars: from 1.29 on they are there without a feature gate.
//! The version is told at the start, or asked of the API server (`/version`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bearerd::clock::monotonic;
use bearerd::dial::{Address, DialError, Peer};
use bearerd::tls::{self, TlsError, TlsSettings};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;

use crate::settings::Mode;

/// For the whole question, connecting included.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// A version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Native sidecars are there.
    #[must_use]
    pub fn has_native_sidecars(self) -> bool {
        self >= Self { major: 1, minor: 29 }
    }

    /// The form for whom does not say.
    #[must_use]
    pub fn preferred_mode(self) -> Mode {
        if self.has_native_sidecars() { Mode::Native } else { Mode::Ordinary }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// It is not like `1.31` or `v1.31.2-vendor.1`.
#[derive(Debug, Error)]
#[error("{0:?} is not a version of Kubernetes; write it like 1.31")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(number);
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

/// The number that a part begins with: some vendors say `29+`.
fn number(part: &str) -> Option<u32> {
    let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    part[..end].parse().ok()
}

/// The API server, as a pod reaches it.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// A directory with `ca.crt` and, where the server wants to know who asks, `token`.
    pub credentials: PathBuf,
}

/// Why the version is not known.
#[derive(Debug, Error)]
pub enum AskError {
    /// The certificate of the cluster cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The host is no name that TLS could verify.
    #[error("the API server's host is no name that TLS could verify")]
    Name,
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke.
    #[error("the API server's connection failed")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("the API server did not answer in time")]
    Timeout,
    /// It refuses to say.
    #[error("the API server answered {0}")]
    Status(StatusCode),
    /// It says something else.
    #[error("the API server's answer is no version")]
    Answer,
}

#[derive(Deserialize)]
struct Info {
    major: String,
    minor: String,
}

impl ApiServer {
    /// Asks for the version.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn version(&self) -> Result<Version, AskError> {
        timeout(DEADLINE, self.ask()).await.map_err(|_| AskError::Timeout)?
    }

    async fn ask(&self) -> Result<Version, AskError> {
        let ca_file = Some(self.credentials.join("ca.crt"));
        let tls = tls::client(&TlsSettings { ca_file, ..TlsSettings::default() })?;
        let name = self.host.clone().try_into().map_err(|_| AskError::Name)?;
        let address = Address::Tcp(self.host.clone(), self.port);
        let peer = Peer::new(address, Some((tls, name)));
        let stream = peer.connect(monotonic() + DEADLINE).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = self.request();
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|_| AskError::Answer)?.to_bytes();
            Ok::<_, AskError>((head.status, body))
        };
        let mut exchange = std::pin::pin!(exchange);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut exchange => answer?,
            // The connection may end first: what it delivered is still to be read.
            _ = connection => exchange.await?,
        };
        if status != StatusCode::OK {
            return Err(AskError::Status(status));
        }
        let info: Info = serde_json::from_slice(&body).map_err(|_| AskError::Answer)?;
        format!("{}.{}", info.major, info.minor).parse().map_err(|_| AskError::Answer)
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = http::Uri::from_static("/version");
        let headers = request.headers_mut();
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if let Ok(host) = format!("{host}:{}", self.port).parse() {
            headers.insert(HOST, host);
        }
        if let Some(token) = bearer(&self.credentials.join("token")) {
            headers.insert(AUTHORIZATION, token);
        }
        request
    }
}

/// A cluster may answer nobody whom it does not know. Read each time: the kubelet renews it.
fn bearer(path: &Path) -> Option<http::HeaderValue> {
    let token = std::fs::read_to_string(path).ok()?;
    let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_vendors_spelling() {
        for (text, native) in [
            ("1.28", false),
            ("1.28.99", false),
            ("v1.29.0", true),
            ("1.29+", true),
            ("v1.31.5-gke.1014001", true),
            ("v1.30.4+k3s1", true),
            ("1.37", true),
            ("2.0", true),
        ] {
            let version: Version = text.parse().unwrap();
            assert_eq!(version.has_native_sidecars(), native, "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1", "v1", "one.two", "1.x", ".29", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
