//! Rows T1 to T6 and T-E1 to T-E7.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::client::{Answer, post_form};
use crate::tencent::{REVOKE_PATH, Rotation, TOKEN_PATH};
use crate::{Tencent, Tls, Tokens, mint};

struct Fixture {
    tokens: Tokens,
    idp: Tencent,
    refresh_token: String,
}

fn start() -> Fixture {
    let tokens = Tokens::new();
    let idp = Tencent::start(Tls::Off, &tokens);
    idp.add_client("app", "s3:cret");
    let refresh_token = idp.issue_refresh_token("app");
    Fixture { tokens, idp, refresh_token }
}

const ID: (&str, &str) = ("client_id", "app");
const SECRET: (&str, &str) = ("client_secret", "s3:cret");
const REFRESH: (&str, &str) = ("grant_type", "refresh_token");

impl Fixture {
    async fn post(&self, fields: &[(&str, &str)], form: &[(&str, &str)]) -> Answer {
        post_form(self.idp.server().address(), TOKEN_PATH, fields, form).await.unwrap()
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post(&[], &[ID, SECRET, REFRESH, ("refresh_token", token)]).await
    }

    async fn revoke(&self, token: &str) -> u16 {
        let form = [ID, SECRET, ("token", token)];
        post_form(self.idp.server().address(), REVOKE_PATH, &[], &form).await.unwrap().status
    }
}

#[tokio::test]
async fn t1_the_answer_is_spelled_like_the_sample() {
    let fixture = start();
    assert_eq!(fixture.refresh_token.len(), 128);
    let answer = fixture.refresh(&fixture.refresh_token).await;
    assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));
    assert!(answer.text().contains("\"expires_in\" : 299"));
    let claims = mint::claims(answer.json()["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["scope"], json!(["openid"]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert!(fixture.idp.violations().is_empty());
}

#[tokio::test]
async fn t_e2_one_method_of_authentication() {
    let fixture = start();
    fixture.idp.set_rotation(Rotation::Same);
    let token = ("refresh_token", fixture.refresh_token.as_str());
    let basic = format!("Basic {}", BASE64_STANDARD.encode("app:s3%3Acret"));
    let header = [("Authorization", basic.as_str())];
    assert_eq!(fixture.post(&header, &[REFRESH, token]).await.status, 200);
    let both = fixture.post(&header, &[ID, SECRET, REFRESH, token]).await;
    assert_eq!((both.status, both.text().as_str()), (400, r#"{"error":"invalid_request"}"#));
    assert_eq!(fixture.idp.violations().len(), 1);
}

#[tokio::test]
async fn t3_to_t6_errors_are_spelled_like_the_samples() {
    let fixture = start();
    let token = ("refresh_token", fixture.refresh_token.as_str());
    let shape = |answer: Answer| (answer.status, answer.text());
    let unknown = shape(fixture.refresh("unknown").await);
    assert_eq!(unknown, (400, r#"{"error" : "invalid_grant"}"#.to_owned()));
    let invalid_request = (400, r#"{"error":"invalid_request"}"#.to_owned());
    assert_eq!(shape(fixture.post(&[], &[SECRET, REFRESH, token]).await), invalid_request);
    let nobody = ("client_id", "nobody");
    assert_eq!(shape(fixture.post(&[], &[nobody, SECRET, REFRESH, token]).await), invalid_request);
    let wrong = ("client_secret", "wrong");
    let invalid_client = (401, r#"{"error":"invalid_client"}"#.to_owned());
    assert_eq!(shape(fixture.post(&[], &[ID, wrong, REFRESH, token]).await), invalid_client);
    let odd = fixture.post(&[], &[ID, SECRET, ("grant_type", "Refresh_token"), token]).await;
    assert_eq!(odd.header("content-length"), Some("0"));
    assert_eq!(shape(odd), (401, String::new()));
    assert_eq!(fixture.idp.audit_failures_of("app"), 2);
}

#[tokio::test]
async fn t_e3_t_e4_refresh_tokens_come_in_every_way() {
    let fixture = start();
    let first = fixture.refresh_token.as_str();
    fixture.idp.set_rotation(Rotation::Absent);
    assert_eq!(fixture.refresh(first).await.json().get("refresh_token"), None);
    fixture.idp.set_rotation(Rotation::Same);
    assert_eq!(fixture.refresh(first).await.json()["refresh_token"], json!(first));
    fixture.idp.set_rotation(Rotation::NewOldLives);
    assert_ne!(fixture.refresh(first).await.json()["refresh_token"], json!(first));
    fixture.idp.set_rotation(Rotation::New);
    assert_eq!(fixture.refresh(first).await.status, 200);
    assert_eq!(fixture.refresh(first).await.status, 400);
    assert_eq!(fixture.idp.rotations(), 2);
    fixture.idp.set_refresh_enabled(false);
    assert_eq!(fixture.refresh(first).await.status, 401);
    let form = [ID, SECRET, ("grant_type", "client_credentials")];
    assert_eq!(fixture.post(&[], &form).await.json().get("refresh_token"), None);
}

#[tokio::test]
async fn t_e6_lives_can_be_short() {
    let fixture = start();
    fixture.idp.set_lifetime(Duration::from_secs(10));
    assert_eq!(fixture.refresh(&fixture.refresh_token).await.json()["expires_in"], json!(9));
}

#[tokio::test]
async fn t_e7_a_refresh_token_takes_its_access_token_along() {
    let fixture = start();
    fixture.idp.set_rotation(Rotation::Same);
    let first = fixture.refresh_token.as_str();
    let access = async || {
        let answer = fixture.refresh(first).await.json();
        answer["access_token"].as_str().unwrap().to_owned()
    };
    let (one, two) = (access().await, access().await);
    assert_eq!(fixture.revoke(&one).await, 200);
    assert!(!fixture.tokens.is_live(&one) && fixture.tokens.is_live(&two));
    assert_eq!(fixture.revoke(first).await, 200);
    assert!(!fixture.tokens.is_live(&two));
    assert_eq!(fixture.refresh(first).await.status, 400);
    let form = [ID, ("client_secret", "wrong"), ("token", "x")];
    let answer = post_form(fixture.idp.server().address(), REVOKE_PATH, &[], &form).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (401, r#"{"error":"invalid_client"}"#));
}
