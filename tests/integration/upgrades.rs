//! Upgraded connections, interim responses, and what is said to callers before an answer.

use emulator::client::Client;
use tokio::io::AsyncReadExt;

use crate::by_hand::{ByHand, Peer, REFUSED};
use crate::stage::Stage;
use crate::support::{Daemon, eventually};

const ASKED: &str = "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\nfirst";

/// A request that has come as far as the upstream.
struct Asked {
    upstream: ByHand,
    daemon: Daemon,
    caller: Client,
    peer: Peer,
    /// As the upstream got it, in lowercase.
    head: String,
    /// Ends with it.
    _stage: Stage,
}

/// Sends `request` by a route with more lines.
async fn asked(route: &str, request: &str) -> Asked {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, route).await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(request.as_bytes()).await.expect("sent");
    let mut peer = upstream.accept().await;
    let head = peer.head().await.to_ascii_lowercase();
    Asked { upstream, daemon, caller, peer, head, _stage: stage }
}

/// The same, and the upstream has switched.
async fn switched(route: &str) -> Asked {
    let mut asked = asked(route, ASKED).await;
    asked.peer.send(SWITCHED).await;
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_passes_bytes_both_ways_and_the_token_only_in_its_handshake() {
    let Asked { daemon, mut caller, mut peer, head, upstream: _upstream, _stage } =
        switched("").await;
    assert!(head.contains("\r\nauthorization: bearer "), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    let answer = caller.until("\r\n\r\n").await.expect("a head").to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("upgrade: websocket"), "{answer}");
    assert_eq!(caller.until("first").await.expect("said with the 101"), "first");
    for round in 0..3 {
        caller.send(format!("up {round};").as_bytes()).await.expect("sent");
        assert_eq!(peer.until(";").await, format!("up {round};"));
        peer.send(format!("down {round};").as_bytes()).await;
        let came = caller.until(";").await.expect("came");
        assert_eq!(came, format!("down {round};"));
    }
    drop(peer);
    assert!(caller.rest().await.expect("the end").is_empty());
    drop(caller);
    eventually("the tunnel is counted as over", async || {
        daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_of_which_one_end_has_closed_still_passes_what_the_other_says() {
    let Asked { caller, peer, .. } = &mut switched("").await;
    assert!(caller.until("first").await.expect("switched").ends_with("first"));
    // Begins like a request that has more to come.
    caller.send(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").await.expect("sent");
    peer.head().await;
    peer.finish().await;
    assert!(caller.rest().await.expect("the end").is_empty());
    caller.send(b"late;").await.expect("sent");
    assert_eq!(peer.until(";").await, "late;");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_refused_is_an_answer_like_others_and_is_not_replayed() {
    let Asked { caller, peer, upstream, .. } = &mut asked("", ASKED).await;
    peer.send(REFUSED).await;
    assert_eq!(caller.answer().await.expect("an answer").status, 401);
    assert!(!upstream.is_called().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_to_something_else_is_a_502_and_http_is_not_tunnelled() {
    let Asked { caller, peer, .. } = &mut asked("", &ASKED.replace("websocket", "other")).await;
    peer.send(SWITCHED).await;
    assert_eq!(caller.answer().await.expect("an answer").status, 502);

    let head = asked("", &ASKED.replace("websocket", "h2c")).await.head;
    assert!(!head.contains("upgrade"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_idles_is_closed() {
    let Asked { mut caller, peer, upstream: _upstream, daemon: _daemon, _stage, .. } =
        switched("timeouts = { idle_ms = 200 }").await;
    caller.until("first").await.expect("switched");
    assert!(caller.rest().await.expect("the end").is_empty());
    let mut rest = Vec::new();
    let _ = peer.into_stream().read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_pass_before_the_answer_and_not_to_http_1_0() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let Asked { caller, peer, daemon, .. } =
        &mut asked("", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    peer.send(hints).await;
    let early = caller.until("\r\n\r\n").await.expect("hints before there is an answer");
    assert_eq!(early, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    peer.send(answer).await;
    assert_eq!(caller.answer().await.expect("an answer").status, 200);

    let mut old = Client::connect(daemon.proxy).await.expect("a connection");
    old.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await.expect("sent");
    peer.head().await;
    peer.send(&[&hints[..], answer].concat()).await;
    assert_eq!(old.answer().await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_waits_for_the_upstreams_word_if_its_caller_does() {
    let expects = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                   Content-Length: 4\r\n\r\n";
    let Asked { caller, peer, head, .. } = &mut asked("", expects).await;
    assert!(head.contains("expect: 100-continue"));
    peer.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(caller.until("\r\n\r\n").await.expect("told").starts_with("HTTP/1.1 100"));
    caller.send(b"body").await.expect("sent");
    assert_eq!(peer.until("body").await, "body");
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.answer().await.expect("an answer").status, 200);

    // Refused before the body: the caller never sends it.
    caller.send(expects.as_bytes()).await.expect("sent");
    peer.head().await;
    peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await;
    let answer = caller.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_with_its_reason_and_counted() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let long = "x".repeat(70_000);
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), 431, "too_large"),
    ] {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        caller.send(request.as_bytes()).await.expect("sent");
        let answer = caller.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.header("bearerd-reason")), (status, Some(reason)));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.header("date").is_some() && answer.json()["status"] == status);
        assert!(daemon.metric("bearerd_refused_total", &[reason]).await >= 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_reads_like_a_refusal_is_passed_on_as_it_is() {
    const LIKE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let stage = Stage::new();
    let upstream = ByHand::listen().await;
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let mut peer = None;
    for first in ["", "a transcript: "] {
        caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        if peer.is_none() {
            peer = Some(upstream.accept().await);
        }
        let peer = peer.as_mut().expect("connected");
        peer.head().await;
        let length = first.len() + LIKE.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{first}");
        peer.send(head.as_bytes()).await;
        let head = caller.until("\r\n\r\n").await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        peer.send(LIKE.as_bytes()).await;
        assert_eq!(caller.until("\r\n\r\n").await.expect("a body"), format!("{first}{LIKE}"));
    }
    assert!(daemon.metric("bearerd_refused_total", &["bad_request"]).await < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_is_told_so() {
    let stage = Stage::new();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  limits = { connections = 1 }\n";
    let daemon = Daemon::start_with(
        &stage.home,
        &(server.to_owned() + &stage.credential("") + &stage.route("")),
    );
    daemon.ready().await;
    let mut first = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(first.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    let mut second = Client::connect(daemon.proxy).await.expect("a connection");
    let answer = second.request("GET", "/", &[], b"").await.expect("an answer");
    assert_eq!((answer.status, answer.header("bearerd-reason")), (503, Some("overloaded")));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(first.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
}
