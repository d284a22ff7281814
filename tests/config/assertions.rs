//! What is signed, and with what: keys, algorithms, client authentication by assertion.

use insta::assert_snapshot;

use crate::support::{Home, with_credential};

/// A P-256 key, of which nothing is ever shown.
fn key() -> String {
    rcgen::KeyPair::generate().expect("a key").serialize_pem()
}

fn told(lines: &str) -> String {
    let home = Home::new();
    home.write("key.pem", &key());
    home.write("two-lines", "one\ntwo\n");
    let endpoint = "token_url = \"https://idp.example/token\"\n";
    home.told(&with_credential(&format!("{endpoint}{lines}")))
}

const SIGNED: &str = "grant = \"client_credentials\"\nclient_id = \"c\"\n\
    client_auth = \"private_key_jwt\"\n";

#[test]
fn no_private_key() {
    assert_snapshot!(told(SIGNED), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c.private_key: missing; write private_key = { file = "/path/to/private_key" }
    "#);
}

#[test]
fn a_private_key_that_is_none() {
    let lines = format!("{SIGNED}private_key = {{ file = \"HOME/two-lines\" }}");
    assert_snapshot!(told(&lines), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.c.private_key: HOME/two-lines is no private key in PEM and no JWK; make one with: openssl genpkey -algorithm RSA
    ");
}

#[test]
fn a_public_key_in_its_place() {
    let home = Home::new();
    let public = rcgen::KeyPair::generate().expect("a key").public_key_pem();
    home.write("key.pem", &public);
    let lines = format!(
        "token_url = \"https://idp.example/token\"\n{SIGNED}\
         private_key = {{ file = \"HOME/key.pem\" }}"
    );
    assert_snapshot!(home.told(&with_credential(&lines)), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.c.private_key: HOME/key.pem is no private key that can sign: RSA, P-256, P-384 or Ed25519, not encrypted; make one with: openssl genpkey -algorithm RSA
    ");
}

#[test]
fn an_algorithm_for_another_kind_of_key() {
    let lines =
        format!("{SIGNED}private_key = {{ file = \"HOME/key.pem\" }}\nsigning_alg = \"RS256\"");
    assert_snapshot!(told(&lines), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.c.signing_alg: is not for the kind of key that private_key is; leave it out
    ");
}

#[test]
fn an_algorithm_that_is_no_signature() {
    let lines =
        format!("{SIGNED}private_key = {{ file = \"HOME/key.pem\" }}\nsigning_alg = \"HS256\"");
    assert_snapshot!(told(&lines), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.c.signing_alg: is "HS256" (did you mean "ES256"?); write "RS256" or "RS384" or "RS512" or "PS256" or "PS384" or "PS512" or "ES256" or "ES384" or "EdDSA"
    "#);
}

#[test]
fn a_key_id_where_nothing_is_signed() {
    let lines = "grant = \"client_credentials\"\nclient_id = \"c\"\nclient_auth = \"none\"\n\
                 key_id = \"k\"";
    assert_snapshot!(told(lines), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.c.key_id: unknown key; known here: allow_plaintext, audience, client_auth, client_id, dpop, grant, headers, issuer, limits, params, provider, refresh, resource, revocation_url, revoke_on_shutdown, scope, store, store_options, tls, token_types, token_url
    ");
}

#[test]
fn client_authentication_by_a_certificate_without_one() {
    let lines = "grant = \"client_credentials\"\nclient_id = \"c\"\nclient_auth = \"tls\"";
    assert_snapshot!(told(lines), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.c.client_auth: needs a certificate to show; write tls = { client_cert = "…", client_key = "…" }
    "#);
}

#[test]
fn an_assertion_file_that_is_not_there() {
    let lines = "grant = \"client_credentials\"\nclient_id = \"c\"\n\
                 client_auth = \"assertion_file\"\nassertion_file = \"HOME/token\"";
    assert_snapshot!(told(lines), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.c.assertion_file: cannot read HOME/token: No such file or directory (os error 2); put the secret there first
    ");
}

#[test]
fn a_jwt_bearer_grant_with_nothing_to_sign_with() {
    assert_snapshot!(told("grant = \"jwt_bearer\""), @"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c: has no way to obtain a token; write assertion, or private_key
    ");
}

#[test]
fn claims_that_are_not_text() {
    let lines = "grant = \"jwt_bearer\"\nprivate_key = { file = \"HOME/key.pem\" }\n\
                 assertion_claims = { level = 3 }";
    assert_snapshot!(told(lines), @"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.c.assertion_claims.level: is an integer; write a string in quotes
    ");
}

#[test]
fn a_key_for_proofs_that_is_of_another_kind() {
    let home = Home::new();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    home.write("key.pem", &other.serialize_pem());
    let lines = "token_url = \"https://idp.example/token\"\ngrant = \"client_credentials\"\n\
                 client_id = \"c\"\nclient_auth = \"none\"\ndpop = true\n\
                 dpop_key = { file = \"HOME/key.pem\" }";
    assert_snapshot!(home.told(&with_credential(lines)), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.c.dpop_key: HOME/key.pem is no P-256 key; make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256
    ");
}

#[test]
fn a_key_for_proofs_where_nothing_is_proven() {
    let lines = "grant = \"client_credentials\"\nclient_id = \"c\"\nclient_auth = \"none\"\n\
                 dpop_key = { file = \"HOME/key.pem\" }";
    assert_snapshot!(told(lines), @"
    1 problem in HOME/bearerd.toml:
      line 6: credentials.c.dpop_key: unknown key; did you mean `dpop`?
    ");
}

#[test]
fn a_public_client_that_would_lose_the_key_of_its_refresh_token() {
    let lines = "grant = \"refresh_token\"\nclient_id = \"c\"\nclient_auth = \"none\"\n\
                 refresh_token = { value = \"not-told-to-anybody\" }\ndpop = true";
    assert_snapshot!(told(lines), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c: binds its refresh token to a key that ends with this process; write dpop_key = { file = "/path/to/key.pem" }
    "#);
}

const GOOGLE: &str = "provider = \"google-service-account\"\n\
    service_account = { file = \"HOME/key.json\" }";

#[test]
fn a_key_file_that_is_no_json() {
    let home = Home::new();
    home.write("key.json", &key());
    assert_snapshot!(home.told(&with_credential(GOOGLE)), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.service_account: HOME/key.json is no JSON object; write the path of one
    ");
}

#[test]
fn a_key_file_of_another_kind() {
    let home = Home::new();
    home.write("key.json", r#"{"type":"authorized_user","client_id":"not-told-to-anybody"}"#);
    assert_snapshot!(home.told(&with_credential(GOOGLE)), @r#"
    3 problems in HOME/bearerd.toml:
      line 3: credentials.c.service_account: HOME/key.json has no text "private_key"; write the path of the right file
      line 3: credentials.c.service_account: HOME/key.json has no text "private_key_id"; write the path of the right file
      line 3: credentials.c.service_account: HOME/key.json has no text "client_email"; write the path of the right file
    "#);
}

#[test]
fn a_url_from_a_variable_that_is_not_set() {
    let lines = "provider = \"azure-app-service\"\nresource = \"r\"\n\
                 endpoint = { env = \"BEARERD_TEST_NOT_SET\" }\n\
                 identity_header = { value = \"not-told-to-anybody\" }";
    assert_snapshot!(Home::new().told(&with_credential(lines)), @"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.endpoint.env: environment variable BEARERD_TEST_NOT_SET is not set to UTF-8 text; set it
    ");
}

#[test]
fn a_vault_login_without_what_proves_it() {
    let lines = "provider = \"vault\"\nhost = \"vault.example\"\nmethod = \"approle\"";
    assert_snapshot!(Home::new().told(&with_credential(lines)), @"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c: has no way to obtain a token; write role_id and secret_id
    ");
}
