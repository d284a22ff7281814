//! Rows S1 to S6 and S-E1 to S-E10.

use crate::client::{Answer, Client, post_form};
use crate::{Servicemax, Tls, Tokens};

struct Fixture {
    tokens: Tokens,
    idp: Servicemax,
    client: String,
    refresh_token: String,
}

fn start() -> Fixture {
    let tokens = Tokens::new();
    let idp = Servicemax::start(Tls::Off, &tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    Fixture { tokens, idp, client, refresh_token }
}

impl Fixture {
    async fn post(&self, target: &str, fields: &[(&str, &str)], form: &[(&str, &str)]) -> Answer {
        post_form(self.idp.server().address(), target, fields, form).await.unwrap()
    }

    fn form(&self) -> [(&'static str, &str); 3] {
        let (client, token) = (self.client.as_str(), self.refresh_token.as_str());
        [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)]
    }

    async fn error(&self, form: &[(&str, &str)]) -> (u16, String) {
        let answer = self.post("/sec/auth/token", &[], form).await;
        (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

fn said(status: u16, error: &str) -> (u16, String) {
    (status, error.to_owned())
}

#[tokio::test]
async fn s1_both_prefixes_answer_and_tempt_with_a_cookie() {
    let fixture = start();
    for target in ["/sec/auth/token", "/auth/token"] {
        let answer = fixture.post(target, &[], &fixture.form()).await;
        let body = answer.json();
        assert_eq!((&body["token_type"], &body["expires_in"]), (&"bearer".into(), &86_400.into()));
        assert_eq!(body.as_object().unwrap().len(), 3);
        assert!(answer.header("set-cookie").is_some());
    }
    assert!(fixture.idp.violations().is_empty());
    assert_eq!(fixture.post("/other/auth/token", &[], &fixture.form()).await.status, 404);
}

#[tokio::test]
async fn s3_whatever_differs_from_the_sample_is_refused() {
    let fixture = start();
    let form = fixture.form();
    for left_out in 0..3 {
        let mut form = form.to_vec();
        form.remove(left_out);
        assert_eq!(fixture.error(&form).await, said(400, "invalid_request"));
    }
    let more = |name, value| [form.as_slice(), &[(name, value)]].concat();
    assert_eq!(fixture.error(&more("client_id", "x")).await, said(400, "invalid_request"));
    assert_eq!(fixture.error(&more("scope", "x")).await, said(400, "invalid_request"));
    assert_eq!(fixture.error(&[form[1], form[0], form[2]]).await, said(400, "invalid_request"));
    for grant in ["password", "Refresh_token"] {
        let form = [("grant_type", grant), form[1], form[2]];
        assert_eq!(fixture.error(&form).await, said(400, "invalid_grant"));
    }
    let basic = [("Authorization", "Basic YTpi")];
    assert_eq!(fixture.post("/sec/auth/token", &basic, &form).await.status, 400);
    let mut client = Client::connect(fixture.idp.server().address()).await.unwrap();
    assert_eq!(client.request("GET", "/sec/auth/token", &[], b"").await.unwrap().status, 400);
    let json = [("Content-Type", "application/json")];
    assert_eq!(client.request("POST", "/sec/auth/token", &json, b"{}").await.unwrap().status, 400);
}

#[tokio::test]
async fn s4_s5_clients_and_tokens_are_judged() {
    let fixture = start();
    let [grant, client, token] = fixture.form();
    let with = async |client, token| fixture.error(&[grant, client, token]).await;
    assert_eq!(with(("client_id", "nobody"), token).await, said(400, "invalid_client"));
    let invalid = said(401, "invalid_token");
    assert_eq!(with(client, ("refresh_token", "unknown")).await, invalid);
    let other = fixture.idp.add_client();
    assert_eq!(with(("client_id", &other), token).await, invalid);
    fixture.idp.expire_refresh_token(token.1);
    assert_eq!(with(client, token).await, invalid);
    assert_eq!(fixture.idp.audit_failures_of(token.1), 3);
}

#[tokio::test]
async fn s6_a_cookie_earns_404() {
    let fixture = start();
    let answer = fixture.post("/sec/auth/token", &[("Cookie", "a=b")], &fixture.form()).await;
    assert_eq!((answer.status, fixture.idp.violations().len()), (404, 1));
}

#[tokio::test]
async fn s_e8_revocation_is_not_rfc_7009() {
    let fixture = start();
    let answer = fixture.post("/sec/auth/token", &[], &fixture.form()).await.json();
    let access = answer["access_token"].as_str().unwrap();
    let client = ("client_id", fixture.client.as_str());
    let revoke = async |form: &[(&str, &str)]| {
        fixture.post("/sec/auth/token/revoke", &[], form).await.status
    };
    assert_eq!(revoke(&[("token", access), client]).await, 200);
    assert!(!fixture.tokens.is_live(access));
    assert_eq!(revoke(&[client]).await, 400);
    assert_eq!(revoke(&[("token", "unknown"), client]).await, 500);
    assert_eq!(revoke(&[("token", &fixture.refresh_token), client]).await, 200);
    assert_eq!(fixture.error(&fixture.form()).await, said(401, "invalid_token"));
}

#[tokio::test]
async fn s_e10_a_new_refresh_token_may_come() {
    let fixture = start();
    fixture.idp.set_rotation(true);
    let answer = fixture.post("/sec/auth/token", &[], &fixture.form()).await.json();
    let [grant, client, _] = fixture.form();
    let next = ("refresh_token", answer["refresh_token"].as_str().unwrap());
    assert_eq!(fixture.error(&fixture.form()).await.0, 401);
    assert_eq!(fixture.error(&[grant, client, next]).await.0, 200);
}
