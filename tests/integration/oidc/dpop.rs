//! Tokens bound to a key (RFC 9449), judged by the certified server as identity provider and, at its
//! userinfo endpoint, as API: signature, method, URL, digest of the token, each `jti` once, nonces.

use super::Provider;
use crate::support::{Daemon, Home, eventually};

/// A refresh token grant whose access tokens open the userinfo endpoint, which is the upstream.
fn config(provider: &Provider, home: &Home, key: &str) -> String {
    format!(
        "[credentials.orders]\nissuer = \"{issuer}\"\ngrant = \"refresh_token\"\n\
         client_id = \"orders\"\nclient_secret = {{ file = \"{}\" }}\n\
         refresh_token = {{ file = \"{}\" }}\nstore = \"file:{}\"\ndpop = true\n{key}\n\
         [[routes]]\nupstream = \"{issuer}\"\ncredential = \"orders\"\n",
        home.write("secret", provider.text("/clients/orders/client_secret")),
        home.write("refresh-token", provider.text("/refresh_token")),
        home.path("orders.json").display(),
        issuer = provider.text("/issuer"),
    )
}

async fn is_alice(daemon: &Daemon) {
    let answer = daemon.get("/me?x=y").await;
    assert_eq!(answer.status, 200, "{:?} {}", answer.head, answer.text());
    assert_eq!(answer.json()["sub"], "alice");
}

async fn bound_over_lives_and_a_restart(more: &[&str], key_in_a_file: bool) {
    let (provider, home) = (Provider::start_with(more), Home::new());
    let key = rcgen::KeyPair::generate().expect("P-256").serialize_pem();
    let file = home.write("dpop.pem", &key);
    let key = match key_in_a_file {
        true => format!("dpop_key = {{ file = \"{file}\" }}"),
        false => String::new(),
    };
    let config = config(&provider, &home, &key);
    let daemon = Daemon::start(&home, &config);
    daemon.ready().await;
    for _ in 0..20 {
        is_alice(&daemon).await;
    }
    eventually("a second life", async || {
        daemon.status().await["credentials"][0]["generation"].as_u64() >= Some(2)
    })
    .await;
    is_alice(&daemon).await;
    for outcome in ["transient", "terminal"] {
        let label = format!("outcome=\"{outcome}\"");
        let failed = daemon.metric("bearerd_token_fetches_total", &[&label]).await;
        assert!(failed < 1.0, "{outcome}: wanting a nonce is no failure");
    }
    let refreshed =
        daemon.metric("bearerd_token_fetches_total", &["trigger=\"unauthorized\""]).await;
    assert!(refreshed < 1.0, "wanting a nonce is no reason to refresh");
    assert!(daemon.stop().success());
    // A key that was made at the start is gone, and with it what was bound to it.
    let daemon = Daemon::start(&home, &config);
    daemon.ready().await;
    is_alice(&daemon).await;
    assert!(!daemon.logs().contains("continuing with the stored access token"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_a_bound_token_is_proven_at_each_request() {
    bound_over_lives_and_a_restart(&[], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_54_nonces_of_both_servers_are_taken_up_without_a_refresh() {
    bound_over_lives_and_a_restart(&["--nonce"], true).await;
}
