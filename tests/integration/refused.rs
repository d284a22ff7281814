//! What happens to a refused token: the table of 401s, one test a row.

use emulator::{Challenge, Reply, Step};
use serde_json::json;

use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, eventually, request};

#[tokio::test(flavor = "multi_thread")]
async fn challenges_that_a_newer_token_answers_are_replayed() {
    let fields = |lines: &[&str]| Challenge::Fields(lines.iter().map(|&l| l.to_owned()).collect());
    for challenge in [
        Challenge::Bearer,
        Challenge::InvalidToken,
        Challenge::Silent,
        Challenge::Veeam,
        fields(&["bearer realm=\"a, b\", error=\"invalid_token\""]),
        fields(&["Basic realm=\"a\"", "Bearer"]),
    ] {
        let stage = Stage::new();
        stage.api.set_challenge(challenge.clone());
        let daemon = stage.ready("").await;
        stage.tokens.revoke_all();
        let answer = daemon.get("/").await;
        assert_eq!(answer.status, 200, "{challenge:?}: {}", answer.text());
        assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 2));
        assert_eq!(replays(&daemon, "succeeded").await, 1);
        assert_eq!(fetches(&daemon, "unauthorized").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_in_the_routes_own_word_for_a_token_is_one() {
    for (fields, replayed) in [
        (&["Token"][..], true),
        (&["token realm=\"api\""], true),
        (&["Basic realm=\"api\"", "Token"], true),
        (&["Bearer"], true),
        (&["Token error=\"insufficient_scope\""], false),
        (&["Basic realm=\"Token\""], false),
        (&["Tokens"], false),
    ] {
        let stage = Stage::new();
        stage.api.set_credential_header("authorization", Some("Token"));
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        stage.api.set_challenge(Challenge::Fields(fields));
        let daemon = stage.ready("scheme = \"Token\"").await;
        stage.tokens.revoke_all();
        let answer = daemon.get("/orders").await;
        assert_eq!(answer.status, if replayed { 200 } else { 401 }, "{}", answer.text());
        assert_eq!(stage.idp.token_requests(), if replayed { 2 } else { 1 });
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_challenges_pass_through_and_cause_no_refresh() {
    let basic = Challenge::Basic("the realm".to_owned());
    let scope = Challenge::Fields(vec!["Bearer error=\"insufficient_scope\"".to_owned()]);
    let negotiate = Challenge::Fields(vec!["Negotiate".to_owned(), "NTLM".to_owned()]);
    for (challenge, said) in [
        (basic, &["Basic realm=\"the realm\""][..]),
        (scope, &["Bearer error=\"insufficient_scope\""]),
        (negotiate, &["Negotiate", "NTLM"]),
    ] {
        let stage = Stage::new();
        stage.api.set_challenge(challenge);
        let daemon = stage.ready("").await;
        stage.tokens.revoke_all();
        let answer = daemon.get("/").await;
        assert_eq!((answer.status, answer.json()), (401, json!({ "error": "unauthorized" })));
        let challenges =
            answer.head.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
        assert!(challenges.map(|(_, value)| value.as_str()).eq(said.iter().copied()));
        assert_no_refresh(&stage, &daemon, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_refusals_pass_through_and_cause_no_refresh() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let challenge = |error: &str| format!("Bearer error=\"{error}\"");
    for (status, error) in
        [(403, "insufficient_scope"), (400, "invalid_request"), (403, "invalid_token")]
    {
        stage.api.script([Step::Status(status).header("WWW-Authenticate", &challenge(error))]);
        let answer = daemon.get("/").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("www-authenticate"), Some(challenge(error).as_str()));
    }
    assert_no_refresh(&stage, &daemon, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_the_route_names_are_treated_like_401() {
    for status in [403, 419, 440] {
        let stage = Stage::new();
        stage.api.set_challenge(Challenge::answer(Reply::status(status)));
        let daemon = stage.ready(&format!("replay = {{ statuses = [401, {status}] }}")).await;
        stage.tokens.revoke_all();
        assert_eq!(daemon.get("/").await.status, 200, "{status}");
        assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 2));
        stage.api.script([Step::Status(418)]);
        assert_eq!(daemon.get("/").await.status, 418);
        assert_eq!(stage.idp.token_requests(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_of_a_replay_passes_unchanged_and_is_counted() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let first = Reply::bytes(401, "text/plain", "first").header("WWW-Authenticate", "Bearer");
    let second = Reply::bytes(401, "text/plain", "second")
        .header("WWW-Authenticate", "Bearer realm=\"x\", error=\"invalid_token\"")
        .header("X-Trace", "second");
    stage.api.script([Step::from(first), Step::from(second)]);
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (401, "second"));
    assert_eq!(answer.header("x-trace"), Some("second"));
    let challenge = "Bearer realm=\"x\", error=\"invalid_token\"";
    assert_eq!(answer.header("www-authenticate"), Some(challenge));
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 2));
    assert_eq!(replays(&daemon, "unauthorized").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_about_an_older_token_is_replayed_without_a_refresh() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let old = stage.tokens.latest().expect("a token");
    // One request is held upstream with the first token, while another one gets it replaced.
    let held = Reply::json(401, json!({})).delay(std::time::Duration::from_secs(2));
    stage.api.script([Step::from(held)]);
    let proxy = daemon.proxy;
    let held = tokio::task::JoinSet::from_iter([request(proxy, "GET", "/held", &[], b"")]);
    stage.api.wait_for_requests(1, DEADLINE).await.expect("it is upstream");
    stage.tokens.revoke(&old);
    assert_eq!(daemon.get("/other").await.status, 200);
    assert_eq!(stage.idp.token_requests(), 2);
    assert_eq!(held.join_all().await[0].status, 200);
    assert_eq!(stage.idp.token_requests(), 2, "a newer token was there already");
    assert_eq!(replays(&daemon, "succeeded").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_too_new_for_the_upstream_is_tried_again_without_a_refresh() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    stage.tokens.revoke_all();
    // The replacement is not known to the API at once.
    stage.tokens.set_lag(std::time::Duration::from_millis(100));
    eventually("accepted", async || daemon.get("/").await.status == 200).await;
    assert_eq!(stage.idp.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_is_never_replayed() {
    let stage = Stage::new();
    let daemon = stage.ready("client_authorization = \"keep\"").await;
    let own = [("Authorization", "Bearer the-callers-own")];
    let answer = request(daemon.proxy, "GET", "/", &own, b"").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(stage.api.tally("the-callers-own").requests, 1);
    assert_no_refresh(&stage, &daemon, 1).await;
    // Without one of its own the same route injects and replays.
    stage.tokens.revoke_all();
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(stage.idp.token_requests(), 2);
}

async fn assert_no_refresh(stage: &Stage, daemon: &Daemon, requests: u64) {
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (1, requests));
    assert_eq!(daemon.metric("bearerd_replays_total", &[]).await as u64, 0);
    assert_eq!(daemon.metric("bearerd_token_generation", &[]).await as u64, 1);
}

async fn replays(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_replays_total", &[&label]).await as u64
}

async fn fetches(daemon: &Daemon, trigger: &str) -> u64 {
    let label = format!("trigger=\"{trigger}\"");
    daemon.metric("bearerd_token_fetches_total", &[&label]).await as u64
}
