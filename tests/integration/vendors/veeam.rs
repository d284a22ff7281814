//! Veeam Backup for Microsoft Azure: what is sent, over which TLS, which expiry counts, signing
//! out. Row V1.

use emulator::veeam::{Spelling, TOKEN_PATH};
use emulator::{Step, Tls, Veeam, Verdict};
use serde_json::{Value, json};

use super::{Rig, credential, encoded, failed, lives, token_requests, told};
use crate::support::bearerd;

pub(super) const USER: &str = "administrator";
pub(super) const PASSWORD: &str = "p+a&s=s %w";
pub(super) const PASSWORD_ENCODED: &str = "p%2Ba%26s%3Ds+%25w";

/// An appliance with a self-signed certificate for its IP address (V-E1).
pub(super) fn appliance(rig: &Rig) -> Veeam {
    let veeam = Veeam::start(Tls::self_signed(), &rig.tokens);
    veeam.add_user(USER, PASSWORD);
    veeam
}

/// Host, pin and store.
pub(super) fn reached(rig: &Rig, veeam: &Veeam) -> String {
    let pin = veeam.server().certificate().unwrap().pin_sha256();
    format!(
        "provider = \"veeam-azure\"\nhost = \"{}\"\ntls = {{ pin_sha256 = [\"{pin}\"] }}\n{}",
        veeam.host(),
        rig.store()
    )
}

pub(super) fn password(rig: &Rig) -> String {
    format!("username = \"{USER}\"\npassword = {}\n", rig.secret("password", PASSWORD))
}

pub(super) fn refresh_token(rig: &Rig, refresh_token: &str) -> String {
    format!("refresh_token = {}\n", rig.secret("refresh-token", refresh_token))
}

/// What a user writes who has both ways in.
pub(super) fn written(rig: &Rig, veeam: &Veeam, first: &str) -> String {
    format!("{}{}{}", reached(rig, veeam), password(rig), refresh_token(rig, first))
}

pub(super) fn refresh_body(refresh_token: &str) -> String {
    format!(
        "Username={USER}&Password={PASSWORD_ENCODED}&refresh_token={}&grant_type=Refresh_token",
        encoded(refresh_token)
    )
}

pub(super) fn login_body() -> String {
    format!("Username={USER}&Password={PASSWORD_ENCODED}&grant_type=Password")
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_the_request_is_as_printed_and_each_refresh_token_replaces_the_last() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let first = veeam.issue_refresh_token(USER);
    let daemon = rig.started(&written(&rig, &veeam, &first)).await;
    let second = rig.stored();
    assert_eq!(daemon.get("/policies").await.status, 200);
    rig.refresh_now(&daemon).await;
    let third = rig.stored();
    assert!(second != first && third != second);
    assert!(veeam.refresh_token_alive(&third) && !veeam.refresh_token_alive(&second));
    let sent = token_requests(&veeam);
    assert_eq!(sent.len(), 2);
    for (request, refresh_token) in sent.iter().zip([&first, &second]) {
        assert_eq!((request.method.as_str(), &*request.target), ("POST", TOKEN_PATH));
        assert_eq!(request.body_text(), refresh_body(refresh_token));
        assert_eq!(request.header("accept").as_deref(), Some("application/json"));
        assert!(!request.has("x-api-version") && !request.has("authorization"));
        assert!(request.tls && request.sni.is_none(), "an IP address is no server name");
    }
    assert_eq!(veeam.logins(), 0);
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_the_earliest_expiry_counts() {
    // V-E14: `.expires` before `exp` and after it, with any number of fraction digits.
    for (offset, digits, life) in
        [(-600_000, 7, 3000), (600_000, 7, 3600), (-600_000, 0, 3000), (-600_000, 9, 3000)]
    {
        let rig = Rig::new();
        let veeam = appliance(&rig);
        veeam.set_expires_offset(offset);
        veeam.set_fraction_digits(digits);
        let daemon = rig.started(&written(&rig, &veeam, &veeam.issue_refresh_token(USER))).await;
        lives(&credential(&daemon).await, life);
        rig.finish(daemon, &veeam);
    }
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.script([Step::With(json!({ "expires_in": 1200 }))]);
    let daemon = rig.started(&written(&rig, &veeam, &veeam.issue_refresh_token(USER))).await;
    lives(&credential(&daemon).await, 1200);
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e8_null_fields_do_not_matter() {
    let own = ["userId", "username", "roleName", "userType", "latestNewsShown", "mfa_enabled"];
    let rare = ["shortLived", "mfa_token", "redirectTo"];
    let read = ["token_type", "refresh_token", "expires_in", ".expires", ".issued"];
    for field in read.into_iter().chain(own).chain(rare) {
        let rig = Rig::new();
        let veeam = appliance(&rig);
        veeam.script([Step::With(json!({ field: Value::Null }))]);
        let first = veeam.issue_refresh_token(USER);
        let daemon = rig.started(&written(&rig, &veeam, &first)).await;
        lives(&credential(&daemon).await, 3600);
        assert_eq!(rig.stored() == first, field == "refresh_token", "{field}");
        rig.finish(daemon, &veeam);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e1_under_another_pin_the_endpoint_sees_no_request() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let credential = written(&rig, &veeam, &veeam.issue_refresh_token(USER));
    let pin = veeam.server().certificate().unwrap().pin_sha256();
    let other = Tls::self_signed();
    let Tls::On(other) = other else { unreachable!("it is on") };
    let daemon = rig.start(&credential.replace(pin, other.pin_sha256()));
    let status = failed(&daemon, "transient").await;
    told(&status, &["(tls)"], false);
    assert!(veeam.server().connections() > 0);
    assert_eq!(veeam.requests().len(), 0);
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e1_without_a_pin_or_ca_a_self_signed_certificate_is_refused() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let credential = written(&rig, &veeam, &veeam.issue_refresh_token(USER));
    let without: String =
        credential.lines().filter(|line| !line.starts_with("tls")).collect::<Vec<_>>().join("\n");
    let daemon = rig.start(&without);
    told(&failed(&daemon, "transient").await, &["(tls)"], false);
    assert_eq!(veeam.requests().len(), 0);
    assert!(daemon.stop().success());
    let ca = rig.home.write("ca.pem", veeam.server().certificate().unwrap().pem());
    let daemon = rig.started(&format!("{without}\ntls = {{ ca_file = \"{ca}\" }}\n")).await;
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e2_the_lower_spelling_names_the_user_only_to_sign_in() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.set_spelling(Spelling::Lower);
    let credential = format!(
        "{}{}spelling = \"lower\"\nshort_lived_refresh_token = true\n",
        reached(&rig, &veeam),
        password(&rig)
    );
    let daemon = rig.started(&credential).await;
    let stored = rig.stored();
    rig.refresh_now(&daemon).await;
    let bodies: Vec<_> = token_requests(&veeam).iter().map(|sent| sent.body_text()).collect();
    assert_eq!(
        bodies,
        [
            format!(
                "username={USER}&password={PASSWORD_ENCODED}&grant_type=Password\
                 &short_lived_refresh_token=true"
            ),
            format!("refresh_token={}&grant_type=Refresh_token", encoded(&stored)),
        ]
    );
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e10_the_daemon_signs_out_at_the_end_and_in_at_the_next_start() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    let credential =
        format!("{}{}revoke_on_shutdown = true\n", reached(&rig, &veeam), password(&rig));
    let daemon = rig.started(&credential).await;
    let token = rig.tokens.latest().unwrap();
    assert!(daemon.stop().success());
    let last = veeam.last_request().unwrap();
    assert_eq!((last.method.as_str(), &*last.target), ("DELETE", TOKEN_PATH));
    assert_eq!(last.header("authorization").unwrap(), format!("Bearer {token}"));
    assert!(last.body.is_empty() && !last.has("x-api-version"));
    assert_eq!(rig.tokens.verdict(&token), Verdict::Revoked);
    let daemon = rig.started(&credential).await;
    assert_eq!(daemon.get("/policies").await.status, 200);
    assert_eq!((veeam.logins(), rig.api.unauthorized()), (2, 0));
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e10_a_refused_sign_out_is_a_log_line() {
    let rig = Rig::new();
    let veeam = appliance(&rig);
    veeam.set_logout_denied(true);
    let credential =
        format!("{}{}revoke_on_shutdown = true\n", reached(&rig, &veeam), password(&rig));
    let daemon = rig.started(&credential).await;
    daemon.signal("TERM");
    daemon.wait_for_log("not revoked");
    rig.finish(daemon, &veeam);
}

#[tokio::test(flavor = "multi_thread")]
async fn v_e1_plaintext_to_an_appliance_is_refused_by_check() {
    let rig = Rig::new();
    let credential =
        format!("provider = \"veeam-azure\"\nhost = \"http://51.11.247.127\"\n{}", password(&rig));
    let path = rig.home.write("refused.toml", &rig.config(&credential));
    let (code, _, told) = bearerd(&["check", "--config", &path]);
    assert!(code == 64 && told.contains("credentials.c.host"), "{code}: {told}");
}
