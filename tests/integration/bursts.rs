//! Many requests at once: one token request serves them all, and an upstream that refuses every
//! token does not turn its callers into a storm at the identity provider.

use std::time::Instant;

use emulator::client::{Answer, Client};
use emulator::http::pattern;

use crate::stage::{Gate, Stage, together};
use crate::support::{Daemon, eventually, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cold_requests_cause_one_token_request() {
    let stage = Stage::new();
    let gate = Gate::before(stage.idp.server().address()).await;
    let credential = stage.credential_from(&gate.url("/token"), "");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("wait_ms = 60000")));
    let proxy = daemon.proxy;
    let open_when_all_wait = async {
        eventually("all wait", async || {
            daemon.metric("bearerd_requests_in_flight", &[]).await >= 1000.0
        })
        .await;
        gate.open();
    };
    let requests = together(1000, move |index| async move {
        request(proxy, "GET", &format!("/{index}"), &[], b"").await.status
    });
    let (statuses, ()) = tokio::join!(requests, open_when_all_wait);
    assert_eq!(statuses, [200; 1000]);
    assert_eq!((stage.idp.token_requests(), stage.api.ok()), (1, 1000));
    assert_eq!(stage.api.unauthorized(), 0);
    assert!((daemon.metric("bearerd_token_wait_seconds_count", &[]).await - 1000.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_401s_causes_one_refresh_and_one_replay_each() {
    let stage = Stage::new();
    let gate = Gate::before(stage.idp.server().address()).await;
    gate.open();
    let credential = stage.credential_from(&gate.url("/token"), "");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("wait_ms = 60000")));
    let body = pattern(60 * 1024);
    let unharmed = daemon.post("/before", &body).await.json()["body_sha256"].clone();
    assert!(unharmed.is_string());
    gate.close();
    stage.tokens.revoke_all();
    let proxy = daemon.proxy;
    let requests = together(64, move |_| {
        let body = body.clone();
        async move { request(proxy, "POST", "/burst", &[], &body).await }
    });
    let open_when_all_are_refused = async {
        eventually("all refused", async || stage.api.unauthorized() == 64).await;
        gate.open();
    };
    let (answers, ()) = tokio::join!(requests, open_when_all_are_refused);
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["body_sha256"], unharmed);
    }
    assert_eq!(stage.idp.token_requests(), 2);
    assert_eq!((stage.api.ok(), stage.api.request_count()), (65, 129));
    assert_eq!(replays(&daemon, "succeeded").await, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_every_token_causes_no_storm() {
    const AT_ONCE: usize = 1500;
    const CALLERS: usize = 50;
    const EACH: usize = 20;
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    stage.api.set_always_unauthorized(true);
    let (proxy, started) = (daemon.proxy, Instant::now());
    let at_once =
        together(AT_ONCE, move |_| async move { request(proxy, "GET", "/", &[], b"").await }).await;
    let in_a_row = together(CALLERS, move |_| async move {
        let mut caller = Client::connect(proxy).await.expect("a connection");
        let mut answers = Vec::new();
        for _ in 0..EACH {
            answers.push(caller.request("GET", "/", &[], b"").await.expect("an answer"));
        }
        answers
    })
    .await;
    let elapsed = started.elapsed();
    for answer in at_once.iter().chain(in_a_row.iter().flatten()) {
        assert_is_the_upstreams_own_401(answer);
    }
    // The first one of all, one for the first 401, and one an interval (a second, at first).
    let bound = 2 + elapsed.as_secs();
    let token_requests = stage.idp.token_requests();
    assert!(token_requests <= bound, "{token_requests} token requests in {elapsed:?}");
    assert!(token_requests > 1, "nobody tried a newer token");
    let sent = (AT_ONCE + CALLERS * EACH) as u64;
    let arrived = stage.api.request_count();
    assert!((sent..=2 * sent).contains(&arrived), "{arrived} arrived of {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_large_to_keep_passes_the_401_on_and_the_next_request_works() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let body = pattern(1 << 20);
    stage.tokens.revoke_all();
    let refused = daemon.post("/large", &body).await;
    assert_is_the_upstreams_own_401(&refused);
    assert_eq!((stage.api.request_count(), replays(&daemon, "body_too_large").await), (1, 1));
    eventually("the refusal caused a refresh", async || {
        daemon.metric("bearerd_token_generation", &[]).await > 1.0
    })
    .await;
    assert_eq!(daemon.post("/large", &body).await.status, 200);
    assert_eq!((stage.idp.token_requests(), stage.api.unauthorized()), (2, 1));
}

fn assert_is_the_upstreams_own_401(answer: &Answer) {
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(answer.header("bearerd-reason"), None);
    assert_eq!(answer.json()["error"], "unauthorized");
}

async fn replays(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_replays_total", &[&label]).await as u64
}
