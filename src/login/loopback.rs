//! Where the browser comes back: a port on loopback that only this login knows, for as long as it
//! takes (RFC 8252 §7.3, §8.3).
//!
//! Any page on the machine can send something here. What does not carry this login's `state` is turned
//! away and changes nothing; the first that does is the answer, and no other.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::LoginError;
use super::page::{Ending, page};
use crate::config::Redirect;
use crate::secret::Secret;

/// Connections at the same time; a browser opens a few.
const MAX_CONNECTIONS: usize = 32;
/// For receiving a request head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long the last page may take to reach the browser.
const FAREWELL: Duration = Duration::from_secs(2);
/// A page that runs nothing and shows nothing but itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What this login's answer looks like.
pub(super) struct Expected {
    /// Comes back as it was sent (RFC 6749 §10.12).
    pub(super) state: Secret,
    /// Who may answer (RFC 9207), if that is known.
    pub(super) issuer: Option<String>,
    /// The answer has to say who gives it.
    pub(super) promised: bool,
}

/// The answer, and how the browser is told what came of it.
pub(super) struct Arrival {
    /// The code, or why there is none.
    pub(super) answer: Result<Secret, LoginError>,
    /// Takes what the page is to say.
    pub(super) page: oneshot::Sender<Ending>,
}

/// A port that waits for the browser.
pub(super) struct Loopback {
    listeners: Vec<TcpListener>,
    redirect_uri: String,
    desk: Arc<Desk>,
    connections: JoinSet<()>,
}

struct Desk {
    expected: Expected,
    path: String,
    /// What `Host` may be: a page of another name that leads here is none of ours.
    host: String,
    credential: String,
    /// Taken by the first answer.
    arrival: Mutex<Option<oneshot::Sender<Arrival>>>,
}

impl Loopback {
    /// Listens as `redirect` says, without a port on one that the system chooses; the answer comes
    /// over the second, while somebody serves.
    pub(super) fn listen(
        redirect: &Redirect,
        expected: Expected,
        credential: &str,
    ) -> Result<(Self, oneshot::Receiver<Arrival>), LoginError> {
        let (listeners, host) = bind(redirect).map_err(|error| {
            let port = redirect.port.map_or_else(String::new, |port| format!(":{port}"));
            LoginError::Listen(format!("{}{port}", redirect.host()), error)
        })?;
        let redirect_uri = format!("http://{host}{}", redirect.path);
        let path = if redirect.path.is_empty() { "/" } else { &redirect.path }.to_owned();
        let (sender, arrival) = oneshot::channel();
        let arrival_of = Mutex::new(Some(sender));
        let credential = credential.to_owned();
        let desk = Desk { expected, path, host, credential, arrival: arrival_of };
        let (desk, connections) = (Arc::new(desk), JoinSet::new());
        Ok((Self { listeners, redirect_uri, desk, connections }, arrival))
    }

    /// The `redirect_uri` of this login.
    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// The `state` of this login.
    pub(super) fn state(&self) -> &str {
        self.desk.expected.state.expose()
    }

    /// Serves until `other` is done.
    pub(super) async fn serve_while<F: Future>(&mut self, other: F) -> F::Output {
        let mut other = pin!(other);
        loop {
            let full = self.connections.len() >= MAX_CONNECTIONS;
            let stream = tokio::select! {
                biased;
                done = &mut other => return done,
                Some(_) = self.connections.join_next() => continue,
                stream = accept(&self.listeners), if !full => stream,
            };
            // An error is a browser that has gone away again.
            if let Ok(stream) = stream {
                self.connections.spawn(serve(stream, Arc::clone(&self.desk)));
            }
        }
    }

    /// Stops listening, and lets the page reach the browser.
    pub(super) async fn close(mut self) {
        self.listeners.clear();
        // Connections that a browser opened for later never end by themselves.
        let told = async {
            while Arc::strong_count(&self.desk) > 1 && self.connections.join_next().await.is_some()
            {
            }
        };
        let _ = timeout(FAREWELL, told).await;
    }
}

/// One port on 127.0.0.1, where that does not exist on `[::1]`; for the name `localhost` on both, since
/// nobody knows which of them a browser tries.
fn bind(redirect: &Redirect) -> io::Result<(Vec<TcpListener>, String)> {
    let port = redirect.port.unwrap_or(0);
    let v4 = |port| listener(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let v6 = |port| listener(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let first = match redirect.host.as_deref() {
        Some("[::1]") => v6(port)?,
        Some("127.0.0.1") => v4(port)?,
        _ => v4(port).or_else(|_| v6(port))?,
    };
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    let host = match redirect.host.as_deref() {
        Some("localhost") => {
            // Without IPv6 there is nothing to try there either.
            listeners.extend(v6(address.port()).ok().filter(|_| address.is_ipv4()));
            format!("localhost:{}", address.port())
        }
        _ => address.to_string(),
    };
    Ok((listeners, host))
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    let accepted = match listeners {
        [one, other] => tokio::select! {
            accepted = one.accept() => accepted,
            accepted = other.accept() => accepted,
        },
        [one, ..] => one.accept().await,
        [] => std::future::pending().await,
    };
    accepted.map(|(stream, _)| stream)
}

async fn serve(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(|request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
        let ours = request.method() == Method::GET
            && host.is_some_and(|host| is(host, &self.host))
            && request.uri().path() == self.path;
        if !ours {
            return response(StatusCode::NOT_FOUND, "text/plain", "no such page\n".to_owned());
        }
        let ending = self.judge(request.uri().query().unwrap_or_default()).await;
        let status = StatusCode::from_u16(ending.status()).unwrap_or(StatusCode::BAD_REQUEST);
        response(status, "text/html; charset=utf-8", page(ending, &self.credential))
    }

    /// Takes the answer of this login, and waits for what comes of it.
    async fn judge(&self, query: &str) -> Ending {
        let Some(answer) = self.expected.read(query) else {
            return Ending::Unknown;
        };
        let first = self.arrival.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(first) = first else {
            return Ending::Over;
        };
        let (page, told) = oneshot::channel();
        // Nobody waits any more: the person took too long.
        if first.send(Arrival { answer, page }).is_err() {
            return Ending::Over;
        }
        told.await.unwrap_or(Ending::Failed)
    }
}

/// Whether `host` names `place`; browsers leave out the scheme's usual port (RFC 9110 §4.2.3).
fn is(host: &[u8], place: &str) -> bool {
    host == place.as_bytes()
        || place.strip_suffix(":80").is_some_and(|name| host == name.as_bytes())
}

impl Expected {
    /// The answer of this login; `None` for anything else.
    fn read(&self, query: &str) -> Option<Result<Secret, LoginError>> {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let all = |wanted: &str| -> Vec<&str> {
            let named = pairs.iter().filter(|(name, _)| name == wanted);
            named.map(|(_, value)| value.as_ref()).collect()
        };
        // RFC 6749 §3.1: no parameter more than once.
        let one = |wanted: &str| match all(wanted).as_slice() {
            [] => Some(None),
            [one] => Some(Some(*one)),
            _ => None,
        };
        let state = one("state")??;
        verify_slices_are_equal(state.as_bytes(), self.state.expose().as_bytes()).ok()?;
        let (code, error, iss) = (one("code")?, one("error")?, one("iss")?);
        // RFC 9207 §2.4: by simple string comparison; errors carry it too.
        let mixed_up = match (iss, &self.issuer) {
            (Some(iss), Some(issuer)) => iss != issuer,
            (None, _) => self.promised,
            (Some(_), None) => false,
        };
        if mixed_up {
            return Some(Err(LoginError::MixedUp));
        }
        match (code, error) {
            (_, Some(error)) => Some(Err(LoginError::Refused(word(error)))),
            (Some(code), None) if !code.is_empty() => Some(Ok(Secret::new(code.to_owned()))),
            _ => None,
        }
    }
}

/// RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6: text from outside is not shown.
fn word(error: &str) -> &'static str {
    const WORDS: [&str; 12] = [
        "access_denied",
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "login_required",
        "consent_required",
        "interaction_required",
        "account_selection_required",
        "invalid_target",
    ];
    WORDS.into_iter().find(|word| *word == error).unwrap_or("with a word that is not known here")
}

fn response(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    const POLICY_NAME: HeaderName = http::header::CONTENT_SECURITY_POLICY;
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-store"),
        (POLICY_NAME, POLICY),
        // The address of this page has a code in it.
        (REFERRER_POLICY, "no-referrer"),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(issuer: Option<&str>, promised: bool) -> Expected {
        let state = Secret::new("the-state".to_owned());
        Expected { state, issuer: issuer.map(str::to_owned), promised }
    }

    fn read(expected: &Expected, query: &str) -> String {
        match expected.read(query) {
            None => "turned away".to_owned(),
            Some(Ok(code)) => format!("code {}", code.expose()),
            Some(Err(LoginError::MixedUp)) => "mixed up".to_owned(),
            Some(Err(error)) => error.to_string(),
        }
    }

    #[test]
    fn only_this_logins_answer_is_taken() {
        let any = expected(None, false);
        for (query, outcome) in [
            ("code=c%2B1&state=the-state", "code c+1"),
            ("state=the-state&code=c&session_state=x", "code c"),
            ("code=c&state=the-state&iss=https%3A%2F%2Fi", "code c"),
            ("error=access_denied&state=the-state", "the sign-in was refused: access_denied"),
            (
                "code=c&error=invalid_scope&state=the-state",
                "the sign-in was refused: invalid_scope",
            ),
            (
                "error=%1b[31m&state=the-state",
                "the sign-in was refused: with a word that is not known here",
            ),
            ("code=c&state=another", "turned away"),
            ("code=c&state=the-stat", "turned away"),
            ("code=c", "turned away"),
            ("code=c&state=the-state&state=the-state", "turned away"),
            ("code=c&code=d&state=the-state", "turned away"),
            ("error=access_denied", "turned away"),
            ("code=&state=the-state", "turned away"),
            ("state=the-state", "turned away"),
            ("", "turned away"),
        ] {
            assert_eq!(read(&any, query), outcome, "{query}");
        }
    }

    #[test]
    fn the_answer_must_come_from_who_was_asked() {
        let (known, promised) =
            (expected(Some("https://i"), false), expected(Some("https://i"), true));
        let (ours, anothers, silent) = (
            "code=c&state=the-state&iss=https%3A%2F%2Fi",
            "code=c&state=the-state&iss=https%3A%2F%2Fevil",
            "code=c&state=the-state",
        );
        assert_eq!((read(&known, ours), read(&promised, ours)), ("code c".into(), "code c".into()));
        for expected in [&known, &promised] {
            assert_eq!(read(expected, anothers), "mixed up");
            assert_eq!(read(expected, "code=c&state=the-state&iss=https://i/"), "mixed up");
        }
        assert_eq!(read(&known, silent), "code c");
        assert_eq!(read(&promised, silent), "mixed up");
        let error = "error=access_denied&state=the-state&iss=https://evil";
        assert_eq!(read(&known, error), "mixed up");
    }

    #[test]
    fn the_usual_port_may_be_left_out_of_host_and_no_other() {
        for (host, place, same) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1", "127.0.0.1:80", true),
            ("[::1]", "[::1]:80", true),
            ("localhost", "localhost:80", true),
            ("127.0.0.1", "127.0.0.1:8080", false),
            ("127.0.0.1:8", "127.0.0.1:80", false),
            ("evil.example", "localhost:80", false),
            ("", "localhost:80", false),
        ] {
            assert_eq!(is(host.as_bytes(), place), same, "{host} at {place}");
        }
    }

    #[tokio::test]
    async fn each_login_listens_on_loopback_on_a_port_of_its_own() {
        let redirect = |host: Option<&str>, port| Redirect {
            host: host.map(str::to_owned),
            port,
            path: "/callback".to_owned(),
        };
        let listen =
            |redirect: &Redirect| Loopback::listen(redirect, expected(None, false), "orders");
        let (one, other) = (listen(&redirect(None, None)), listen(&redirect(None, None)));
        let (one, other) = (one.ok().unwrap().0, other.ok().unwrap().0);
        assert_ne!(one.redirect_uri(), other.redirect_uri());
        let address = one.listeners[0].local_addr().unwrap();
        assert!(address.ip().is_loopback());
        assert_eq!(one.redirect_uri(), format!("http://{address}/callback"));
        // A port that is taken is told, not shared.
        let error = listen(&redirect(Some("127.0.0.1"), Some(address.port()))).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {address} for the browser to come back")
        );
        let named = listen(&redirect(Some("localhost"), None)).ok().unwrap().0;
        let port = named.listeners[0].local_addr().unwrap().port();
        assert_eq!(named.redirect_uri(), format!("http://localhost:{port}/callback"));
        drop(one);
        // Closed with its login: another one may listen there.
        assert!(listen(&redirect(Some("127.0.0.1"), Some(address.port()))).is_ok());
    }
}
