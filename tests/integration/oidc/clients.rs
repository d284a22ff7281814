//! Every way in which a client can say who it is, judged by the certified server: it verifies
//! signatures, wants each `jti` once, and compares certificates.

use std::sync::atomic::Ordering::Relaxed;

use emulator::Tls;
use emulator::http::Server;

use super::Provider;
use crate::support::{Daemon, Home, eventually};

/// A certificate and its key, PEM, as files of that name.
pub(super) fn certificate(home: &Home, name: &str) -> String {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("signed");
    home.write(&format!("{name}.key"), &signed.signing_key.serialize_pem());
    home.write(&format!("{name}.pem"), &signed.cert.pem())
}

/// `[credentials.NAME]` by client credentials, and a route for it.
fn section(name: &str, lines: &str, api: &str) -> String {
    format!(
        "[credentials.{name}]\ngrant = \"client_credentials\"\n{lines}\n\
         [[routes]]\npath_prefix = \"/{name}\"\nupstream = \"{api}\"\ncredential = \"{name}\"\n"
    )
}

/// The lines of a client that signs with its own key, as PEM with a `key_id`, or as JWK.
fn signing(provider: &Provider, home: &Home, name: &str, form: &str) -> String {
    let of = |member: &str| provider.text(&format!("/signing/{name}/{member}"));
    let key = home.write(&format!("{name}.{form}"), of(form));
    let key_id = match form {
        "pem" => format!("key_id = \"{}\"\n", of("kid")),
        _ => String::new(),
    };
    format!(
        "client_id = \"{}\"\nclient_auth = \"private_key_jwt\"\n\
         private_key = {{ file = \"{key}\" }}\n{key_id}",
        of("client_id")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_authentication_earns_tokens_that_the_server_itself_accepts() {
    let home = Home::new();
    certificate(&home, "client");
    let ca = certificate(&home, "server");
    let directory = home.path("").display().to_string();
    let provider = Provider::start_with(&["--tls", &directory]);
    let judge = provider.judge();
    let api = Server::start(std::sync::Arc::clone(&judge), Tls::Off);

    let token_url = format!("token_url = \"{}\"\n", provider.text("/token_url"));
    let issuer = format!("issuer = \"{}\"\n", provider.text("/issuer"));
    let secret_jwt = |name: &str| {
        let of = |member: &str| provider.text(&format!("/clients/{name}/{member}"));
        format!(
            "client_id = \"{}\"\nclient_auth = \"client_secret_jwt\"\n\
             client_secret = {{ file = \"{}\" }}\nsigning_alg = \"{}\"\n",
            of("client_id"),
            home.write(name, of("client_secret")),
            of("token_endpoint_auth_signing_alg")
        )
    };
    let mtls = format!(
        "client_id = \"mtls\"\nclient_auth = \"tls\"\ntls = {{ ca_file = \"{ca}\", \
         client_cert = \"{directory}/client.pem\", client_key = \"{directory}/client.key\" }}\n"
    );
    let of = |name: &str, form: &str| signing(&provider, &home, name, form);
    let audience = format!("assertion_audience = \"{}\"\n", provider.text("/issuer"));
    let told = |algorithm: &str| format!("signing_alg = \"{algorithm}\"\n");
    let unnamed =
        |algorithm: &str, form: &str| of(&algorithm.to_lowercase(), form) + &told(algorithm);
    let mutual = format!("token_url = \"{}\"\n", provider.text("/tls_token_url"));
    let all = [
        ("rs256", token_url.clone() + &of("rs256", "pem")),
        ("ps256", token_url.clone() + &of("ps256", "pem") + &told("PS256")),
        ("rs384", token_url.clone() + &unnamed("RS384", "pem")),
        ("rs512", token_url.clone() + &unnamed("RS512", "jwk")),
        ("ps384", token_url.clone() + &unnamed("PS384", "jwk")),
        ("ps512", token_url.clone() + &unnamed("PS512", "pem")),
        ("es256", issuer.clone() + &of("es256", "pem")),
        ("es384", token_url.clone() + &of("es384", "pem")),
        ("eddsa", token_url.clone() + &of("eddsa", "pem")),
        ("rs256jwk", token_url.clone() + &of("rs256", "jwk")),
        ("ps256jwk", token_url.clone() + &of("ps256", "jwk")),
        ("es256jwk", token_url.clone() + &of("es256", "jwk") + &audience),
        ("es384jwk", issuer.clone() + &of("es384", "jwk")),
        ("eddsajwk", token_url.clone() + &of("eddsa", "jwk")),
        ("hs256", token_url.clone() + &secret_jwt("secret_jwt")),
        ("hs384", issuer.clone() + &secret_jwt("secret_jwt_384")),
        ("hs512", token_url + &secret_jwt("secret_jwt_512")),
        ("mtls", mutual + &mtls),
        ("mtls_alias", issuer + &mtls),
    ];
    let sections = all.iter().map(|(name, lines)| section(name, lines, &api.url()));
    let daemon = Daemon::start(&home, &sections.collect::<String>());
    daemon.ready().await;
    let mut requests = 0;
    eventually("three tokens for each", async || {
        let status = daemon.status().await;
        let credentials = status["credentials"].as_array().expect("a list");
        assert_eq!(credentials.len(), all.len());
        credentials.iter().all(|credential| credential["generation"].as_u64() >= Some(3))
    })
    .await;
    for (name, _) in &all {
        let answer = daemon.get(&format!("/{name}")).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        requests += 1;
    }
    let stats = provider.stats().await;
    assert_eq!(stats["failures"], 0, "a jti that came twice, or another refusal: {stats}");
    assert_eq!((judge.accepted.load(Relaxed), judge.refused.load(Relaxed)), (requests, 0));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_replaced_on_disk_is_shown_at_the_next_attempt() {
    let home = Home::new();
    certificate(&home, "client");
    let ca = certificate(&home, "server");
    let directory = home.path("").display().to_string();
    let provider = Provider::start_with(&["--tls", &directory]);
    let right = ["client.pem", "client.key"].map(|name| crate::support::read(home.path(name)));
    certificate(&home, "client");
    let lines = format!(
        "token_url = \"{}\"\nclient_id = \"mtls\"\nclient_auth = \"tls\"\n\
         tls = {{ ca_file = \"{ca}\", client_cert = \"{directory}/client.pem\", \
         client_key = \"{directory}/client.key\" }}",
        provider.text("/tls_token_url")
    );
    let daemon = Daemon::start(&home, &section("mtls", &lines, "http://127.0.0.1:1"));
    eventually("the other certificate is refused", async || {
        let status = daemon.status().await;
        let told = status["credentials"][0]["last"]["detail"].as_str().unwrap_or_default();
        told.contains("invalid_client")
    })
    .await;
    let [certificate, key] = right;
    // Between the two writes they do not belong together, which is no reason to give up.
    home.write("client.pem", &certificate);
    home.write("client.key", &key);
    daemon.ready().await;
    assert!(daemon.stop().success());
}
