//! The API's verdicts and challenges.

use std::time::Duration;

use super::DEADLINE;
use crate::api::insufficient_scope;
use crate::client::{Answer, Client};
use crate::{Api, Challenge, Reply, Step, Tls, Tokens};

async fn send(api: &Api, method: &str, fields: &[(&str, &str)]) -> Answer {
    let mut client = Client::connect(api.server().address()).await.unwrap();
    client.request(method, "/x", fields, b"").await.unwrap()
}

fn start() -> (Tokens, Api) {
    let tokens = Tokens::new();
    tokens.issue("live", None);
    tokens.issue("spent", Some(Duration::ZERO));
    let api = Api::start(Tls::Off, &tokens);
    (tokens, api)
}

const LIVE: (&str, &str) = ("Authorization", "Bearer live");

#[tokio::test]
async fn only_one_live_token_passes() {
    let (tokens, api) = start();
    assert_eq!(send(&api, "GET", &[LIVE]).await.json()["target"], "/x");
    let refused = async |fields: &[(&str, &str)]| {
        let answer = send(&api, "GET", fields).await;
        (answer.status, answer.header("www-authenticate").map(str::to_owned))
    };
    let invalid = (401, Some("Bearer error=\"invalid_token\"".to_owned()));
    assert_eq!(refused(&[("Authorization", "Bearer spent")]).await, invalid);
    assert_eq!(refused(&[("Authorization", "bearer live")]).await, invalid);
    assert_eq!(refused(&[]).await, (401, Some("Bearer".to_owned())));
    assert_eq!(refused(&[LIVE, LIVE]).await, (400, None));
    tokens.revoke("live");
    assert_eq!(refused(&[LIVE]).await, invalid);
    assert_eq!((api.ok(), api.unauthorized(), api.request_count()), (1, 5, 6));
    let tally = api.tally("live");
    assert_eq!((tally.requests, tally.ok, tally.unauthorized), (2, 1, 1));
    assert_eq!(api.violations(), ["credential: none", "credential: two"]);
}

#[tokio::test]
async fn a_bare_token_in_its_own_field_refuses_a_second_one() {
    let (_, api) = start();
    api.set_credential_header("csp-auth-token", None);
    assert_eq!(send(&api, "GET", &[("CSP-Auth-Token", "live")]).await.status, 200);
    assert_eq!(send(&api, "GET", &[LIVE]).await.status, 401);
    assert_eq!(send(&api, "GET", &[("csp-auth-token", "live"), LIVE]).await.status, 400);
}

#[tokio::test]
async fn challenges_are_those_of_the_documents() {
    let (_, api) = start();
    let shape =
        |answer: Answer| (answer.status, answer.header("www-authenticate").map(str::to_owned));
    api.set_challenge(Challenge::Tencent);
    let none = shape(send(&api, "GET", &[]).await);
    assert_eq!(none.0, 400);
    assert!(none.1.unwrap().starts_with("Bearer error=\"invalid_request\", "));
    api.script([insufficient_scope()]);
    assert_eq!(shape(send(&api, "GET", &[LIVE]).await).0, 403);

    api.set_challenge(Challenge::Veeam);
    api.set_always_unauthorized(true);
    let veeam = send(&api, "GET", &[LIVE]).await;
    assert_eq!(veeam.header("content-type"), Some("application/problem+json; charset=utf-8"));
    assert_eq!(shape(veeam), (401, None));
    api.set_challenge(Challenge::Basic("x".into()));
    assert_eq!(shape(send(&api, "GET", &[LIVE]).await), (401, Some("Basic realm=\"x\"".into())));
    api.set_challenge(Challenge::answer(Reply::status(419)));
    assert_eq!(shape(send(&api, "GET", &[LIVE]).await), (419, None));
}

#[tokio::test]
async fn cookies_and_writes_without_a_csrf_field_can_be_refused() {
    let (_, api) = start();
    api.set_cookies_forbidden(true);
    api.set_csrf_header(Some("x-csrf"));
    assert!(send(&api, "GET", &[LIVE]).await.header("set-cookie").is_some());
    assert_eq!(send(&api, "GET", &[LIVE, ("Cookie", "a=b")]).await.status, 404);
    assert_eq!(send(&api, "POST", &[LIVE]).await.status, 403);
    assert_eq!(send(&api, "POST", &[LIVE, ("X-Csrf", "1")]).await.status, 200);
}

#[tokio::test]
async fn an_early_verdict_does_not_wait_for_the_body() {
    let (_, api) = start();
    api.set_early_verdict(true);
    let mut client = Client::connect(api.server().address()).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nAuthorization: Bearer spent\r\nContent-Length: 3\r\n\r\n";
    client.send(head).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 401);
    // What was left of the body is read, and the connection lives on.
    client.send(b"abc").await.unwrap();
    assert_eq!(client.request("GET", "/", &[LIVE], b"").await.unwrap().status, 200);
    client.send(head).await.unwrap();
    drop(client);
    api.wait_for_requests(3, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_body_that_breaks_off_is_counted() {
    let (_, api) = start();
    let mut client = Client::connect(api.server().address()).await.unwrap();
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na").await.unwrap();
    drop(client);
    api.wait_for_aborted(1, DEADLINE).await.unwrap();
    assert_eq!(api.request_count(), 0);
}

#[tokio::test]
async fn scripted_answers_come_before_the_verdict() {
    let (_, api) = start();
    api.script([Step::Status(429).retry_after("1"), Step::Normal]);
    let answer = send(&api, "GET", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(send(&api, "GET", &[LIVE]).await.status, 200);
}
