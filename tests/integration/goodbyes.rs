//! HTTP/2 upstreams that say goodbye, refuse a stream, or are gone: what was not looked at is sent
//! again, whatever it is; what may have had its effect is not.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use emulator::client::Answer;

use crate::hostile::frames::{GOAWAY, SETTINGS, frame};
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, request};

/// An HTTP/2 upstream by hand.
struct Upstream(TcpListener);

/// One connection of it.
struct Peer(Connection<TcpStream, Bytes>);

/// A request on it.
struct Asked {
    request: Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Upstream {
    async fn ready(stage: &Stage) -> (Self, Daemon) {
        let upstream = Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        let url = format!("http://{}", upstream.0.local_addr().expect("bound"));
        let route = route_to(&url, "http2 = true");
        let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
        daemon.ready().await;
        (upstream, daemon)
    }

    async fn accept(&self) -> Peer {
        let accepted = timeout(DEADLINE, self.0.accept()).await.expect("a connection in time");
        let stream = accepted.expect("a connection").0;
        Peer(h2::server::handshake(stream).await.expect("HTTP/2"))
    }

    async fn is_called(&self) -> bool {
        timeout(Duration::ZERO, self.0.accept()).await.is_ok()
    }
}

impl Peer {
    /// The next request, with its whole body.
    async fn asked(&mut self) -> Asked {
        let accepted = timeout(DEADLINE, self.0.accept()).await.expect("a request in time");
        let (mut request, respond) = accepted.expect("open").expect("HTTP/2");
        while !request.body().is_end_stream() {
            let driven = async { self.0.accept().await.is_none() };
            tokio::select! {
                data = request.body_mut().data() => drop(data),
                ended = driven => assert!(ended, "one request at a time"),
            }
        }
        Asked { request, respond }
    }

    /// Passes on what was said, until the daemon closes or `other` is done.
    async fn until<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            done = other => done,
            Some(Ok(_)) = self.0.accept() => panic!("a request too much"),
        }
    }
}

impl Asked {
    fn ok(mut self, text: &'static str) {
        let mut body = self.respond.send_response(Response::new(()), false).expect("open");
        body.send_data(Bytes::from_static(text.as_bytes()), true).expect("open");
    }
}

fn asking(daemon: &Daemon, method: &'static str, body: &'static [u8]) -> JoinSet<Answer> {
    let proxy = daemon.proxy;
    JoinSet::from_iter([async move { request(proxy, method, "/", &[], body).await }])
}

async fn answer(mut asking: JoinSet<Answer>) -> Answer {
    asking.join_next().await.expect("one").expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_stream_brought_is_sent_again_whatever_it_is() {
    let stage = Stage::new();
    let (upstream, daemon) = Upstream::ready(&stage).await;
    for (method, body) in [("GET", &b""[..]), ("POST", b"order"), ("PATCH", b"")] {
        let asked = asking(&daemon, method, body);
        let mut peer = upstream.accept().await;
        peer.asked().await.respond.send_reset(Reason::REFUSED_STREAM);
        let mut second = peer.until(upstream.accept()).await;
        let again = second.asked().await;
        assert_eq!(again.request.method(), method);
        again.ok("second");
        assert_eq!(second.until(answer(asked)).await.text(), "second", "{method}");
        assert!(!upstream.is_called().await);
        // Both end here, and the next one makes its own.
        drop((peer, second));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_farewell_leaves_out_is_sent_again_whatever_its_reason() {
    let stage = Stage::new();
    let (upstream, daemon) = Upstream::ready(&stage).await;
    let asked = asking(&daemon, "POST", b"order");
    let accepted = timeout(DEADLINE, upstream.0.accept()).await.expect("a connection in time");
    let mut first = accepted.expect("a connection").0;
    let mut came = Vec::new();
    first.write_all(&frame(SETTINGS, 0, 0, b"")).await.expect("sent");
    while !came.windows(5).any(|part| part == b"order") {
        let read = timeout(DEADLINE, first.read_buf(&mut came)).await.expect("in time");
        assert!(read.expect("open") > 0, "ended before the request");
    }
    // Its last stream is 0: none was looked at. ENHANCE_YOUR_CALM.
    first.write_all(&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])).await.expect("sent");
    let mut second = upstream.accept().await;
    second.asked().await.ok("second");
    assert_eq!(second.until(answer(asked)).await.text(), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_for_another_reason_is_a_502_and_not_sent_again() {
    let stage = Stage::new();
    let (upstream, daemon) = Upstream::ready(&stage).await;
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let asked = asking(&daemon, "POST", b"order");
        let mut peer = upstream.accept().await;
        peer.asked().await.respond.send_reset(reason);
        let answer = peer.until(answer(asked)).await;
        let told = answer.header("bearerd-reason");
        assert_eq!((answer.status, told), (502, Some("upstream_protocol")), "{reason:?}");
        assert!(!upstream.is_called().await, "{reason:?}");
        peer.0.abrupt_shutdown(Reason::NO_ERROR);
        let closed = timeout(DEADLINE, peer.0.accept()).await.expect("closed in time");
        assert!(closed.is_none_or(|closed| closed.is_err()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_goodbye_takes_no_more_requests_and_ends_those_it_has() {
    let stage = Stage::new();
    let (upstream, daemon) = Upstream::ready(&stage).await;
    let first = asking(&daemon, "POST", b"first");
    let mut peer = upstream.accept().await;
    let held = peer.asked().await;
    peer.0.graceful_shutdown();
    // It has heard of it once a request comes on another connection.
    let (mut next, second) = loop {
        let asked = asking(&daemon, "GET", b"");
        tokio::select! {
            Some(Ok((request, respond))) = peer.0.accept() => {
                Asked { request, respond }.ok("on the old one");
                assert_eq!(peer.until(answer(asked)).await.text(), "on the old one");
            }
            next = upstream.accept() => break (next, asked),
        }
    };
    next.asked().await.ok("second");
    assert_eq!(next.until(answer(second)).await.text(), "second");
    held.ok("first");
    assert_eq!(peer.until(answer(first)).await.text(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_gone_costs_an_idempotent_request_nothing() {
    let stage = Stage::new();
    let (upstream, daemon) = Upstream::ready(&stage).await;
    let first = asking(&daemon, "GET", b"");
    let mut peer = upstream.accept().await;
    peer.asked().await.ok("first");
    assert_eq!(peer.until(answer(first)).await.text(), "first");
    // It closes under the request.
    let second = asking(&daemon, "GET", b"");
    drop(peer.asked().await);
    drop(peer);
    let mut next = upstream.accept().await;
    next.asked().await.ok("second");
    assert_eq!(next.until(answer(second)).await.text(), "second");
}
