//! Token exchange, chained credentials, and what else goes into a token request.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use emulator::Reply;
use serde_json::json;

use super::{Told, pairs, said, token};
use crate::support::{Daemon, bearerd, eventually};
use crate::vendors::{Rig, failed, told};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

#[tokio::test(flavor = "multi_thread")]
async fn rule_49_a_token_exchange_sends_what_is_configured_and_nothing_else() {
    let rig = Rig::new();
    rig.tokens.issue("exchanged", None);
    let idp = Told::start(|_| {
        let answer = json!({ "access_token": "exchanged", "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer", "expires_in": 600, "refresh_token": "never-looked-at" });
        Reply::json(200, answer)
    });
    let lines = format!(
        "grant = \"token_exchange\"\ntoken_url = \"{}\"\nsubject = {}\n\
         subject_token_type = \"{JWT}\"\nactor = {}\nactor_token_type = \"{JWT}\"\n\
         requested_token_type = \"{ACCESS_TOKEN}\"\nscope = \"read\"\naudience = [\"a\", \"b\"]\n\
         resource = \"https://api.example/x?y\"\nclient_id = \"c\"\nclient_auth = \"basic\"\n\
         client_secret = {}\nparams = {{ options = \"{{}}\" }}\nheaders = {{ X-Tenant = \"t 1\" }}\n",
        idp.url("/sts?v=1"),
        rig.secret("subject", "sub+ject\r\n"),
        rig.secret("actor", "actor"),
        rig.secret("secret", "secret")
    );
    let daemon = rig.started(&lines).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    let request = idp.asked().remove(0);
    assert_eq!(request.target, "/sts?v=1");
    assert_eq!(request.header("x-tenant").as_deref(), Some("t 1"));
    assert_eq!(request.header("authorization").as_deref(), Some("Basic YzpzZWNyZXQ="));
    let mut sent = pairs(&request.form());
    let mut expected = said(&[
        ("grant_type", EXCHANGE),
        ("subject_token", "sub+ject"),
        ("subject_token_type", JWT),
        ("actor_token", "actor"),
        ("actor_token_type", JWT),
        ("requested_token_type", ACCESS_TOKEN),
        ("scope", "read"),
        ("audience", "a"),
        ("audience", "b"),
        ("resource", "https://api.example/x?y"),
        ("options", "{}"),
    ]);
    sent.sort();
    expected.sort();
    assert_eq!(sent, expected);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_49_a_token_that_is_no_access_token_is_injected_only_if_the_configuration_says_so() {
    let rig = Rig::new();
    rig.tokens.issue("a-saml-thing", None);
    let idp = Told::start(|_| {
        Reply::json(200, json!({ "access_token": "a-saml-thing", "token_type": "N_A" }))
    });
    let lines = format!(
        "grant = \"token_exchange\"\ntoken_url = \"{}\"\nsubject = {}\n",
        idp.url("/sts"),
        rig.secret("subject", "subject")
    );
    let daemon = rig.start(&lines);
    let status = failed(&daemon, "transient").await;
    told(&status, &["token_type is not one that can be injected"], false);
    assert!(daemon.stop().success());
    let daemon = rig.started(&(lines + "token_types = [\"N_A\"]\n")).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    assert!(daemon.stop().success());
}

/// `[credentials.first]`, whose tokens `[credentials.c]` asks with; the order of the tables must
/// not matter.
fn chained(rig: &Rig, idp: &Told, lifetime: &str) -> String {
    let first = format!(
        "[credentials.first]\ngrant = \"client_credentials\"\ntoken_url = \"{}\"\n\
         client_id = \"c\"\nclient_secret = {}\n{lifetime}\n",
        idp.url("/first"),
        rig.secret("secret", "secret")
    );
    let second = format!(
        "grant = \"token_exchange\"\ntoken_url = \"{}\"\n\
         subject = {{ credential = \"first\" }}\n",
        idp.url("/second")
    );
    rig.config(&second) + &first
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chained_credential_asks_with_the_newest_token_of_the_other_one() {
    let rig = Rig::new();
    let count = AtomicU32::new(0);
    let tokens = rig.tokens.clone();
    let idp = Told::start(move |request| {
        let number = count.fetch_add(1, Relaxed);
        if request.path() == "/first" {
            return token(&format!("first-{number}"), 3);
        }
        let subject = request.form().value("subject_token").unwrap_or_default().to_owned();
        let exchanged = format!("second-by-{subject}");
        tokens.issue(&exchanged, None);
        token(&exchanged, 3)
    });
    let daemon = Daemon::start_with(&rig.home, &chained(&rig, &idp, ""));
    daemon.ready().await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    let subjects = || -> Vec<String> {
        let forms = idp.forms();
        let mut subjects: Vec<String> = forms
            .iter()
            .filter_map(|form| form.value("subject_token"))
            .map(str::to_owned)
            .collect();
        subjects.dedup();
        subjects
    };
    eventually("exchanges with three subjects", async || subjects().len() >= 3).await;
    assert!(subjects().iter().all(|subject| subject.starts_with("first-")), "{:?}", subjects());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chained_credential_says_whose_token_is_missing_and_comes_up_when_it_is_there() {
    let rig = Rig::new();
    rig.tokens.issue("second", None);
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = std::sync::Arc::clone(&down);
    let idp = Told::start(move |request| match request.path() {
        "/first" if is_down.load(Relaxed) => Reply::status(503),
        "/first" => token("first", 600),
        _ => token("second", 600),
    });
    let daemon = Daemon::start_with(&rig.home, &chained(&rig, &idp, ""));
    eventually("the missing token is told", async || {
        let status = daemon.status().await;
        let detail = status["credentials"][0]["last"]["detail"].as_str().unwrap_or_default();
        detail.contains("the credential first has no usable token")
    })
    .await;
    assert!(
        idp.asked().iter().all(|request| request.path() == "/first"),
        "asked without a subject"
    );
    down.store(false, Relaxed);
    // Either of them may be in the middle of a pause by now.
    eventually("the first one is there", async || {
        daemon.status().await["credentials"][1]["generation"] == 1
    })
    .await;
    daemon.ready().await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_replaces_a_credential_reaches_those_that_are_chained_to_it() {
    let rig = Rig::new();
    rig.tokens.issue("second", None);
    let idp = Told::start(|request| match request.path() {
        "/first" => token("first-of-all", 600),
        "/other" => token("another-first", 600),
        _ => token("second", 3),
    });
    let config = chained(&rig, &idp, "");
    let daemon = Daemon::start_with(&rig.home, &config);
    daemon.ready().await;
    rig.home.write("bearerd.toml", &config.replace("/first\"", "/other\""));
    daemon.signal("HUP");
    let by =
        |subject: &str| idp.forms().iter().any(|form| form.value("subject_token") == Some(subject));
    eventually("an exchange by the new one", async || by("another-first")).await;
    assert!(by("first-of-all"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fetches_along_a_chain_and_tells_where_it_breaks() {
    let rig = Rig::new();
    let idp = Told::start(|request| match request.path() {
        "/first" => token("first", 600),
        _ if request.form().value("subject_token") == Some("first") => token("second", 300),
        _ => Reply::status(400),
    });
    let config = chained(&rig, &idp, "");
    let path = rig.home.write("bearerd.toml", &config);
    let (code, stdout, stderr) = bearerd(&["check", "--config", &path, "--fetch"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("fetch first: ok") && stdout.contains("fetch c: ok"), "{stdout}");
    let broken = config.replace("/first\"", "/none\"");
    let path = rig.home.write("bearerd.toml", &broken);
    let (code, stdout, _) = bearerd(&["check", "--config", &path, "--fetch"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("the credential first has no usable token"), "{stdout}");
}
