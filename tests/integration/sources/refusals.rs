//! What the providers that are data files say when they say no, and what follows.

use emulator::Reply;
use serde_json::{Value, json};

use super::Told;
use super::keys::Rsa;
use crate::vendors::{Rig, failed, told};

/// Answers everything with `reply`: the outcome, and what is told.
async fn refused(lines: &str, reply: (u16, Value), outcome: &str, parts: &[&str], operator: bool) {
    let rig = Rig::new();
    let (status, body) = reply;
    let idp = Told::start(move |_| Reply::json(status, body.clone()));
    let key = rig.secret("key.pem", &Rsa::new().pem);
    let secret = rig.secret("secret", "s");
    let lines = lines.replace("HOST", &idp.url("")).replace("KEY", &key).replace("SECRET", &secret);
    let daemon = rig.start(&lines);
    told(&failed(&daemon, outcome).await, parts, operator);
    assert!(daemon.stop().success());
}

const IMDS: &str = "provider = \"azure-imds\"\nhost = \"HOST\"\nresource = \"r\"\n";
const GITHUB: &str = "provider = \"github-app\"\nhost = \"HOST\"\nclient_id = \"c\"\n\
    installation_id = \"1\"\nprivate_key = KEY\n";
const VAULT: &str = "provider = \"vault\"\nhost = \"HOST\"\nmethod = \"approle\"\n\
    role_id = \"r\"\nsecret_id = SECRET\n";
const SALESFORCE: &str = "provider = \"salesforce\"\nhost = \"HOST\"\nclient_id = \"c\"\n\
    username = \"u\"\nprivate_key = KEY\n";
const GOOGLE: &str = "provider = \"google-metadata\"\nhost = \"HOST\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_that_is_away_is_asked_again() {
    let body = json!({ "error": "invalid_request", "error_description": "x" });
    for (status, rule) in [(404, "rule I404"), (410, "rule I410")] {
        refused(IMDS, (status, body.clone()), "transient", &[rule], false).await;
    }
    refused(IMDS, (400, body), "terminal", &["answered 400", "invalid_request"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_from_the_metadata_server_is_no_token() {
    let body = json!({ "access_token": "evil", "expires_in": 3600, "token_type": "Bearer" });
    refused(GOOGLE, (200, body), "transient", &["(unusable)"], false).await;
    refused(GOOGLE, (404, json!({})), "terminal", &["no such service account"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn github_limits_rates_by_403() {
    let limited = json!({ "message": "You have exceeded a secondary rate limit" });
    refused(GITHUB, (403, limited), "transient", &["(rate_limited)", "rule H1"], false).await;
    let bad = json!({ "message": "A JSON web token could not be decoded" });
    refused(GITHUB, (401, bad), "terminal", &["rule H2", "this machine's clock"], false).await;
    let none = json!({ "message": "Not Found" });
    refused(GITHUB, (404, none), "terminal", &["check installation_id"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_refuses_a_login_by_400_or_403_and_is_sealed_by_503() {
    let errors = json!({ "errors": ["invalid role or secret ID"] });
    refused(VAULT, (400, errors.clone()), "terminal", &["login refused"], false).await;
    refused(VAULT, (403, errors), "terminal", &["login refused"], false).await;
    let sealed = json!({ "errors": ["Vault is sealed"] });
    refused(VAULT, (503, sealed), "transient", &["(server)"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce_wants_the_user_to_approve() {
    let body = json!({ "error": "invalid_grant",
        "error_description": "user hasn't approved this consumer" });
    refused(SALESFORCE, (400, body), "terminal", &["approved the connected app"], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_is_taken_back_at_the_end_if_that_was_asked_for() {
    let rig = Rig::new();
    let idp = Told::start(|request| match request.path() {
        "/v1/auth/approle/login" => {
            Reply::json(200, json!({ "auth": { "client_token": "hvs.z", "lease_duration": 0 } }))
        }
        "/app/installations/1/access_tokens" => {
            Reply::json(201, json!({ "token": "ghs_z", "expires_at": "2999-01-01T00:00:00Z" }))
        }
        _ => Reply::status(204),
    });
    let key = rig.secret("key.pem", &Rsa::new().pem);
    let secret = rig.secret("secret", "s");
    for (lines, method, path, header, value) in [
        (VAULT, "POST", "/v1/auth/token/revoke-self", "x-vault-token", "hvs.z"),
        (GITHUB, "DELETE", "/installation/token", "authorization", "Bearer ghs_z"),
    ] {
        let lines = lines.replace("HOST", &idp.url(""));
        let lines = lines.replace("KEY", &key).replace("SECRET", &secret);
        let daemon = rig.started(&(lines + "revoke_on_shutdown = true\n")).await;
        assert!(daemon.stop().success());
        let last = idp.asked().pop().unwrap();
        assert_eq!((last.method.as_str(), last.path()), (method, path));
        assert_eq!(last.header(header).as_deref(), Some(value));
    }
}
