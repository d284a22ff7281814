//! `config.example.toml`: valid as it stands, valid with every key in it, and its defaults are the
//! defaults. That it lists every key is `tests/tidy.rs`'s to hold.

use bearerd::config::Config;

use crate::dialects::DIALECT;
use crate::support::Home;

const EXAMPLE: &str = include_str!("../../config.example.toml");

#[test]
fn the_example_is_valid_as_it_stands() {
    let config = load(EXAMPLE);
    assert_eq!((config.credentials.len(), config.routes.len()), (1, 1));
    assert!(config.warnings.is_empty());
}

#[test]
fn the_example_is_valid_with_every_key() {
    let config = load(&with_every_key());
    assert_eq!((config.credentials.len(), config.routes.len()), (29, 2));
}

#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    let (least, mut all) = (load(EXAMPLE), load(&with_every_key()));
    assert!(all.server.tls.take().is_some(), "an example: it has no default");
    assert!(all.server.token_socket.take().is_some(), "the same");
    assert!(all.server.key.take().is_some(), "likewise");
    assert_eq!(least.server, all.server);
    assert_eq!(least.routes[0], all.routes[0]);
    assert_eq!(least.credentials[0].refresh, all.credentials[0].refresh);
    assert_eq!(least.credentials[0].bounds, all.credentials[0].bounds);
    assert_eq!(least.credentials[0].waiters, all.credentials[0].waiters);
    assert_eq!(least.credentials[0].provider, all.credentials[0].provider);
    let source = |config: &Config| {
        let shown = format!("{:?}", config.credentials[0].source);
        // The homes differ.
        shown.split('"').filter(|part| !part.starts_with('/')).collect::<String>()
    };
    assert_eq!(source(&least), source(&all));
}

/// The example with the mark of every "#key = value" and "#[table]" taken off.
fn with_every_key() -> String {
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn load(text: &str) -> Config {
    let home = Home::new();
    let variables = [
        ("LEGACY_CLIENT_SECRET", "PATH"),
        ("IDENTITY_HEADER", "PATH"),
        ("{ env = \"IDENTITY_ENDPOINT\" }", "\"http://127.0.0.1:1/token\""),
    ];
    let set = |text: String, (name, there): (&str, &str)| text.replace(name, there);
    let text = home.with_paths_of(&variables.into_iter().fold(text.to_owned(), set));
    let signed = rcgen::generate_simple_self_signed(["idp.internal".to_owned()]).expect("signed");
    for certificate in ["ca.pem", "client.pem", "callers.pem", "tls.crt"] {
        home.write(&format!("etc/bearerd/{certificate}"), &signed.cert.pem());
    }
    let key = signed.signing_key.serialize_pem();
    for name in ["client.key", "tls.key"] {
        home.write(&format!("etc/bearerd/{name}"), &key);
    }
    for name in ["signing", "bearer", "github", "salesforce"] {
        home.write(&format!("var/run/secrets/{name}/key.pem"), &key);
    }
    home.write("var/run/secrets/signing/dpop.pem", &key);
    let service_account = serde_json::json!({ "client_email": "robot@project.example",
        "private_key": key, "private_key_id": "1" });
    home.write("var/run/secrets/google/key.json", &service_account.to_string());
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for name in ["many", "pods"] {
        home.write(&format!("var/run/secrets/{name}/store-key"), key);
    }
    home.write("etc/bearerd/acme.toml", DIALECT);
    home.load(&text).unwrap_or_else(|told| panic!("{told}"))
}
