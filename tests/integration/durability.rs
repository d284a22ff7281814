//! The file store under fire: killed at every point of a refresh and at random moments, on disks that
//! fail in every way, with answers that get lost, at a provider that revokes the whole family when a
//! spent refresh token comes back (RFC 9700 §4.14.2).
//!
//! Nothing in bearerd knows of these tests: a library that stands between it and the system
//! (`faults.c`) kills it, fails its calls or steps its clock.

mod answers;
mod disk;
mod kills;
mod logins;
mod others;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use emulator::http::Recorded;
use emulator::{Api, Oauth2, Step, Tls, Tokens};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Daemon, Home, eventually};

/// A provider, an API, a store in a directory of its own, and what goes wrong there.
struct Bed {
    home: Home,
    idp: Oauth2,
    api: Api,
}

impl Bed {
    fn new() -> Self {
        let (home, tokens) = (Home::new(), Tokens::new());
        let idp = Oauth2::start(Tls::Off, &tokens);
        let api = Api::start(Tls::Off, &tokens);
        std::fs::create_dir(home.path("state")).unwrap();
        home.write("client-secret", "secret");
        home.write("plan", "");
        let bed = Self { home, idp, api };
        bed.sign_in();
        bed
    }

    /// What a person does when the refresh token is lost.
    fn sign_in(&self) {
        let token = self.idp.issue_refresh_token("client");
        self.home.write("refresh-token", &token);
    }

    fn store(&self) -> PathBuf {
        self.home.path("state").join("store.json")
    }

    fn pending(&self) -> PathBuf {
        self.home.path("state").join("store.json.new")
    }

    fn config(&self, more: &str) -> String {
        let path = |name: &str| self.home.path(name).display().to_string();
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             shutdown_grace_seconds = 15\n\
             [credentials.c]\ngrant = \"refresh_token\"\ntoken_url = \"{}\"\n\
             client_id = \"client\"\nclient_secret = {{ file = \"{}\" }}\n\
             refresh_token = {{ file = \"{}\" }}\nstore = \"file:{}\"\n{more}\n\
             [[routes]]\nname = \"r\"\nupstream = \"{}\"\ncredential = \"c\"\nwait_ms = 5000\n",
            self.idp.token_url(),
            path("client-secret"),
            path("refresh-token"),
            self.store().display(),
            self.api.url()
        )
    }

    fn start(&self) -> Daemon {
        self.start_with("")
    }

    /// With more lines for the credential.
    fn start_with(&self, more: &str) -> Daemon {
        let path = |name: &str| self.home.path(name).display().to_string();
        let (library, store) = (library().display().to_string(), path("state"));
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAULTS_STORE", store.as_str()),
            ("FAULTS_PLAN", &path("plan")),
            ("FAULTS_TRACE", &path("trace")),
        ];
        Daemon::start_in(&self.home, &self.config(more), &environment)
    }

    async fn started(&self) -> Daemon {
        let daemon = self.start();
        daemon.ready().await;
        daemon
    }

    /// What goes wrong from now on.
    fn plan(&self, plan: &str) {
        // In one step, so that nobody reads half of it.
        self.home.write("next-plan", plan);
        std::fs::rename(self.home.path("next-plan"), self.home.path("plan")).unwrap();
    }

    /// The points that were passed since the last call, and when, in nanoseconds.
    fn trace(&self) -> Vec<(String, u64)> {
        let path = self.home.path("trace");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.map(|(point, at)| (point.to_owned(), at.parse().unwrap())).collect()
    }

    /// A refresh now, and a request that goes out with what it brought.
    async fn refresh(&self, daemon: &Daemon) {
        let before = self.idp.rotations();
        // A token that is refused right after its refresh is tried again first.
        eventually("a refresh", async || {
            self.api.script([Step::Status(401)]);
            assert_eq!(daemon.get("/nudge").await.status, 200);
            self.idp.rotations() > before
        })
        .await;
        assert_eq!(self.idp.rotations(), before + 1);
    }

    /// The store holds the refresh token that the provider gave last, in place or about to be.
    fn holds_newest(&self) -> bool {
        let current = self.idp.current_refresh_token();
        [self.store(), self.pending()].iter().any(|path| {
            let record = std::fs::read(path).ok();
            let record: Option<Value> = record.and_then(|json| serde_json::from_slice(&json).ok());
            record.is_some_and(|r| r["record"]["refresh_token"].as_str() == current.as_deref())
        })
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

/// `faults.c`, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().join("faults.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/durability/faults.c");
        let program = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let compiled = Command::new(program)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&path)
            .arg(source)
            .status();
        assert!(compiled.expect("a C compiler").success());
        (home, path)
    });
    path
}
