//! Every bound of the configuration, set low and hit: each answers with its own reason.

use std::time::Duration;

use emulator::client::{Answer, Client};
use emulator::{Reply, Step};
use serde_json::json;

use super::frames::{DATA, END_STREAM, RST_STREAM, Raw, Seen, frame, get, post};
use crate::stage::{Gate, Stage};
use crate::support::{Daemon, eventually, request};

async fn send(daemon: &Daemon, head: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(format!("{head}\r\n\r\n").as_bytes()).await.expect("sent");
    caller.answer().await.expect("an answer")
}

fn limited(stage: &Stage, limits: &str, credential: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nlimits = {{ {limits} }}\n\
         {}{}",
        stage.credential(credential),
        stage.route("")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_heads_are_as_configured() {
    let stage = Stage::new();
    let limits = "head_bytes = 8192, head_fields = 5, target_bytes = 16";
    let daemon = Daemon::start_with(&stage.home, &limited(&stage, limits, ""));
    daemon.ready().await;
    let host = "HTTP/1.1\r\nHost: localhost";
    let fields = |count| "\r\nX: a".repeat(count);
    for (head, status) in [
        (format!("GET /{} {host}", "a".repeat(15)), 200),
        (format!("GET /{} {host}", "a".repeat(16)), 414),
        (format!("GET /?{} {host}", "a".repeat(15)), 414),
        (format!("GET / {host}{}", fields(4)), 200),
        (format!("GET / {host}{}", fields(5)), 431),
        (format!("GET / {host}\r\nX: {}", "a".repeat(7000)), 200),
        (format!("GET / {host}\r\nX: {}", "a".repeat(9000)), 431),
    ] {
        let answer = send(&daemon, &head).await;
        let reason = (status != 200).then_some("too_large");
        assert_eq!(
            (answer.status, answer.header("bearerd-reason")),
            (status, reason),
            "{head:.60}"
        );
    }
    assert_eq!(daemon.metric("bearerd_refused_total", &["too_large"]).await as u64, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_told_so_and_take_nobodys_place() {
    let stage = Stage::new();
    let daemon = Daemon::start_with(&stage.home, &limited(&stage, "connections = 2", ""));
    daemon.ready().await;
    let mut first = Client::connect(daemon.proxy).await.expect("a connection");
    let mut second = Client::connect(daemon.proxy).await.expect("a connection");
    for caller in [&mut first, &mut second] {
        assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    }
    for _ in 0..5 {
        let answer = send(&daemon, "GET / HTTP/1.1\r\nHost: localhost").await;
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (503, Some("overloaded")));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(first.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    assert_eq!(daemon.metric("bearerd_refused_total", &["overloaded"]).await as u64, 5);
    assert_eq!(daemon.admin("/livez").await.status, 200);
    drop(second);
    let served = async || send(&daemon, "GET / HTTP/1.1\r\nHost: localhost").await.status == 200;
    eventually("its place is free", served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_resets_of_http2_are_bounded_as_configured() {
    let stage = Stage::new();
    let limits = "http2_streams = 2, http2_resets = 3";
    let daemon = Daemon::start_with(&stage.home, &limited(&stage, limits, ""));
    daemon.ready().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&[post(1, "/in", &[]), post(3, "/in", &[]), get(5, "/")].concat()).await;
    assert_eq!(raw.verdict(5).await, Seen::Reset(7), "REFUSED_STREAM");
    // As many errors as are allowed, and one more.
    let mut raw = Raw::greet(daemon.proxy).await;
    let wrong = |stream| {
        let bad = [post(stream, "/in", &[("content-length", "1")]), frame(0, 1, stream, b"22")];
        bad.concat()
    };
    raw.send(&(0..20).flat_map(|n| wrong(2 * n + 1)).collect::<Vec<_>>()).await;
    assert_eq!(raw.verdict(0).await, Seen::GoAway(11), "ENHANCE_YOUR_CALM");
    let mut raw = Raw::greet(daemon.proxy).await;
    let cancelled = |n: u32| {
        [post(2 * n + 1, "/in", &[]), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
    };
    raw.send(&(0..200).flat_map(cancelled).collect::<Vec<_>>()).await;
    assert_eq!(raw.verdict(0).await, Seen::GoAway(11), "ENHANCE_YOUR_CALM");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http2_are_bounded_over_all_connections() {
    let stage = Stage::new();
    let daemon = Daemon::start_with(&stage.home, &limited(&stage, "http2_requests = 2", ""));
    daemon.ready().await;
    let mut first = Raw::greet(daemon.proxy).await;
    let mut second = Raw::greet(daemon.proxy).await;
    for raw in [&mut first, &mut second] {
        raw.send(&post(1, "/in", &[])).await;
    }
    let both = async || daemon.metric("bearerd_requests_in_flight", &[]).await as u64 == 2;
    eventually("both are under way", both).await;
    for raw in [&mut first, &mut second] {
        raw.send(&get(3, "/")).await;
        assert_eq!(raw.answer(3).await, Seen::Status(503));
    }
    assert_eq!(daemon.metric("bearerd_refused_total", &["overloaded"]).await as u64, 2);
    // Those of HTTP/1 are as many as connections.
    assert_eq!(send(&daemon, "GET / HTTP/1.1\r\nHost: localhost").await.status, 200);
    first.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(first.answer(1).await, Seen::Status(200));
    // One after the other: each leaves room for the next.
    for number in 2..52 {
        let stream = 2 * number + 1;
        second.send(&get(stream, "/")).await;
        assert_eq!(second.answer(stream).await, Seen::Status(200), "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_wait_for_a_token_as_are_allowed_to() {
    let stage = Stage::new();
    let gate = Gate::before(stage.idp.server().address()).await;
    let credential =
        stage.credential_from(&gate.url("/token"), "limits = { waiters = 1 }") + &stage.route("");
    let daemon = Daemon::start(&stage.home, &credential);
    let proxy = daemon.proxy;
    let waiting = tokio::spawn(async move { request(proxy, "GET", "/", &[], b"").await.status });
    let waits = async || daemon.metric("bearerd_requests_in_flight", &[]).await as u64 == 1;
    eventually("one waits", waits).await;
    let second = daemon.get("/").await;
    let seen = (second.status, second.header("bearerd-reason"));
    assert_eq!(seen, (503, Some("token_unavailable")));
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_identity_providers_are_bounded_as_configured() {
    for (limits, step, told) in [
        (
            "answer_bytes = 1024",
            Step::from(Reply::json(200, json!({ "access_token": "t", "x": "y".repeat(2000) }))),
            "larger than limits.answer_bytes",
        ),
        (
            "token_bytes = 16",
            Step::from(Reply::json(200, json!({ "access_token": "t".repeat(17) }))),
            "longer than limits.token_bytes",
        ),
        ("answer_seconds = 1", Step::Hang, "timeout"),
        (
            "answer_seconds = 1",
            Step::from(
                Reply::json(200, json!({ "access_token": "t".repeat(500) }))
                    .drip(1, Duration::from_millis(50)),
            ),
            "timeout",
        ),
    ] {
        let stage = Stage::new();
        stage.idp.set_always(Some(step));
        let config = stage.credential(&format!("limits = {{ {limits} }}")) + &stage.route("");
        let daemon = Daemon::start(&stage.home, &config);
        let detail = async || {
            let status = daemon.status().await;
            let last = &status["credentials"][0]["last"];
            last["outcome"] == "transient"
                && last["detail"].as_str().unwrap_or_default().contains(told)
        };
        eventually(&format!("{limits}: {told}"), detail).await;
        let answer = daemon.get("/").await;
        assert_eq!(answer.header("bearerd-reason"), Some("token_unavailable"), "{limits}");
        assert_eq!(stage.api.request_count(), 0);
    }
}
