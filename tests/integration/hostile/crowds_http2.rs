//! The same over HTTP/2, where requests share their callers' connections: neither side reads, and both
//! have said as much as they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::crowds::{
    allow_all_files, answers_without_end, fields, narrow, narrow_listener, promised,
};
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, HEADERS, PREFACE, Raw, SETTINGS, WINDOW_UPDATE, frame,
    request, setting,
};
use crate::multiplexed::{Upstream, pour};
use crate::pressure::memory;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually};

const CALLERS: u32 = 4;
const REQUESTS: u32 = 50;

/// The head of an upload on `stream`, with almost as many fields as there may be, and as much of its
/// body as there is a window for.
fn upload(stream: u32) -> Vec<u8> {
    const FRAME: usize = 16 << 10;
    const WINDOW: usize = 128 << 10;
    let fields = fields();
    let fields = fields.lines().filter_map(|line| line.split_once(": ")).collect::<Vec<_>>();
    let block = request("POST", "/", &fields);
    let parts = block.chunks(FRAME).enumerate();
    let mut upload: Vec<u8> = parts
        .flat_map(|(index, part)| {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let ends = if (index + 1) * FRAME < block.len() { 0 } else { END_HEADERS };
            frame(kind, ends, stream, part)
        })
        .collect();
    upload.extend(frame(DATA, 0, stream, &[b'x'; FRAME]).repeat(WINDOW / FRAME));
    upload
}

/// Callers who upload as much as they can, and let everybody send and read nothing.
async fn callers(daemon: &Daemon) -> JoinSet<Raw> {
    /// RFC 9113 §6.5.2, §6.9.1.
    const INITIAL_WINDOW: u16 = 4;
    const MAX_WINDOW: u32 = (1 << 31) - 1;
    let settings = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, MAX_WINDOW));
    let window = frame(WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - 65_535).to_be_bytes());
    let greeting = [PREFACE, &settings, &frame(SETTINGS, ACK, 0, b""), &window].concat();
    let uploads = (0..REQUESTS).flat_map(|number| upload(2 * number + 1)).collect::<Vec<_>>();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut caller = Raw::over(narrow(daemon.proxy).await);
        caller.send(&greeting).await;
        // The connection's window is as large as it gets.
        while caller.next().await.expect("a greeting").kind != WINDOW_UPDATE {}
        let uploads = uploads.clone();
        callers.spawn(async move {
            let sending = timeout(DEADLINE, caller.try_send(&uploads)).await;
            sending.expect("there is a window").expect("sent");
            caller
        });
    }
    callers
}

/// Since there were `before`, so much has been used as all that is promised, or less, and not much less.
fn assert_kept(stage: &Stage, daemon: &Daemon, before: u64) {
    let used = memory(daemon, "VmHWM").saturating_sub(before);
    let (connection, request) = promised(stage).http2;
    let promised = u64::from(CALLERS) * (connection + u64::from(REQUESTS) * request);
    assert!(used < promised, "{used} KiB of {promised}");
    assert!(used > promised / 4, "{used} KiB of {promised}");
}

async fn over(daemon: &Daemon) {
    let ended = async || daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0;
    eventually("all of them are over", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_at_their_worst_over_http2_stay_within_what_is_promised_for_a_request() {
    allow_all_files();
    let (stage, upstream) = (Stage::new(), narrow_listener());
    let route = route_to(&format!("http://{}", upstream.local_addr().expect("bound")), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let before = memory(&daemon, "VmRSS");
    let (callers, mut upstreams) = (callers(&daemon).await, JoinSet::new());
    for _ in 0..CALLERS * REQUESTS {
        upstreams.spawn(answers_without_end(&upstream).await);
    }
    let sides = (callers.join_all().await, upstreams.join_all().await);
    assert_kept(&stage, &daemon, before);
    drop(sides);
    over(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_at_their_worst_over_http2_stay_within_it_also_if_the_upstream_speaks_that() {
    /// Nothing came for so long: it stands still. If it was only slow, less is proven.
    const STILL: Duration = Duration::from_millis(500);
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    let before = memory(&daemon, "VmRSS");
    let (callers, mut pouring) = (callers(&daemon).await, JoinSet::new());
    let poured = Arc::new(AtomicUsize::new(0));
    for _ in 0..CALLERS * REQUESTS {
        pouring.spawn(pour(upstream.asked().await, Arc::clone(&poured)));
    }
    let callers = callers.join_all().await;
    let mut last = 0;
    while last != poured.load(Relaxed) || last == 0 {
        last = poured.load(Relaxed);
        sleep(STILL).await;
    }
    assert_kept(&stage, &daemon, before);
    drop(callers);
    over(&daemon).await;
}
