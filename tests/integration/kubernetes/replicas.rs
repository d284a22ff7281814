//! Several real processes that share one rotating refresh token in a Secret: at a provider that revokes
//! the whole family when a spent refresh token comes back (RFC 9700 §4.14.2).

mod endings;
mod faults;
mod logins;

use std::sync::Arc;

use emulator::{Api, Oauth2, Step, Tls, Tokens};

use super::*;
use crate::stage::together;
use crate::support::{DEADLINE, Daemon, eventually, request};

/// 32 bytes.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A provider, an API, a cluster, and what each replica is configured with.
struct Bed {
    stage: Stage,
    tokens: Tokens,
    idp: Oauth2,
    api: Api,
    options: String,
}

impl Bed {
    fn new() -> Self {
        let (stage, tokens) = (Stage::new(), Tokens::new());
        let idp = Oauth2::start(Tls::Off, &tokens);
        let api = Api::start(Tls::Off, &tokens);
        stage.home.write("client-secret", "secret");
        let bed = Self { stage, tokens, idp, api, options: "deadline_seconds = 3".to_owned() };
        bed.sign_in();
        bed
    }

    /// What a person does when the refresh token is lost.
    fn sign_in(&self) {
        let token = self.idp.issue_refresh_token("client");
        let home = &self.stage.home;
        home.write("next", &token);
        std::fs::rename(home.path("next"), home.path("refresh-token")).unwrap();
    }

    fn config(&self) -> String {
        let path = |name: &str| self.stage.home.path(name).display().to_string();
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             shutdown_grace_seconds = 15\n\
             [credentials.c]\ngrant = \"refresh_token\"\ntoken_url = \"{}\"\n\
             client_id = \"client\"\nclient_secret = {{ file = \"{}\" }}\n\
             refresh_token = {{ file = \"{}\" }}\nstore = \"kubernetes:{NAMESPACE}/{SECRET}\"\n\
             store_options = {{ service_account = \"{}\", {} }}\n\
             [[routes]]\nname = \"r\"\nupstream = \"{}\"\ncredential = \"c\"\nwait_ms = 15000\n",
            self.idp.token_url(),
            path("client-secret"),
            path("refresh-token"),
            path("account"),
            self.options,
            self.api.url()
        )
    }

    /// A replica, not yet ready.
    fn start(&self) -> Daemon {
        let address = self.stage.cluster.server().address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let environment =
            [("KUBERNETES_SERVICE_HOST", host.as_str()), ("KUBERNETES_SERVICE_PORT", &port)];
        Daemon::start_in(&self.stage.home, &self.config(), &environment)
    }

    async fn replicas(&self, count: usize) -> Vec<Daemon> {
        let replicas: Vec<Daemon> = (0..count).map(|_| self.start()).collect();
        for replica in &replicas {
            replica.ready().await;
        }
        replicas
    }

    /// The document in the Secret; null if there is none, or it is encrypted.
    fn document(&self) -> Value {
        let held = self.stage.held().unwrap_or_default();
        serde_json::from_str::<Value>(&held).map_or(Value::Null, |held| held["document"].clone())
    }

    /// The Secret and the provider agree on the newest refresh token.
    fn holds_newest(&self) -> bool {
        let document = self.document();
        let held = document["record"]["refresh_token"].as_str();
        held.is_some() && held == self.idp.current_refresh_token().as_deref()
    }

    /// A refresh now, by that replica; its request is answered with what it brought.
    async fn refresh(&self, replica: &Daemon) {
        let fetched = self.idp.token_requests();
        // A token that is refused right after its refresh is tried again first.
        eventually("a refresh", async || {
            self.api.script([Step::Status(401)]);
            let answer = replica.get("/nudge").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            self.idp.token_requests() > fetched
        })
        .await;
        assert_eq!(self.idp.token_requests(), fetched + 1);
    }

    /// Every replica takes the newest token over, and serves with it.
    async fn all_serve(&self, replicas: &[Daemon]) {
        let newest = format!("Bearer {}", self.tokens.latest().unwrap());
        for replica in replicas {
            eventually("adopted", async || {
                assert_eq!(replica.get("/").await.status, 200);
                let used = self.api.last_request().unwrap();
                used.headers("authorization")[0] == newest.as_bytes()
            })
            .await;
        }
    }

    fn unharmed(&self) {
        assert!(self.idp.family_alive());
        assert_eq!(self.idp.violations(), Vec::<String>::new());
        assert_eq!(self.api.violations(), Vec::<String>::new());
        self.stage.finish();
    }
}

async fn credential(daemon: &Daemon) -> Value {
    daemon.status().await["credentials"][0].clone()
}

/// What `/status` says went wrong last.
async fn told(daemon: &Daemon, what: &str) {
    eventually(what, async || credential(daemon).await["last"].to_string().contains(what)).await;
}

async fn needs_operator(daemon: &Daemon) -> bool {
    credential(daemon).await["last"]["needs_operator"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn four_replicas_cost_one_refresh_and_all_have_its_token() {
    let bed = Bed::new();
    let replicas = bed.replicas(4).await;
    assert_eq!((bed.idp.rotations(), bed.idp.token_requests()), (1, 1));
    bed.all_serve(&replicas).await;
    for (round, replica) in replicas.iter().enumerate() {
        bed.refresh(replica).await;
        bed.all_serve(&replicas).await;
        assert_eq!(bed.idp.rotations(), 2 + round as u64);
        assert!(bed.holds_newest());
    }
    // One that comes later costs nothing.
    let late = bed.replicas(1).await;
    bed.all_serve(&late).await;
    assert_eq!(bed.idp.token_requests(), 5);
    // What is not ours is as it was.
    let object = bed.stage.object();
    assert_eq!(object["data"]["other"], secret()["data"]["other"]);
    assert_eq!(object["metadata"]["annotations"], secret()["metadata"]["annotations"]);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_refusals_at_four_replicas_cost_one_refresh() {
    let bed = Bed::new();
    let replicas = bed.replicas(4).await;
    bed.tokens.revoke_all();
    let addresses: Arc<[_]> = replicas.iter().map(|replica| replica.proxy).collect();
    let answers = together(1_000, |index| {
        let address = addresses[index % addresses.len()];
        async move { request(address, "GET", "/", &[], b"").await.status }
    });
    let answers = answers.await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(bed.idp.token_requests(), 2);
    assert!(bed.holds_newest());
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_secret_is_encrypted_with_a_key_and_nothing_is_shown() {
    let mut bed = Bed::new();
    let key = bed.stage.home.write("key", KEY);
    bed.options = format!("encryption_key = {{ file = \"{key}\" }}");
    let replicas = bed.replicas(2).await;
    bed.refresh(&replicas[0]).await;
    bed.all_serve(&replicas).await;
    let held = bed.stage.held().unwrap();
    assert!(held.contains("\"sealed\""), "{held}");
    let (refresh_token, token) =
        (bed.idp.current_refresh_token().unwrap(), bed.tokens.latest().unwrap());
    for secret in [&refresh_token, &token] {
        assert!(!held.contains(secret.as_str()));
    }
    for replica in &replicas {
        let shown = replica.logs() + &replica.status().await.to_string();
        for secret in [&refresh_token, &token, &bed.stage.token, &KEY.to_owned()] {
            assert!(!shown.contains(secret.as_str()), "a secret is shown");
        }
    }
    bed.unharmed();
}
