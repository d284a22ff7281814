//! `tls = { … }` of credentials and routes.

use insta::assert_snapshot;

use crate::support::told;

#[test]
fn a_pin_that_is_none() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
tls = { pin_sha256 = ["sha256//abc"] }"#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].tls.pin_sha256[0]: is no pin; write the base64 of the SHA-256 of the certificate's public key (44 characters)
    ");
}

#[test]
fn a_certificate_without_its_key() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
tls = { client_cert = "HOME/cert.pem" }"#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].tls: has only one of client_cert and client_key; write both
    ");
}

#[test]
fn a_key_without_its_certificate() {
    assert_snapshot!(told("grant =", r#"tls = { client_key = "HOME/key.pem" }
grant ="#), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls: has only one of client_cert and client_key; write both
    ");
}

#[test]
fn a_ca_file_that_is_not_there() {
    assert_snapshot!(told("grant =", r#"tls = { ca_file = "HOME/missing.pem" }
grant ="#), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls.ca_file: cannot read certificates from HOME/missing.pem: I/O error: No such file or directory (os error 2); write the path of a PEM file
    ");
}

#[test]
fn a_ca_file_without_a_certificate() {
    assert_snapshot!(told("grant =", r#"tls = { ca_file = "HOME/secret" }
grant ="#), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls.ca_file: HOME/secret holds no certificate; write the path of a PEM file
    ");
}

#[test]
fn a_server_name_with_a_scheme() {
    assert_snapshot!(told("grant =", r#"tls = { server_name = "https://idp.example" }
grant ="#), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls.server_name: is no host name; write it without scheme, port and path, such as "api.localhost"
    "#);
}

#[test]
fn a_switch_that_turns_verification_off() {
    assert_snapshot!(told("grant =", "tls = { insecure = true }
grant ="), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls.insecure: unknown key; known here: ca_file, client_cert, client_key, pin_sha256, server_name
    ");
}
