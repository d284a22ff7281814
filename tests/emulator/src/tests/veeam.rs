//! Rows V1 to V8 and V-E2 to V-E15.

use serde_json::{Value, json};

use crate::client::{Answer, Client, post_form};
use crate::veeam::{Lenient, Spelling, TOKEN_PATH, redirect_to};
use crate::{Step, Tls, Tokens, Veeam, mint};

struct Fixture {
    tokens: Tokens,
    idp: Veeam,
    refresh_token: String,
}

fn start() -> Fixture {
    let tokens = Tokens::new();
    let idp = Veeam::start(Tls::Off, &tokens);
    idp.add_user("admin", "pass");
    let refresh_token = idp.issue_refresh_token("admin");
    Fixture { tokens, idp, refresh_token }
}

const USER: (&str, &str) = ("Username", "admin");
const PASSWORD: (&str, &str) = ("Password", "pass");
const REFRESH: (&str, &str) = ("grant_type", "Refresh_token");
const LOGIN: [(&str, &str); 3] = [USER, PASSWORD, ("grant_type", "Password")];

impl Fixture {
    async fn post(&self, form: &[(&str, &str)]) -> Answer {
        post_form(self.idp.server().address(), TOKEN_PATH, &[], form).await.unwrap()
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post(&[USER, PASSWORD, ("refresh_token", token), REFRESH]).await
    }

    async fn delete(&self, fields: &[(&str, &str)]) -> Answer {
        let mut client = Client::connect(self.idp.server().address()).await.unwrap();
        client.request("DELETE", TOKEN_PATH, fields, b"").await.unwrap()
    }
}

#[tokio::test]
async fn v1_the_answer_has_the_sample_s_shape() {
    let fixture = start();
    let answer = fixture.refresh(&fixture.refresh_token).await.json();
    let text = |field: &str| answer[field].as_str().unwrap().to_owned();
    assert_eq!((&answer["expires_in"], &answer["token_type"]), (&json!(3600), &json!("bearer")));
    assert_eq!((text(".issued").len(), text(".expires").len()), (28, 28));
    let access = mint::claims(&text("access_token")).unwrap();
    let refresh = mint::claims(&text("refresh_token")).unwrap();
    assert!(access["aud"].as_str().unwrap().starts_with("api/default/"));
    assert!(refresh["aud"].as_str().unwrap().starts_with("auth/refresh/"));
    assert_eq!(access["jti"], refresh["jti"]);
    assert_eq!(access["nameid"], answer["userId"]);
    assert!(fixture.tokens.is_live(&text("access_token")));
    assert!(fixture.idp.violations().is_empty());
}

#[tokio::test]
async fn v_e3_v_e4_only_the_newest_refresh_token_works() {
    let fixture = start();
    let first = fixture.refresh_token.as_str();
    let answer = fixture.refresh(first).await.json();
    assert_eq!(fixture.refresh(first).await.status, 401);
    assert_eq!(fixture.refresh(answer["access_token"].as_str().unwrap()).await.status, 401);
    fixture.idp.allow(Lenient::OldRefreshTokenLives);
    let second = answer["refresh_token"].as_str().unwrap();
    assert_eq!(fixture.refresh(second).await.status, 200);
    assert_eq!(fixture.refresh(second).await.status, 200);
}

#[tokio::test]
async fn v_e2_the_spelling_is_the_one_that_is_set() {
    let fixture = start();
    fixture.idp.allow(Lenient::OldRefreshTokenLives);
    let token = ("refresh_token", fixture.refresh_token.as_str());
    let lower = [("username", "admin"), ("password", "pass"), ("grant_type", "Password")];
    assert_eq!(fixture.post(&lower).await.status, 400);
    assert_eq!(fixture.post(&[PASSWORD, USER, token, REFRESH]).await.status, 400);
    assert_eq!(fixture.post(&[token, REFRESH]).await.status, 400);
    fixture.idp.allow(Lenient::BareRefresh);
    assert_eq!(fixture.post(&[token, REFRESH]).await.status, 200);
    fixture.idp.set_spelling(Spelling::Lower);
    assert_eq!(fixture.post(&lower).await.status, 200);
    assert_eq!(fixture.post(&[REFRESH, token]).await.status, 200);
    assert_eq!(fixture.post(&LOGIN).await.status, 400);
    fixture.idp.set_spelling(Spelling::Both);
    assert_eq!(fixture.post(&LOGIN).await.status, 200);
    assert_eq!(fixture.post(&[("grant_type", "refresh_token"), token]).await.status, 200);
}

#[tokio::test]
async fn v_e5_errors_are_problems() {
    let fixture = start();
    let missing = fixture.post(&[USER, PASSWORD, REFRESH]).await;
    assert_eq!(missing.status, 400);
    assert_eq!(missing.header("content-type"), Some("application/problem+json; charset=utf-8"));
    assert!(missing.json()["errors"]["refresh_token"].is_array());
    for grant in ["refresh_token", "Saml", "nonsense"] {
        let answer = fixture.post(&[USER, PASSWORD, ("grant_type", grant)]).await;
        assert!(answer.json()["errors"]["grant_type"].is_array(), "{grant}");
    }
    let wrong = [USER, ("Password", "wrong"), ("grant_type", "Password")];
    assert_eq!(fixture.post(&wrong).await.status, 401);
    assert_eq!(fixture.idp.audit_failures_of("admin"), 1);
    let to = fixture.idp.server().address();
    let version = [("x-api-version", "1.0")];
    assert_eq!(post_form(to, TOKEN_PATH, &version, &LOGIN).await.unwrap().status, 400);
    assert!(fixture.idp.violations().contains(&"x-api-version in a token request".to_owned()));
}

#[tokio::test]
async fn v_e6_v_e7_people_are_needed() {
    let fixture = start();
    fixture.idp.set_mfa("admin", "424242");
    let answer = fixture.post(&LOGIN).await.json();
    assert_eq!(answer["access_token"], Value::Null);
    let step = |code| {
        let token = answer["mfa_token"].as_str().unwrap();
        [("grant_type", "Mfa"), ("mfa_token", token), ("mfa_code", code)]
    };
    assert_eq!(fixture.post(&step("0")).await.status, 401);
    assert_eq!(fixture.idp.logins(), 0);
    assert_eq!(fixture.post(&step("424242")).await.status, 200);
    assert_eq!(fixture.idp.logins(), 1);
    fixture.idp.set_external("admin");
    assert!(fixture.post(&LOGIN).await.json()["redirectTo"].is_string());
    fixture.idp.script([redirect_to(), Step::With(json!({ "redirectTo": null }))]);
    assert!(fixture.post(&LOGIN).await.json()["redirectTo"].is_string());
    assert!(fixture.post(&LOGIN).await.json()["redirectTo"].is_null());
}

#[tokio::test]
async fn v_e9_v_e14_lives_are_told_in_every_way() {
    let fixture = start();
    let short = [LOGIN.as_slice(), &[("short_lived_refresh_token", "true")]].concat();
    assert_eq!(fixture.post(&short).await.json()["shortLived"], json!(true));
    for (digits, length) in [(0, 20), (3, 24), (9, 30)] {
        fixture.idp.set_fraction_digits(digits);
        let answer = fixture.post(&LOGIN).await.json();
        assert_eq!(answer[".expires"].as_str().unwrap().len(), length);
    }
    fixture.idp.set_expires_offset(-7_200_000);
    let answer = fixture.post(&LOGIN).await.json();
    assert!(answer[".expires"].as_str().unwrap() < answer[".issued"].as_str().unwrap());
}

#[tokio::test]
async fn v_e10_signing_out_takes_the_access_token() {
    let fixture = start();
    let answer = fixture.post(&LOGIN).await.json();
    let access = answer["access_token"].as_str().unwrap();
    let bearer = format!("Bearer {access}");
    assert_eq!(fixture.delete(&[]).await.status, 401);
    assert_eq!(fixture.delete(&[("Authorization", "Basic x")]).await.status, 400);
    fixture.idp.set_logout_denied(true);
    assert_eq!(fixture.delete(&[("Authorization", &bearer)]).await.status, 403);
    fixture.idp.set_logout_denied(false);
    assert_eq!(fixture.delete(&[("Authorization", &bearer)]).await.status, 204);
    assert_eq!(fixture.delete(&[("Authorization", &bearer)]).await.status, 401);
    assert!(!fixture.idp.refresh_token_alive(answer["refresh_token"].as_str().unwrap()));
    assert_eq!(fixture.idp.token_requests(), 1);
}

#[tokio::test]
async fn v_e11_a_lost_answer_has_rotated() {
    let fixture = start();
    fixture.idp.script([Step::LostAnswer]);
    let token = ("refresh_token", fixture.refresh_token.as_str());
    let form = [USER, PASSWORD, token, REFRESH];
    assert!(post_form(fixture.idp.server().address(), TOKEN_PATH, &[], &form).await.is_err());
    assert!(!fixture.idp.refresh_token_alive(&fixture.refresh_token));
}
