//! A person signs in at the certified server, on its own pages: both flows, every kind of client, and
//! the server itself says that the tokens that come are active.

use super::Provider;
use crate::judge::Judge;
use crate::login::{Browser, Login, stored};
use crate::support::{Daemon, Home, bearerd, eventually};

const SCOPE: &str = "openid offline_access orders.read";

/// A credential `c` of the client `client` (its keys), and a route to the server's userinfo.
fn config(provider: &Provider, home: &Home, client: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         token_socket = \"unix:{}\"\n\
         [credentials.c]\nissuer = \"{issuer}\"\ngrant = \"refresh_token\"\nscope = \"{SCOPE}\"\n\
         authorization_params = {{ prompt = \"consent\" }}\nstore = \"file:{}\"\n{client}\n\
         [[routes]]\nupstream = \"{issuer}\"\ncredential = \"c\"\n",
        home.path("token.sock").display(),
        home.path("store.json").display(),
        issuer = provider.text("/issuer"),
    )
}

/// The person signs in and consents, wherever `page` is in that.
async fn sign_in(browser: &mut Browser, mut page: emulator::client::Answer) -> String {
    for _ in 0..6 {
        let text = page.text();
        assert_eq!(page.status, 200, "{text}");
        if !text.contains("<form") {
            return text;
        }
        page = browser.submit(&page, &[("login", "alice"), ("password", "any")]).await;
    }
    panic!("the pages do not end: {}", page.text());
}

/// With what the login left: requests, a refresh, and a token for scripts that is active.
async fn serves(provider: &Provider, home: &Home, config: &str) {
    let first = stored(home);
    let daemon = Daemon::start_with(home, config);
    daemon.ready().await;
    let answer = daemon.get("/me").await;
    assert_eq!((answer.status, &answer.json()["sub"]), (200, &"alice".into()), "{}", answer.text());
    eventually("a refresh", async || stored(home) != first).await;
    assert_eq!(daemon.get("/me").await.status, 200);
    let path = home.path("bearerd.toml").display().to_string();
    let (code, token, errors) = bearerd(&["token", "--config", &path, "c"]);
    assert_eq!(code, 0, "{errors}");
    let judge = Judge::at(provider.text("/introspection_url"), "orders:orders-secret");
    assert!(judge.is_active(token.trim()).await);
    assert!(!judge.is_active("nonsense").await);
    assert!(daemon.stop().success());
}

async fn by_code(provider: &Provider, client: &str) {
    let home = Home::new();
    let config = config(provider, &home, client);
    home.write("bearerd.toml", &config);
    let login = Login::start(&home, &["--code"]);
    let mut browser = Browser::default();
    let page = browser.open(&login.url()).await;
    let text = sign_in(&mut browser, page).await;
    assert!(text.contains("<h1>Signed in</h1>"), "{text}");
    assert!(browser.url.contains("/callback?code=") || browser.url.contains("/back?code="));
    let (code, _, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    serves(provider, &home, &config).await;
}

async fn by_device(provider: &Provider, client: &str) {
    let home = Home::new();
    let config = config(provider, &home, client);
    home.write("bearerd.toml", &config);
    let login = Login::start(&home, &["--device"]);
    let mut browser = Browser::default();
    let code_shown = {
        let direct = login.line(&format!("{}?user_code=", login.url()));
        direct.rsplit('=').next().expect("a code").to_owned()
    };
    // By hand, as on another device: the page, then the code.
    let page = browser.open(&login.url()).await;
    let page = browser.submit(&page, &[("user_code", &code_shown)]).await;
    let text = sign_in(&mut browser, page).await;
    assert!(text.contains("Sign-in Success"), "{text}");
    let (code, _, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    serves(provider, &home, &config).await;
}

fn secret(auth: &str) -> String {
    format!(
        "client_id = \"orders\"\nclient_secret = {{ value = \"orders-secret\" }}\n\
         client_auth = \"{auth}\""
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_browser_with_a_secret_with_a_key_and_as_a_public_client() {
    let provider = Provider::start();
    by_code(&provider, &secret("basic")).await;
    let public = "client_id = \"app\"\nclient_auth = \"none\"";
    by_code(&provider, public).await;
    by_code(&provider, &format!("{public}\nredirect_url = \"http://localhost/back\"")).await;
    let home = Home::new();
    let key = home.write("key.pem", provider.text("/signing/es256/pem"));
    let id = provider.text("/signing/es256/client_id");
    let signing = format!(
        "client_id = \"{id}\"\nclient_auth = \"private_key_jwt\"\nprivate_key = {{ file = \"{key}\" }}\n\
         key_id = \"{}\"\nassertion_audience = \"{}\"",
        provider.text("/signing/es256/kid"),
        provider.text("/issuer"),
    );
    by_code(&provider, &signing).await;
    by_device(&provider, &signing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_code_on_any_device_with_a_secret_and_as_a_public_client() {
    let provider = Provider::start();
    by_device(&provider, &secret("basic")).await;
    by_device(&provider, "client_id = \"app\"\nclient_auth = \"none\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_login_are_bound_to_the_key_that_the_daemon_has() {
    let (provider, home) = (Provider::start_with(&["--nonce"]), Home::new());
    let key = rcgen::KeyPair::generate().expect("P-256").serialize_pem();
    let key = home.write("dpop.pem", &key);
    let client = format!(
        "client_id = \"app\"\nclient_auth = \"none\"\ndpop = true\ndpop_key = {{ file = \"{key}\" }}"
    );
    let config = config(&provider, &home, &client);
    home.write("bearerd.toml", &config);
    let login = Login::start(&home, &["--code"]);
    let mut browser = Browser::default();
    let page = browser.open(&login.url()).await;
    sign_in(&mut browser, page).await;
    let (code, _, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    let daemon = Daemon::start_with(&home, &config);
    daemon.ready().await;
    assert_eq!(daemon.get("/me").await.json()["sub"], "alice");
    let path = home.path("bearerd.toml").display().to_string();
    let (code, out, errors) = bearerd(&["token", "--config", &path, "c"]);
    assert!(code == 64 && out.is_empty() && errors.contains("bound to a key"), "{errors}");
}
