//! `bearerd login`: a person, a browser, a terminal, an identity provider, and a daemon that runs or
//! does not.

mod browser;
mod code;
mod device;
mod running;
mod vendors;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use emulator::Oauth2;
use serde_json::Value;

pub use browser::Browser;

use crate::canary::found;
use crate::stage::Stage;
use crate::support::{DEADLINE, Home, read};

/// A running `bearerd login`, which logs at TRACE.
pub struct Login {
    child: Child,
    out: Arc<Told>,
    errors: Arc<Told>,
}

/// What the program has written so far, and whether that is all.
#[derive(Default)]
struct Told {
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

impl Told {
    fn follow(mut pipe: impl Read + Send + 'static) -> Arc<Self> {
        let told = Arc::new(Self::default());
        let sink = Arc::clone(&told);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let read = pipe.read(&mut bytes).unwrap_or(0);
                let Ok(mut text) = sink.text.lock() else { return };
                text.0 += &String::from_utf8_lossy(&bytes[..read]);
                text.1 = read == 0;
                sink.grown.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        told
    }

    /// Everything, once `enough`, or at the end.
    fn wait_until(&self, enough: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        let mut text = self.text.lock().expect("not poisoned");
        while !enough(&text.0) && !text.1 {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not in time; so far: {}", text.0);
            text = self.grown.wait_timeout(text, left).expect("not poisoned").0;
        }
        text.0.clone()
    }
}

impl Login {
    /// Starts `bearerd login` for the credential `c` of `bearerd.toml`, in a place without a desktop.
    pub fn start(home: &Home, arguments: &[&str]) -> Self {
        Self::start_in(home, arguments, &[])
    }

    /// The same with environment variables.
    pub fn start_in(home: &Home, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bearerd"))
            .args(["login", "--config", &home.path("bearerd.toml").display().to_string(), "c"])
            .args(arguments)
            .env("RUST_LOG", "trace")
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("BROWSER")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bearerd starts");
        let out = Told::follow(child.stdout.take().expect("piped"));
        let errors = Told::follow(child.stderr.take().expect("piped"));
        Self { child, out, errors }
    }

    /// The line on standard output that begins with `start`, waiting for it; without the spaces
    /// around it.
    pub fn line(&self, start: &str) -> String {
        let line = |text: &str| {
            let whole = text.lines().take(text.matches('\n').count());
            whole.map(str::trim).find(|line| line.starts_with(start)).map(str::to_owned)
        };
        let text = self.out.wait_until(|text| line(text).is_some());
        let errors = || self.errors.text.lock().expect("not poisoned").0.clone();
        line(&text).unwrap_or_else(|| panic!("no line {start:?} in {text:?}; {}", errors()))
    }

    /// The address that the person is to open.
    pub fn url(&self) -> String {
        self.line("http")
    }

    /// Waits for a text that need not end a line.
    pub fn asks(&self, text: &str) {
        let so_far = self.out.wait_until(|out| out.contains(text));
        assert!(so_far.contains(text), "it ended: {so_far}");
    }

    /// Types a line.
    pub fn write(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().expect("piped"), "{line}").expect("it listens");
    }

    /// The end of what can be typed.
    pub fn hang_up(&mut self) {
        self.child.stdin = None;
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end: exit code, standard output, standard error.
    pub fn end(mut self) -> (i32, String, String) {
        let (out, errors) = (self.out.wait_until(|_| false), self.errors.wait_until(|_| false));
        let status = self.child.wait().expect("a child");
        (status.code().unwrap_or(-1), out, errors)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of a credential `c` that a person signs in for, with more lines; the identity
/// provider's metadata names its endpoints.
pub fn signed_in_for(stage: &Stage, more: &str) -> String {
    let path = |name: &str| stage.home.path(name).display().to_string();
    let issuer = if more.contains("token_url") {
        String::new()
    } else {
        format!("issuer = \"{}\"\n", stage.idp.url())
    };
    let client = if more.contains("client_id") {
        String::new()
    } else {
        format!("client_id = \"client\"\nclient_secret = {{ file = \"{}\" }}\n", path("secret"))
    };
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         [credentials.c]\ngrant = \"refresh_token\"\n{issuer}{client}store = \"file:{}\"\n{more}\n{}",
        path("store.json"),
        stage.route(""),
    )
}

/// The refresh token in the store.
pub fn stored(home: &Home) -> String {
    let store: Value = serde_json::from_str(&read(home.path("store.json"))).expect("a record");
    store["record"]["refresh_token"].as_str().expect("a refresh token").to_owned()
}

/// Names in the directory, without what the test itself wrote.
pub fn left_there(home: &Home) -> Vec<String> {
    let names = std::fs::read_dir(home.path(".")).expect("readable");
    let names = names.map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("store"));
    names.sort();
    names
}

/// Nothing of what the identity provider and bearerd alone know is in `texts`.
fn assert_silent(idp: &Oauth2, issued: &[String], texts: &[&str]) {
    let mut secrets = issued.to_vec();
    secrets.extend(idp.current_refresh_token());
    for request in idp.requests() {
        for field in ["code", "code_verifier", "device_code", "client_secret"] {
            secrets.extend(request.form().value(field).map(str::to_owned));
        }
    }
    for secret in secrets.iter().filter(|secret| secret.len() > 24) {
        for text in texts {
            assert_eq!(found(text, secret), None, "{secret} in {text}");
        }
    }
    assert!(secrets.len() >= 3, "a code or a device, and tokens: {secrets:?}");
}
