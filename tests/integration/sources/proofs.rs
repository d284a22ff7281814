//! Proofs of possession (RFC 9449) byte by byte, and what happens around them.

use std::sync::Mutex;
use std::time::Duration;

use emulator::Reply;
use emulator::http::Recorded;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::Told;
use crate::stage::together;
use crate::support::request;
use crate::vendors::{Rig, failed, told};

/// The claims of the one proof in a request, verified with the key that is in it, and that key.
fn proof(request: &Recorded) -> (Value, Value) {
    let lines = request.headers("dpop");
    let [proof] = lines.as_slice() else { panic!("{} proofs", lines.len()) };
    let text = std::str::from_utf8(proof).unwrap();
    let header = jsonwebtoken::decode_header(text).unwrap();
    assert_eq!((header.typ.as_deref(), header.alg), (Some("dpop+jwt"), Algorithm::ES256));
    let jwk = header.jwk.expect("a public key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    let claims = jsonwebtoken::decode::<Value>(text, &key, &validation).unwrap().claims;
    let jwk = serde_json::to_value(jwk).unwrap();
    assert_eq!(jwk.get("d"), None, "the private key stays here");
    (claims, jwk)
}

/// An identity provider whose tokens are of that type, numbered.
fn provider(kind: &'static str) -> Told {
    let count = Mutex::new(0);
    Told::start(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Reply::json(
            200,
            json!({ "access_token": format!("bound-{count}"), "token_type": kind,
            "expires_in": 600 }),
        )
    })
}

fn lines(idp: &Told, rig: &Rig, more: &str) -> String {
    format!(
        "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
         client_secret = {}\ndpop = true\n{more}\n",
        idp.url("/token?v=1"),
        rig.secret("secret", "s")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_each_sending_has_a_proof_of_its_own_and_the_callers_is_dropped() {
    let rig = Rig::new();
    let idp = provider("DPoP");
    let api = Told::start(|request| match request.header("authorization").as_deref() {
        Some("DPoP bound-2") => Reply::status(200),
        _ => Reply::status(401).header("WWW-Authenticate", "DPoP error=\"invalid_token\""),
    });
    let config = rig.config(&lines(&idp, &rig, "")).replace(&rig.api.url(), &api.url(""));
    let daemon = crate::support::Daemon::start_with(&rig.home, &config);
    daemon.ready().await;
    let own = [("DPoP", "of.the.caller"), ("dpop", "another")];
    let answer = request(daemon.proxy, "PUT", "/a%20b/c?d=e", &own, b"body").await;
    assert_eq!(answer.status, 200);
    let (asked, sent) = (idp.asked(), api.asked());
    assert_eq!((asked.len(), sent.len()), (2, 2), "one refresh, one replay");
    let mut ids = Vec::new();
    for (index, request) in asked.iter().chain(&sent).enumerate() {
        let (claims, jwk) = proof(request);
        assert_eq!(jwk, proof(&asked[0]).1, "one key");
        assert_eq!(claims.get("nonce"), None);
        if index < 2 {
            assert_eq!(
                (&claims["htm"], &claims["htu"]),
                (&json!("POST"), &json!(idp.url("/token")))
            );
            assert_eq!(claims.get("ath"), None);
        } else {
            assert_eq!(
                (&claims["htm"], &claims["htu"]),
                (&json!("PUT"), &json!(api.url("/a%20b/c")))
            );
        }
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    assert_ne!(proof(&sent[0]).0["ath"], proof(&sent[1]).0["ath"], "each names its token");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "a jti came twice");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_a_nonce_that_an_api_wants_costs_one_sending_and_no_refresh() {
    let rig = Rig::new();
    let idp = provider("dpop");
    let api = Told::start(|request| match proof(request).0.get("nonce") {
        // A nonce may ride on any answer, and changes now and then.
        Some(nonce) if nonce == "first" => Reply::status(200).header("DPoP-Nonce", "second"),
        Some(nonce) if nonce == "second" => Reply::status(200),
        _ => Reply::status(401)
            .header("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"")
            .header("DPoP-Nonce", "first"),
    });
    let config = rig.config(&lines(&idp, &rig, "")).replace(&rig.api.url(), &api.url(""));
    let daemon = crate::support::Daemon::start_with(&rig.home, &config);
    daemon.ready().await;
    for _ in 0..3 {
        assert_eq!(daemon.get("/orders").await.status, 200);
    }
    assert_eq!((idp.asked().len(), api.asked().len()), (1, 4));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_requests_that_learn_the_same_nonce_at_the_same_time_all_go_on() {
    let rig = Rig::new();
    let idp = provider("DPoP");
    // All of them are on their way before the first one is answered.
    let api = Told::start(|request| match proof(request).0.get("nonce") {
        Some(_) => Reply::status(200),
        None => Reply::status(401)
            .header("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"")
            .header("DPoP-Nonce", "only")
            .delay(Duration::from_millis(300)),
    });
    let config = rig.config(&lines(&idp, &rig, "")).replace(&rig.api.url(), &api.url(""));
    let daemon = crate::support::Daemon::start_with(&rig.home, &config);
    daemon.ready().await;
    let proxy = daemon.proxy;
    let send = |_| async move { request(proxy, "GET", "/orders", &[], b"").await.status };
    assert_eq!(together(8, send).await, [200; 8]);
    assert_eq!(idp.asked().len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_an_api_that_wants_one_nonce_after_the_other_gets_no_third_sending() {
    let rig = Rig::new();
    let idp = provider("DPoP");
    let count = Mutex::new(0);
    let api = Told::start(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Reply::status(401)
            .header("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"")
            .header("DPoP-Nonce", format!("nonce-{count}"))
    });
    let config = rig.config(&lines(&idp, &rig, "")).replace(&rig.api.url(), &api.url(""));
    let daemon = crate::support::Daemon::start_with(&rig.home, &config);
    daemon.ready().await;
    assert_eq!(daemon.get("/orders").await.status, 401);
    assert_eq!((idp.asked().len(), api.asked().len()), (1, 2));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_a_token_endpoint_that_wants_a_nonce_is_asked_twice_and_no_more() {
    let rig = Rig::new();
    let idp = Told::start(|request| {
        let wanted = Reply::json(400, json!({ "error": "use_dpop_nonce" }));
        match proof(request).0.get("nonce") {
            None => wanted.header("DPoP-Nonce", "one"),
            Some(_) => wanted.header("DPoP-Nonce", "two"),
        }
    });
    let daemon = rig.start(&lines(&idp, &rig, ""));
    told(&failed(&daemon, "transient").await, &["use_dpop_nonce"], false);
    assert!(idp.asked().len() >= 2);
    assert_eq!(proof(&idp.asked()[0]).0.get("nonce"), None);
    assert_eq!(proof(&idp.asked()[1]).0["nonce"], "one");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_binds_nothing_gives_plain_tokens() {
    let rig = Rig::new();
    rig.tokens.issue("bound-1", None);
    let idp = provider("Bearer");
    let daemon = rig.started(&lines(&idp, &rig, "")).await;
    let own = [("DPoP", "of.the.caller")];
    assert_eq!(request(daemon.proxy, "GET", "/orders", &own, b"").await.status, 200);
    let sent = rig.api.last_request().expect("one");
    assert_eq!(sent.header("authorization").as_deref(), Some("Bearer bound-1"));
    assert_eq!(sent.header("dpop").as_deref(), Some("of.the.caller"), "not ours to judge");
    assert!(daemon.stop().success());
}
