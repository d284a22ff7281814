//! Token exchange, chains, discovery, and what goes into a token request beside the grant.

use insta::assert_snapshot;

use crate::support::{Home, VALID, changed, told, with_credential};

const EXCHANGE: &str = "token_url = \"https://sts.example/token\"\ngrant = \"token_exchange\"\n";

#[test]
fn a_token_exchange_without_a_subject() {
    assert_snapshot!(Home::new().told(&with_credential(EXCHANGE)), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c.subject: missing; write subject = { file = "/path/to/subject" }
    "#);
}

#[test]
fn a_chain_to_a_credential_that_is_not_there() {
    let lines = format!("{EXCHANGE}subject = {{ credential = \"d\" }}");
    assert_snapshot!(Home::new().told(&with_credential(&lines)), @r#"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.subject.credential: is "d", but there is no other credential; write a table for it
    "#);
}

#[test]
fn a_chain_that_bites_its_tail() {
    let first = format!("{EXCHANGE}subject = {{ credential = \"d\" }}\n");
    let second = format!("[credentials.d]\n{EXCHANGE}subject = {{ credential = \"c\" }}");
    assert_snapshot!(Home::new().told(&with_credential(&(first + &second))), @r#"
    2 problems in HOME/bearerd.toml:
      line 4: credentials.c.subject.credential: "d" asks with this one in turn; write another credential
      line 8: credentials.d.subject.credential: "c" asks with this one in turn; write another credential
    "#);
}

#[test]
fn a_chain_to_itself() {
    let lines = format!("{EXCHANGE}subject = {{ credential = \"c\" }}");
    assert_snapshot!(Home::new().told(&with_credential(&lines)), @r#"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.subject.credential: "c" asks with this one in turn; write another credential
    "#);
}

#[test]
fn a_chain_and_a_file_at_once() {
    let lines = format!("{EXCHANGE}subject = {{ credential = \"c\", file = \"HOME/secret\" }}");
    assert_snapshot!(Home::new().told(&with_credential(&lines)), @r#"
    2 problems in HOME/bearerd.toml:
      line 4: credentials.c.subject.file: unknown key; known here: credential
      line 4: credentials.c.subject.credential: "c" asks with this one in turn; write another credential
    "#);
}

#[test]
fn an_issuer_beside_a_token_url() {
    assert_snapshot!(told("grant =", "issuer = \"https://idp.example\"\ngrant ="), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.issuer: stands beside token_url; write only one of them
    ");
}

#[test]
fn an_issuer_with_a_query() {
    let issuer = "issuer = \"https://idp.example?tenant=1\"";
    assert_snapshot!(told("token_url = \"https://idp.example/oauth2/token\"", issuer), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.issuer: has a query; write the issuer as its metadata has it
    ");
}

#[test]
fn an_issuer_in_plaintext_over_a_network() {
    let issuer = "issuer = \"http://idp.example\"";
    assert_snapshot!(told("token_url = \"https://idp.example/oauth2/token\"", issuer), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.issuer: would send credentials in plaintext over a network; write https://, or allow_plaintext = true if the network itself is trusted
    ");
}

#[test]
fn a_resource_with_a_fragment() {
    let resource = "resource = [\"https://api.example\", \"https://api.example#part\"]\ngrant =";
    assert_snapshot!(told("grant =", resource), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.resource[1]: is no absolute URI without a fragment; write one such as "https://api.example"
    "#);
}

#[test]
fn a_resource_that_is_a_path() {
    assert_snapshot!(told("grant =", "resource = \"/orders\"\ngrant ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.resource: is no absolute URI without a fragment; write one such as "https://api.example"
    "#);
}

#[test]
fn a_header_that_is_not_for_the_configuration() {
    let headers = "headers = { authorization = \"Basic eA==\" }\ngrant =";
    assert_snapshot!(told("grant =", headers), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.headers.authorization: is no header that can be added; write one such as "x-tenant"
    "#);
}

#[test]
fn a_header_that_would_split_the_request() {
    let headers = "headers = { x-tenant = \"a\\r\\nb\" }\ngrant =";
    assert_snapshot!(told("grant =", headers), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.headers.x-tenant: has control characters; write visible text
    ");
}

#[test]
fn a_revocation_without_a_place_for_it() {
    assert_snapshot!(told("grant =", "revoke_on_shutdown = true\ngrant ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.revoke_on_shutdown: needs revocation_url too; write revocation_url = "https://idp.example/…"
    "#);
}

#[test]
fn an_issuer_may_name_the_place_for_a_revocation() {
    let issuer = "issuer = \"https://idp.example\"\nrevoke_on_shutdown = true";
    let text = changed("token_url = \"https://idp.example/oauth2/token\"", issuer);
    assert_ne!(text, VALID);
    let config = Home::new().load(&text).expect("valid");
    assert!(config.credentials[0].revoke_on_shutdown);
}
