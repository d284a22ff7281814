//! The main job, once.

use emulator::{Api, Oauth2, Tls, Tokens};

use crate::support::{Daemon, Home};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_out_with_a_token_and_comes_back() {
    let home = Home::new();
    let tokens = Tokens::new();
    let idp = Oauth2::start(Tls::Off, &tokens);
    let api = Api::start(Tls::Off, &tokens);
    let secret = home.write("secret", "secret");
    let daemon = Daemon::start(
        &home,
        &format!(
            "[credentials.c]\ngrant = \"client_credentials\"\ntoken_url = \"{}\"\n\
             client_id = \"client\"\nclient_secret = {{ file = \"{secret}\" }}\n\
             [[routes]]\nupstream = \"{}\"\ncredential = \"c\"\n",
            idp.token_url(),
            api.url()
        ),
    );
    let answer = daemon.get("/orders?x=1").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["target"], "/orders?x=1");
    assert_eq!((idp.token_requests(), api.ok(), api.unauthorized()), (1, 1, 0));
    assert!(daemon.stop().success());
}
