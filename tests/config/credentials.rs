//! `[credentials.NAME]`.

use insta::assert_snapshot;

use crate::support::{Home, changed, told, with_credential};

#[test]
fn no_token_url() {
    assert_snapshot!(told(r#"token_url = "https://idp.example/oauth2/token"
"#, ""), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.orders.token_url: missing; write token_url = "https://idp.example/oauth2/token", or issuer = "https://idp.example"
    "#);
}

#[test]
fn no_grant() {
    assert_snapshot!(told(r#"grant = "client_credentials"
"#, ""), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.orders.grant: missing; write grant = "client_credentials" or "refresh_token" or "password" or "jwt_bearer" or "token_exchange"
    "#);
}

#[test]
fn no_client_id() {
    assert_snapshot!(told(r#"client_id = "orders-sidecar"
"#, ""), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.orders.client_id: missing; write client_id = "…"
    "#);
}

#[test]
fn no_client_secret() {
    assert_snapshot!(told(r#"client_secret = { file = "HOME/secret" }
"#, ""), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.orders.client_secret: missing; write client_secret = { file = "/path/to/client_secret" }
    "#);
}

#[test]
fn a_password_grant_without_a_password() {
    assert_snapshot!(told(r#""client_credentials""#, r#""password""#), @r#"
    2 problems in HOME/bearerd.toml:
      line 5: credentials.orders.username: missing; write username = "…"
      line 5: credentials.orders.password: missing; write password = { file = "/path/to/password" }
    "#);
}

#[test]
fn a_refresh_token_grant_without_a_refresh_token() {
    assert_snapshot!(told(r#""client_credentials""#, r#""refresh_token""#), @"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.orders: has no way to obtain a token; write refresh_token
    ");
}

#[test]
fn a_grant_that_is_not_known() {
    assert_snapshot!(told(r#""client_credentials""#, r#""implicit""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.grant: is "implicit"; write "client_credentials" or "refresh_token" or "password" or "jwt_bearer" or "token_exchange"
    "#);
}

#[test]
fn a_client_auth_that_is_not_known() {
    assert_snapshot!(told("grant =", r#"client_auth = "client_secret_basic"
grant ="#), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.client_auth: is "client_secret_basic" (did you mean "basic"?); write "basic" or "basic_raw" or "post" or "private_key_jwt" or "client_secret_jwt" or "tls" or "assertion_file" or "none"
    "#);
}

#[test]
fn a_provider_that_is_nearly_known() {
    assert_snapshot!(told("token_url", r#"provider = "vmware-scp"
token_url"#), @r#"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.provider: is "vmware-scp" (did you mean "vmware-csp"?); write "oauth2" or "file" or "exec" or "custom" or "servicemax-max" or "vmware-csp" or "veeam-azure" or "tencent-ciam" or "google-service-account" or "google-impersonation" or "google-metadata" or "azure-imds" or "azure-app-service" or "vault" or "vault-identity" or "github-app" or "salesforce"
    "#);
}

#[test]
fn a_provider_that_is_not_known() {
    assert_snapshot!(told("token_url", r#"provider = "keycloak"
token_url"#), @r#"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.provider: is "keycloak"; write "oauth2" or "file" or "exec" or "custom" or "servicemax-max" or "vmware-csp" or "veeam-azure" or "tencent-ciam" or "google-service-account" or "google-impersonation" or "google-metadata" or "azure-imds" or "azure-app-service" or "vault" or "vault-identity" or "github-app" or "salesforce"
    "#);
}

#[test]
fn a_token_url_that_is_no_url() {
    assert_snapshot!(told("https://idp.example/oauth2/token", "idp.example"), @r#"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.token_url: does not begin with https:// or http://; write a URL such as "https://idp.example/oauth2/token"
    "#);
}

#[test]
fn a_token_url_with_a_fragment() {
    assert_snapshot!(told("/oauth2/token", "/oauth2/token#x"), @r#"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.token_url: has a fragment, which is never sent; write a URL such as "https://idp.example/oauth2/token"
    "#);
}

#[test]
fn a_token_url_with_a_user() {
    assert_snapshot!(told("https://idp.example", "https://admin@idp.example"), @r#"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.token_url: holds a user name or password; write a URL such as "https://idp.example/oauth2/token"
    "#);
}

#[test]
fn a_token_url_in_plaintext_over_a_network() {
    assert_snapshot!(told("https://idp.example", "http://idp.example"), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.orders.token_url: would send credentials in plaintext over a network; write https://, or allow_plaintext = true if the network itself is trusted
    ");
}

#[test]
fn a_name_that_fits_no_label() {
    assert_snapshot!(told("[credentials.orders]", r#"[credentials."the orders"]"#), @r#"
    2 problems in HOME/bearerd.toml:
      line 5: credentials.the orders: is no name for a metric label; write letters, digits, - _ . (at most 63)
      line 14: routes[0].credential: is "orders" (did you mean "the orders"?); write "the orders"
    "#);
}

#[test]
fn an_interval_out_of_range() {
    assert_snapshot!(told("grant =", "refresh = { min_interval_seconds = 0 }
grant ="), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.refresh.min_interval_seconds: is 0; write a whole number from 1 to 86400
    ");
}

#[test]
fn an_unknown_interval() {
    assert_snapshot!(told("grant =", "refresh = { min_interval = 5 }
grant ="), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.refresh.min_interval: unknown key; did you mean `min_interval_seconds`?
    ");
}

#[test]
fn a_parameter_that_is_no_string() {
    assert_snapshot!(told("grant =", "params = { audience = 1 }
grant ="), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.params.audience: is an integer; write a string in quotes
    ");
}

#[test]
fn parameters_that_would_be_sent_twice() {
    let lines = "params = { grant_type = \"x\", scope = \"y\", tenant = \"acme\" }\ngrant =";
    assert_snapshot!(told("grant =", lines), @"
    2 problems in HOME/bearerd.toml:
      line 7: credentials.orders.params.grant_type: is for the request itself to say; leave it out
      line 7: credentials.orders.params.scope: has a key of its own; write it there
    ");
    let home = Home::new();
    let fallback = with_credential(
        "token_url = \"https://idp.example/token\"\ngrant = \"refresh_token\"\nclient_id = \"c\"\n\
         client_auth = \"none\"\nstore = \"file:HOME/c.json\"\nfallback = \"password\"\n\
         username = \"robot\"\npassword = { file = \"HOME/secret\" }\n\
         params = { username = \"x\", refresh_token = \"y\", client_id = \"z\" }",
    );
    assert_snapshot!(home.told(&fallback), @"
    3 problems in HOME/bearerd.toml:
      line 10: credentials.c.params.username: has a key of its own; write it there
      line 10: credentials.c.params.refresh_token: has a key of its own; write it there
      line 10: credentials.c.params.client_id: has a key of its own; write it there
    ");
}

#[test]
fn parameters_where_no_form_is_sent() {
    let vault = with_credential(
        "provider = \"vault\"\nhost = \"vault.example\"\nrole = \"r\"\njwt = \"HOME/secret\"\n\
         params = { tenant = \"acme\" }",
    );
    assert_snapshot!(Home::new().told(&vault), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.c.params: are for a form, and vault sends none; leave them out
    ");
}

#[test]
fn a_store_of_an_unknown_kind() {
    assert_snapshot!(told("grant =", r#"store = "etcd://127.0.0.1/"
grant ="#), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.store: is no store; write "file:/absolute/path.json", "redis://HOST:6379/0", "rediss://HOST:6379/0" or "kubernetes:NAMESPACE/SECRET"
    "#);
}

#[test]
fn a_relative_store() {
    assert_snapshot!(told("grant =", r#"store = "file:orders.json"
grant ="#), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.store: is no store; write "file:/absolute/path.json", "redis://HOST:6379/0", "rediss://HOST:6379/0" or "kubernetes:NAMESPACE/SECRET"
    "#);
}

#[test]
fn a_store_in_a_directory_that_is_not_there() {
    assert_snapshot!(told("grant =", r#"store = "file:HOME/missing/orders.json"
grant ="#), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.store: is in HOME/missing, which is no directory; create it
    ");
}

#[test]
fn revocation_where_no_endpoint_does_that() {
    let home = Home::new();
    let text = with_credential(
        r#"provider = "vmware-csp"
api_token = { file = "HOME/secret" }
revoke_on_shutdown = true"#,
    );
    assert_snapshot!(home.told(&text), @"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.revoke_on_shutdown: vmware-csp has no endpoint that revokes a token; write false
    ");
}

#[test]
fn veeam_signed_out_without_a_way_to_sign_in_again() {
    let home = Home::new();
    let text = with_credential(
        r#"provider = "veeam-azure"
host = "51.11.247.127"
refresh_token = { file = "HOME/secret" }
revoke_on_shutdown = true"#,
    );
    assert_snapshot!(home.told(&text), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.c.revoke_on_shutdown: needs username too, or nobody could sign in afterwards; write username = "…"
    "#);
}

#[test]
fn veeam_without_any_way_in() {
    let home = Home::new();
    let text = with_credential(
        r#"provider = "veeam-azure"
host = "51.11.247.127"
username = "administrator""#,
    );
    assert_snapshot!(home.told(&text), @"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c: has no way to obtain a token; write refresh_token, or username and password
    ");
}

#[test]
fn tencent_without_a_refresh_token() {
    let home = Home::new();
    let text = with_credential(
        r#"provider = "tencent-ciam"
host = "sample.portal.tencentciam.com"
client_id = "tenant"
client_secret = { file = "HOME/secret" }"#,
    );
    assert_snapshot!(home.told(&text), @"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c: has no way to obtain a token; write refresh_token
    ");
}

#[test]
fn servicemax_with_a_url_as_host_and_a_base_path_without_a_slash() {
    let home = Home::new();
    let text = with_credential(
        r#"provider = "servicemax-max"
host = "https://mydomain.io/sec"
base_path = "sec"
client_id = "57d22b28e0c5962541889195"
refresh_token = { file = "HOME/secret" }"#,
    );
    assert_snapshot!(home.told(&text), @r#"
    2 problems in HOME/bearerd.toml:
      line 3: credentials.c.host: has a path; write the host alone, such as "idp.example" or "10.0.0.5:8443"
      line 4: credentials.c.base_path: is no path; write "" or one such as "/sec"
    "#);
}

#[test]
fn a_spelling_that_veeam_does_not_know() {
    let home = Home::new();
    let text = with_credential(
        r#"provider = "veeam-azure"
host = "51.11.247.127"
spelling = "upper"
refresh_token = { file = "HOME/secret" }"#,
    );
    assert_snapshot!(home.told(&text), @r#"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.spelling: is "upper"; write "capital" or "lower"
    "#);
}

#[test]
fn a_file_credential_without_a_path() {
    let home = Home::new();
    assert_snapshot!(home.told(&with_credential(r#"provider = "file""#)), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c.path: missing; write path = "/path/to/token"
    "#);
}

#[test]
fn a_custom_credential_without_a_dialect() {
    let home = Home::new();
    assert_snapshot!(home.told(&with_credential(r#"provider = "custom""#)), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c.dialect: missing; write dialect = "/path/to/dialect.toml"
    "#);
}

#[test]
fn a_client_id_that_cannot_be_told_without_encoding() {
    let text = changed(
        "client_id = \"orders-sidecar\"",
        "client_auth = \"basic_raw\"\nclient_id = \"a:b\"",
    );
    assert_snapshot!(Home::new().told(&text), @r#"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_id: has a colon, which basic_raw cannot tell; write client_auth = "basic"
    "#);
}
