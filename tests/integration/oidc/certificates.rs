//! Tokens bound to a client certificate (RFC 8705 §3), judged by the certified server as identity
//! provider and, at its userinfo endpoint, as API: the certificate of the connection must be the one
//! that the token was asked for with.

use super::Provider;
use super::clients::certificate;
use crate::support::{Daemon, Home, eventually};

/// The life of an access token: longer than the test.
const LONG: [&str; 3] = ["--life", "3600", "--bound"];

/// A refresh token grant over TLS, and a route to the userinfo endpoint.
fn config(provider: &Provider, home: &Home, shown_upstream: bool) -> String {
    let directory = home.path("").display().to_string();
    let token_url = provider.text("/tls_token_url");
    let upstream = token_url.strip_suffix("/token").expect("its path");
    let ca = format!("ca_file = \"{directory}/server.pem\"");
    let identity = format!(
        "client_cert = \"{directory}/client.pem\", client_key = \"{directory}/client.key\""
    );
    let route = if shown_upstream { format!("{ca}, {identity}") } else { ca.clone() };
    format!(
        "[credentials.orders]\ntoken_url = \"{token_url}\"\ngrant = \"refresh_token\"\n\
         client_id = \"orders\"\nclient_secret = {{ file = \"{}\" }}\n\
         refresh_token = {{ file = \"{}\" }}\nstore = \"file:{}\"\ntls = {{ {ca}, {identity} }}\n\
         [[routes]]\nupstream = \"{upstream}\"\ncredential = \"orders\"\ntls = {{ {route} }}\n",
        home.write("secret", provider.text("/clients/orders/client_secret")),
        home.write("refresh-token", provider.text("/refresh_token")),
        home.path("orders.json").display(),
    )
}

async fn generation(daemon: &Daemon) -> u64 {
    daemon.status().await["credentials"][0]["generation"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_50_a_rotated_certificate_drops_the_token_that_was_bound_to_the_former_one() {
    let home = Home::new();
    certificate(&home, "client");
    certificate(&home, "server");
    let directory = home.path("").display().to_string();
    let options = [&LONG[..], &["--tls", &directory]].concat();
    let provider = Provider::start_with(&options);

    let config = config(&provider, &home, true);
    let daemon = Daemon::start(&home, &config);
    daemon.ready().await;
    let answer = daemon.get("/me").await;
    assert_eq!((answer.status, answer.json()["sub"].as_str()), (200, Some("alice")));
    assert_eq!(generation(&daemon).await, 1);

    // Rotated while it runs: at once there is a token for the new certificate, which the connections
    // to the API show from then on.
    certificate(&home, "client");
    eventually("another token", async || generation(&daemon).await >= 2).await;
    eventually("accepted with the new certificate", async || daemon.get("/me").await.status == 200)
        .await;
    let changed = daemon.metric("bearerd_token_fetches_total", &["trigger=\"changed\""]).await;
    assert!(changed >= 1.0);
    assert!(daemon.stop().success());

    // As it is: a restart goes on with it. Rotated meanwhile: what is stored is of no use.
    certificate(&home, "client");
    let daemon = Daemon::start(&home, &config);
    daemon.ready().await;
    assert_eq!(daemon.get("/me").await.status, 200);
    assert!(!daemon.logs().contains("continuing with the stored access token"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_50_a_bound_token_is_worth_nothing_on_a_connection_without_its_certificate() {
    let home = Home::new();
    certificate(&home, "client");
    certificate(&home, "server");
    let directory = home.path("").display().to_string();
    let options = [&LONG[..], &["--tls", &directory]].concat();
    let provider = Provider::start_with(&options);
    let daemon = Daemon::start(&home, &config(&provider, &home, false));
    daemon.ready().await;
    let answer = daemon.get("/me").await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert!(daemon.stop().success());
}
