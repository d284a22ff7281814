//! HTTP/2 from callers and to upstreams, any to any with HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use emulator::Step;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::by_hand::REFUSED;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon};

pub type Sender = SendRequest<Full<Bytes>>;

pub async fn speak<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: I) -> Sender {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn caller(to: SocketAddr) -> Sender {
    speak(TcpStream::connect(to).await.expect("a connection")).await
}

pub async fn ask(sender: &mut Sender, path: &str, body: &[u8]) -> (http::response::Parts, Bytes) {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .body(Full::from(body.to_vec()))
        .expect("a request");
    let answer = timeout(DEADLINE, sender.send_request(request)).await.expect("in time");
    let (head, body) = answer.expect("an answer").into_parts();
    (head, body.collect().await.expect("a body").to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_speak_http2_with_prior_knowledge_and_are_replayed() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = caller(daemon.proxy).await;
    assert_eq!(ask(&mut caller, "/a", b"").await.0.status, 200);
    stage.api.script([Step::Status(401).header("WWW-Authenticate", "Bearer")]);
    let (head, _) = ask(&mut caller, "/b", &vec![b'x'; 60 << 10]).await;
    assert_eq!((head.status.as_u16(), head.version), (200, Version::HTTP_2));
    let last = stage.api.last_request().expect("a request");
    assert_eq!((last.path(), last.body.len()), ("/b", 60 << 10));
    assert!(daemon.metric("bearerd_replays_total", &["succeeded"]).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_reach_http2_callers_and_authority_is_judged() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = caller(daemon.proxy).await;
    let request = Request::builder().uri("http://evil.example/").body(Full::default());
    let answer = caller.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 421);
    assert_eq!(answer.headers()["bearerd-reason"], "host_not_allowed");
    assert_eq!(stage.api.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_in_http2_as_well() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = caller(daemon.proxy).await;
    let many = (0..101).fold(Request::builder(), |head, n| head.header(format!("x-{n}"), "1"));
    let long = format!("http://localhost/{}", "x".repeat(17 << 10));
    for (head, status) in [
        (many.uri("http://localhost/"), 431),
        (Request::builder().uri(long), 414),
        (Request::builder().uri("http://localhost/").header("x", "y".repeat(60 << 10)), 200),
    ] {
        let request = head.body(Full::default()).expect("a request");
        let answer = caller.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status);
    }
    assert_eq!(stage.api.request_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_in_crumbs_is_whole_for_http_1_1() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = caller(daemon.proxy).await;
    let request = Request::builder().uri("http://localhost/").header("cookie", "a=1");
    let request = request.header("cookie", "b=2").body(Full::default()).expect("a request");
    assert_eq!(caller.send_request(request).await.expect("an answer").status(), 200);
    let last = stage.api.last_request().expect("a request");
    assert_eq!(last.headers("cookie"), [b"a=1; b=2"]);
}

/// An upstream that speaks HTTP/2 only, refuses what has no token, and tells what it was sent.
pub async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let refused_once = Arc::new(std::sync::atomic::AtomicBool::new(false));
        while let Ok((stream, _)) = listener.accept().await {
            let refused_once = Arc::clone(&refused_once);
            let service = service_fn(move |request: Request<Incoming>| {
                let refused_once = Arc::clone(&refused_once);
                async move {
                    let path = request.uri().path();
                    let once = matches!(path, "/once" | "/words")
                        && !refused_once.swap(true, std::sync::atomic::Ordering::AcqRel);
                    let refusal = if path == "/words" { 403 } else { 401 };
                    let bare = !request.headers().contains_key("authorization");
                    let told = format!("{:?} {}", request.version(), request.uri());
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let status = if once || bare { refusal } else { 200 };
                    let answer = Response::builder()
                        .status(status)
                        .body(Full::<Bytes>::from(format!("{told} {}", body.len())));
                    Ok::<_, Infallible>(answer.expect("an answer"))
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_spoken_to_in_http2_where_the_route_says_so() {
    let stage = Stage::new();
    let address = upstream().await;
    let route = route_to(&format!("http://{address}"), "http2 = true");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let answer = daemon.get("/x?y=1").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text(), format!("HTTP/2.0 http://{address}/x?y=1 0"));
    // A replay, with its body.
    let answer = daemon.post("/once", &[b'x'; 10_000]).await;
    assert_eq!((answer.status, answer.text().ends_with(" 10000")), (200, true));
    // HTTP/2 on both sides, many at once on one connection.
    let caller = caller(daemon.proxy).await;
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..500 {
        let mut caller = caller.clone();
        asked.spawn(async move { ask(&mut caller, &format!("/{n}"), b"body").await });
    }
    while let Some(answer) = asked.join_next().await {
        let (head, body) = answer.expect("no panic");
        assert_eq!((head.status.as_u16(), body.ends_with(b" 4")), (200, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_words_that_tell_of_an_expired_token_are_read_over_http2_too() {
    for (words, status) in [("/words 7", 200), ("/words 8", 403)] {
        let stage = Stage::new();
        let address = upstream().await;
        let signs = format!(
            "http2 = true\nreplay = {{ expired = [{{ status = 403, has = \"{words}\" }}] }}"
        );
        let route = route_to(&format!("http://{address}"), &signs);
        let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
        daemon.ready().await;
        let answer = daemon.post("/words", &[b'x'; 7]).await;
        let told = format!("HTTP/2.0 http://{address}/words 7");
        assert_eq!((answer.status, answer.text()), (status, told), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_http2_is_told_so_by_a_502() {
    let stage = Stage::new();
    let upstream = crate::by_hand::ByHand::listen().await;
    let answering = async {
        let mut peer = upstream.accept().await;
        peer.until("SM\r\n\r\n").await;
        peer.send(REFUSED).await;
        peer
    };
    let route = route_to(&format!("http://{}", upstream.address), "http2 = true");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let (answer, _peer) = tokio::join!(daemon.get("/"), answering);
    assert_eq!((answer.status, answer.header("bearerd-reason")), (502, Some("upstream_protocol")));
}
