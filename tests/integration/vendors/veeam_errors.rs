//! Veeam: rows V2, V3 and V7, and V8 where no password is configured.

use emulator::veeam::{Lenient, redirect_to};
use emulator::{Step, Veeam};

use super::veeam::{USER, appliance, password, reached, refresh_token};
use super::{Rig, credential, exactly, failed, pauses, told};
use crate::support::{Daemon, eventually};

/// Signed in with the password.
async fn good() -> (Rig, Veeam, Daemon) {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let daemon = rig.started(&format!("{}{}", reached(&rig, &veeam), password(&rig))).await;
    (rig, veeam, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_multi_factor_authentication_needs_an_operator() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.set_mfa(USER, "123456");
    let daemon = rig.start(&format!("{}{}", reached(&rig, &veeam), password(&rig)));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 200 (needs_operator)", "rule V2"], true);
    pauses(&status);
    exactly(&veeam, 1).await;
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_a_user_of_an_external_provider_needs_an_operator_and_nothing_is_followed() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.set_external(USER);
    let daemon = rig.start(&format!("{}{}", reached(&rig, &veeam), password(&rig)));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 200 (needs_operator)", "rule V3"], true);
    pauses(&status);
    exactly(&veeam, 1).await;
    assert_eq!(veeam.requests().len(), 1);
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_with_a_token_in_force_requests_go_on() {
    let (rig, veeam, daemon) = good().await;
    veeam.script([redirect_to()]);
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["rule V3"], true);
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v7_a_login_page_or_a_failing_server_may_pass() {
    for (step, said) in super::transient_steps() {
        let (rig, veeam, daemon) = good().await;
        veeam.set_always(Some(step));
        let status = rig.keeps_the_token(&daemon, "transient").await;
        told(&status, &[said], false);
        veeam.set_always(None);
        assert_eq!(veeam.logins(), 1, "a failing server is no reason to sign in");
        rig.finish(daemon, &veeam);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v8_without_a_password_the_stored_token_is_tried_once_and_then_a_person_is_needed() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.allow(Lenient::BareRefresh);
    veeam.set_lifetime(std::time::Duration::from_secs(5));
    let first = veeam.issue_refresh_token(USER);
    let daemon =
        rig.started(&format!("{}{}", reached(&rig, &veeam), refresh_token(&rig, &first))).await;
    veeam.script([Step::LostAnswer]);
    eventually("a refusal", async || credential(&daemon).await["activity"] == "refused").await;
    let status = credential(&daemon).await;
    told(&status, &["answered 401 (needs_operator)", "rule V4"], true);
    pauses(&status);
    exactly(&veeam, 3).await;
    eventually("the end of the token", async || {
        let answer = daemon.get("/policies").await.status;
        assert!(answer == 200 || answer == 503, "{answer}");
        answer == 503
    })
    .await;
    exactly(&veeam, 3).await;
    assert_eq!(rig.api.unauthorized(), 0, "an expired token is never sent");
    rig.finish(daemon, &veeam);
}
