//! Whatever comes in, whatever goes out: each request arrives whole, is replayed where that is
//! possible, and never where it is not.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, tls_address};
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon};

/// How HTTP is carried, on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Http1,
    Http2,
    TlsHttp1,
    TlsHttp2,
    Unix,
}

const ALL: [By; 5] = [By::Http1, By::Http2, By::TlsHttp1, By::TlsHttp2, By::Unix];

impl By {
    fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::TlsHttp2)
    }

    fn alpn(self) -> &'static str {
        if self.is_http2() { "h2" } else { "http/1.1" }
    }

    fn version(self) -> Version {
        if self.is_http2() { Version::HTTP_2 } else { Version::HTTP_11 }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What an upstream saw.
#[derive(Clone, Debug)]
struct Seen {
    version: Version,
    token: String,
    body: Bytes,
}

type Log = Arc<Mutex<HashMap<String, Vec<Seen>>>>;

/// An upstream, the lines of a route to it, and what it saw, by path.
struct Upstream {
    route: String,
    log: Log,
    /// Told when the caller has the head of an answer that is to break off.
    cut: Arc<Notify>,
}

impl Upstream {
    async fn start(by: By, stage: &Stage, authority: &Authority) -> Self {
        let (log, cut) = (Log::default(), Arc::new(Notify::new()));
        let saw = (Arc::clone(&log), Arc::clone(&cut));
        if by == By::Unix {
            let path = stage.home.path("upstream.sock");
            let listener = UnixListener::bind(&path).expect("a socket");
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    serve(Box::new(stream), by, saw.clone());
                }
            });
            return Self { route: format!("upstream = \"unix:{}\"", path.display()), log, cut };
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let tls = matches!(by, By::TlsHttp1 | By::TlsHttp2)
            .then(|| TlsAcceptor::from(authority.issue(&["localhost"]).server(None, &[by.alpn()])));
        let route = match by {
            By::Http1 => format!("upstream = \"http://localhost:{port}\""),
            By::Http2 => format!("upstream = \"http://localhost:{port}\"\nhttp2 = true"),
            _ => format!(
                "upstream = \"https://localhost:{port}\"\ntls = {{ ca_file = \"{}\" }}",
                stage.home.path("ca.pem").display()
            ),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, saw) = (tls.clone(), saw.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(Box::new(stream), by, saw);
                            }
                        }
                        None => serve(Box::new(stream), by, saw),
                    }
                });
            }
        });
        Self { route, log, cut }
    }

    fn seen(&self, path: &str) -> Vec<Seen> {
        self.log.lock().expect("not poisoned").get(path).cloned().unwrap_or_default()
    }
}

fn serve(io: Box<dyn Io>, by: By, saw: (Log, Arc<Notify>)) {
    let service = service_fn(move |request| judge(request, saw.clone()));
    let io = TokioIo::new(io);
    if by.is_http2() {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(async move { drop(builder.serve_connection(io, service).await) });
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        tokio::spawn(async move { drop(builder.serve_connection(io, service).await) });
    }
}

/// Refuses the first request for each path but those that end with `/cut`, whose answer breaks off.
async fn judge(
    request: Request<Incoming>,
    (log, cut): (Log, Arc<Notify>),
) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    let token = request.headers().get("authorization").expect("a token").to_str().expect("text");
    let (version, token) = (request.version(), token.to_owned());
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    let mut log = log.lock().expect("not poisoned");
    let seen = log.entry(path.clone()).or_default();
    seen.push(Seen { version, token, body: body.clone() });
    let refused = seen.len() == 1 && !path.ends_with("/cut");
    let ending = path.ends_with("/cut").then(|| Box::pin(cut.notified_owned()));
    let mut answer = Response::new(Answer { first: Some(body), ending });
    if refused {
        *answer.status_mut() = http::StatusCode::UNAUTHORIZED;
        answer.headers_mut().insert("www-authenticate", "Bearer".parse().expect("a value"));
        answer.body_mut().first = Some(Bytes::from_static(b"who?"));
    }
    Ok(answer)
}

/// Some bytes, and perhaps an error after them.
struct Answer {
    first: Option<Bytes>,
    ending: Option<Pin<Box<OwnedNotified>>>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(ending) = &mut self.ending else { return Poll::Ready(None) };
        ready!(ending.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
    }
}

/// A caller's connection.
enum Caller {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    async fn connect(by: By, daemon: &Daemon, stage: &Stage, authority: &Authority) -> Self {
        let io: Box<dyn Io> = match by {
            By::Http1 | By::Http2 => {
                Box::new(TcpStream::connect(daemon.proxy).await.expect("a connection"))
            }
            By::Unix => {
                let path = stage.home.path("bearerd.sock");
                Box::new(UnixStream::connect(path).await.expect("a connection"))
            }
            By::TlsHttp1 | By::TlsHttp2 => {
                let stream = TcpStream::connect(tls_address(daemon)).await.expect("a connection");
                let name = "localhost".try_into().expect("a name");
                let connector = authority.trusted_by_caller(&[by.alpn()]);
                Box::new(connector.connect(name, stream).await.expect("a handshake"))
            }
        };
        let io = TokioIo::new(io);
        if by.is_http2() {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .expect("HTTP/2");
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) =
                hyper::client::conn::http1::handshake(io).await.expect("HTTP/1");
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    /// Status and body; the error is that of a body cut short.
    async fn ask(
        &mut self,
        upstream: &Upstream,
        path: &str,
        body: &[u8],
        upgrade: bool,
    ) -> (u16, Result<Bytes, ()>) {
        let method = if upgrade { "GET" } else { "POST" };
        let mut request = Request::builder().method(method);
        request = match self {
            Self::Http1(_) => request.uri(path).header("host", "localhost"),
            Self::Http2(_) => request.uri(format!("http://localhost{path}")),
        };
        if upgrade {
            request = match self {
                Self::Http1(_) => {
                    request.header("connection", "upgrade").header("upgrade", "websocket")
                }
                Self::Http2(_) => request
                    .method("CONNECT")
                    .extension(hyper::ext::Protocol::from_static("websocket")),
            };
        }
        let request = request.body(Full::from(body.to_vec())).expect("a request");
        let answering = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await.expect("open");
                    sender.send_request(request).await
                }
                Self::Http2(sender) => sender.send_request(request).await,
            }
        };
        let answer = timeout(DEADLINE, answering).await.expect("in time").expect("an answer");
        let (head, body) = answer.into_parts();
        if path.ends_with("/cut") {
            upstream.cut.notify_one();
        }
        let body = timeout(DEADLINE, body.collect()).await.expect("in time");
        (head.status.as_u16(), body.map(http_body_util::Collected::to_bytes).map_err(drop))
    }
}

/// A credential and a route for each way in and each body, since a refresh causes no other within a
/// second.
fn config(stage: &Stage, upstream: &Upstream) -> String {
    let path = |name: &str| stage.home.path(name).display().to_string();
    let mut config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"tls:127.0.0.1:0\", \"unix:{}\"]\n\
         admin = \"127.0.0.1:0\"\ntls = {{ cert = \"{}\", key = \"{}\" }}\n",
        path("bearerd.sock"),
        path("tls.crt"),
        path("tls.key")
    );
    for by in ALL {
        for name in [format!("{by:?}-empty"), format!("{by:?}-body"), format!("{by:?}-never")] {
            let credential = stage.credential("").replace(".c]", &format!(".{name}]"));
            config += &format!("{credential}[[routes]]\npath_prefix = \"/{name}\"\n");
            config += &format!("credential = \"{name}\"\n{}\n", upstream.route);
        }
    }
    config
}

async fn every_way_in_to(out: By) {
    let (stage, authority) = (Stage::new(), Authority::new("ours"));
    stage.home.write("ca.pem", &authority.pem);
    let own = authority.issue(&["localhost"]);
    stage.home.write("tls.crt", &own.pem);
    stage.home.write("tls.key", &own.key_pem());
    let upstream = Upstream::start(out, &stage, &authority).await;
    let daemon = Daemon::start_with(&stage.home, &config(&stage, &upstream));
    daemon.ready().await;
    for by in ALL {
        let mut caller = Caller::connect(by, &daemon, &stage, &authority).await;
        let what = format!("{by:?} to {out:?}");
        // Replayed, with and without a body; the first answer is not seen.
        for (name, body) in [("empty", &b""[..]), ("body", &b"order".repeat(2000))] {
            let path = format!("/{by:?}-{name}");
            let answer = caller.ask(&upstream, &path, body, false).await;
            assert_eq!(answer, (200, Ok(Bytes::copy_from_slice(body))), "{what}");
            let seen = upstream.seen(&path);
            assert_eq!(seen.len(), 2, "{what}");
            assert!(seen.iter().all(|seen| seen.body == body), "{what}: {seen:?}");
            assert!(seen.iter().all(|seen| seen.version == out.version()), "{what}");
            assert_ne!(seen[0].token, seen[1].token, "{what}");
        }
        // Never: what was too large to keep, what may have become another protocol, and what has
        // been answered in part.
        let path = format!("/{by:?}-never/large");
        let answer = caller.ask(&upstream, &path, &vec![b'x'; 100_000], false).await;
        assert_eq!(answer, (401, Ok(Bytes::from_static(b"who?"))), "{what}");
        assert_eq!(upstream.seen(&path).len(), 1, "{what}");
        let path = format!("/{by:?}-never/upgrade");
        let answer = caller.ask(&upstream, &path, b"", true).await;
        if out == By::TlsHttp2 {
            // There is no upgrade in HTTP/2, and nothing else can be agreed on.
            assert_eq!((answer.0, upstream.seen(&path).len()), (502, 0), "{what}");
        } else {
            assert_eq!(answer, (401, Ok(Bytes::from_static(b"who?"))), "{what}");
            assert_eq!(upstream.seen(&path).len(), 1, "{what}");
        }
        let path = format!("/{by:?}-never/cut");
        let answer = caller.ask(&upstream, &path, b"order", false).await;
        assert_eq!(answer, (200, Err(())), "{what}");
        assert_eq!(upstream.seen(&path).len(), 1, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_to_http_1_1() {
    every_way_in_to(By::Http1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_to_http_2() {
    every_way_in_to(By::Http2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_to_http_1_1_by_tls() {
    every_way_in_to(By::TlsHttp1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_to_http_2_by_tls() {
    every_way_in_to(By::TlsHttp2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_to_a_unix_socket() {
    every_way_in_to(By::Unix).await;
}
