//! Streams of HTTP/2 callers: uploads that move, uploads that stand still, and answers that are taken
//! late.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use emulator::Reply;
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::by_hand::{ByHand, Peer};
use crate::hostile::frames::{
    DATA, END_STREAM, Raw, SETTINGS, Seen, WINDOW_UPDATE, frame, get, post, setting,
};
use crate::http2::upstream;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually};

/// Between two things that move, far below any limit here.
const PAUSE: Duration = Duration::from_millis(200);
/// The setting of a stream's first window (RFC 9113 §6.5.2).
const INITIAL_WINDOW: u16 = 4;

/// Uploads for three times as long as three seconds, always moving.
async fn upload(raw: &mut Raw, mut peer: Option<&mut Peer>) {
    for number in 10..55 {
        let part = format!("part {number}");
        raw.send(&frame(DATA, 0, 1, part.as_bytes())).await;
        if let Some(peer) = &mut peer {
            peer.until(&part).await;
        }
        sleep(PAUSE).await;
    }
    raw.send(&frame(DATA, END_STREAM, 1, b"")).await;
}

/// The rest of the answer on the first stream, which is whole.
async fn body(raw: &mut Raw) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let frame = raw.next().await.expect("the whole answer");
        match frame.kind {
            DATA if frame.stream == 1 => {
                body.extend(frame.payload);
                if frame.flags & END_STREAM != 0 {
                    return body;
                }
            }
            kind => assert!(frame.stream != 1 || kind == WINDOW_UPDATE, "broken off: {kind}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_moves_may_take_longer_than_its_answer() {
    let (stage, by_hand) = (Stage::new(), ByHand::listen().await);
    let daemon = by_hand.ready(&stage, "timeouts = { response_ms = 3000 }").await;
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&post(1, "/in", &[])).await;
    let mut peer = by_hand.accept().await;
    peer.head().await;
    upload(&mut raw, Some(&mut peer)).await;
    peer.until("0\r\n\r\n").await;
    peer.ok("all of it").await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    assert_eq!(body(&mut raw).await, b"all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_an_upstream_of_http_2_may_take_as_long() {
    let stage = Stage::new();
    let more = "http2 = true\ntimeouts = { response_ms = 3000 }";
    let route = route_to(&format!("http://{}", upstream().await), more);
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&post(1, "/in", &[])).await;
    upload(&mut raw, None).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    assert!(body(&mut raw).await.ends_with(b" 315"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_answer_began_early_goes_on_as_long_as_it_uploads() {
    let (stage, by_hand) = (Stage::new(), ByHand::listen().await);
    let daemon = by_hand.ready(&stage, "timeouts = { idle_ms = 3000 }").await;
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&post(1, "/in", &[])).await;
    let mut peer = by_hand.accept().await;
    peer.head().await;
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    upload(&mut raw, Some(&mut peer)).await;
    peer.until("0\r\n\r\n").await;
    peer.send(b"9\r\nall of it\r\n0\r\n\r\n").await;
    assert_eq!(body(&mut raw).await, b"all of it");
}

/// A body of so many bytes that tells how much of it was taken.
struct Counting {
    left: usize,
    taken: Arc<AtomicUsize>,
}

impl Body for Counting {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.left.min(16 << 10);
        self.left -= piece;
        self.taken.fetch_add(piece, Relaxed);
        let data = || Ok(Frame::data(Bytes::from(vec![b'u'; piece])));
        Poll::Ready((piece > 0).then(data))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stand_still_do_not_hold_up_others() {
    const STALLED: usize = 20;
    let (stage, by_hand) = (Stage::new(), ByHand::listen().await);
    let stalled = route_to(&format!("http://{}", by_hand.address), "path_prefix = \"/stalled\"");
    let config = stage.credential("") + &stalled + &stage.route("");
    let daemon = Daemon::start(&stage.home, &config);
    daemon.ready().await;
    let io = TokioIo::new(TcpStream::connect(daemon.proxy).await.expect("a connection"));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let taken = Arc::new(AtomicUsize::new(0));
    let post = |path: &str, left: usize| {
        let body = Counting { left, taken: Arc::clone(&taken) };
        let request = Request::builder().method(Method::POST);
        let request = request.uri(format!("http://localhost{path}")).body(body);
        sender.clone().send_request(request.expect("a request"))
    };
    let (mut asked, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..STALLED {
        asked.push(tokio::spawn(post("/stalled", 64 << 20)));
        let mut peer = by_hand.accept().await;
        peer.head().await;
        peers.push(peer);
    }
    let mut before = 0;
    while before != taken.load(Relaxed) || before == 0 {
        before = taken.load(Relaxed);
        sleep(Duration::from_secs(1)).await;
    }
    let answer = timeout(DEADLINE, post("/", 1 << 20)).await.expect("held up").expect("an answer");
    assert_eq!(answer.status(), 200);
    let told = answer.into_body().collect().await.expect("whole").to_bytes();
    let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!(told["body_length"], 1 << 20);
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A caller that takes one byte of its answer of a thousand, which is all with the daemon then.
async fn with_a_small_window(stage: &Stage, server: &str) -> (Daemon, Raw) {
    stage.api.serve("/answer", Reply::bytes(200, "text/plain", vec![b'd'; 1000]));
    let usual = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let config = format!("{usual}{server}\n{}{}", stage.credential(""), stage.route(""));
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    let window = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, 1));
    raw.send(&[window, get(1, "/answer")].concat()).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    while raw.next().await.expect("the first byte").kind != DATA {}
    eventually("over for the daemon", async || {
        daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0
    })
    .await;
    (daemon, raw)
}

fn window(more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 1, &more.to_be_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_answer_that_its_caller_takes_late_is_not_lost_at_a_stop() {
    let stage = Stage::new();
    let (mut daemon, mut raw) = with_a_small_window(&stage, "").await;
    daemon.signal("TERM");
    eventually("draining", async || TcpStream::connect(daemon.proxy).await.is_err()).await;
    // The behaviour is about time: longer than a caller with nothing under way is waited for.
    sleep(Duration::from_secs(3)).await;
    raw.send(&window(999)).await;
    assert_eq!(body(&mut raw).await.len(), 999);
    assert!(daemon.exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_taken_yet_counts_among_the_requests() {
    let stage = Stage::new();
    let limits = "limits = { http2_requests = 1 }";
    let (daemon, mut raw) = with_a_small_window(&stage, limits).await;
    let mut other = Raw::greet(daemon.proxy).await;
    other.send(&get(1, "/")).await;
    assert_eq!(other.answer(1).await, Seen::Status(503));
    raw.send(&window(999)).await;
    assert_eq!(body(&mut raw).await.len(), 999);
    other.send(&get(3, "/")).await;
    assert_eq!(other.answer(3).await, Seen::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_its_answer_slowly_is_not_idle() {
    let stage = Stage::new();
    let (_daemon, mut raw) = with_a_small_window(&stage, "limits = { idle_seconds = 4 }").await;
    for _ in 0..50 {
        raw.send(&window(10)).await;
        sleep(PAUSE).await;
    }
    raw.send(&window(499)).await;
    assert_eq!(body(&mut raw).await.len(), 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_take_its_answer_is_left_in_the_end() {
    let stage = Stage::new();
    let (_daemon, mut raw) = with_a_small_window(&stage, "limits = { idle_seconds = 1 }").await;
    assert!(raw.ends().await);
}
