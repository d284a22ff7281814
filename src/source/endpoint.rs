//! One request to an identity provider: bounded in time and size, one connection, no redirects, no
//! cookies, no cache.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::exchange::TokenRequest;
use super::{Bounds, Class, FetchError, Reason};
use crate::clock::Moment;
use crate::dial::{Address, DialError, Peer};
use crate::secret::{Fingerprint, read_bytes};
use crate::tls::{self, TlsError, TlsSettings};

/// To read an answer that came while nobody looked.
const LATE: Duration = Duration::from_millis(200);
/// For connecting and the TLS handshake.
const CONNECT: Duration = Duration::from_secs(5);

/// A way to reach identity providers under one set of TLS settings.
pub struct Endpoint {
    settings: TlsSettings,
    bounds: Bounds,
}

/// Why a URL cannot be spoken to.
#[derive(Debug, Error)]
enum PeerError {
    #[error("the URL is not http:// or https:// with a host")]
    Url,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the host is no name that TLS could verify")]
    Name,
}

impl Endpoint {
    /// An endpoint whose peers are verified as `settings` say; their files are read at each use. No
    /// answer is larger or slower than `bounds` allow.
    #[must_use]
    pub fn new(settings: TlsSettings, bounds: Bounds) -> Self {
        Self { settings, bounds }
    }

    /// The files that say who the peer may be and who we are.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.settings.files()
    }

    /// A digest of the certificate that we show, as it is now.
    #[must_use]
    pub fn certificate(&self) -> Option<Fingerprint> {
        let (certificate, _) = self.settings.identity.as_ref()?;
        read_bytes(certificate).ok().map(|content| Fingerprint::of(&content))
    }

    /// Sends `request`, unless it is later than `until`, and reads the whole answer.
    ///
    /// # Errors
    /// Transient, and `ambiguous` from the moment that the request may have reached the server.
    pub async fn send(
        &self,
        request: TokenRequest,
        until: Option<Moment>,
    ) -> Result<Answer, FetchError> {
        let now = Moment::now();
        let total = self.bounds.answer_time;
        let left = until.map_or(total, |until| until.remaining(now).min(total));
        let (started, deadline) = (now.mono, now.mono + left);
        let peer = self
            .peer(&request.uri)
            .map_err(|error| FetchError::new(Class::Transient, Reason::Tls).caused_by(error))?;
        let stream = peer.connect(deadline.min(started + CONNECT)).await.map_err(not_connected)?;
        let failed = |error: hyper::Error| lost(Reason::Network).caused_by(error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // As when this process was stopped meanwhile.
        if until.is_some_and(|until| until.reached(Moment::now())) {
            return Err(FetchError::new(Class::Transient, Reason::Timeout));
        }
        let exchange = async {
            let answer = sender.send_request(into_hyper(request)).await.map_err(failed)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, self.bounds.answer_bytes).collect().await;
            let body = body.map_err(|error| cut_short(error.as_ref()))?;
            let body = Zeroizing::new(body.to_bytes().to_vec());
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        drive(exchange, connection, deadline).await
    }

    fn peer(&self, uri: &Uri) -> Result<Peer, PeerError> {
        let host = uri.host().ok_or(PeerError::Url)?.trim_matches(['[', ']']).to_owned();
        let (secure, default_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(PeerError::Url),
        };
        let tls = if secure {
            let name = self.settings.server_name.clone().unwrap_or_else(|| host.clone());
            let name = name.try_into().map_err(|_| PeerError::Name)?;
            Some((tls::client(&self.settings)?, name))
        } else {
            None
        };
        Ok(Peer::new(Address::Tcp(host, uri.port_u16().unwrap_or(default_port)), tls))
    }
}

/// Polls the exchange and its connection together, until the answer is there or time is up.
async fn drive<C>(
    exchange: impl Future<Output = Result<Answer, FetchError>>,
    connection: C,
    deadline: Instant,
) -> Result<Answer, FetchError>
where
    C: Future<Output = hyper::Result<()>>,
{
    let both = async {
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The connection may end first: what it delivered is still to be read.
            _ = connection => exchange.await,
        }
    };
    let mut both = std::pin::pin!(both);
    if let Ok(answer) = timeout_at(deadline, &mut both).await {
        return answer;
    }
    // A process that was stopped finds its deadline passed and the answer here.
    let late = Moment::now().plus(LATE);
    timeout_at(late.mono, both).await.unwrap_or_else(|_| Err(lost(Reason::Timeout)))
}

fn into_hyper(request: TokenRequest) -> Request<Full<Bytes>> {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let body = Full::new(Bytes::from_owner(request.body));
    let mut hyper_request = Request::new(body);
    *hyper_request.method_mut() = request.method;
    // A path that parsed as part of a URL parses as a target.
    *hyper_request.uri_mut() = target.parse().unwrap_or_default();
    *hyper_request.headers_mut() = request.headers;
    hyper_request
}

fn not_connected(error: DialError) -> FetchError {
    let reason = match error {
        DialError::Connect(_) => Reason::Network,
        DialError::Tls(_) | DialError::NoHttp2 => Reason::Tls,
        DialError::Timeout => Reason::Timeout,
    };
    FetchError::new(Class::Transient, reason).caused_by(error)
}

/// The request may have arrived and have had its effect; its answer did not come whole.
fn lost(reason: Reason) -> FetchError {
    let mut error = FetchError::new(Class::Transient, reason);
    error.ambiguous = true;
    error
}

fn cut_short(error: &(dyn std::error::Error + Send + Sync + 'static)) -> FetchError {
    if error.is::<http_body_util::LengthLimitError>() {
        let mut error = lost(Reason::Unusable);
        error.hint = Some("the answer is larger than limits.answer_bytes".to_owned());
        return error;
    }
    lost(Reason::Network)
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// The copies of them that are ours: what hyper and TLS have is theirs.
    #[test]
    fn requests_and_answers_are_wiped_when_dropped() {
        fn wiped<A, T: ZeroizeOnDrop>(_: impl Fn(&A) -> &T) {}
        wiped(|request: &TokenRequest| &request.body);
        wiped(|answer: &Answer| &answer.body);
    }
}
