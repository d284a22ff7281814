//! VMware Cloud Services: rows C2 to C7, and that an envelope's text reaches no log.

use std::time::{Duration, SystemTime};

use emulator::csp::{BadToken, conflict, error_in_success, rate_limited, server_error};
use emulator::{Csp, Step, Tls};

use super::csp::written;
use super::{Rig, exactly, failed, pauses, seconds_until, told};
use crate::support::Daemon;

async fn good() -> (Rig, Csp, Daemon) {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let daemon = rig.started(&written(&rig, &csp, &csp.issue_api_token())).await;
    (rig, csp, daemon)
}

/// One answer to a refresh while a token is in force.
async fn row(step: Step, outcome: &str, parts: &[&str]) -> serde_json::Value {
    let (rig, csp, daemon) = good().await;
    csp.set_always(Some(step));
    let status = rig.keeps_the_token(&daemon, outcome).await;
    told(&status, parts, false);
    csp.set_always(None);
    rig.finish(daemon, &csp);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_an_error_code_in_a_success_is_terminal() {
    let status =
        row(error_in_success(), "terminal", &["answered 200 (bad_grant)", "rule C2"]).await;
    pauses(&status);
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_success_without_a_token_may_pass() {
    let step = Step::Without("access_token".to_owned());
    row(step, "transient", &["answered 200 (unusable)", "holds no access token"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_an_expired_api_token_is_terminal_and_costs_one_audit_event() {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let api_token = csp.issue_api_token();
    csp.expire_api_token(&api_token);
    let daemon = rig.start(&written(&rig, &csp, &api_token));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 400 (bad_grant)", "rule C3", "API token expired or unknown"], false);
    pauses(&status);
    for _ in 0..5 {
        assert_eq!(daemon.get("/vms").await.status, 503);
    }
    exactly(&csp, 1).await;
    assert_eq!(csp.audit_failures_of(&api_token), 1); // C-E10
    rig.finish(daemon, &csp);
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_c4_an_unknown_api_token_is_terminal_in_every_envelope_and_no_part_of_it_is_logged() {
    for (shape, parts) in [
        (BadToken::Number400, ["answered 400 (bad_grant)", "rule C3"]),
        (BadToken::String400, ["answered 400 (bad_grant)", "rule C3"]),
        (BadToken::Envelope404, ["answered 404 (bad_grant)", "rule C4"]),
    ] {
        let rig = Rig::new();
        let csp = Csp::start(Tls::Off, &rig.tokens);
        csp.set_bad_token(shape);
        let api_token = "0123456789012345678901234567890123456789canaryEND99";
        let daemon = rig.start(&written(&rig, &csp, api_token));
        let status = failed(&daemon, "terminal").await;
        told(&status, &parts, false);
        pauses(&status);
        exactly(&csp, 1).await;
        let page = daemon.admin("/").await.text();
        let metrics = daemon.admin("/metrics").await.text();
        for shown in [daemon.logs(), status.to_string(), page, metrics] {
            // The envelopes quote the last five characters.
            assert!(!shown.contains("END99") && !shown.contains("Invalid refresh token"));
        }
        rig.finish(daemon, &csp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_404_without_an_envelope_is_a_wrong_host_or_path() {
    let status = row(Step::Html(404), "terminal", &["answered 404 (not_found)"]).await;
    assert!(!status["last"]["detail"].as_str().unwrap().contains("rule"));
    pauses(&status);
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_conflict_may_pass() {
    row(conflict(), "transient", &["answered 409 (conflict)", "rule C5"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_too_many_requests_may_pass() {
    let status = row(rate_limited(None), "transient", &["answered 429 (rate_limited)"]).await;
    assert!(seconds_until(&status["next_attempt"]) <= 2, "an ordinary backoff");
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_retry_after_is_honoured_in_seconds_and_as_a_date() {
    let date = emulator::http_date(SystemTime::now() + Duration::from_secs(200));
    for (retry_after, wait) in [("100", 90..=100), (&*date, 180..=200), ("86400", 880..=900)] {
        let step = rate_limited(Some(retry_after));
        let status = row(step, "transient", &["answered 429 (rate_limited)"]).await;
        let next = seconds_until(&status["next_attempt"]);
        assert!(wait.contains(&next), "{retry_after}: next attempt in {next} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_a_failing_server_may_pass() {
    for step in [server_error(), Step::Html(500)] {
        row(step, "transient", &["answered 500 (server)"]).await;
    }
}
