//! Veeam: the second way in. Rows V4, V5 and V6, and V8 where a password is configured.

use emulator::{Step, Veeam};
use serde_json::json;

use super::veeam::{
    PASSWORD, USER, appliance, login_body, reached, refresh_body, refresh_token, written,
};
use super::{Rig, credential, exactly, failed, pauses, token_requests, told};
use crate::support::{Daemon, eventually};

fn bodies(veeam: &Veeam) -> Vec<String> {
    token_requests(veeam).iter().map(|sent| sent.body_text()).collect()
}

async fn good() -> (Rig, Veeam, Daemon, String) {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let first = veeam.issue_refresh_token(USER);
    let daemon = rig.started(&written(&rig, &veeam, &first)).await;
    (rig, veeam, daemon, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn v4_v5_a_refused_refresh_token_leads_to_one_sign_in() {
    // Which bad token earns which status is not documented: both lead to the next way.
    for status in [400, 401] {
        let rig = Rig::new();
        let veeam = appliance(&rig);
        let dead = veeam.issue_refresh_token(USER);
        veeam.kill_refresh_token(&dead);
        if status == 400 {
            veeam.script([Step::Json(400, json!({ "status": 400, "errors": {} }))]);
        }
        let daemon = rig.started(&written(&rig, &veeam, &dead)).await;
        assert_eq!(bodies(&veeam), [refresh_body(&dead), login_body()]);
        assert!(veeam.refresh_token_alive(&rig.stored()));
        assert_eq!(daemon.get("/policies").await.status, 200);
        // The next refresh is by the refresh token that the sign-in brought.
        let stored = rig.stored();
        rig.refresh_now(&daemon).await;
        assert_eq!(bodies(&veeam)[2], refresh_body(&stored));
        assert_eq!((veeam.logins(), bodies(&veeam).len()), (1, 3));
        rig.finish(daemon, &veeam);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v4_v5_without_a_password_a_person_is_needed() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.allow(emulator::veeam::Lenient::BareRefresh);
    let dead = veeam.issue_refresh_token(USER);
    veeam.kill_refresh_token(&dead);
    let daemon = rig.start(&format!("{}{}", reached(&rig, &veeam), refresh_token(&rig, &dead)));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 401 (needs_operator)", "rule V4", "sign in again"], true);
    pauses(&status);
    exactly(&veeam, 1).await;
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_refused_sign_in_is_not_tried_again() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let dead = veeam.issue_refresh_token(USER);
    veeam.kill_refresh_token(&dead);
    let credential = written(&rig, &veeam, &dead);
    rig.home.write("password", "wrong");
    let daemon = rig.start(&credential);
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 401 (bad_client)", "rule V6", "check username and password"], false);
    pauses(&status);
    for _ in 0..5 {
        assert_eq!(daemon.get("/policies").await.status, 503);
    }
    exactly(&veeam, 2).await;
    assert_eq!(veeam.audit_failures_of(USER), 2, "one for each way in");
    rig.home.write("password", PASSWORD);
    daemon.ready().await;
    assert_eq!(veeam.logins(), 1);
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_with_a_token_in_force_requests_go_on() {
    let (rig, veeam, daemon, _) = good().await;
    veeam.kill_refresh_token(&rig.stored());
    veeam.add_user(USER, "changed");
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["rule V6"], false);
    exactly(&veeam, 3).await;
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v8_after_a_lost_answer_the_token_in_force_is_served_and_nothing_is_sent() {
    let (rig, veeam, daemon, _) = good().await;
    veeam.script([Step::LostAnswer]);
    let status = rig.keeps_the_token(&daemon, "transient").await;
    told(&status, &["(network)"], false);
    // Near the end of an hour, not after a backoff of a second or two.
    let next = super::seconds_until(&status["next_attempt"]);
    assert!((3300..=3500).contains(&next), "next attempt in {next} s");
    rig.api.script([Step::Status(401)]);
    assert_eq!(daemon.get("/refused").await.status, 401, "no refresh: it would spend it twice");
    exactly(&veeam, 2).await;
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v8_near_the_end_of_the_token_the_daemon_signs_in() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.set_lifetime(std::time::Duration::from_secs(5));
    let first = veeam.issue_refresh_token(USER);
    let daemon = rig.started(&written(&rig, &veeam, &first)).await;
    let stored = rig.stored();
    veeam.script([Step::LostAnswer]);
    eventually("a second token", async || {
        assert_eq!(daemon.get("/policies").await.status, 200, "served to its end");
        credential(&daemon).await["generation"].as_u64() >= Some(2)
    })
    .await;
    assert_eq!(bodies(&veeam)[..3], [refresh_body(&first), refresh_body(&stored), login_body()]);
    assert_eq!((veeam.logins(), rig.api.unauthorized()), (1, 0));
    rig.finish(daemon, &veeam);
}
