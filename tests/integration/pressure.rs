//! Streams are never collected: whoever does not read holds the other side back, and memory stays
//! where it was.

use std::time::Duration;

use emulator::client::Client;
use emulator::{EventSource, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::by_hand::ByHand;
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, read};

/// What passes in one direction.
pub const TOTAL: usize = 200 << 20;
/// What it is made of; no head and no chunk size has that.
const LETTER: u8 = b'~';
/// How much is written and read at once.
const PIECE: usize = 64 << 10;
/// How much of it the buffers of two connections may swallow.
const BUFFERED: usize = TOTAL / 2;
/// How much memory may grow meanwhile.
pub const GROWTH_KIB: u64 = 16 << 10;
/// A write that takes longer is held back. If it was only slow, less is proven.
const HELD_BACK: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_holds_the_upstream_back() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let before = memory(&daemon, "VmRSS");
    let mut caller = connect(&daemon, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n").as_bytes()).await;
    let mut peer = peer.into_stream();
    let sent = fill(&mut peer).await;
    assert!(sent < BUFFERED, "{sent} bytes went to who does not read");
    tokio::join!(pour(&mut peer, TOTAL - sent), swallow(&mut caller, TOTAL));
    let grown = memory(&daemon, "VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_read_holds_the_caller_back() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let before = memory(&daemon, "VmRSS");
    // Its length is not known beforehand: a copy is kept until it is too large.
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = connect(&daemon, &format!("{head}{TOTAL:x}\r\n")).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    let mut peer = peer.into_stream();
    let sent = fill(&mut caller).await;
    assert!(sent < BUFFERED, "{sent} bytes went to who does not read");
    tokio::join!(pour(&mut caller, TOTAL - sent), swallow(&mut peer, TOTAL));
    let grown = memory(&daemon, "VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_one_by_one_while_their_stream_stays_open() {
    let stage = Stage::new();
    let source = EventSource::new();
    stage.api.serve("/events", Reply::events(&source));
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    // The head comes before there is any event.
    let head = timeout(DEADLINE, caller.until("\r\n\r\n")).await.expect("in time").expect("a head");
    assert!(head.contains("text/event-stream"), "{head}");
    assert!(source.wait_for_subscribers(1, DEADLINE).await);
    for number in 0..100 {
        let event = format!("data: {number}\n\n");
        assert_eq!(source.send(event.clone()), 1);
        let came = timeout(DEADLINE, caller.until(&event)).await;
        came.expect("held back until the next").expect("the stream stays open");
    }
    // A caller that goes away is told to the upstream.
    drop(caller);
    assert!(source.wait_for_subscribers(0, DEADLINE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_of_one_request_stream_at_the_same_time() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{chunked}");
    caller.send(head.as_bytes()).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(format!("HTTP/1.1 200 OK\r\n{chunked}").as_bytes()).await;
    for number in 10..30 {
        let (question, reply) = (format!("5\r\nask{number}\r\n"), format!("5\r\nsay{number}\r\n"));
        caller.send(question.as_bytes()).await.expect("sent");
        peer.until(&format!("ask{number}")).await;
        peer.send(reply.as_bytes()).await;
        let came = timeout(DEADLINE, caller.until(&format!("say{number}"))).await;
        came.expect("in time").expect("the stream stays open");
    }
    caller.send(b"0\r\n\r\n").await.expect("sent");
    peer.until("0\r\n\r\n").await;
    peer.send(b"0\r\n\r\n").await;
    caller.until("0\r\n\r\n").await.expect("the end");
}

async fn connect(daemon: &Daemon, request: &str) -> TcpStream {
    let mut caller = TcpStream::connect(daemon.proxy).await.expect("a connection");
    caller.write_all(request.as_bytes()).await.expect("sent");
    caller
}

/// What is written at once.
fn letters() -> Vec<u8> {
    vec![LETTER; PIECE]
}

/// Writes until nobody takes more; how much was taken.
async fn fill(to: &mut TcpStream) -> usize {
    let (mut sent, piece) = (0, letters());
    while let Ok(written) = timeout(HELD_BACK, to.write(&piece)).await {
        sent += written.expect("an open connection");
        assert!(sent < TOTAL, "nobody held this back");
    }
    sent
}

async fn pour(to: &mut TcpStream, mut count: usize) {
    let piece = letters();
    while count > 0 {
        let piece = &piece[..count.min(piece.len())];
        let written = timeout(DEADLINE, to.write(piece)).await.expect("it goes on");
        count -= written.expect("an open connection");
    }
}

/// Reads so many times the letter that is poured.
async fn swallow(from: &mut TcpStream, mut count: usize) {
    let mut buffer = vec![0; PIECE];
    while count > 0 {
        let came = timeout(DEADLINE, from.read(&mut buffer)).await.expect("it goes on");
        let came = came.expect("an open connection");
        assert!(came > 0, "{count} bytes too few");
        let payload: usize = buffer[..came].iter().map(|b| usize::from(*b == LETTER)).sum();
        count = count.checked_sub(payload).expect("no more than was poured");
    }
}

/// A figure of the process, in KiB.
pub fn memory(daemon: &Daemon, key: &str) -> u64 {
    let status = read(format!("/proc/{}/status", daemon.pid()));
    let line = status.lines().find(|line| line.starts_with(key)).expect("on Linux");
    let figure = line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok());
    figure.expect("a number of KiB")
}
