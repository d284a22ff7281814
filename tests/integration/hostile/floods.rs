//! Floods of frames: the flooder is turned off or held back, others are served, and memory stays
//! where it was.

use std::time::Duration;

use tokio::time::timeout;

use super::frames::{
    ACK, CONTINUATION, DATA, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, Raw, SETTINGS, Seen,
    WHOLE, WINDOW_UPDATE, frame, get, post, request, setting,
};
use crate::pressure::memory;
use crate::stage::Stage;
use crate::support::Daemon;

/// How much memory may grow by a flood.
const GROWTH_KIB: u64 = 32 << 10;
/// A write that takes longer is held back.
const HELD_BACK: Duration = Duration::from_millis(500);
/// The frames with a number.
type Frames<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;

/// How much is sent at once.
const PIECE: usize = 1000;

/// Sends `frames(0)`, `frames(1)` … up to `count`, until it is held back or turned off.
async fn flood(raw: &mut Raw, count: usize, frames: impl Fn(u32) -> Vec<u8>) {
    for start in (0..count).step_by(PIECE) {
        let numbers = start as u32..(start + PIECE) as u32;
        let piece: Vec<u8> = numbers.flat_map(&frames).collect();
        match timeout(HELD_BACK, raw.try_send(&piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn assert_unmoved(daemon: &Daemon, honest: &mut Raw, stream: u32, before: u64, name: &str) {
    honest.send(&get(stream, "/honest")).await;
    assert_eq!(honest.answer(stream).await, Seen::Status(200), "{name}");
    let grown = memory(daemon, "VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{name}: {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_cost_no_memory_and_hold_nobody_else_up() {
    let stage = Stage::new();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let config = format!("{server}{}{}", stage.credential(""), stage.route(""));
    // A line for each frame would be the flood.
    let daemon = Daemon::start_in(&stage.home, &config, &[("RUST_LOG", "info")]);
    daemon.ready().await;
    let mut honest = Raw::greet(daemon.proxy).await;
    let before = memory(&daemon, "VmRSS");
    let open = |frames: Vec<u8>| move |_: u32| frames.clone();
    let cancel = |n: u32| {
        let stream = 2 * n + 1;
        [get(stream, "/reset"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let asks = |n: u32| get(2 * n + 1, "/ask");
    let windows = |_: u32| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let part = frame(CONTINUATION, 0, 1, &[0; 1024]);
    let begun = frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
    let floods: Vec<(&str, Vec<u8>, usize, Frames<'_>)> = vec![
        ("rapid reset", Vec::new(), 5_000, Box::new(cancel)),
        ("requests without end", Vec::new(), 5_000, Box::new(asks)),
        ("continuation", begun.clone(), 50_000, Box::new(open(part))),
        ("empty continuation", begun, 50_000, Box::new(open(frame(CONTINUATION, 0, 1, b"")))),
        ("empty data", post(1, "/in", &[]), 50_000, Box::new(open(frame(DATA, 0, 1, b"")))),
        ("data of a byte", post(1, "/in", &[]), 50_000, Box::new(open(frame(DATA, 0, 1, b"x")))),
        ("settings", Vec::new(), 50_000, Box::new(open(frame(SETTINGS, 0, 0, b"")))),
        ("acknowledgements", Vec::new(), 50_000, Box::new(open(frame(SETTINGS, ACK, 0, b"")))),
        ("pings", Vec::new(), 50_000, Box::new(open(frame(PING, 0, 0, b"question")))),
        (
            "priorities",
            Vec::new(),
            50_000,
            Box::new(|n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1])),
        ),
        ("windows", Vec::new(), 50_000, Box::new(windows)),
        ("unknown frames", Vec::new(), 50_000, Box::new(open(frame(0x42, 0, 0, b"x")))),
        (
            "resets of nothing",
            get(1, "/"),
            50_000,
            Box::new(open(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]))),
        ),
    ];
    for (index, (name, first, count, frames)) in floods.into_iter().enumerate() {
        let mut raw = Raw::greet(daemon.proxy).await;
        raw.send(&first).await;
        flood(&mut raw, count, frames).await;
        assert_unmoved(&daemon, &mut honest, 1 + 2 * index as u32, before, name).await;
    }
    assert!(daemon.stop().success());
}

/// A header block of 15 KiB that unpacks to 40 MiB: a field in the dynamic table, named by one byte
/// each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_block_that_unpacks_to_a_large_head_is_refused() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let before = memory(&daemon, "VmRSS");
    let value = [b'a'; 3800];
    // Literal with incremental indexing: name "x", the value's length in two bytes more.
    let indexed = [&[0x40, 1, b'x', 127, 0xd9, 0x1c][..], &value].concat();
    let mut raw = Raw::greet(daemon.proxy).await;
    for stream in [1, 3, 5] {
        let bomb = [&request("GET", "/", &[])[..], &indexed, &vec![0xbe; 11_000]].concat();
        raw.send(&frame(HEADERS, WHOLE, stream, &bomb)).await;
        let seen = raw.answer(stream).await;
        assert!(!matches!(seen, Seen::Status(200)), "{seen:?}");
    }
    let mut honest = Raw::greet(daemon.proxy).await;
    assert_unmoved(&daemon, &mut honest, 1, before, "the bomb").await;
    assert_eq!(stage.api.request_count(), 1, "only the honest one");
}

/// Callers that ask for much and open no window for it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_held_back_and_given_up() {
    let stage = Stage::new();
    stage.api.serve("/large", emulator::Reply::pattern(8 << 20));
    let daemon = stage.ready("timeouts = { idle_ms = 2000 }").await;
    let mut honest = Raw::greet(daemon.proxy).await;
    let before = memory(&daemon, "VmRSS");
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&frame(SETTINGS, 0, 0, &setting(4, 0))).await;
    for n in 0..100 {
        raw.send(&get(2 * n + 1, "/large")).await;
    }
    for n in 0..20 {
        // A byte now and then is no reason to keep all of it.
        raw.send(&frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0, 0, 0, 1])).await;
    }
    let seen = raw.verdict(199).await;
    assert!(matches!(seen, Seen::Alive | Seen::Reset(_)), "{seen:?}");
    assert_unmoved(&daemon, &mut honest, 1, before, "no window").await;
    let ended = async || daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0;
    crate::support::eventually("the answers are given up", ended).await;
}

/// RFC 9113 §5.2: a window belongs to one direction.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_while_its_answer_is_not_taken() {
    let (stage, upstream) = (Stage::new(), crate::by_hand::ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&[frame(SETTINGS, 0, 0, &setting(4, 0)), post(1, "/in", &[])].concat()).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
    peer.send(&vec![b'x'; 50_000]).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    for number in 10..30 {
        let part = format!("part {number}");
        raw.send(&frame(DATA, 0, 1, part.as_bytes())).await;
        peer.until(&part).await;
    }
}
