//! Tencent Cloud CIAM: rows T3 to T6, and answers that are lost.

use emulator::{Step, Tencent};
use serde_json::json;

use super::tencent::{CLIENT, tenant, written};
use super::{Rig, credential, exactly, failed, pauses, told};
use crate::support::Daemon;

async fn good() -> (Rig, Tencent, Daemon) {
    let rig = Rig::new();
    let idp = tenant(&rig);
    let daemon = rig.started(&written(&rig, &idp, &idp.issue_refresh_token(CLIENT))).await;
    (rig, idp, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_an_incorrect_refresh_token_needs_an_operator() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    let refresh_token = idp.issue_refresh_token(CLIENT);
    idp.expire_refresh_token(&refresh_token);
    let daemon = rig.start(&written(&rig, &idp, &refresh_token));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 400 (needs_operator)", "rule T3", "sign in again"], true);
    pauses(&status);
    exactly(&idp, 1).await;
    // A person signs in again and puts the new one in place.
    rig.home.write("refresh-token", &idp.issue_refresh_token(CLIENT));
    daemon.ready().await;
    assert_eq!(daemon.get("/users").await.status, 200);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_with_a_token_in_force_requests_go_on() {
    let (rig, idp, daemon) = good().await;
    idp.expire_refresh_token(&rig.stored());
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["rule T3"], true);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_unknown_client_is_terminal() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    let refresh_token = idp.issue_refresh_token(CLIENT);
    let credential = written(&rig, &idp, &refresh_token).replace(CLIENT, "somebody else");
    let daemon = rig.start(&credential);
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 400 (bad_request)", "invalid_request"], false);
    pauses(&status);
    exactly(&idp, 1).await;
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_wrong_secret_is_terminal_and_the_right_one_is_taken_up() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    let credential = written(&rig, &idp, &idp.issue_refresh_token(CLIENT));
    let right = crate::support::read(rig.home.path("client-secret"));
    rig.home.write("client-secret", "wrong");
    let daemon = rig.start(&credential);
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 401 (bad_client)", "invalid_client"], false);
    pauses(&status);
    exactly(&idp, 1).await;
    rig.home.write("client-secret", &right);
    daemon.ready().await;
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_with_a_token_in_force_requests_go_on() {
    let (rig, idp, daemon) = good().await;
    idp.script([Step::Json(401, json!({ "error": "invalid_client" }))]);
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["answered 401 (bad_client)"], false);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_an_empty_401_is_terminal_and_no_parse_error() {
    let (rig, idp, daemon) = good().await;
    idp.set_refresh_enabled(false); // T-E4
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["answered 401 (bad_client)"], false);
    assert!(!status["last"]["detail"].as_str().unwrap().contains("unusable"));
    pauses(&status);
    exactly(&idp, 2).await;
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_the_token_in_force_goes_on() {
    for (step, said) in super::transient_steps() {
        let (rig, idp, daemon) = good().await;
        idp.set_always(Some(step));
        let status = rig.keeps_the_token(&daemon, "transient").await;
        told(&status, &[said], false);
        idp.set_always(None);
        rig.finish(daemon, &idp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_in_doubt_is_sent_once_more_and_then_no_more() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    idp.set_always(Some(Step::LostAnswer));
    let daemon = rig.start(&written(&rig, &idp, &idp.issue_refresh_token(CLIENT)));
    // No token to serve on: the second attempt follows the backoff. No other way in is configured.
    exactly(&idp, 2).await;
    crate::support::eventually("a long pause", async || {
        credential(&daemon).await["activity"] == "refused"
    })
    .await;
    pauses(&credential(&daemon).await);
    exactly(&idp, 2).await;
    rig.finish(daemon, &idp);
}
