//! `tls = { … }` of credentials and routes.

use insta::{allow_duplicates, assert_snapshot};

use crate::support::{Home, changed, told};

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
    for name in ["https://idp.example", "idp..example", "idp.example:443"] {
        let lines = format!("tls = {{ server_name = \"{name}\" }}\ngrant =");
        allow_duplicates!(assert_snapshot!(told("grant =", &lines), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls.server_name: is no name or address that a certificate could be for; write one such as "api.example"
    "#));
    }
}

#[test]
fn an_address_as_a_server_name_stands_with_or_without_brackets() {
    for name in ["[::1]", "::1", "127.0.0.1"] {
        let lines = format!("tls = {{ server_name = \"{name}\" }}\ncredential =");
        let config = Home::new().load(&changed("credential =", &lines)).expect("valid");
        let tls = config.routes[0].upstream.tls.as_ref().expect("TLS");
        let wanted = if name.contains(':') { "::1" } else { name };
        assert_eq!(tls.server_name.as_deref(), Some(wanted));
    }
}

#[test]
fn hosts_that_no_certificate_could_be_for() {
    for host in ["api..example", "-api.example", "api.example$"] {
        for (from, to, place) in [
            ("https://api.example.com", format!("https://{host}"), "line 13: routes[0].upstream"),
            (
                "https://idp.example/oauth2/token",
                format!("https://{host}/token"),
                "line 6: credentials.orders.token_url",
            ),
            (
                "grant =",
                format!("store = \"rediss://{host}\"\ngrant ="),
                "line 7: credentials.orders.store",
            ),
        ] {
            let told = told(from, &to);
            let said = format!("{place}: has a host that no certificate could be for; write ");
            assert!(told.contains(&said) && told.starts_with("1 problem"), "{host}: {told}");
        }
    }
}

#[test]
fn a_key_of_another_certificate_and_a_root_that_is_none() {
    let home = Home::new();
    let made = |name: &str| {
        let signed =
            rcgen::generate_simple_self_signed(["idp.internal".to_owned()]).expect("signed");
        home.write(name, &signed.cert.pem());
        home.write(&format!("{name}.key"), &signed.signing_key.serialize_pem());
    };
    made("one");
    made("other");
    home.write("torn", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let both = "{ client_cert = \"HOME/one\", client_key = \"HOME/other.key\" }";
    let text = changed("credential =", &format!("tls = {both}\ncredential ="));
    assert_snapshot!(home.told(&text), @"
    1 problem in HOME/bearerd.toml:
      line 14: routes[0].tls: HOME/one and HOME/other.key cannot be used together: keys may not be consistent: KeyMismatch; write the key that belongs to the certificate
    ");
    let text = changed("credential =", "tls = { ca_file = \"HOME/torn\" }\ncredential =");
    assert_snapshot!(home.told(&text), @"
    1 problem in HOME/bearerd.toml:
      line 14: routes[0].tls.ca_file: HOME/torn holds a certificate that cannot be a root: invalid peer certificate: BadEncoding; write the path of a PEM file
    ");
    let both = "{ cert = \"HOME/one\", key = \"HOME/other.key\" }";
    let text = changed("[server]", &format!("[server]\ntls = {both}"));
    assert_snapshot!(home.told(&text), @"
    1 problem in HOME/bearerd.toml:
      line 2: server.tls: HOME/one and HOME/other.key cannot be used together: keys may not be consistent: KeyMismatch; write the key that belongs to the certificate
    ");
}

#[test]
fn a_switch_that_turns_verification_off() {
    assert_snapshot!(told("grant =", "tls = { insecure = true }
grant ="), @"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.tls.insecure: unknown key; known here: ca_file, client_cert, client_key, pin_sha256, server_name
    ");
}
