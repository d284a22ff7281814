//! What a token is for (RFC 8707) and when it ends (RFC 7009), as the certified server itself sees it.

use emulator::Reply;

use super::Provider;
use crate::sources::Told;
use crate::support::{Daemon, Home};
use crate::vendors::{failed, told};

/// A daemon with a credential by client credentials whose endpoints are discovered, with more lines.
fn start(provider: &Provider, home: &Home, api: &Told, more: &str) -> Daemon {
    let secret = home.write("secret", provider.text("/clients/plain/client_secret"));
    let config = format!(
        "[credentials.c]\nissuer = \"{}\"\ngrant = \"client_credentials\"\nclient_id = \"plain\"\n\
         client_secret = {{ file = \"{secret}\" }}\nscope = \"orders.read\"\n{more}\n\
         [[routes]]\nupstream = \"{}\"\ncredential = \"c\"\n",
        provider.text("/issuer"),
        api.url("")
    );
    Daemon::start(home, &config)
}

/// The token of a request through it.
async fn used(daemon: &Daemon, api: &Told) -> String {
    daemon.ready().await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    let sent = api.asked().pop().expect("one").header("authorization").expect("a token");
    sent.strip_prefix("Bearer ").expect("a bearer token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_51_a_token_is_for_the_resource_that_was_asked_for_and_no_other() {
    let (provider, home) = (Provider::start_with(&["--life", "3600"]), Home::new());
    let (judge, api) = (provider.judge(), Told::start(|_| Reply::status(200)));
    let daemon = start(&provider, &home, &api, "");
    let plain = judge.introspect(&used(&daemon, &api).await).await;
    assert_eq!((&plain["active"], plain.get("aud")), (&true.into(), None));
    assert!(daemon.stop().success());

    let resource = provider.text("/resource");
    let daemon = start(&provider, &home, &api, &format!("resource = [\"{resource}\"]"));
    let bound = judge.introspect(&used(&daemon, &api).await).await;
    assert_eq!((&bound["active"], &bound["aud"]), (&true.into(), &resource.into()));
    assert_eq!(bound["scope"], "orders.read");
    assert!(daemon.stop().success());

    let daemon = start(&provider, &home, &api, "resource = [\"https://another.example\"]");
    told(&failed(&daemon, "terminal").await, &["answered 400", "invalid_target"], false);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_46_a_token_ends_with_the_daemon_if_that_was_asked_for() {
    let (provider, home) = (Provider::start_with(&["--life", "3600"]), Home::new());
    let (judge, api) = (provider.judge(), Told::start(|_| Reply::status(200)));
    for revoke in [false, true] {
        let more = format!("revoke_on_shutdown = {revoke}");
        let daemon = start(&provider, &home, &api, &more);
        let token = used(&daemon, &api).await;
        assert!(judge.is_active(&token).await);
        assert!(daemon.stop().success());
        assert_eq!(judge.is_active(&token).await, !revoke);
    }
}
