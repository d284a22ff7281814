//! Second sendings that must be whole, and what each hop says for itself: versions, codings, times.

use std::time::Duration;

use emulator::Step;
use emulator::client::Client;
use serde_json::json;

use crate::bodies::unauthorized;
use crate::stage::{Gate, Stage};
use crate::support::{DEADLINE, Daemon, eventually};

/// A connection to the proxy, with `bytes` sent on it.
async fn sent(daemon: &Daemon, bytes: &[u8]) -> Client {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(bytes).await.expect("sent");
    caller
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn with_limits(stage: &Stage, limits: &str) -> Daemon {
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let config =
        format!("{server}limits = {{ {limits} }}\n{}{}", stage.credential(""), stage.route(""));
    Daemon::start_with(&stage.home, &config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_never_sends_a_part_of_a_body_for_the_whole() {
    let stage = Stage::new();
    let gate = Gate::before(stage.idp.server().address()).await;
    gate.open();
    let config = stage.credential_from(&gate.url("/token"), "")
        + &stage.route("replay = { body_bytes = 1000 }");
    let daemon = Daemon::start(&stage.home, &config);
    daemon.ready().await;
    gate.close();
    stage.api.script([Step::early(unauthorized())]);
    let head = b"POST /in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = sent(&daemon, &[&head[..], &chunk(&[b'a'; 500])].concat()).await;
    eventually("the refresh", async || {
        daemon.status().await["credentials"][0]["activity"] == json!("fetching")
    })
    .await;
    // More than the copy may hold, while the request waits for its token.
    caller.send(&chunk(&[b'b'; 900])).await.expect("sent");
    gate.open();
    eventually("the replay", async || stage.api.server().connections() == 2).await;
    caller.send(b"0\r\n\r\n").await.expect("sent");
    let answer = caller.answer().await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["body_length"]), (200, &json!(1400)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_chunked_get_arrives() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let request = b"GET /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5\r\nquery\r\n0\r\n\r\n";
    let answer = sent(&daemon, request).await.answer().await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["body_length"]), (200, &json!(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_http_1_0_makes_a_request_of_http_1_1() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let request = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let answer = sent(&daemon, request).await.answer().await.expect("an answer");
    assert_eq!(answer.status, 200);
    let seen = stage.api.last_request().expect("a request");
    assert_eq!(seen.version, 1, "the minor version");
    let via = seen.header("via").expect("Via");
    assert!(via.starts_with("1.0 bearerd-"), "{via}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_beneath_chunked_is_refused() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let request = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
                    0\r\n\r\n";
    let answer = sent(&daemon, request).await.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.header("bearerd-reason")), (400, Some("bad_request")));
    assert_eq!(stage.api.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_time_is_not_bounded_by_the_time_for_a_head() {
    let stage = Stage::new();
    let daemon = with_limits(&stage, "head_seconds = 1, idle_seconds = 30");
    daemon.ready().await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    for _ in 0..2 {
        let answer = caller.request("GET", "/", &[], b"").await.expect("still open");
        assert_eq!(answer.status, 200);
        // The behaviour is about time: longer than a head may take.
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_and_a_caller_that_idles_are_closed() {
    let stage = Stage::new();
    let daemon = with_limits(&stage, "head_seconds = 1, idle_seconds = 30");
    daemon.ready().await;
    let mut caller = sent(&daemon, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(caller.answer().await.expect("an answer").status, 200);
    caller.send(b"GET / HT").await.expect("sent");
    let closed = tokio::time::timeout(DEADLINE, caller.rest()).await;
    assert!(closed.is_ok(), "closed well before it idles for too long");
    let daemon = with_limits(&stage, "head_seconds = 30, idle_seconds = 1");
    let mut caller = sent(&daemon, b"").await;
    let closed = tokio::time::timeout(DEADLINE, caller.rest()).await;
    assert!(closed.is_ok(), "closed well before a head would take too long");
}
