//! The vendor dialects against emulated vendors: what goes out to the letter, and what every
//! documented answer leads to. Rows (`S5`, `V-E3`) are those of the provider specification.

mod csp;
mod csp_errors;
mod custom;
mod custom_rows;
mod servicemax;
mod servicemax_errors;
mod tencent;
mod tencent_errors;
mod veeam;
mod veeam_errors;
mod veeam_ways;

use std::time::{SystemTime, UNIX_EPOCH};

use emulator::{Api, Front, Recorded, Step, Tencent, Tls, Tokens};
use serde_json::Value;

use crate::support::{DEADLINE, Daemon, Home, eventually, read};

/// A place for secrets, an API that judges tokens, and a daemon between the two and a provider.
pub struct Rig {
    pub home: Home,
    pub tokens: Tokens,
    pub api: Api,
}

impl Rig {
    pub fn new() -> Self {
        let tokens = Tokens::new();
        let api = Api::start(Tls::Off, &tokens);
        Self { home: Home::new(), tokens, api }
    }

    /// A secret in a file, as `{ file = … }`.
    pub fn secret(&self, name: &str, value: &str) -> String {
        format!("{{ file = \"{}\" }}", self.home.write(name, value))
    }

    /// A store in a file, as the key of a credential.
    pub fn store(&self) -> String {
        format!("store = \"file:{}\"\n", self.home.path("store.json").display())
    }

    /// The refresh token that is in the store.
    fn stored(&self) -> String {
        let store: Value = serde_json::from_str(&read(self.home.path("store.json"))).unwrap();
        store["record"]["refresh_token"].as_str().unwrap_or_default().to_owned()
    }

    /// The configuration of a credential `c` and of the route that it serves.
    pub fn config(&self, credential: &str) -> String {
        self.config_with_route(credential, "")
    }

    pub fn config_with_route(&self, credential: &str, route: &str) -> String {
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             [credentials.c]\n{credential}\n[[routes]]\nname = \"r\"\nupstream = \"{}\"\n\
             credential = \"c\"\nwait_ms = 300\n{route}\n",
            self.api.url()
        )
    }

    pub fn start(&self, credential: &str) -> Daemon {
        Daemon::start_with(&self.home, &self.config(credential))
    }

    /// Starts, and waits for the first token.
    pub async fn started(&self, credential: &str) -> Daemon {
        let daemon = self.start(credential);
        daemon.ready().await;
        daemon
    }

    /// Has the next refresh made now: the API refuses one request without a challenge.
    pub async fn refresh_now(&self, daemon: &Daemon) {
        let generation = credential(daemon).await["generation"].as_u64();
        let before = attempts(daemon).await;
        self.api.script([Step::Status(401)]);
        daemon.get("/nudge").await;
        eventually("an attempt", async || attempts(daemon).await > before).await;
        // The attempt is counted a moment before what it brought is to be seen.
        eventually("its outcome", async || {
            let now = credential(daemon).await;
            now["activity"] != "fetching"
                && (now["generation"].as_u64() > generation || now["last"]["outcome"] != "ok")
        })
        .await;
    }

    /// A refresh with a token in force that does not bring one: it is classified as `outcome`,
    /// caused one request, and the token in force goes on. Returns the credential's status.
    pub async fn keeps_the_token(&self, daemon: &Daemon, outcome: &str) -> Value {
        self.refresh_now(daemon).await;
        let status = failed(daemon, outcome).await;
        assert_eq!(status["phase"], "fresh");
        assert_eq!(daemon.get("/after").await.status, 200, "a usable token is never dropped");
        status
    }

    fn finish(&self, daemon: Daemon, provider: &Front) {
        assert!(daemon.stop().success());
        assert_eq!(provider.violations(), Vec::<String>::new());
        assert_eq!(self.api.violations(), Vec::<String>::new());
    }
}

/// A tenant of Tencent's that knows one application, for other tests.
pub fn tenant(rig: &Rig) -> Tencent {
    tencent::tenant(rig)
}

/// What a user writes for it before anybody has signed in.
pub fn written_for(rig: &Rig, idp: &Tencent) -> String {
    let written = tencent::written(rig, idp, "unused");
    let lines = written.lines().filter(|line| !line.starts_with("refresh_token"));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The credential's part of `/status`.
pub async fn credential(daemon: &Daemon) -> Value {
    daemon.status().await["credentials"][0].clone()
}

/// Attempts of all kinds so far.
async fn attempts(daemon: &Daemon) -> f64 {
    daemon.metric("bearerd_token_fetches_total", &[]).await
}

/// Waits for an attempt that failed, checks its label, and returns the credential's status.
pub async fn failed(daemon: &Daemon, outcome: &str) -> Value {
    let activity = if outcome == "terminal" { "refused" } else { "backing_off" };
    let seen = std::sync::Mutex::new(Value::Null);
    eventually(&format!("{outcome} and {activity}"), async || {
        let status = credential(daemon).await;
        let settled = status["last"]["outcome"] == outcome && status["activity"] == activity;
        *seen.lock().unwrap() = status;
        settled
    })
    .await;
    let label = |outcome: &str| format!("outcome=\"{outcome}\"");
    let counted = async |outcome: &str| {
        daemon.metric("bearerd_token_fetches_total", &[&label(outcome)]).await
    };
    assert!(counted(outcome).await >= 1.0);
    let other = if outcome == "terminal" { "transient" } else { "terminal" };
    assert!(counted(other).await < 1.0, "one class only");
    seen.into_inner().unwrap()
}

/// Checks what `/status` says about a failure: each of `parts`, and whether a person is needed.
#[track_caller]
pub fn told(status: &Value, parts: &[&str], needs_operator: bool) {
    let detail = status["last"]["detail"].as_str().unwrap_or_default();
    for part in parts {
        assert!(detail.contains(part), "no {part:?} in {detail:?}");
    }
    assert_eq!(status["last"]["needs_operator"], needs_operator, "{detail}");
}

/// Seconds from now to a time in `/status`.
#[track_caller]
pub fn seconds_until(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().unwrap_or_default().parse().expect("a time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    time.as_second() - i64::try_from(now.as_secs()).unwrap()
}

/// A long pause: a failed sign-in is audited or locks an account.
#[track_caller]
pub fn pauses(status: &Value) {
    let pause = seconds_until(&status["next_attempt"]);
    assert!((200..=360).contains(&pause), "next attempt in {pause} s");
}

/// The token's life, by whichever field ends it first; the requests took up to a few seconds.
#[track_caller]
pub fn lives(status: &Value, seconds: i64) {
    let left = seconds_until(&status["expires_at"]);
    assert!((seconds - 10..=seconds).contains(&left), "expires in {left} s, not {seconds}");
}

/// The token requests so far, with what holds for all of them checked.
fn token_requests(provider: &Front) -> Vec<std::sync::Arc<Recorded>> {
    let requests = provider.requests();
    for request in &requests {
        assert!(!request.has("cookie"), "a cookie came back");
        assert_eq!(request.query(), None, "a query in {}", request.target);
    }
    requests
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Waits for so many token requests, and checks that there are not more.
async fn exactly(provider: &Front, count: u64) {
    let waited = provider.wait_for_token_requests(count, DEADLINE).await;
    assert_eq!(waited.expect("in time"), count);
}

/// The transient rows that all dialects share (§0.1), as steps and the reason that they lead to.
fn transient_steps() -> [(Step, &'static str); 5] {
    [
        (Step::Status(503), "answered 503 (server)"),
        (Step::Html(502), "answered 502 (server)"),
        (Step::Status(408), "answered 408 (server)"),
        (Step::Status(429), "answered 429 (rate_limited)"),
        (Step::Html(200), "answered 200 (unusable)"),
    ]
}
