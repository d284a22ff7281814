//! PTC ServiceMax: rows S3 to S6, and what fails in every dialect alike.

use emulator::{Servicemax, Step, Tls};
use serde_json::json;

use super::servicemax::written;
use super::{Rig, exactly, failed, pauses, told, transient_steps};
use crate::support::{Daemon, eventually};

async fn good() -> (Rig, Servicemax, Daemon) {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let daemon = rig.started(&written(&rig, &idp, &client, &refresh_token)).await;
    (rig, idp, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_both_errors_are_terminal_and_the_token_in_force_goes_on() {
    for (error, reason) in [("invalid_request", "bad_request"), ("invalid_grant", "bad_grant")] {
        let (rig, idp, daemon) = good().await;
        idp.script([Step::Json(400, json!({ "error": error }))]);
        let status = rig.keeps_the_token(&daemon, "terminal").await;
        told(&status, &["answered 400", reason, error], false);
        pauses(&status);
        exactly(&idp, 2).await;
        rig.finish(daemon, &idp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_an_unknown_client_is_terminal_whatever_the_status() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let nobody = "57d22b28e0c5962541889195";
    let daemon = rig.start(&written(&rig, &idp, nobody, &refresh_token));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 400 (bad_client)", "invalid_client"], false);
    pauses(&status);
    exactly(&idp, 1).await;
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_an_unknown_refresh_token_needs_an_operator() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let (client, other) = (idp.add_client(), idp.add_client());
    let expired = idp.issue_refresh_token(&client);
    idp.expire_refresh_token(&expired);
    let another_clients = idp.issue_refresh_token(&other);
    for refresh_token in ["unknown", &expired, &another_clients] {
        let before = idp.token_requests();
        let daemon = rig.start(&written(&rig, &idp, &client, refresh_token));
        let status = failed(&daemon, "terminal").await;
        let hint = "a user must authorize again";
        told(&status, &["answered 401 (needs_operator)", "rule S5", hint], true);
        pauses(&status);
        let answer = daemon.get("/").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("bearerd-reason"), Some("token_unavailable"));
        assert!(answer.header("retry-after").is_some());
        exactly(&idp, before + 1).await;
        assert_eq!(idp.audit_failures_of(refresh_token), 1, "never another try, no probing");
        rig.finish(daemon, &idp);
    }
    assert_eq!(rig.api.request_count(), 0, "never a bare request");
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_refresh_token_that_is_put_in_place_ends_the_pause() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let daemon = rig.start(&written(&rig, &idp, &client, "unknown"));
    failed(&daemon, "terminal").await;
    rig.home.write("refresh-token", &idp.issue_refresh_token(&client));
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    let changed = ["trigger=\"changed\"", "outcome=\"ok\""];
    eventually("the trigger", async || {
        daemon.metric("bearerd_token_fetches_total", &changed).await >= 1.0
    })
    .await;
    exactly(&idp, 2).await;
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_with_a_token_in_force_requests_go_on() {
    let (rig, idp, daemon) = good().await;
    idp.script([Step::Json(401, json!({ "error": "invalid_token" }))]);
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["rule S5"], true);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_404_hints_at_host_and_prefix() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let credential =
        format!("{}base_path = \"/elsewhere\"\n", written(&rig, &idp, &client, &refresh_token));
    let daemon = rig.start(&credential);
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 404 (not_found)", "rule S6", "check host and base_path"], false);
    assert_eq!(idp.last_request().unwrap().target, "/elsewhere/auth/token");
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_the_token_in_force_goes_on() {
    for (step, said) in transient_steps() {
        let (rig, idp, daemon) = good().await;
        idp.set_always(Some(step));
        let status = rig.keeps_the_token(&daemon, "transient").await;
        told(&status, &[said], false);
        idp.set_always(None);
        eventually("the next attempt brings a token", async || {
            super::credential(&daemon).await["generation"] == 2
        })
        .await;
        rig.finish(daemon, &idp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_terminal_and_not_followed() {
    let (rig, idp, daemon) = good().await;
    let elsewhere = format!("{}/sec/auth/token?moved", idp.url());
    idp.script([Step::Status(307).header("Location", &elsewhere)]);
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["answered 307"], false);
    exactly(&idp, 2).await;
    rig.finish(daemon, &idp);
}
