//! bearerd beside a second authorization server, which has habits of its own: refresh tokens are good
//! once and take their family along, types are spelled `bearer`, Basic is not decoded, and a no is a
//! 403 or a 400 with nothing in it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use emulator::Tls;
use emulator::http::Server;
use serde_json::Value;

use crate::judge::Judge;
use crate::support::{Daemon, Home, eventually, read};

/// The server as a process of its own, and what it said about itself.
struct Glewlwyd {
    child: Child,
    told: Value,
}

impl Glewlwyd {
    /// Access tokens live for so many seconds.
    fn start(seconds: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/glewlwyd/server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["--life", seconds])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        stdout.read_line(&mut line).expect("a line");
        let told = serde_json::from_str(&line).expect("glewlwyd; see tests/deps/install.sh test");
        Self { child, told }
    }

    fn text(&self, key: &str) -> &str {
        self.told[key].as_str().expect(key)
    }

    fn judge(&self) -> Arc<Judge> {
        let client = format!("{}:{}", self.text("client_id"), self.text("client_secret"));
        Judge::at(self.text("introspection_url"), &client)
    }

    /// `[credentials.NAME]` with `lines`, and a route for it.
    fn section(&self, home: &Home, name: &str, lines: &str, api: &Server) -> String {
        let secret = home.write("client-secret", self.text("client_secret"));
        format!(
            "[credentials.{name}]\ntoken_url = \"{}\"\nclient_id = \"{}\"\n\
             client_auth = \"basic_raw\"\nclient_secret = {{ file = \"{secret}\" }}\n{lines}\n\
             [[routes]]\npath_prefix = \"/{name}\"\nupstream = \"{}\"\ncredential = \"{name}\"\n",
            self.text("token_url"),
            self.text("client_id"),
            api.url()
        )
    }

    fn refresh(&self, home: &Home) -> String {
        format!(
            "grant = \"refresh_token\"\nrefresh_token = {{ file = \"{}\" }}\n\
             store = \"file:{}\"",
            home.write("refresh-token", self.text("refresh_token")),
            home.path("orders.json").display()
        )
    }

    fn password(&self, home: &Home) -> String {
        let file = home.write("password", self.text("password"));
        let user = self.text("username");
        format!("username = \"{user}\"\npassword = {{ file = \"{file}\" }}\nscope = \"orders\"")
    }
}

impl Drop for Glewlwyd {
    fn drop(&mut self) {
        // It ends with its standard input, and takes the server along.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

async fn generation(daemon: &Daemon, index: usize) -> u64 {
    daemon.status().await["credentials"][index]["generation"].as_u64().unwrap_or_default()
}

async fn failures(daemon: &Daemon) -> f64 {
    let mut sum = 0.0;
    for outcome in ["transient", "terminal"] {
        let label = format!("outcome=\"{outcome}\"");
        sum += daemon.metric("bearerd_token_fetches_total", &[&label]).await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn one_use_refresh_tokens_a_client_of_its_own_and_a_password_all_earn_active_tokens() {
    let (provider, home) = (Glewlwyd::start("6"), Home::new());
    let judge = provider.judge();
    let api = Server::start(Arc::clone(&judge), Tls::Off);
    let client = "grant = \"client_credentials\"\nscope = \"orders\"";
    let person = format!("grant = \"password\"\n{}", provider.password(&home));
    let config = provider.section(&home, "orders", &provider.refresh(&home), &api)
        + &provider.section(&home, "client", client, &api)
        + &provider.section(&home, "person", &person, &api);

    let mut requests = 0;
    for round in 0..2 {
        let daemon = Daemon::start(&home, &config);
        daemon.ready().await;
        for index in 0..3 {
            eventually("three tokens", async || generation(&daemon, index).await >= 3).await;
        }
        for route in ["/orders", "/client", "/person"] {
            let answer = daemon.get(route).await;
            assert_eq!(answer.status, 200, "{route} in round {round}: {}", answer.text());
            requests += 1;
        }
        assert!(failures(&daemon).await < 1.0, "{}", daemon.logs());
        assert!(daemon.stop().success());
    }
    assert_eq!((judge.accepted.load(Relaxed), judge.refused.load(Relaxed)), (requests, 0));
    let store: Value = serde_json::from_str(&read(home.path("orders.json"))).unwrap();
    let newest = store["record"]["refresh_token"].as_str().unwrap_or_default();
    assert_ne!(newest, provider.text("refresh_token"));
    assert!(judge.is_active(newest).await, "none was spent twice, or its family would be dead");
    assert!(!judge.is_active(provider.text("refresh_token")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_with_nothing_in_it_is_a_no_and_a_spent_refresh_token_leads_to_the_other_way_in() {
    let (provider, home) = (Glewlwyd::start("600"), Home::new());
    let judge = provider.judge();
    let api = Server::start(Arc::clone(&judge), Tls::Off);
    let refresh = provider.refresh(&home);
    let first = Daemon::start(&home, &provider.section(&home, "orders", &refresh, &api));
    first.ready().await;
    assert!(first.stop().success());

    // The refresh token that was configured is spent, and nothing else is known.
    std::fs::remove_file(home.path("orders.json")).unwrap();
    let daemon = Daemon::start(&home, &provider.section(&home, "orders", &refresh, &api));
    eventually("a person is needed", async || {
        let last = daemon.status().await["credentials"][0]["last"].clone();
        last["needs_operator"] == true
            && last["detail"].as_str().unwrap_or_default().contains("answered 400")
    })
    .await;
    assert!(daemon.stop().success());

    let both = format!("{refresh}\nfallback = \"password\"\n{}", provider.password(&home));
    let daemon = Daemon::start(&home, &provider.section(&home, "orders", &both, &api));
    daemon.ready().await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    assert!(daemon.stop().success());

    // With another secret than the client's: 403, nothing in it either.
    let client = "grant = \"client_credentials\"\nscope = \"orders\"";
    let config = provider.section(&home, "client", client, &api);
    home.write("client-secret", "another");
    let daemon = Daemon::start(&home, &config);
    eventually("the client is refused", async || {
        let last = daemon.status().await["credentials"][0]["last"].clone();
        last["outcome"] == "terminal"
            && last["detail"].as_str().unwrap_or_default().contains("answered 403 (bad_client)")
    })
    .await;
    home.write("client-secret", provider.text("client_secret"));
    daemon.ready().await;
    assert_eq!(daemon.get("/client").await.status, 200);
    assert!(daemon.stop().success());
    assert_eq!(judge.refused.load(Relaxed), 0);
}
