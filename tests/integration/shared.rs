//! Several processes that share one rotating refresh token at a real Redis server: at a provider that
//! revokes the whole family when a spent refresh token comes back (RFC 9700 §4.14.2).

mod engine;
mod faults;
mod logins;
mod security;
mod storm;
mod writes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use emulator::{Api, Oauth2, Tls, Tokens};
use serde_json::Value;

use crate::support::{DEADLINE, Daemon, Home, eventually};

/// A Redis server of a test's own, in a directory of its own. It keeps all that it acknowledges.
struct Redis {
    child: Option<Child>,
    home: Home,
    port: u16,
    more: Vec<String>,
}

impl Redis {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more of its configuration, as `redis-server` takes it on its command line.
    fn start_with(more: &[&str]) -> Self {
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        let mut redis = Self { child: None, home: Home::new(), port: free_port(), more };
        redis.resume();
        redis
    }

    /// Starts it, with what it held before.
    fn resume(&mut self) {
        let directory = self.home.path("").display().to_string();
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir", &directory])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(&self.more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts; tests/deps/install.sh test brings it");
        self.child = Some(child);
        let end = Instant::now() + DEADLINE;
        while !self.try_ask(&["PING"]).is_some_and(|answer| answer.starts_with(['+', '-'])) {
            assert!(Instant::now() < end, "redis-server is not up in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// The answer to one command as it came, on a connection of its own.
    fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).expect("an answer")
    }

    fn try_ask(&self, words: &[&str]) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let bulk = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
        let command: String = words.iter().map(bulk).collect();
        stream.write_all(format!("*{}\r\n{command}", words.len()).as_bytes()).ok()?;
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
            answer.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let (head, rest) = text.split_once("\r\n")?;
            let whole = match head.strip_prefix('$').map(str::parse::<usize>) {
                Some(Ok(length)) => rest.len() >= length + 2,
                // "$-1" is nothing, and other answers are one line.
                _ => true,
            };
            if whole {
                return Some(text);
            }
        }
    }

    /// What lies there, as it was written.
    fn held(&self) -> String {
        let answer = self.ask(&["HGET", "bearerd:c", "document"]);
        answer.split_once("\r\n").map_or(String::new(), |(_, rest)| rest.trim_end().to_owned())
    }

    /// The same, understood; `Null` if there is nothing, or it is encrypted.
    fn document(&self) -> Value {
        serde_json::from_str::<Value>(&self.held()).map_or(Value::Null, |v| v["document"].clone())
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A provider, an API, a Redis server, and what each replica is configured with.
struct Bed {
    home: Home,
    tokens: Tokens,
    idp: Oauth2,
    api: Api,
    redis: Redis,
    options: String,
}

impl Bed {
    fn new() -> Self {
        Self::with(Redis::start(), "deadline_seconds = 3")
    }

    fn with(redis: Redis, options: &str) -> Self {
        let (home, tokens) = (Home::new(), Tokens::new());
        let idp = Oauth2::start(Tls::Off, &tokens);
        let api = Api::start(Tls::Off, &tokens);
        home.write("client-secret", "secret");
        let bed = Self { home, tokens, idp, api, redis, options: options.to_owned() };
        bed.sign_in();
        bed
    }

    /// What a person does when the refresh token is lost.
    fn sign_in(&self) {
        let token = self.idp.issue_refresh_token("client");
        self.home.write("next", &token);
        std::fs::rename(self.home.path("next"), self.home.path("refresh-token")).unwrap();
    }

    fn config(&self) -> String {
        self.config_at(&self.redis.url())
    }

    fn config_at(&self, store: &str) -> String {
        let path = |name: &str| self.home.path(name).display().to_string();
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             shutdown_grace_seconds = 15\n\
             [credentials.c]\ngrant = \"refresh_token\"\ntoken_url = \"{}\"\n\
             client_id = \"client\"\nclient_secret = {{ file = \"{}\" }}\n\
             refresh_token = {{ file = \"{}\" }}\nstore = \"{store}\"\n\
             store_options = {{ {} }}\n\
             [[routes]]\nname = \"r\"\nupstream = \"{}\"\ncredential = \"c\"\nwait_ms = 15000\n",
            self.idp.token_url(),
            path("client-secret"),
            path("refresh-token"),
            self.options,
            self.api.url()
        )
    }

    /// A replica, not yet ready.
    fn start(&self) -> Daemon {
        Daemon::start_with(&self.home, &self.config())
    }

    async fn replicas(&self, count: usize) -> Vec<Daemon> {
        let replicas: Vec<Daemon> = (0..count).map(|_| self.start()).collect();
        for replica in &replicas {
            replica.ready().await;
        }
        replicas
    }

    /// The register and the provider agree on the newest refresh token.
    fn holds_newest(&self) -> bool {
        let document = self.redis.document();
        let held = document["record"]["refresh_token"].as_str();
        held.is_some() && held == self.idp.current_refresh_token().as_deref()
    }

    /// Every replica serves with the newest token.
    async fn all_serve(&self, replicas: &[Daemon]) {
        for replica in replicas {
            assert_eq!(replica.get("/").await.status, 200);
            let newest = self.tokens.latest().unwrap();
            let used = self.api.last_request().unwrap();
            let used = String::from_utf8_lossy(used.headers("authorization")[0]).into_owned();
            assert_eq!(used, format!("Bearer {newest}"));
        }
    }

    fn unharmed(&self) {
        assert!(self.idp.family_alive());
        assert_eq!(self.idp.violations(), Vec::<String>::new());
        assert_eq!(self.api.violations(), Vec::<String>::new());
    }
}

async fn credential(daemon: &Daemon) -> Value {
    daemon.status().await["credentials"][0].clone()
}

async fn needs_operator(daemon: &Daemon) -> bool {
    credential(daemon).await["last"]["needs_operator"] == true
}
