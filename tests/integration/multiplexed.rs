//! Streams of HTTP/2 that share a connection to an upstream: none is taken for whole that was cut,
//! none holds another one up, and none takes what is another's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use emulator::client::{Answer, Client};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::by_hand::ByHand;
use crate::hostile::frames::{DATA, RST_STREAM, Raw, frame, post};
use crate::stage::{Gate, Stage, route_to, together};
use crate::support::{DEADLINE, Daemon, eventually, request};

mod expecting;
mod places;
mod resets;

/// The most connections that bearerd's one thread opens to an upstream.
const CONNECTIONS: usize = 64;

/// An HTTP/2 upstream that leaves every answer to the test.
pub struct Upstream {
    address: std::net::SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
}

/// A request, and which connection it came on.
pub struct Asked {
    connection: usize,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Upstream {
    /// Allows so many streams at once on a connection.
    pub async fn allowing(streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut server = h2::server::Builder::new();
                    let greeting = server.max_concurrent_streams(streams).handshake(stream);
                    let mut peer = greeting.await.expect("HTTP/2");
                    while let Some(Ok((request, respond))) = peer.accept().await {
                        let _over = sender.send(Asked { connection, request, respond });
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub async fn ready(&self, stage: &Stage, more: &str) -> Daemon {
        let route = route_to(&format!("http://{}", self.address), &format!("http2 = true\n{more}"));
        let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
        daemon.ready().await;
        daemon
    }

    pub async fn asked(&mut self) -> Asked {
        let asked = timeout(DEADLINE, self.asked.recv()).await.expect("a request in time");
        asked.expect("the upstream goes on")
    }
}

impl Asked {
    fn ok(mut self, text: &str) {
        let mut body = self.respond.send_response(Response::new(()), false).expect("open");
        body.send_data(Bytes::copy_from_slice(text.as_bytes()), true).expect("open");
    }

    /// What is next of the body.
    async fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let body = self.request.body_mut();
        let data = timeout(DEADLINE, body.data()).await.expect("data or the end in time");
        if let Some(Ok(data)) = &data {
            body.flow_control().release_capacity(data.len()).expect("open");
        }
        data
    }

    /// All of the body that is still to come.
    async fn whole(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        while let Some(data) = self.data().await {
            whole.extend_from_slice(&data.expect("not cut short"));
        }
        whole
    }

    /// Why the body was cut short.
    async fn cut(&mut self) -> Option<Reason> {
        loop {
            match self.data().await.expect("it was taken for whole") {
                Ok(_) => {}
                Err(error) => return error.reason(),
            }
        }
    }
}

async fn caller(daemon: &Daemon, request: &[u8]) -> Client {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(request).await.expect("sent");
    caller
}

async fn answer(caller: &mut Client) -> Answer {
    timeout(DEADLINE, caller.answer()).await.expect("in time").expect("an answer")
}

/// So many at once.
const CROWD: usize = 50;

/// Requests that are all under way and not answered; their answers.
async fn crowd(daemon: &Daemon) -> JoinHandle<Vec<Answer>> {
    let proxy = daemon.proxy;
    let callers = tokio::spawn(together(CROWD, move |_| async move {
        request(proxy, "GET", "/", &[], b"").await
    }));
    let all = async || daemon.metric("bearerd_requests_in_flight", &[]).await as usize == CROWD;
    eventually("all wait", all).await;
    callers
}

fn chunked(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

const UPLOAD: &[u8] = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_stays_whole_if_its_upload_is_stopped_without_an_error() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    for _ in 0..20 {
        let mut caller = caller(&daemon, UPLOAD).await;
        caller.send(&chunked(b"half")).await.expect("sent");
        let mut asked = upstream.asked().await;
        assert_eq!(asked.data().await.expect("half of it").expect("open"), "half");
        let mut body = asked.respond.send_response(Response::new(()), false).expect("open");
        body.send_data(Bytes::from_static(b"enough"), true).expect("open");
        // Nobody wants the rest, which h2 says with NO_ERROR.
        drop((asked, body));
        let answer = answer(&mut caller).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "enough"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_its_caller_resets_without_an_error_is_whole_nowhere() {
    let half = [post(1, "/", &[]), frame(DATA, 0, 1, b"half")].concat();
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
    for kept in ["", "replay = { body_bytes = 0 }"] {
        let (stage, upstream) = (Stage::new(), ByHand::listen().await);
        let daemon = upstream.ready(&stage, kept).await;
        let mut raw = Raw::greet(daemon.proxy).await;
        raw.send(&half).await;
        let mut peer = upstream.accept().await;
        peer.until("half\r\n").await;
        raw.send(&reset).await;
        assert_eq!(peer.rest().await, "", "{kept}");
    }
    for kept in ["", "replay = { body_bytes = 0 }"] {
        let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
        let daemon = upstream.ready(&stage, kept).await;
        let mut raw = Raw::greet(daemon.proxy).await;
        raw.send(&half).await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.data().await.expect("half of it").expect("open"), "half");
        raw.send(&reset).await;
        assert_eq!(asked.cut().await, Some(Reason::CANCEL), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_what_a_connection_may_carry_have_another_up_to_a_bound() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(1).await);
    let daemon = upstream.ready(&stage, "").await;
    let proxy = daemon.proxy;
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        callers.spawn(async move { request(proxy, "GET", "/", &[], b"").await });
    }
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(upstream.asked().await);
    }
    let mut connections: Vec<usize> = held.iter().map(|asked| asked.connection).collect();
    connections.sort_unstable();
    assert!(connections.into_iter().eq(0..CONNECTIONS), "one each");
    // There is no more to be had: told at once, and to nobody else.
    let refused = request(proxy, "GET", "/", &[], b"").await;
    let told = (refused.header("bearerd-reason"), refused.header("retry-after"));
    assert_eq!((refused.status, told), (503, (Some("overloaded"), Some("1"))));
    held.drain(..).for_each(|asked| asked.ok("held"));
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.expect("no panic").text(), "held");
    }
    // Those that are free are used again.
    let again = tokio::spawn(async move { request(proxy, "GET", "/", &[], b"").await });
    let asked = upstream.asked().await;
    assert!(asked.connection < CONNECTIONS);
    asked.ok("again");
    assert_eq!(again.await.expect("no panic").text(), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_a_connection_share_the_one_that_is_opened() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let gate = Gate::before(upstream.address).await;
    let route = route_to(&gate.url(""), "http2 = true");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let callers = crowd(&daemon).await;
    gate.open();
    for _ in 0..CROWD {
        upstream.asked().await.ok("shared");
    }
    for answer in callers.await.expect("no panic") {
        assert_eq!((answer.status, answer.text().as_str()), (200, "shared"));
    }
    assert_eq!(gate.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_a_connection_that_fails_are_told_so() {
    let stage = Stage::new();
    let upstream = ByHand::listen().await;
    let daemon = upstream.ready(&stage, "http2 = true").await;
    let callers = crowd(&daemon).await;
    let mut peer = upstream.accept().await;
    peer.until("SM\r\n\r\n").await;
    peer.reset();
    for answer in callers.await.expect("no panic") {
        let told = answer.header("bearerd-reason");
        assert_eq!((answer.status, told), (502, Some("upstream_protocol")));
    }
    assert!(!upstream.is_called().await, "each tried it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_nobody_reads_stop_no_others() {
    const PAUSED: usize = 8;
    /// Nothing came for so long: it stands still. If it was only slow, less is proven.
    const STILL: Duration = Duration::from_millis(500);
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    let poured = Arc::new(AtomicUsize::new(0));
    let mut callers = Vec::new();
    let mut pouring = JoinSet::new();
    for _ in 0..PAUSED {
        // What the kernel holds proves nothing.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
        let mut caller = socket.connect(daemon.proxy).await.expect("a connection");
        caller.write_all(GET).await.expect("sent");
        callers.push(caller);
        pouring.spawn(pour(upstream.asked().await, Arc::clone(&poured)));
    }
    loop {
        let before = poured.load(Relaxed);
        tokio::time::sleep(STILL).await;
        if before > 0 && poured.load(Relaxed) == before {
            break;
        }
    }
    let mut caller = caller(&daemon, GET).await;
    let asked = upstream.asked().await;
    assert_eq!(asked.connection, 0, "the same connection");
    // More than what trickles in all the same.
    let passing = "passes ".repeat(300_000);
    asked.ok(&passing);
    assert!(answer(&mut caller).await.text() == passing);
    // Nor are those themselves, once they are read.
    drop(callers);
    while let Some(ended) = pouring.join_next().await {
        ended.expect("no panic");
    }
}

/// Answers without an end, until the stream is reset.
pub async fn pour(mut asked: Asked, poured: Arc<AtomicUsize>) {
    const PIECE: usize = 16 << 10;
    let mut body = asked.respond.send_response(Response::new(()), false).expect("open");
    loop {
        body.reserve_capacity(PIECE);
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return };
        if body.send_data(Bytes::from(vec![b'~'; room]), false).is_err() {
            return;
        }
        poured.fetch_add(room, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_to_come_of_a_body_goes_to_the_replay_alone() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = caller(&daemon, UPLOAD).await;
    caller.send(&chunked(b"first ")).await.expect("sent");
    let mut refused = upstream.asked().await;
    assert_eq!(refused.data().await.expect("the beginning").expect("open"), "first ");
    let refusal = Response::builder().status(401).body(()).expect("an answer");
    refused.respond.send_response(refusal, true).expect("open");
    // The upstream does not stop the first one.
    let mut replayed = upstream.asked().await;
    for part in [&b"second "[..], b"third"] {
        caller.send(&chunked(part)).await.expect("sent");
    }
    caller.send(b"0\r\n\r\n").await.expect("sent");
    assert_eq!(replayed.whole().await, b"first second third");
    assert_eq!(refused.cut().await, Some(Reason::CANCEL));
    replayed.ok("replayed");
    assert_eq!(answer(&mut caller).await.text(), "replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_none_are_a_400_and_no_end_of_the_upload() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    for kept in ["", "replay = { body_bytes = 0 }"] {
        let daemon = upstream.ready(&stage, kept).await;
        let mut caller = caller(&daemon, UPLOAD).await;
        caller.send(&chunked(b"half")).await.expect("sent");
        let mut asked = upstream.asked().await;
        assert_eq!(asked.data().await.expect("half of it").expect("open"), "half");
        caller.send(b"ZZ\r\n").await.expect("sent");
        let answer = answer(&mut caller).await;
        let told = answer.header("bearerd-reason");
        assert_eq!((answer.status, told), (400, Some("bad_request")), "{kept}");
        assert_eq!(asked.cut().await, Some(Reason::CANCEL), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_of_an_upstream_of_http_2_pass_before_its_answer_and_not_without_end() {
    let stage = Stage::new();
    let mut upstream = Upstream::allowing(100).await;
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let hint = || {
        let hint = Response::builder().status(103).header("link", "</a.css>; rel=preload");
        hint.body(()).expect("a response")
    };
    caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut asked = upstream.asked().await;
    asked.respond.send_informational(hint()).expect("open");
    let early = caller.until("\r\n\r\n").await.expect("hints before there is an answer");
    assert_eq!(early, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    asked.ok("whole");
    let answer = caller.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "whole"));

    caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut asked = upstream.asked().await;
    for _ in 0..17 {
        let _refused = asked.respond.send_informational(hint());
    }
    let answer = loop {
        let head = caller.until("\r\n\r\n").await.expect("a head");
        if !head.starts_with("HTTP/1.1 103") {
            break head;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("upstream_protocol"), "{answer}");
}
