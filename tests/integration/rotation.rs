//! A rotating refresh token at a provider that revokes the whole family when a spent one comes
//! back (RFC 9700 §4.14.2): many refreshes, restarts, and who owns the store.

mod handed_on;
mod trouble;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use emulator::{Api, Oauth2, Step, Tls, Tokens};
use serde_json::Value;

use crate::support::{Daemon, Home, eventually, read};

/// A provider, an API, and a store in a directory of its own.
struct Family {
    home: Home,
    tokens: Tokens,
    idp: Oauth2,
    api: Api,
    first: String,
}

impl Family {
    fn new() -> Self {
        let (home, tokens) = (Home::new(), Tokens::new());
        let idp = Oauth2::start(Tls::Off, &tokens);
        let api = Api::start(Tls::Off, &tokens);
        let first = idp.issue_refresh_token("client");
        home.write("refresh-token", &first);
        home.write("client-secret", "secret");
        std::fs::create_dir(home.path("state")).unwrap();
        Self { home, tokens, idp, api, first }
    }

    fn store(&self) -> PathBuf {
        self.home.path("state").join("store.json")
    }

    /// The refresh token in the store.
    fn stored(&self) -> String {
        let store: Value = serde_json::from_str(&read(self.store())).unwrap();
        store["record"]["refresh_token"].as_str().unwrap().to_owned()
    }

    fn config(&self, grace: u64) -> String {
        let path = |name: &str| self.home.path(name).display().to_string();
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             shutdown_grace_seconds = {grace}\n\
             [credentials.c]\ngrant = \"refresh_token\"\ntoken_url = \"{}\"\n\
             client_id = \"client\"\nclient_secret = {{ file = \"{}\" }}\n\
             refresh_token = {{ file = \"{}\" }}\nstore = \"file:{}\"\n\
             [[routes]]\nname = \"r\"\nupstream = \"{}\"\ncredential = \"c\"\nwait_ms = 2000\n",
            self.idp.token_url(),
            path("client-secret"),
            path("refresh-token"),
            self.store().display(),
            self.api.url()
        )
    }

    fn start(&self) -> Daemon {
        Daemon::start_with(&self.home, &self.config(15))
    }

    async fn started(&self) -> Daemon {
        let daemon = self.start();
        daemon.ready().await;
        daemon
    }

    /// A refresh now, and a request that goes out with what it brought.
    async fn refresh(&self, daemon: &Daemon) {
        let before = self.idp.rotations();
        self.api.script([Step::Status(401)]);
        let answer = daemon.get("/nudge").await;
        assert_eq!((answer.status, self.idp.rotations()), (200, before + 1));
    }

    /// The refresh tokens that were sent, in order; none may have been sent twice.
    fn sent(&self) -> Vec<String> {
        let sent = self.idp.requests();
        let sent = sent.iter().map(|r| r.form().value("refresh_token").unwrap().to_owned());
        let sent: Vec<String> = sent.collect();
        let different: HashSet<&String> = sent.iter().collect();
        assert_eq!(different.len(), sent.len(), "a refresh token was sent twice");
        sent
    }

    fn finish(&self, daemon: Daemon) {
        assert!(daemon.stop().success());
        assert!(self.idp.family_alive());
        assert_eq!(Some(self.stored()), self.idp.current_refresh_token());
        assert_eq!(self.idp.violations(), Vec::<String>::new());
        assert_eq!(self.api.violations(), Vec::<String>::new());
    }
}

async fn status(daemon: &Daemon) -> Value {
    daemon.status().await["credentials"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_refreshes_rotate_and_the_family_lives() {
    let family = Family::new();
    family.idp.set_lifetime(Duration::from_secs(2));
    let daemon = family.started().await;
    eventually("six rotations", async || {
        assert_eq!(daemon.get("/steady").await.status, 200);
        family.idp.rotations() >= 6
    })
    .await;
    assert_eq!(family.api.unauthorized(), 0);
    assert_eq!(family.sent()[0], family.first);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_usable_token_in_the_store_asks_for_none() {
    let family = Family::new();
    let daemon = family.started().await;
    assert!(daemon.stop().success());
    let daemon = family.started().await;
    daemon.wait_for_log("continuing with the stored access token");
    assert_eq!(daemon.get("/again").await.status, 200);
    assert_eq!(
        (family.idp.token_requests(), status(&daemon).await["generation"].as_u64()),
        (1, Some(1))
    );
    family.refresh(&daemon).await;
    assert_eq!(family.sent().len(), 2);
    assert_ne!(family.sent()[1], family.first, "the bootstrap token is spent");
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_an_expired_token_sends_the_stored_refresh_token() {
    let family = Family::new();
    family.idp.set_lifetime(Duration::from_secs(2));
    let daemon = family.started().await;
    assert!(daemon.stop().success());
    let (stored, token) = (family.stored(), family.tokens.latest().unwrap());
    eventually("its end", async || !family.tokens.is_live(&token)).await;
    let before = family.idp.token_requests();
    let daemon = family.started().await;
    assert_eq!(daemon.get("/again").await.status, 200);
    assert_eq!(family.sent()[usize::try_from(before).unwrap()], stored);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_a_person_put_in_place_is_taken_up_at_a_start() {
    let family = Family::new();
    let daemon = family.started().await;
    assert!(daemon.stop().success());
    let second = family.idp.issue_refresh_token("client");
    family.home.write("refresh-token", &second);
    let daemon = family.started().await;
    assert_eq!(family.sent(), [family.first.clone(), second]);
    // From here on the store is ahead of it again.
    assert!(daemon.stop().success());
    let daemon = family.started().await;
    family.refresh(&daemon).await;
    assert_eq!(family.sent().len(), 3);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_a_person_put_in_place_is_taken_up_at_the_next_refresh() {
    let family = Family::new();
    let daemon = family.started().await;
    let second = family.idp.issue_refresh_token("client");
    family.home.write("refresh-token", &second);
    family.refresh(&daemon).await;
    assert_eq!(family.sent(), [family.first.clone(), second]);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_who_holds_the_store_and_waits() {
    let family = Family::new();
    let first = family.started().await;
    let second = family.start();
    eventually("the second one's word", async || {
        let told = status(&second).await["last"]["detail"].as_str().unwrap_or("").to_owned();
        told.contains(&format!("held by process {}", first.pid())) && told.contains("store.json")
    })
    .await;
    second.wait_for_log("token store not available");
    assert_eq!(second.get("/early").await.status, 503);
    family.refresh(&first).await;
    assert_eq!(family.idp.token_requests(), 2, "none of them by the second one");
    assert!(first.stop().success());
    second.ready().await;
    assert_eq!(second.get("/now").await.status, 200);
    family.refresh(&second).await;
    assert_eq!(family.sent().len(), 3);
    family.finish(second);
}
