//! VMware Cloud Services: the exchange of an API token, its sibling, passcodes, the other header.
//! Row C1.

use emulator::csp::{AUTHORIZE_PATH, CLIENT_PATH, Echo};
use emulator::{Csp, Tls};

use super::{Rig, encoded, exactly, failed, lives, token_requests, told};
use crate::support::{bearerd, eventually, request};

/// What a user writes; no store, since nothing rotates.
pub(super) fn written(rig: &Rig, csp: &Csp, api_token: &str) -> String {
    format!(
        "provider = \"vmware-csp\"\nhost = \"{}\"\napi_token = {}\n",
        csp.url(),
        rig.secret("api-token", api_token)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_the_configured_api_token_is_kept_whatever_comes_back() {
    for echo in [Echo::Same, Echo::Other, Echo::Null, Echo::Absent] {
        let rig = Rig::new();
        let csp = Csp::start(Tls::Off, &rig.tokens);
        csp.set_echo(echo);
        let api_token = "a+b&c=d e%2B/ü"; // C-E2
        csp.add_api_token(api_token);
        let daemon = rig.started(&written(&rig, &csp, api_token)).await;
        lives(&super::credential(&daemon).await, 1799);
        assert_eq!(daemon.get("/vms").await.status, 200);
        rig.refresh_now(&daemon).await;
        let sent = token_requests(&csp);
        assert_eq!(sent.len(), 2);
        for request in sent {
            assert_eq!((request.method.as_str(), &*request.target), ("POST", AUTHORIZE_PATH));
            assert_eq!(request.body_text(), "api_token=a%2Bb%26c%3Dd+e%252B%2F%C3%BC");
            assert!(!request.has("authorization"), "an anonymous endpoint");
            assert_eq!(request.header("accept").as_deref(), Some("application/json"));
        }
        rig.finish(daemon, &csp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_without_expires_in_the_tokens_own_exp_counts() {
    // C-E7: absent, and the 0 that the documentation prints.
    for omit in [true, false] {
        let rig = Rig::new();
        let csp = Csp::start(Tls::Off, &rig.tokens);
        csp.set_lifetime(std::time::Duration::from_secs(900));
        match omit {
            true => csp.omit_expires_in(),
            false => csp.set_expires_in(0.into()),
        }
        let daemon = rig.started(&written(&rig, &csp, &csp.issue_api_token())).await;
        lives(&super::credential(&daemon).await, 900);
        rig.finish(daemon, &csp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_an_api_token_that_is_regenerated_is_taken_up() {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let old = csp.issue_api_token();
    let daemon = rig.started(&written(&rig, &csp, &old)).await;
    let new = csp.regenerate(&old, true); // C-E9
    rig.home.write("api-token", &new);
    assert_eq!(daemon.get("/vms").await.status, 200, "refused once, exchanged anew, replayed");
    let bodies: Vec<_> = token_requests(&csp).iter().map(|sent| sent.body_text()).collect();
    assert_eq!(bodies[1], format!("api_token={}", encoded(&new)));
    rig.finish(daemon, &csp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passcode_is_good_once_and_a_new_one_is_awaited() {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let api_token = csp.issue_api_token();
    csp.set_passcode(&api_token, "123456");
    let credential = format!(
        "{}passcode = {}\n",
        written(&rig, &csp, &api_token),
        rig.secret("passcode", "123456")
    );
    let daemon = rig.started(&credential).await;
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["rule C3", "passcode"], false);
    exactly(&csp, 2).await;
    csp.set_passcode(&api_token, "654321");
    rig.home.write("passcode", "654321\n");
    eventually("the new code is used", async || {
        super::credential(&daemon).await["generation"] == 2
    })
    .await;
    let bodies: Vec<_> = token_requests(&csp).iter().map(|sent| sent.body_text()).collect();
    let body = |code: &str| format!("api_token={}&passcode={code}", encoded(&api_token));
    assert_eq!(bodies, [body("123456"), body("123456"), body("654321")]);
    assert_eq!(csp.audit_failures_of(&api_token), 1);
    rig.finish(daemon, &csp);
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_missing_passcode_is_hinted_at() {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let api_token = csp.issue_api_token();
    csp.set_passcode(&api_token, "123456");
    let daemon = rig.start(&written(&rig, &csp, &api_token));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 400 (bad_grant)", "rule C3", "a passcode is required"], false);
    rig.finish(daemon, &csp);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sibling_exchange_authenticates_a_client_by_basic() {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    csp.add_client("app:1", "s+e&c=r%t");
    let credential = format!(
        "provider = \"vmware-csp\"\nhost = \"{}\"\ngrant = \"client_credentials\"\n\
         client_id = \"app:1\"\nclient_secret = {}\norg_id = \"o-1\"\n",
        csp.url(),
        rig.secret("client-secret", "s+e&c=r%t")
    );
    let daemon = rig.started(&credential).await;
    let sent = &token_requests(&csp)[0];
    assert_eq!(sent.target, CLIENT_PATH);
    assert_eq!(sent.body_text(), "grant_type=client_credentials&orgId=o-1");
    // RFC 6749 §2.3.1: app%3A1:s%2Be%26c%3Dr%25t
    let basic = "Basic YXBwJTNBMTpzJTJCZSUyNmMlM0RyJTI1dA==";
    assert_eq!(sent.header("authorization").as_deref(), Some(basic));
    assert_eq!(daemon.get("/vms").await.status, 200);
    rig.finish(daemon, &csp);
}

#[tokio::test(flavor = "multi_thread")]
async fn c_e11_the_bare_token_goes_into_csp_auth_token_and_no_other_does() {
    let rig = Rig::new();
    rig.api.set_credential_header("csp-auth-token", None);
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let credential = written(&rig, &csp, &csp.issue_api_token());
    let route = "header = \"csp-auth-token\"\nscheme = \"\"";
    let config = rig.config_with_route(&credential, route);
    let daemon = crate::support::Daemon::start_with(&rig.home, &config);
    daemon.ready().await;
    let own = [("CSP-Auth-Token", "mine"), ("csp_auth_token", "mine")];
    let answer = request(daemon.proxy, "GET", "/vms", &own, b"").await;
    assert_eq!(answer.status, 200);
    let seen = rig.api.last_request().unwrap();
    let token = rig.tokens.latest().unwrap();
    assert_eq!(seen.headers("csp-auth-token"), [token.as_bytes()]);
    assert!(!seen.has("csp_auth_token"));
    rig.finish(daemon, &csp);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_is_refused_where_there_is_none() {
    let rig = Rig::new();
    let csp = Csp::start(Tls::Off, &rig.tokens);
    let credential = format!("{}revoke_on_shutdown = true\n", written(&rig, &csp, "token"));
    let path = rig.home.write("refused.toml", &rig.config(&credential));
    let (code, _, told) = bearerd(&["check", "--config", &path]);
    assert_eq!(code, 64, "{told}");
    assert!(told.contains("credentials.c.revoke_on_shutdown"), "{told}");
}
