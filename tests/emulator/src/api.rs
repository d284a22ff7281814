//! A protected upstream: it judges the presented token by the shared registry and echoes what it
//! got.

mod challenge;
mod policy;
mod verdict;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

pub use challenge::{Challenge, insufficient_scope, user_not_found};

use crate::http::{Exchange, Handler, Recorded, Reply, Server, Tls, Work};
use crate::locked;
use crate::log::{Count, Log};
use crate::step::{Script, Step};
use crate::tokens::Tokens;
use policy::Policy;
use verdict::Presented;

/// The API. It wants `Authorization: Bearer` unless told otherwise.
#[derive(Debug)]
pub struct Api {
    server: Server,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    policy: Mutex<Arc<Policy>>,
    script: Script,
    served: Mutex<HashMap<String, Reply>>,
    log: Log,
    requests: Count,
    ok: Count,
    unauthorized: Count,
    aborted: Count,
    by_token: Mutex<HashMap<String, Tally>>,
    violations: Mutex<Vec<String>>,
}

/// Counts of one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that presented it.
    pub requests: u64,
    /// Those that were let through.
    pub ok: u64,
    /// Those that were refused.
    pub unauthorized: u64,
}

impl Api {
    /// Starts one that accepts what is live in `tokens`.
    pub fn start(tls: Tls, tokens: &Tokens) -> Self {
        let state = Arc::new(State {
            tokens: tokens.clone(),
            policy: Mutex::default(),
            script: Script::default(),
            served: Mutex::default(),
            log: Log::default(),
            requests: Count::default(),
            ok: Count::default(),
            unauthorized: Count::default(),
            aborted: Count::default(),
            by_token: Mutex::default(),
            violations: Mutex::default(),
        });
        Self { server: Server::start(Arc::clone(&state), tls), state }
    }

    /// The server: address, URL, certificate, connections.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The field that carries the token, and its scheme; `("csp-auth-token", None)` is a bare token
    /// (C-E11).
    pub fn set_credential_header(&self, name: &str, scheme: Option<&str>) {
        self.set(|policy| {
            policy.header = name.to_owned();
            policy.scheme = scheme.map(str::to_owned);
        });
    }

    /// How a refusal is said; [`Challenge::InvalidToken`] at the start.
    pub fn set_challenge(&self, challenge: Challenge) {
        self.set(|policy| policy.challenge = challenge);
    }

    /// Refuses every token.
    pub fn set_always_unauthorized(&self, always: bool) {
        self.set(|policy| policy.always_unauthorized = always);
    }

    /// A bad token is refused before the body is read.
    pub fn set_early_verdict(&self, early: bool) {
        self.set(|policy| policy.early_verdict = early);
    }

    /// Whether `Expect: 100-continue` is answered by 100 before the body is read; true at the
    /// start.
    pub fn set_continue(&self, sends: bool) {
        self.set(|policy| policy.sends_continue = sends);
    }

    /// A request with a cookie earns 404, and every success sets one (S-E6).
    pub fn set_cookies_forbidden(&self, forbidden: bool) {
        self.set(|policy| policy.cookies_forbidden = forbidden);
    }

    /// A write without this field earns 403 (S-E7).
    pub fn set_csrf_header(&self, name: Option<&str>) {
        self.set(|policy| policy.csrf_header = name.map(str::to_owned));
    }

    /// Keeps requests for [`requests`](Self::requests); switch it off under load.
    pub fn set_recording(&self, recording: bool) {
        self.state.log.set_recording(recording);
    }

    /// Adds steps; each request takes one, whatever its path.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.state.script.extend(steps);
    }

    /// What happens to each request once the script is empty; `None` is normal.
    pub fn set_always(&self, step: Option<Step>) {
        self.state.script.set_always(step);
    }

    /// Forgets the steps that were not taken.
    pub fn clear_script(&self) {
        self.state.script.clear();
    }

    /// Steps that were not taken yet.
    pub fn steps_left(&self) -> usize {
        self.state.script.len()
    }

    /// What a live token gets at this path (without query) instead of the echo.
    pub fn serve(&self, path: &str, reply: Reply) {
        locked(&self.state.served).insert(path.to_owned(), reply);
    }

    /// All requests, in order of arrival.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.state.log.all()
    }

    /// The newest request.
    pub fn last_request(&self) -> Option<Arc<Recorded>> {
        self.state.log.all().pop()
    }

    /// Forgets the requests recorded so far; counts stay.
    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// Requests so far, recorded or not.
    pub fn request_count(&self) -> u64 {
        self.state.requests.now()
    }

    /// Waits for at least so many requests; the error tells how many came.
    pub async fn wait_for_requests(&self, wanted: u64, deadline: Duration) -> Result<u64, String> {
        self.state.requests.wait_for(wanted, deadline).await
    }

    /// Requests let through.
    pub fn ok(&self) -> u64 {
        self.state.ok.now()
    }

    /// Requests refused for their token or the lack of one.
    pub fn unauthorized(&self) -> u64 {
        self.state.unauthorized.now()
    }

    /// Requests whose body broke off.
    pub fn aborted(&self) -> u64 {
        self.state.aborted.now()
    }

    /// Waits for at least so many broken bodies; the error tells how many came.
    pub async fn wait_for_aborted(&self, wanted: u64, deadline: Duration) -> Result<u64, String> {
        self.state.aborted.wait_for(wanted, deadline).await
    }

    /// Counts of one token.
    pub fn tally(&self, token: &str) -> Tally {
        locked(&self.state.by_token).get(token).copied().unwrap_or_default()
    }

    /// What the client did that it must never do: two credentials, no credential, a cookie where
    /// none may be.
    pub fn violations(&self) -> Vec<String> {
        locked(&self.state.violations).clone()
    }

    fn set(&self, change: impl FnOnce(&mut Policy)) {
        change(Arc::make_mut(&mut locked(&self.state.policy)));
    }
}

impl Handler for State {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let policy = Arc::clone(&locked(&self.policy));
            let step = self.script.next();
            exchange.sends_continue = policy.sends_continue;
            if let Step::Early(_) | Step::Stall = step {
                self.arrived(Arc::new(exchange.head().clone()));
                return step.without_body(exchange).await;
            }
            let judged = policy.early_verdict.then(|| self.judge(exchange.head(), &policy));
            if let (Some(Err(refusal)), Step::Normal) = (&judged, &step) {
                self.arrived(Arc::new(exchange.head().clone()));
                return Ok(refusal.clone());
            }
            let request = match exchange.body().await {
                Ok(request) => request,
                Err(error) => {
                    self.aborted.add();
                    return Err(error);
                }
            };
            self.arrived(Arc::clone(&request));
            let commit = || match judged.unwrap_or_else(|| self.judge(&request, &policy)) {
                Ok(()) => self.go_ahead(&request, &policy),
                Err(refusal) => refusal,
            };
            Ok(step.perform(commit).await)
        })
    }
}

impl State {
    fn arrived(&self, request: Arc<Recorded>) {
        self.log.record(&request);
        self.requests.add();
    }

    /// Judges the head and counts the verdict.
    fn judge(&self, request: &Recorded, policy: &Policy) -> Result<(), Reply> {
        if policy.cookies_forbidden && request.has("cookie") {
            locked(&self.violations).push("a cookie at an API that forbids them".to_owned());
            return Err(Reply::status(404));
        }
        let presented = Presented::read(request, policy);
        if let Presented::None | Presented::Two = presented {
            locked(&self.violations).push(format!("credential: {presented:?}"));
        }
        let live = match &presented {
            Presented::Token(token) => self.tokens.is_live(token) && !policy.always_unauthorized,
            _ => false,
        };
        self.tally(&presented, live);
        if !live {
            self.unauthorized.add();
            return Err(policy.challenge.refusal(&presented));
        }
        self.ok.add();
        let safe = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        match &policy.csrf_header {
            Some(name) if !safe && !request.has(name) => Err(Reply::status(403)),
            _ => Ok(()),
        }
    }

    fn tally(&self, presented: &Presented, live: bool) {
        if let Presented::Token(token) = presented {
            let mut by_token = locked(&self.by_token);
            if !by_token.contains_key(token) {
                by_token.insert(token.clone(), Tally::default());
            }
            if let Some(tally) = by_token.get_mut(token) {
                tally.requests += 1;
                tally.ok += u64::from(live);
                tally.unauthorized += u64::from(!live);
            }
        }
    }

    fn go_ahead(&self, request: &Recorded, policy: &Policy) -> Reply {
        let reply = locked(&self.served).get(request.path()).cloned();
        let reply = reply.unwrap_or_else(|| echo(request));
        match policy.cookies_forbidden {
            true => reply.header("Set-Cookie", "tempting=1; Path=/"),
            false => reply,
        }
    }
}

/// What the API saw, as JSON.
fn echo(request: &Recorded) -> Reply {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = |fields: &[(String, Vec<u8>)]| -> Vec<_> {
        fields.iter().map(|(name, value)| json!([name, text(value)])).collect()
    };
    Reply::json(
        200,
        json!({
            "method": request.method,
            "target": request.target,
            "headers": pairs(&request.head),
            "body_length": request.body_length,
            "body_sha256": request.body_sha256,
            "trailers": pairs(&request.trailers),
            "connection": request.connection,
            "tls": request.tls,
        }),
    )
}
