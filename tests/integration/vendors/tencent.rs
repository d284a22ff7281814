//! Tencent Cloud CIAM: both ways of authenticating, rotation in every form, short lives,
//! revocation. Rows T1 and T2.

use std::time::Duration;

use emulator::tencent::{REVOKE_PATH, Rotation, TOKEN_PATH};
use emulator::{Tencent, Tls, Verdict};

use super::{Rig, credential, encoded, lives, token_requests};
use crate::support::eventually;

pub(super) const CLIENT: &str = "TENANT_CLIENT_ID";
const SECRET: &str = "s:e+c&r=e%t ~";
const SECRET_ENCODED: &str = "s%3Ae%2Bc%26r%3De%25t+%7E";

pub(super) fn tenant(rig: &Rig) -> Tencent {
    let idp = Tencent::start(Tls::Off, &rig.tokens);
    idp.add_client(CLIENT, SECRET);
    idp
}

/// What a user writes, with a store.
pub(super) fn written(rig: &Rig, idp: &Tencent, refresh_token: &str) -> String {
    format!(
        "provider = \"tencent-ciam\"\nhost = \"{}\"\nclient_id = \"{CLIENT}\"\n\
         client_secret = {}\nrefresh_token = {}\n{}",
        idp.url(),
        rig.secret("client-secret", SECRET),
        rig.secret("refresh-token", refresh_token),
        rig.store()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_the_request_is_the_samples_and_what_comes_is_stored() {
    for rotation in [Rotation::New, Rotation::NewOldLives, Rotation::Same] {
        let rig = Rig::new();
        let idp = tenant(&rig);
        idp.set_rotation(rotation);
        let first = idp.issue_refresh_token(CLIENT);
        let daemon = rig.started(&written(&rig, &idp, &first)).await;
        let second = rig.stored();
        assert_eq!(second == first, rotation == Rotation::Same);
        // `expires_in` says 299, `exp` 300: the smaller wins.
        lives(&credential(&daemon).await, 299);
        assert_eq!(daemon.get("/users").await.status, 200);
        rig.refresh_now(&daemon).await;
        let sent = token_requests(&idp);
        assert_eq!(sent.len(), 2);
        for (request, refresh_token) in sent.iter().zip([&first, &second]) {
            assert_eq!((request.method.as_str(), &*request.target), ("POST", TOKEN_PATH));
            assert_eq!(
                request.body_text(),
                format!(
                    "client_id={CLIENT}&client_secret={SECRET_ENCODED}&grant_type=refresh_token\
                     &refresh_token={}",
                    encoded(refresh_token)
                )
            );
            assert!(!request.has("authorization"));
        }
        rig.finish(daemon, &idp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_by_basic_the_form_holds_no_client() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    let refresh_token = idp.issue_refresh_token(CLIENT);
    let credential = format!("{}client_auth = \"basic\"\n", written(&rig, &idp, &refresh_token));
    let daemon = rig.started(&credential).await;
    let sent = &token_requests(&idp)[0];
    assert_eq!(
        sent.body_text(),
        format!("grant_type=refresh_token&refresh_token={}", encoded(&refresh_token))
    );
    // Both parts form-encoded first (RFC 6749 §2.3.1).
    let basic = "Basic VEVOQU5UX0NMSUVOVF9JRDpzJTNBZSUyQmMlMjZyJTNEZSUyNXQrJTdF";
    assert_eq!(sent.header("authorization").as_deref(), Some(basic));
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_without_a_refresh_token_in_the_answer_the_old_one_is_kept() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    idp.set_rotation(Rotation::Absent);
    let refresh_token = idp.issue_refresh_token(CLIENT);
    let daemon = rig.started(&written(&rig, &idp, &refresh_token)).await;
    assert_eq!(rig.stored(), refresh_token);
    rig.refresh_now(&daemon).await;
    assert_eq!(rig.stored(), refresh_token);
    assert_eq!(credential(&daemon).await["generation"], 2);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn t_e6_a_ten_second_token_is_refreshed_in_time_and_not_at_each_request() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    idp.set_lifetime(Duration::from_secs(10));
    let daemon = rig.started(&written(&rig, &idp, &idp.issue_refresh_token(CLIENT))).await;
    let began = std::time::Instant::now();
    eventually("two refreshes", async || {
        assert_eq!(daemon.get("/users").await.status, 200);
        idp.token_requests() >= 3
    })
    .await;
    // `expires_in` is 9: a refresh each 6.3 s to 7.2 s.
    assert!(began.elapsed() > Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!((rig.api.unauthorized(), idp.rotations()), (0, 3));
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials_need_no_refresh_token_and_no_store() {
    for (auth, form) in [
        (
            "post",
            format!(
                "client_id={CLIENT}&client_secret={SECRET_ENCODED}&grant_type=client_credentials"
            ),
        ),
        ("basic", "grant_type=client_credentials".to_owned()),
    ] {
        let rig = Rig::new();
        let idp = tenant(&rig);
        let credential = format!(
            "provider = \"tencent-ciam\"\nhost = \"{}\"\nclient_id = \"{CLIENT}\"\n\
             client_secret = {}\ngrant = \"client_credentials\"\nclient_auth = \"{auth}\"\n",
            idp.url(),
            rig.secret("client-secret", SECRET)
        );
        let daemon = rig.started(&credential).await;
        let sent = &token_requests(&idp)[0];
        assert_eq!(sent.body_text(), form);
        assert_eq!(sent.has("authorization"), auth == "basic");
        rig.finish(daemon, &idp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_e7_the_access_token_is_revoked_at_the_end_and_the_grant_lives() {
    let rig = Rig::new();
    let idp = tenant(&rig);
    let credential = format!(
        "{}revoke_on_shutdown = true\n",
        written(&rig, &idp, &idp.issue_refresh_token(CLIENT))
    );
    let daemon = rig.started(&credential).await;
    let token = rig.tokens.latest().unwrap();
    assert!(daemon.stop().success());
    let last = idp.last_request().unwrap();
    assert_eq!((last.method.as_str(), &*last.target), ("POST", REVOKE_PATH));
    assert_eq!(
        last.body_text(),
        format!("client_id={CLIENT}&client_secret={SECRET_ENCODED}&token={}", encoded(&token))
    );
    assert_eq!(rig.tokens.verdict(&token), Verdict::Revoked);
    let daemon = rig.started(&credential).await;
    assert_eq!(daemon.get("/users").await.status, 200);
    assert_eq!(rig.api.unauthorized(), 0);
    rig.finish(daemon, &idp);
}
