//! Assertions: those that are signed here, and those that somebody else keeps current in a file.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use emulator::Reply;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use serde_json::{Value, json};

use super::{Told, pairs, said, token};
use crate::support::eventually;
use crate::vendors::{Rig, credential, failed, told};

const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A P-256 key: as PEM, and what verifies its signatures.
pub fn key() -> (String, DecodingKey) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let public = key.public_key_raw();
    (key.serialize_pem(), DecodingKey::from_ec_der(public))
}

/// A JWT whose signature is right.
pub fn verified(jwt: &str, key: &DecodingKey, audience: &str) -> TokenData<Value> {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    jsonwebtoken::decode(jwt, key, &validation).expect("signed by that key for that audience")
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_48_a_grant_is_signed_anew_for_each_attempt() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let idp = Told::start(|_| token("granted", 3));
    let (pem, public) = key();
    let lines = format!(
        "grant = \"jwt_bearer\"\ntoken_url = \"{}\"\nprivate_key = {}\nkey_id = \"k1\"\n\
         assertion_issuer = \"3MVG9\"\nassertion_subject = \"robot@acme.example\"\n\
         assertion_audience = \"https://login.example\"\nscope = [\"a\", \"b\"]\n\
         assertion_claims = {{ purpose = \"{{sync}}\" }}\n",
        idp.url("/token"),
        rig.secret("key.pem", &pem)
    );
    let daemon = rig.started(&lines).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    eventually("a second attempt", async || idp.forms().len() >= 2).await;
    let mut ids = Vec::new();
    for form in idp.forms() {
        let names: Vec<_> = form.names();
        assert_eq!(names, ["grant_type", "assertion", "scope"], "a client that needs no id");
        let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        assert_eq!(form.value("grant_type"), Some(grant_type));
        assert_eq!(form.value("scope"), Some("a b"));
        let jwt = verified(form.value("assertion").unwrap(), &public, "https://login.example");
        assert_eq!(jwt.header.kid.as_deref(), Some("k1"));
        let claims = jwt.claims;
        assert_eq!(claims["iss"], "3MVG9");
        assert_eq!(claims["sub"], "robot@acme.example");
        assert_eq!(claims["purpose"], "{sync}");
        let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert_eq!(life, 180);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(claims["iat"].as_u64().unwrap()) < 20);
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    ids.sort();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "a jti came twice");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_48_the_assertion_of_a_grant_may_come_from_a_file() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let idp = Told::start(|_| token("granted", 600));
    let lines = format!(
        "grant = \"jwt_bearer\"\ntoken_url = \"{}\"\nassertion = {}\nclient_id = \"c\"\n",
        idp.url("/token"),
        rig.secret("assertion", "a.b.c\n")
    );
    let daemon = rig.started(&lines).await;
    assert_eq!(
        pairs(&idp.forms()[0]),
        said(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", "a.b.c"),
            ("client_id", "c"),
        ])
    );
    assert!(daemon.stop().success());
}

/// `client_auth = "assertion_file"` with that file.
fn projected(idp: &Told, file: &str) -> String {
    format!(
        "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
         client_auth = \"assertion_file\"\nassertion_file = \"{file}\"\nscope = \"x/.default\"\n",
        idp.url("/token")
    )
}

/// What Entra says to a federated token that has expired.
fn stale() -> Reply {
    Reply::json(401, json!({ "error": "invalid_client", "error_codes": [700_024] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projected_token_is_read_at_each_attempt_and_again_before_a_refusal_counts() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let file = rig.home.write("projected", "old\n");
    let path = rig.home.path("projected");
    let rotated = Mutex::new(false);
    // The old token is on its way when the file is replaced.
    let idp = Told::start(move |request| {
        let form = request.form();
        match form.value("client_assertion") {
            Some("old") if !std::mem::replace(&mut *rotated.lock().unwrap(), true) => {
                std::fs::write(&path, "new\n").expect("writable");
                stale()
            }
            Some("new") => token("granted", 600),
            _ => Reply::status(500),
        }
    });
    let daemon = rig.started(&projected(&idp, &file)).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    let forms = idp.forms();
    assert_eq!(forms.len(), 2);
    assert_eq!(
        pairs(&forms[1]),
        said(&[
            ("grant_type", "client_credentials"),
            ("scope", "x/.default"),
            ("client_id", "c"),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", "new"),
        ])
    );
    let counted = async |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        daemon.metric("bearerd_token_fetches_total", &[&label]).await
    };
    assert!(counted("terminal").await < 1.0 && counted("ok").await > 0.0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projected_token_that_stays_stale_is_refused_once_until_it_is_replaced() {
    let rig = Rig::new();
    let file = rig.home.write("projected", "old\n");
    let idp = Told::start(|request| match request.form().value("client_assertion") {
        Some("new") => token("granted", 600),
        _ => stale(),
    });
    let daemon = rig.start(&projected(&idp, &file));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 401", "invalid_client"], false);
    assert_eq!(idp.forms().len(), 1, "the file was the same");
    rig.home.write("projected", "new\n");
    daemon.ready().await;
    assert_eq!(credential(&daemon).await["generation"], 1);
    assert_eq!(idp.forms().len(), 2);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_by_something_else_is_told_and_its_successor_taken_up() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let idp = Told::start(|_| token("granted", 600));
    let (pem, _) = key();
    let lines = format!(
        "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
         client_auth = \"private_key_jwt\"\nprivate_key = {}\n",
        idp.url("/token"),
        rig.secret("key.pem", &pem)
    );
    let daemon = rig.started(&lines).await;
    rig.home.write("key.pem", "not-a-key\n");
    rig.refresh_now(&daemon).await;
    let status = failed(&daemon, "terminal").await;
    told(&status, &["client_assertion cannot be signed: its key is no private key"], false);
    assert!(!daemon.logs().contains("not-a-key"));
    let before = idp.forms().len();
    let (other, public) = key();
    rig.home.write("key.pem", &other);
    eventually("a token by the new key", async || idp.forms().len() > before).await;
    let form = idp.forms().pop().unwrap();
    let jwt = verified(form.value("client_assertion").unwrap(), &public, &idp.url("/token"));
    assert_eq!((&jwt.claims["iss"], &jwt.claims["sub"]), (&json!("c"), &json!("c")));
    assert!(daemon.stop().success());
}
