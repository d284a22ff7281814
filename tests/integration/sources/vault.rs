//! Tokens whose life can be lengthened, as Vault's and `OpenBao`'s: no new login while that gives a
//! whole life, one near the longest life that they may have.

use std::sync::{Arc, Mutex};

use emulator::{Reply, Tokens};
use serde_json::{Value, json};

use super::Told;
use crate::support::{Daemon, eventually};
use crate::vendors::{Rig, credential};

const LOGIN: &str = "/v1/auth/approle/login";
const RENEW: &str = "/v1/auth/token/renew-self";

/// What Vault answers to a login or a renewal.
fn lease(token: &str, seconds: u64, renewable: bool) -> Reply {
    Reply::json(
        200,
        json!({ "request_id": "x", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": null, "wrap_info": null, "warnings": null,
            "auth": { "client_token": token, "accessor": "a", "policies": ["default"],
                "lease_duration": seconds, "renewable": renewable, "token_type": "service" } }),
    )
}

/// A Vault that numbers its tokens by login and answers renewals by a script, at its end with `last`.
struct Vault {
    told: Told,
    renewals: Arc<Mutex<Vec<Reply>>>,
}

impl Vault {
    fn start(tokens: &Tokens, seconds: u64, renewable: bool) -> Self {
        let renewals: Arc<Mutex<Vec<Reply>>> = Arc::default();
        let (script, tokens, logins) = (Arc::clone(&renewals), tokens.clone(), Mutex::new(0));
        let told = Told::start(move |request| match request.path() {
            LOGIN => {
                let mut count = logins.lock().unwrap();
                *count += 1;
                let token = format!("hvs.{count}");
                tokens.issue(&token, None);
                lease(&token, seconds, renewable)
            }
            RENEW => {
                let sent = request.header("x-vault-token").unwrap_or_default();
                let scripted = script.lock().unwrap().pop();
                scripted.unwrap_or_else(|| lease(&sent, seconds, true))
            }
            _ => Reply::status(404),
        });
        Self { told, renewals }
    }

    fn paths(&self) -> Vec<String> {
        self.told.asked().iter().map(|request| request.path().to_owned()).collect()
    }

    async fn asked(&self, count: usize) -> Vec<String> {
        eventually("so many requests", async || self.told.asked().len() >= count).await;
        let mut paths = self.paths();
        paths.truncate(count);
        paths
    }
}

async fn started(rig: &Rig, vault: &Vault) -> Daemon {
    rig.api.set_credential_header("x-vault-token", None);
    let lines = format!(
        "provider = \"vault\"\nhost = \"{}\"\nmethod = \"approle\"\nrole_id = \"r\"\n\
         namespace = \"team\"\nsecret_id = {}\n",
        vault.told.url(""),
        rig.secret("secret-id", "s")
    );
    let route = "header = \"x-vault-token\"\nscheme = \"\"";
    let daemon = Daemon::start_with(&rig.home, &rig.config_with_route(&lines, route));
    daemon.ready().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_token_is_renewed_until_that_gives_less_than_half_its_life() {
    let rig = Rig::new();
    let vault = Vault::start(&rig.tokens, 4, true);
    // Near max_ttl a renewal gives what is left.
    *vault.renewals.lock().unwrap() =
        vec![lease("hvs.1", 1, true), lease("hvs.1", 2, true), lease("hvs.1", 4, true)];
    let daemon = started(&rig, &vault).await;
    assert_eq!(vault.asked(5).await, [LOGIN, RENEW, RENEW, RENEW, LOGIN]);
    eventually("the second login's token is in force", async || {
        daemon.get("/v1/secret").await;
        let sent = rig.api.last_request().expect("one").header("x-vault-token");
        sent.as_deref() == Some("hvs.2")
    })
    .await;
    for request in &vault.told.asked()[1..4] {
        assert_eq!(request.header("x-vault-token").as_deref(), Some("hvs.1"));
        assert_eq!(request.header("x-vault-namespace").as_deref(), Some("team"));
        assert_eq!((request.method.as_str(), request.body.len()), ("POST", 0));
    }
    let login: Value = serde_json::from_slice(&vault.told.asked()[0].body).unwrap();
    assert_eq!(login, json!({ "role_id": "r", "secret_id": "s" }));
    assert_eq!(vault.asked(6).await[5], RENEW, "and so on with the new one");
    assert!(daemon.metric("bearerd_token_fetches_total", &["outcome=\"terminal\""]).await < 1.0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_leads_to_a_login_at_once_and_one_that_may_pass_does_not() {
    let rig = Rig::new();
    let vault = Vault::start(&rig.tokens, 12, true);
    let refused = Reply::json(403, json!({ "errors": ["permission denied"] }));
    let sealed = Reply::json(503, json!({ "errors": ["Vault is sealed"] }));
    *vault.renewals.lock().unwrap() = vec![refused, sealed];
    let daemon = started(&rig, &vault).await;
    assert_eq!(vault.asked(4).await, [LOGIN, RENEW, RENEW, LOGIN]);
    let transient =
        async || daemon.metric("bearerd_token_fetches_total", &["outcome=\"transient\""]).await;
    assert!(transient().await >= 1.0);
    assert!(daemon.metric("bearerd_token_fetches_total", &["outcome=\"terminal\""]).await < 1.0);
    eventually("well again", async || credential(&daemon).await["last"]["outcome"] == "ok").await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_says_it_cannot_be_renewed_is_not_and_nor_is_one_that_was_refused() {
    let rig = Rig::new();
    let vault = Vault::start(&rig.tokens, 4, false);
    let daemon = started(&rig, &vault).await;
    assert_eq!(vault.asked(3).await, [LOGIN, LOGIN, LOGIN]);
    assert!(daemon.stop().success());

    let rig = Rig::new();
    let vault = Vault::start(&rig.tokens, 4, true);
    let daemon = started(&rig, &vault).await;
    rig.tokens.revoke("hvs.1");
    assert_eq!(daemon.get("/v1/secret").await.status, 200);
    assert_eq!(vault.asked(2).await, [LOGIN, LOGIN]);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_log_in_sends_what_its_method_wants_where_it_is_mounted() {
    for (lines, path, body) in [
        (
            "role = \"orders\"\njwt = \"JWT\"",
            "/v1/auth/kubernetes/login",
            json!({ "role": "orders", "jwt": "projected" }),
        ),
        (
            "method = \"jwt\"\nmount = \"ci\"\nrole = \"orders\"\njwt = \"JWT\"",
            "/v1/auth/ci/login",
            json!({ "role": "orders", "jwt": "projected" }),
        ),
        (
            "method = \"approle\"\nrole_id = \"r\"\nsecret_id = { file = \"SECRET\" }",
            LOGIN,
            json!({ "role_id": "r", "secret_id": "s" }),
        ),
    ] {
        let rig = Rig::new();
        rig.api.set_credential_header("x-vault-token", None);
        rig.tokens.issue("hvs.x", None);
        let told = Told::start(|_| lease("hvs.x", 3600, true));
        let jwt = rig.home.write("jwt", "projected\n");
        let secret = rig.home.write("secret-id", "s\n");
        let lines = lines.replace("JWT", &jwt).replace("SECRET", &secret);
        let credential = format!("provider = \"vault\"\nhost = \"{}\"\n{lines}\n", told.url(""));
        let route = "header = \"x-vault-token\"\nscheme = \"\"";
        let config = rig.config_with_route(&credential, route);
        let daemon = Daemon::start_with(&rig.home, &config);
        daemon.ready().await;
        assert_eq!(daemon.get("/v1/secret").await.status, 200);
        let request = told.asked().remove(0);
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", path));
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), body);
        assert_eq!(request.header("x-vault-request").as_deref(), Some("true"));
        assert!(rig.api.violations().is_empty());
        assert!(daemon.stop().success());
    }
}
