//! Rows C1 to C7 and C-E1 to C-E10.

use serde_json::{Value, json};

use crate::client::{Answer, Client, post_form};
use crate::csp::{AUTHORIZE_PATH, BadToken, CLIENT_PATH, Csp, Echo, Lenient};
use crate::csp::{conflict, error_in_success, rate_limited, server_error};
use crate::{Step, Tls, Tokens};

async fn authorize(csp: &Csp, form: &[(&str, &str)]) -> Answer {
    post_form(csp.server().address(), AUTHORIZE_PATH, &[], form).await.unwrap()
}

fn start() -> (Tokens, Csp, String) {
    let tokens = Tokens::new();
    let csp = Csp::start(Tls::Off, &tokens);
    let token = csp.issue_api_token();
    (tokens, csp, token)
}

#[tokio::test]
async fn c1_a_success_echoes_the_api_token_or_not() {
    let (tokens, csp, token) = start();
    assert_eq!(token.len(), 65);
    let form = [("api_token", token.as_str())];
    let body = authorize(&csp, &form).await.json();
    assert_eq!((&body["expires_in"], &body["id_token"]), (&json!(1799), &json!("")));
    assert_eq!(body["refresh_token"], json!(token));
    assert!(tokens.is_live(body["access_token"].as_str().unwrap()));
    csp.set_echo(Echo::Null);
    csp.set_expires_in(json!(0));
    let body = authorize(&csp, &form).await.json();
    assert_eq!((&body["refresh_token"], &body["expires_in"]), (&Value::Null, &json!(0)));
    csp.set_echo(Echo::Absent);
    csp.omit_expires_in();
    let body = authorize(&csp, &form).await.json();
    assert_eq!((body.get("refresh_token"), body.get("expires_in")), (None, None));
    csp.set_echo(Echo::Other);
    assert_ne!(authorize(&csp, &form).await.json()["refresh_token"], json!(token));
    assert!(csp.violations().is_empty());
}

#[tokio::test]
async fn c_e2_odd_tokens_are_decoded() {
    let (_, csp, _) = start();
    csp.add_api_token("a+b&c=d %");
    assert_eq!(authorize(&csp, &[("api_token", "a+b&c=d %")]).await.status, 200);
}

#[tokio::test]
async fn c_e1_only_the_documented_form_passes() {
    let (_, csp, token) = start();
    let grant = ("grant_type", "refresh_token");
    let (new, old) = (("api_token", token.as_str()), ("refresh_token", token.as_str()));
    for form in [vec![grant, new], vec![old], vec![new, new]] {
        assert_eq!(authorize(&csp, &form).await.status, 400);
    }
    assert_eq!(csp.violations().len(), 3);
    csp.allow(Lenient::ExtraParameters);
    assert_eq!(authorize(&csp, &[grant, new]).await.status, 200);
    csp.allow(Lenient::FormRefreshToken);
    assert_eq!(authorize(&csp, &[old]).await.status, 200);
    csp.allow(Lenient::Json);
    let mut client = Client::connect(csp.server().address()).await.unwrap();
    let fields = [("Content-Type", "application/json"), ("Accept", "application/json")];
    let body = json!({ "refresh_token": token }).to_string();
    let answer = client.request("POST", AUTHORIZE_PATH, &fields, body.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        client.request("POST", "/elsewhere", &fields, b"").await.unwrap().json(),
        Value::Null
    );
}

#[tokio::test]
async fn c_e3_a_secret_in_the_url_is_always_a_violation() {
    let (_, csp, token) = start();
    let target = format!("{AUTHORIZE_PATH}?refresh_token={token}");
    let to = csp.server().address();
    assert_eq!(post_form(to, &target, &[], &[]).await.unwrap().status, 400);
    csp.allow(Lenient::Query);
    assert_eq!(post_form(to, &target, &[], &[]).await.unwrap().status, 200);
    assert_eq!(csp.violations().len(), 2);
    let header = [("Authorization", "Bearer x")];
    post_form(to, AUTHORIZE_PATH, &header, &[]).await.unwrap();
    assert_eq!(csp.violations()[2], "authorization in a token request");
}

#[tokio::test]
async fn c_e4_a_passcode_is_good_once() {
    let (_, csp, token) = start();
    let token = token.as_str();
    csp.set_passcode(token, "123456");
    let with = |code| [("api_token", token), ("passcode", code)];
    assert_eq!(authorize(&csp, &[("api_token", token)]).await.status, 400);
    assert_eq!(authorize(&csp, &with("000000")).await.status, 400);
    assert_eq!(authorize(&csp, &with("123456")).await.status, 200);
    assert_eq!(authorize(&csp, &with("123456")).await.status, 400);
    assert_eq!(csp.audit_failures_of(token), 3);
}

#[tokio::test]
async fn c_e5_c_e6_bad_tokens_come_back_in_three_envelopes() {
    let (_, csp, token) = start();
    let bad = [("api_token", "unknown-tN3NK")];
    for (shape, status, code) in [
        (BadToken::Number400, 400, json!(340)),
        (BadToken::String400, 400, json!("340")),
        (BadToken::Envelope404, 404, json!("540")),
    ] {
        csp.set_bad_token(shape);
        let answer = authorize(&csp, &bad).await;
        assert_eq!((answer.status, &answer.json()["moduleCode"]), (status, &code));
        assert!(answer.text().contains("xxxx...tN3NK"));
    }
    csp.expire_api_token(&token);
    assert_eq!(authorize(&csp, &[("api_token", &token)]).await.status, 400);
    assert_eq!(csp.audit_failures(), 4);
}

#[tokio::test]
async fn c2_c5_c6_c7_are_scripted() {
    let (_, csp, token) = start();
    let date = crate::http_date(std::time::SystemTime::now());
    csp.script([error_in_success(), conflict(), rate_limited(None), rate_limited(Some(&date))]);
    csp.script([server_error(), Step::Html(500)]);
    for (status, retry_after) in [
        (200, None),
        (409, None),
        (429, None),
        (429, Some(date.as_str())),
        (500, None),
        (500, None),
    ] {
        let answer = authorize(&csp, &[("api_token", &token)]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, retry_after));
    }
}

#[tokio::test]
async fn c_e9_regenerating_kills_the_old_token() {
    let (tokens, csp, token) = start();
    let body = authorize(&csp, &[("api_token", &token)]).await.json();
    let next = csp.regenerate(&token, true);
    assert!(!tokens.is_live(body["access_token"].as_str().unwrap()));
    assert_eq!(authorize(&csp, &[("api_token", &token)]).await.status, 400);
    assert_eq!(authorize(&csp, &[("api_token", &next)]).await.status, 200);
}

#[tokio::test]
async fn the_sibling_exchange_takes_a_client() {
    let (_, csp, _) = start();
    csp.add_client("a", "b");
    let form = [("grant_type", "client_credentials"), ("orgId", "o")];
    let to = csp.server().address();
    let ask = async |basic| {
        let header = [("Authorization", basic)];
        post_form(to, CLIENT_PATH, &header, &form).await.unwrap()
    };
    assert_eq!(ask("Basic YTpi").await.json().get("refresh_token"), None);
    assert_eq!(ask("Basic YTpj").await.status, 400);
    assert_eq!(csp.audit_failures_of("a"), 1);
}
