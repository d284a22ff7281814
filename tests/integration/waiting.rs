//! When a request is forwarded, by what its credential has: at once, after a bounded wait, or not
//! at all.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use emulator::Step;
use emulator::client::Answer;

use crate::stage::{Gate, Stage, together};
use crate::support::{DEADLINE, Daemon, eventually, request};

/// Requests that may wait for one credential.
const WAITERS: usize = 1024;

fn assert_token_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("bearerd-reason"), Some("token_unavailable"));
    assert_eq!(answer.header("www-authenticate"), None);
    assert!(retry_after(answer) >= 1);
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

async fn in_flight(daemon: &Daemon) -> u64 {
    daemon.metric("bearerd_requests_in_flight", &[]).await as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_token_is_sent_at_once_and_asking_for_it_changes_nothing() {
    let stage = Stage::new();
    stage.idp.set_lifetime(Duration::from_secs(60));
    let more = "refresh = { min_interval_seconds = 1 }";
    // Due from its beginning on: the fetch that is to replace it does not end.
    stage.idp.set_expires_in(serde_json::json!(10));
    stage.idp.script([Step::Normal]);
    stage.idp.set_always(Some(Step::Hang));
    let config = stage.credential(more) + &stage.route("");
    let daemon = Daemon::start(&stage.home, &config);
    daemon.ready().await;
    eventually("due", async || daemon.status().await["credentials"][0]["phase"] == "due").await;
    let under_way = stage.idp.wait_for_token_requests(2, DEADLINE).await;
    under_way.expect("the refresh that does not end");
    let mut sent = 0;
    while daemon.status().await["credentials"][0]["phase"] == "due" && sent < 50 {
        let answer = daemon.get("/").await;
        if daemon.status().await["credentials"][0]["phase"] == "due" {
            assert_eq!(answer.status, 200, "{}", answer.text());
            sent += 1;
        }
    }
    assert!(sent > 0, "it was never due");
    assert_eq!(stage.idp.token_requests(), 2, "requests caused fetches");
    assert_eq!(daemon.metric("bearerd_token_wait_seconds_count", &[]).await as u64, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_as_long_as_its_route_says_and_is_told_then() {
    let stage = Stage::new();
    stage.idp.set_always(Some(Step::Hang));
    let config = stage.credential("") + &stage.route("wait_ms = 700");
    let daemon = Daemon::start(&stage.home, &config);
    stage.idp.wait_for_token_requests(1, DEADLINE).await.expect("a fetch");
    let asked = Instant::now();
    let answer = daemon.get("/").await;
    assert!(asked.elapsed() >= Duration::from_millis(700), "{:?}", asked.elapsed());
    assert_token_unavailable(&answer);
    assert_eq!(stage.api.request_count(), 0, "a bare request");
    assert_eq!(stage.idp.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_so_many_wait_and_the_others_are_told_at_once() {
    const TOO_MANY: usize = 40;
    let stage = Stage::new();
    let gate = Gate::before(stage.idp.server().address()).await;
    let credential = stage.credential_from(&gate.url("/token"), "");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("wait_ms = 60000")));
    let proxy = daemon.proxy;
    let waiting = tokio::spawn(together(WAITERS, move |_| async move {
        request(proxy, "GET", "/", &[], b"").await.status
    }));
    eventually("all wait", async || in_flight(&daemon).await >= WAITERS as u64).await;
    // While those wait.
    for _ in 0..TOO_MANY {
        assert_token_unavailable(&daemon.get("/").await);
    }
    gate.open();
    assert_eq!(waiting.await.expect("all answered"), [200; WAITERS]);
    assert_eq!((stage.idp.token_requests(), stage.api.ok()), (1, WAITERS as u64));
    // The places were given back: a refused token's replacement is waited for in one of them.
    gate.close();
    stage.tokens.revoke_all();
    let held = gate.connections();
    let waiting = tokio::spawn(request(proxy, "GET", "/", &[], b""));
    eventually("a fetch", async || gate.connections() > held).await;
    gate.open();
    assert_eq!(waiting.await.expect("answered").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_no_the_caller_is_told_when_the_next_attempt_is() {
    let stage = Stage::new();
    stage.home.write("secret", "not the secret");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &stage.route("")));
    eventually("refused", async || {
        daemon.status().await["credentials"][0]["activity"] == "refused"
    })
    .await;
    let answer = daemon.get("/").await;
    assert_token_unavailable(&answer);
    let status = daemon.status().await;
    let next = status["credentials"][0]["next_attempt"].as_str().unwrap_or_default();
    let next: jiff::Timestamp = next.parse().expect("a time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let left = next.as_second().cast_unsigned() - now;
    assert!(retry_after(&answer).abs_diff(left) <= 5, "{left} s left: {:?}", answer.head);
    assert_eq!(stage.api.request_count(), 0);
}
