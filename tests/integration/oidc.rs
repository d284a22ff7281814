//! bearerd beside a certified authorization server that rotates refresh tokens and revokes the
//! family of one that comes back: steady traffic over many lives of a token and over a restart.

mod certificates;
mod clients;
mod dpop;
mod login;
mod tokens;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use emulator::Tls;
use emulator::http::Server;
use serde_json::Value;

use crate::judge::Judge;
use crate::support::{Daemon, Home, request};

/// Life of an access token. The server counts whole seconds, so that one may be dead almost a
/// second before bearerd thinks so.
const LIFE: &str = "5";
/// So long is there traffic before the restart, and again after it.
const TRAFFIC: Duration = Duration::from_secs(9);

/// The server as a process of its own, and what it said about itself.
pub struct Provider {
    child: Child,
    told: Value,
}

impl Provider {
    fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(more: &[&str]) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
        assert!(
            directory.join("node_modules/oidc-provider").is_dir(),
            "oidc-provider is not installed; run tests/deps/install.sh test"
        );
        let mut child = Command::new("node")
            .args(["server.mjs", "--life", LIFE])
            .args(more)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        stdout.read_line(&mut line).expect("a line");
        let told = serde_json::from_str(&line).expect("one line of JSON");
        Self { child, told }
    }

    pub fn text(&self, pointer: &str) -> &str {
        self.told.pointer(pointer).and_then(Value::as_str).expect(pointer)
    }

    pub fn control(&self) -> SocketAddr {
        let port = self.told["control_port"].as_u64().expect("a port");
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")))
    }

    pub async fn stats(&self) -> Value {
        request(self.control(), "GET", "/stats", &[], b"").await.json()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    /// An API that has every presented token judged by this server.
    fn judge(&self) -> Arc<Judge> {
        let of = |member: &str| self.text(&format!("/clients/plain/{member}"));
        let pair = format!("{}:{}", of("client_id"), of("client_secret"));
        Judge::at(self.text("/introspection_url"), &pair)
    }
}

fn config(provider: &Provider, home: &Home, api: &str) -> String {
    let mut config = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n".to_owned();
    for name in ["orders", "plain", "nasty"] {
        let id = provider.text(&format!("/clients/{name}/client_id"));
        let secret = provider.text(&format!("/clients/{name}/client_secret"));
        let secret = home.write(&format!("{name}-secret"), secret);
        let auth = if name == "plain" { "post" } else { "basic" };
        let grant = match name {
            "orders" => format!(
                "grant = \"refresh_token\"\nrefresh_token = {{ file = \"{}\" }}\n\
                 store = \"file:{}\"\n",
                home.write("refresh-token", provider.text("/refresh_token")),
                home.path("orders.json").display()
            ),
            _ => "grant = \"client_credentials\"\n".to_owned(),
        };
        config += &format!(
            "[credentials.{name}]\ntoken_url = \"{}\"\nclient_id = \"{id}\"\n\
             client_secret = {{ file = \"{secret}\" }}\nclient_auth = \"{auth}\"\n{grant}\
             [[routes]]\nname = \"{name}\"\npath_prefix = \"/{name}\"\nupstream = \"{api}\"\n\
             credential = \"{name}\"\n",
            provider.text("/token_url")
        );
    }
    config
}

/// Requests on all three routes for so long; every one of them must get a 200.
async fn traffic(daemon: &Daemon) -> u64 {
    let end = Instant::now() + TRAFFIC;
    let on = async |route: &str| {
        let mut answers = 0;
        while Instant::now() < end {
            let answer = daemon.get(route).await;
            assert_eq!(answer.status, 200, "{route} after {answers}: {}", answer.text());
            answers += 1;
            tokio::time::sleep(Duration::from_millis(15)).await; // a pace, nothing waits for it
        }
        answers
    };
    let (orders, plain, nasty) = tokio::join!(on("/orders/1"), on("/plain/1"), on("/nasty/1"));
    assert!(orders > 50 && plain > 50 && nasty > 50, "steady traffic on each route");
    orders + plain + nasty
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_tokens_live_for_seconds_or_that_bearerd_is_restarted() {
    let (provider, home) = (Provider::start(), Home::new());
    let judge = provider.judge();
    let api = Server::start(Arc::clone(&judge), Tls::Off);
    let config = config(&provider, &home, &api.url());

    let daemon = Daemon::start_with(&home, &config);
    daemon.ready().await;
    let before = traffic(&daemon).await;
    assert!(daemon.stop().success());
    let rotations = provider.stats().await["rotations"].as_u64();

    let daemon = Daemon::start_with(&home, &config);
    daemon.wait_for_log("continuing with the stored access token");
    assert_eq!(provider.stats().await["rotations"].as_u64(), rotations, "no refresh by a restart");
    daemon.ready().await;
    let after = traffic(&daemon).await;
    assert!(daemon.stop().success());

    let stats = provider.stats().await;
    assert!(stats["rotations"].as_u64() >= Some(3), "{stats}");
    assert_eq!((&stats["failures"], &stats["family_alive"]), (&0.into(), &true.into()), "{stats}");
    assert_eq!((judge.accepted.load(Relaxed), judge.refused.load(Relaxed)), (before + after, 0));
}
