//! Endpoints from an issuer's metadata (RFC 8414, OpenID Connect Discovery).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use emulator::Reply;
use serde_json::{Value, json};

use super::{Told, pairs, said, token};
use crate::support::eventually;
use crate::vendors::{Rig, failed, told};

const OAUTH: &str = "/.well-known/oauth-authorization-server/tenants/a";
const OPENID: &str = "/tenants/a/.well-known/openid-configuration";

/// An issuer below a path that answers for its own metadata at the place `at`.
fn issuer(at: &'static str, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Told {
    Told::start(move |request| {
        let origin = format!("http://{}", request.header("host").unwrap_or_default());
        match request.path() {
            path if path == at => {
                let mut metadata = json!({
                    "issuer": format!("{origin}/tenants/a"),
                    "token_endpoint": format!("{origin}/somewhere/token"),
                    "revocation_endpoint": format!("{origin}/somewhere/revoke"),
                });
                change(&mut metadata);
                Reply::json(200, metadata)
            }
            "/somewhere/token" => token("granted", 600),
            "/somewhere/revoke" => Reply::status(200),
            _ => Reply::html(404),
        }
    })
}

fn lines(rig: &Rig, idp: &Told, more: &str) -> String {
    format!(
        "grant = \"client_credentials\"\nissuer = \"{}\"\nclient_id = \"c\"\n\
         client_secret = {}\n{more}\n",
        idp.url("/tenants/a"),
        rig.secret("secret", "secret")
    )
}

fn paths(idp: &Told) -> Vec<String> {
    idp.asked().iter().map(|request| format!("{} {}", request.method, request.target)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_52_metadata_is_asked_for_once_at_either_place() {
    for (at, before) in [(OAUTH, vec![OAUTH]), (OPENID, vec![OAUTH, OPENID])] {
        let rig = Rig::new();
        rig.tokens.issue("granted", None);
        let idp = issuer(at, |_| {});
        let daemon = rig.started(&lines(&rig, &idp, "")).await;
        rig.refresh_now(&daemon).await;
        assert_eq!(daemon.get("/orders").await.status, 200);
        let mut expected: Vec<_> = before.iter().map(|path| format!("GET {path}")).collect();
        expected.extend(["POST /somewhere/token".to_owned(), "POST /somewhere/token".to_owned()]);
        assert_eq!(paths(&idp), expected);
        assert!(!idp.asked()[0].has("authorization"), "no secret where none is needed");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_52_metadata_that_names_another_issuer_is_never_used() {
    let rig = Rig::new();
    let idp = issuer(OAUTH, |metadata| metadata["issuer"] = json!("https://elsewhere.example"));
    let daemon = rig.start(&lines(&rig, &idp, ""));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["not that of the configured issuer"], false);
    assert!(!daemon.logs().contains("elsewhere.example"));
    assert!(paths(&idp).iter().all(|path| path.starts_with("GET ")), "no token request");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_asked_for_again_after_a_failure() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let moved = Arc::new(AtomicBool::new(false));
    let has_moved = Arc::clone(&moved);
    let idp = issuer(OAUTH, move |metadata| {
        if has_moved.load(Relaxed) {
            metadata["token_endpoint"] =
                json!(metadata["token_endpoint"].as_str().unwrap().replace("somewhere", "nowhere"));
        }
    });
    moved.store(true, Relaxed);
    let daemon = rig.start(&lines(&rig, &idp, "refresh = { min_interval_seconds = 1 }"));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 404 (not_found)"], false);
    moved.store(false, Relaxed);
    // A replaced secret is a reason to try again.
    rig.home.write("secret", "another");
    daemon.ready().await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_46_a_token_is_revoked_where_the_metadata_says_if_that_was_asked_for() {
    for revoke in [true, false] {
        let rig = Rig::new();
        rig.tokens.issue("granted", None);
        let idp = issuer(OAUTH, |_| {});
        let more = format!("revoke_on_shutdown = {revoke}\nclient_auth = \"post\"");
        let daemon = rig.started(&lines(&rig, &idp, &more)).await;
        assert_eq!(daemon.get("/orders").await.status, 200);
        assert!(daemon.stop().success());
        let last = idp.asked().pop().unwrap();
        assert_eq!(last.path() == "/somewhere/revoke", revoke);
        if revoke {
            let expected = [
                ("token", "granted"),
                ("token_type_hint", "access_token"),
                ("client_id", "c"),
                ("client_secret", "secret"),
            ];
            assert_eq!(pairs(&last.form()), said(&expected));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_former_process_is_revoked_where_the_metadata_says() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let idp = issuer(OAUTH, |_| {});
    let store = rig.home.path("store.json");
    let more = format!(
        "revoke_on_shutdown = true\nclient_auth = \"post\"\nstore = \"file:{}\"",
        store.display()
    );
    rig.started(&lines(&rig, &idp, &more)).await.kill();
    let daemon = rig.started(&lines(&rig, &idp, &more)).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    let asked = [format!("GET {OAUTH}"), "POST /somewhere/token".to_owned()];
    assert_eq!(paths(&idp), asked, "a restart costs nothing");
    assert!(daemon.stop().success());
    assert_eq!(paths(&idp)[2..], [format!("GET {OAUTH}"), "POST /somewhere/revoke".to_owned()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_be_asked_now_is_asked_again_soon() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let answers = Mutex::new(vec![Reply::status(503), Reply::status(429)]);
    let idp = Told::start(move |request| {
        if let Some(reply) = answers.lock().unwrap().pop() {
            return reply;
        }
        let origin = format!("http://{}", request.header("host").unwrap_or_default());
        match request.path() {
            "/token" => token("granted", 600),
            _ => Reply::json(
                200,
                json!({ "issuer": format!("{origin}/tenants/a"),
                    "token_endpoint": format!("{origin}/token") }),
            ),
        }
    });
    let daemon = rig.started(&lines(&rig, &idp, "")).await;
    eventually("two failures are counted", async || {
        let label = ["outcome=\"transient\""];
        daemon.metric("bearerd_token_fetches_total", &label).await >= 2.0
    })
    .await;
    assert!(daemon.stop().success());
}
