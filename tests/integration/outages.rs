//! Identity providers that are down, say no, or hang: what callers notice, and that it heals by
//! itself.

use std::time::{Duration, Instant};

use emulator::client::Answer;
use serde_json::json;

use crate::stage::{Gate, Stage, together};
use crate::support::{DEADLINE, Daemon, eventually, request};

/// Requests that may wait for one credential.
const MAX_WAITERS: usize = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_noticed_only_when_the_token_expires_and_heals_by_itself() {
    let stage = Stage::new();
    stage.idp.set_lifetime(Duration::from_secs(3));
    let daemon = stage.ready("wait_ms = 50").await;
    stage.idp.set_down(true);
    eventually("a failed refresh", async || fetches(&daemon, "transient").await > 0).await;
    let mut served_after_failure = 0;
    let refused = loop {
        let answer = daemon.get("/").await;
        if answer.status != 200 {
            break answer;
        }
        served_after_failure += 1;
    };
    assert!(served_after_failure > 0, "the held token was dropped when its refresh failed");
    assert_is_token_unavailable(&refused);
    assert_eq!(daemon.admin("/readyz").await.status, 503);
    assert_eq!(daemon.admin("/livez").await.status, 200);
    stage.idp.set_down(false);
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(stage.api.unauthorized(), 0, "an expired token was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_without_identity_provider_listens_and_heals() {
    let stage = Stage::new();
    stage.idp.set_down(true);
    let config = stage.credential("") + &stage.route("wait_ms = 50");
    let daemon = Daemon::start(&stage.home, &config);
    assert_eq!(daemon.admin("/livez").await.status, 200);
    for probe in ["/startupz", "/readyz"] {
        let answer = daemon.admin(probe).await;
        assert_eq!((answer.status, &answer.json()["credentials"]), (503, &json!(["c"])), "{probe}");
    }
    assert_is_token_unavailable(&daemon.get("/").await);
    assert_eq!(stage.api.request_count(), 0, "a bare request");
    stage.idp.set_down(false);
    daemon.ready().await;
    assert_eq!(daemon.admin("/startupz").await.status, 200);
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_answer_is_told_at_once_and_a_new_secret_on_disk_heals_it() {
    let stage = Stage::new();
    stage.home.write("secret", "not the secret");
    let wait = Duration::from_secs(15);
    let route = stage.route(&format!("wait_ms = {}", wait.as_millis()));
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    eventually("refused", async || {
        daemon.status().await["credentials"][0]["activity"] == "refused"
    })
    .await;
    let asked = Instant::now();
    let refused = daemon.get("/").await;
    assert!(asked.elapsed() < wait / 2, "waited although there is nothing to wait for");
    assert_is_token_unavailable(&refused);
    let status = daemon.status().await;
    assert_eq!(status["credentials"][0]["last"]["outcome"], "terminal");
    let audited = stage.idp.audit_failures();
    assert!(audited <= 2, "{audited} failed sign-ins");
    // No request, no signal, no restart.
    stage.home.write("secret", "secret");
    daemon.ready().await;
    assert_eq!(stage.idp.audit_failures(), audited);
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(daemon.metric("bearerd_token_fetches_total", &["changed", "ok"]).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_answer_leaves_the_held_token_in_use() {
    let stage = Stage::new();
    stage.idp.set_lifetime(Duration::from_secs(4));
    let daemon = stage.ready("").await;
    stage.idp.add_client("client", Some("another secret"));
    eventually("refused", async || fetches(&daemon, "terminal").await > 0).await;
    assert_eq!(daemon.get("/").await.status, 200);
    eventually("expired", async || daemon.admin("/readyz").await.status == 503).await;
    assert_is_token_unavailable(&daemon.get("/").await);
    assert_eq!(stage.api.unauthorized(), 0);
    assert_eq!(stage.idp.audit_failures(), 1, "a refused sign-in was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_lived_token_is_never_sent_expired_and_its_refreshes_do_not_spin() {
    for (life, refreshes) in [(1, 4), (10, 1)] {
        let stage = Stage::new();
        // The API lets a request be under way for half a second, no more.
        stage.idp.set_lifetime(Duration::from_secs(life) + Duration::from_millis(500));
        stage.idp.set_expires_in(json!(life));
        let (daemon, started) = (stage.ready("").await, Instant::now());
        let mut sent = 0;
        while stage.idp.token_requests() <= refreshes {
            assert_eq!(daemon.get("/").await.status, 200);
            sent += 1;
            assert!(started.elapsed() < DEADLINE, "no refresh of a token that lives {life} s");
        }
        assert_eq!((stage.api.ok(), stage.api.unauthorized()), (sent, 0), "life {life} s");
        let bound = 2 + started.elapsed().as_secs();
        assert!(stage.idp.token_requests() <= bound, "spins on a token that lives {life} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_lapsed_unused_is_ready_and_wakes_with_the_next_request() {
    let stage = Stage::new();
    stage.idp.set_lifetime(Duration::from_secs(2));
    let credential = stage.credential("refresh = { idle_after_seconds = 1 }");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("")));
    daemon.ready().await;
    eventually("lapsed", async || {
        assert_eq!(daemon.admin("/readyz").await.status, 200);
        daemon.status().await["credentials"][0]["phase"] == "expired"
    })
    .await;
    assert_eq!(daemon.admin("/readyz").await.status, 200);
    let before = stage.idp.token_requests();
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(stage.idp.token_requests(), before + 1);
    assert_eq!(stage.api.unauthorized(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_requests_wait_for_a_token_and_the_next_one_is_told_at_once() {
    let stage = Stage::new();
    let gate = Gate::before(stage.idp.server().address()).await;
    let credential = stage.credential_from(&gate.url("/token"), "");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("wait_ms = 60000")));
    let proxy = daemon.proxy;
    let waiting =
        together(
            MAX_WAITERS,
            move |_| async move { request(proxy, "GET", "/", &[], b"").await.status },
        );
    let one_more = async {
        eventually("all wait", async || {
            daemon.metric("bearerd_requests_in_flight", &[]).await as usize == MAX_WAITERS
        })
        .await;
        assert_is_token_unavailable(&daemon.get("/").await);
        gate.open();
    };
    let (statuses, ()) = tokio::join!(waiting, one_more);
    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!((stage.idp.token_requests(), stage.api.unauthorized()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_say_how_long_it_lives_lives_as_configured() {
    let stage = Stage::new();
    stage.idp.omit_expires_in();
    let credential = stage.credential("refresh = { default_lifetime_seconds = 3 }");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("")));
    daemon.ready().await;
    let expiry = daemon.metric("bearerd_token_expiry_timestamp_seconds", &[]).await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
    assert!((0.0..=3.0).contains(&(expiry - now)), "{}", expiry - now);
    stage.idp.wait_for_token_requests(2, DEADLINE).await.expect("refreshed in time");
}

fn assert_is_token_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("bearerd-reason"), Some("token_unavailable"));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let seconds: u64 = answer.header("retry-after").and_then(|s| s.parse().ok()).unwrap_or(0);
    assert!(seconds >= 1, "{:?}", answer.head);
    assert_eq!(answer.header("www-authenticate"), None);
}

async fn fetches(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_token_fetches_total", &[&label]).await as u64
}
