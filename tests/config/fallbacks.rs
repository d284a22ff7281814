//! `fallback`: another way in for a refresh token that may die.

use insta::assert_snapshot;

use crate::support::told;

/// The credential with a refresh token and `fallback`.
fn with_fallback(fallback: &str) -> String {
    told(
        "grant = \"client_credentials\"\n",
        &format!(
            "grant = \"refresh_token\"\nrefresh_token = {{ value = \"first\" }}\n\
             fallback = {fallback}\n"
        ),
    )
}

#[test]
fn a_fallback_that_is_not_known() {
    assert_snapshot!(with_fallback("\"login\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.fallback: is "login"; write "password" or "client_credentials"
    "#);
}

#[test]
fn a_fallback_to_a_password_without_one() {
    assert_snapshot!(with_fallback("\"password\""), @r#"
    2 problems in HOME/bearerd.toml:
      line 5: credentials.orders.username: missing; write username = "…"
      line 5: credentials.orders.password: missing; write password = { file = "/path/to/password" }
    "#);
}

#[test]
fn a_fallback_for_a_grant_that_cannot_die() {
    assert_snapshot!(told("grant =", "fallback = \"password\"\ngrant ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.fallback: is for grant = "refresh_token" only; leave it out
    "#);
}

#[test]
fn a_public_client_cannot_fall_back_to_its_own_credentials() {
    assert_snapshot!(told(
        "grant = \"client_credentials\"\nclient_id = \"orders-sidecar\"\nclient_secret = { file = \"HOME/secret\" }\n",
        "grant = \"refresh_token\"\nrefresh_token = { value = \"first\" }\nclient_auth = \"none\"\n\
         client_id = \"orders-sidecar\"\nfallback = \"client_credentials\"\n"
    ), @r#"
    1 problem in HOME/bearerd.toml:
      line 11: credentials.orders.fallback: is for a client that has a secret; write client_auth = "basic" or "post"
    "#);
}
