//! The generic provider: grants, client authentication, rotation and its reuse, scripts, outages.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::DEADLINE;
use crate::client::{Answer, post_form};
use crate::oauth2::{Authentication, Reuse, Rotation};
use crate::{Oauth2, Step, Tls, Tokens};

fn start() -> (Tokens, Oauth2) {
    let tokens = Tokens::new();
    let idp = Oauth2::start(Tls::Off, &tokens);
    (tokens, idp)
}

async fn ask(idp: &Oauth2, form: &[(&str, &str)]) -> Answer {
    let client = [("client_id", "client"), ("client_secret", "secret")];
    let form = [form, &client].concat();
    post_form(idp.server().address(), "/token", &[], &form).await.expect("an answer")
}

async fn refresh(idp: &Oauth2, token: &str) -> Answer {
    ask(idp, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
}

fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_replaced_refresh_token_that_returns_kills_the_family() {
    let (tokens, idp) = start();
    let first = idp.issue_refresh_token("client");
    let answer = refresh(&idp, &first).await;
    let (second, access) = (text(&answer, "refresh_token"), text(&answer, "access_token"));
    assert!(second != first && tokens.is_live(&access) && idp.family_alive());
    assert_eq!(idp.rotations(), 1);

    let reused = refresh(&idp, &first).await;
    assert_eq!((reused.status, text(&reused, "error").as_str()), (400, "invalid_grant"));
    assert!(!idp.family_alive() && !tokens.is_live(&access));
    assert_eq!(refresh(&idp, &second).await.status, 400);
    assert_eq!(idp.audit_failures_of("client"), 2);
}

#[tokio::test]
async fn reuse_can_be_graced_refused_or_allowed() {
    let (_, idp) = start();
    idp.set_grace(Duration::from_secs(60));
    let first = idp.issue_refresh_token("client");
    let second = text(&refresh(&idp, &first).await, "refresh_token");
    assert_eq!(text(&refresh(&idp, &first).await, "refresh_token"), second);

    idp.set_grace(Duration::ZERO);
    idp.set_reuse(Reuse::Refused);
    assert_eq!(refresh(&idp, &first).await.status, 400);
    assert!(idp.family_alive());
    idp.set_reuse(Reuse::Allowed);
    idp.set_rotation(Rotation::Absent);
    assert_eq!(refresh(&idp, &first).await.json().get("refresh_token"), None);
    idp.set_rotation(Rotation::Same);
    assert_eq!(text(&refresh(&idp, &second).await, "refresh_token"), second);
}

#[tokio::test]
async fn a_lost_answer_has_rotated_nevertheless() {
    let (_, idp) = start();
    let first = idp.issue_refresh_token("client");
    idp.script([Step::LostAnswer]);
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", first.as_str()),
        ("client_id", "client"),
        ("client_secret", "secret"),
    ];
    assert!(post_form(idp.server().address(), "/token", &[], &form).await.is_err());
    assert_eq!(idp.rotations(), 1);
    assert_ne!(idp.current_refresh_token(), Some(first));
}

#[tokio::test]
async fn clients_authenticate_by_exactly_one_method() {
    let (_, idp) = start();
    idp.add_client("a:b", Some("p% +"));
    idp.add_client("public", None);
    let to = idp.server().address();
    let grant = ("grant_type", "client_credentials");
    let basic = format!("Basic {}", BASE64_STANDARD.encode("a%3Ab:p%25+%2B"));
    let header = [("Authorization", basic.as_str())];
    assert_eq!(post_form(to, "/token", &header, &[grant]).await.unwrap().status, 200);

    let two = [grant, ("client_id", "a:b"), ("client_secret", "p% +")];
    let answer = post_form(to, "/token", &header, &two).await.unwrap();
    assert_eq!((answer.status, text(&answer, "error").as_str()), (400, "invalid_request"));

    idp.allow_authentication("a:b", &[Authentication::Post]);
    let answer = post_form(to, "/token", &header, &[grant]).await.unwrap();
    assert_eq!((answer.status, answer.header("www-authenticate").is_some()), (401, true));
    assert_eq!(post_form(to, "/token", &[], &two).await.unwrap().status, 200);
    let public = [grant, ("client_id", "public")];
    assert_eq!(post_form(to, "/token", &[], &public).await.unwrap().status, 200);
    let nobody = [grant, ("client_id", "client")];
    assert_eq!(post_form(to, "/token", &[], &nobody).await.unwrap().status, 401);
}

#[tokio::test]
async fn passwords_and_other_grants_are_judged() {
    let (_, idp) = start();
    let login =
        |password| [("grant_type", "password"), ("username", "user"), ("password", password)];
    let answer = ask(&idp, &login("password")).await;
    assert_eq!(refresh(&idp, &text(&answer, "refresh_token")).await.status, 200);
    assert_eq!(text(&ask(&idp, &login("wrong")).await, "error"), "invalid_grant");
    assert_eq!(idp.audit_failures_of("user"), 1);
    let odd = ask(&idp, &[("grant_type", "Refresh_token")]).await;
    assert_eq!(text(&odd, "error"), "unsupported_grant_type");
    let twice = ask(&idp, &[("grant_type", "password"), ("grant_type", "password")]).await;
    assert_eq!(text(&twice, "error"), "invalid_request");
}

#[tokio::test]
async fn answers_have_the_quirks_that_are_set() {
    let (tokens, idp) = start();
    let grant = [("grant_type", "client_credentials")];
    idp.set_expires_in(json!("3600"));
    idp.set_token_type(Some("BEARER"));
    idp.set_extra(json!({ "ok": true }));
    idp.set_jwt(true);
    let answer = ask(&idp, &grant).await.json();
    assert_eq!(
        (&answer["expires_in"], &answer["token_type"], &answer["ok"]),
        (&json!("3600"), &json!("BEARER"), &json!(true))
    );
    let claims = crate::mint::claims(answer["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);

    idp.omit_expires_in();
    idp.set_token_type(None);
    idp.set_same_token(true);
    let same = ask(&idp, &grant).await.json();
    assert_eq!(same["access_token"], answer["access_token"]);
    assert_eq!((same.get("expires_in"), same.get("token_type")), (None, None));

    idp.set_same_token(false);
    idp.set_single_live(true);
    let next = text(&ask(&idp, &grant).await, "access_token");
    assert!(tokens.is_live(&next) && !tokens.is_live(same["access_token"].as_str().unwrap()));

    idp.script([Step::With(json!({ "expires_in": null })), Step::Without("access_token".into())]);
    assert_eq!(ask(&idp, &grant).await.json()["expires_in"], Value::Null);
    assert_eq!(ask(&idp, &grant).await.json().get("access_token"), None);
}

#[tokio::test]
async fn outages_come_and_go() {
    let (_, idp) = start();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "client"),
        ("client_secret", "secret"),
    ];
    let to = idp.server().address();
    idp.set_down(true);
    assert!(post_form(to, "/token", &[], &form).await.is_err());
    idp.set_down(false);
    idp.set_always(Some(Step::Status(503)));
    assert_eq!(post_form(to, "/token", &[], &form).await.unwrap().status, 503);
    idp.set_always(None);
    assert_eq!(post_form(to, "/token", &[], &form).await.unwrap().status, 200);
    assert_eq!(idp.wait_for_token_requests(2, DEADLINE).await, Ok(2));
    assert!(idp.wait_for_token_requests(3, Duration::from_millis(10)).await.is_err());
}

#[tokio::test]
async fn a_secret_in_a_url_is_a_violation() {
    let (_, idp) = start();
    let form = [("grant_type", "client_credentials")];
    let target = "/token?client_id=client&client_secret=secret";
    let answer =
        post_form(idp.server().address(), target, &[("Cookie", "a=b")], &form).await.unwrap();
    assert_eq!((answer.status, idp.violations().len()), (400, 2));
}

#[tokio::test]
async fn revocation_succeeds_also_for_the_unknown() {
    let (tokens, idp) = start();
    let refresh_token = idp.issue_refresh_token("client");
    let access = text(&refresh(&idp, &refresh_token).await, "access_token");
    let revoke = async |token: &str| {
        let form = [("token", token), ("client_id", "client"), ("client_secret", "secret")];
        post_form(idp.server().address(), "/revoke", &[], &form).await.unwrap().status
    };
    assert_eq!(revoke(&access).await, 200);
    assert!(!tokens.is_live(&access) && idp.family_alive());
    assert_eq!(revoke("unknown").await, 200);
    assert_eq!(revoke(&refresh_token).await, 200);
    assert!(!idp.family_alive());
    assert_eq!(idp.token_requests(), 1);
}
