//! What every emulated identity provider has in front of it: the server, the script, outages, the
//! records, and the lists of failures and of things that a client must never do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http::{Exchange, Fault, Handler, Recorded, Reply, Server, Tls, Work};
use crate::locked;
use crate::log::{Count, Log};
use crate::step::{Script, Step};

/// A running provider, as far as all of them are alike. Each provider dereferences to it.
#[derive(Debug)]
pub struct Front {
    server: Server,
    desk: Arc<Desk>,
}

/// The part that the provider's own logic reports to.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    script: Script,
    log: Log,
    token_requests: Count,
    down: AtomicBool,
    violations: Mutex<Vec<String>>,
    failures: Mutex<BTreeMap<String, u64>>,
}

/// A provider's own logic.
pub(crate) trait Provider: Send + Sync + 'static {
    /// Whether this is a request for a token: it is counted and takes a step of the script.
    fn is_token_request(&self, request: &Recorded) -> bool;
    /// Judges the request and commits its effect.
    fn answer(&self, request: &Recorded, desk: &Desk) -> Reply;
}

impl Front {
    pub(crate) fn start(provider: Arc<impl Provider>, tls: Tls) -> Self {
        let desk = Arc::new(Desk::default());
        let server = Server::start(Arc::new(Reception { provider, desk: Arc::clone(&desk) }), tls);
        Self { server, desk }
    }

    /// The server: address, URL, certificate, connections.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// `127.0.0.1:PORT`, for keys that take a host.
    pub fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// Adds steps; each token request takes one.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.desk.script.extend(steps);
    }

    /// What happens to each token request once the script is empty; `None` is normal.
    pub fn set_always(&self, step: Option<Step>) {
        self.desk.script.set_always(step);
    }

    /// Forgets the steps that were not taken.
    pub fn clear_script(&self) {
        self.desk.script.clear();
    }

    /// Steps that were not taken yet.
    pub fn steps_left(&self) -> usize {
        self.desk.script.len()
    }

    /// Down: every connection is closed at once, open ones at their next request. Such requests are
    /// not counted.
    pub fn set_down(&self, down: bool) {
        self.desk.down.store(down, Relaxed);
        self.server.set_accepting(!down);
    }

    /// Requests for a token so far.
    pub fn token_requests(&self) -> u64 {
        self.desk.token_requests.now()
    }

    /// Waits for at least so many requests for a token; the error tells how many came.
    pub async fn wait_for_token_requests(
        &self,
        wanted: u64,
        deadline: Duration,
    ) -> Result<u64, String> {
        self.desk.token_requests.wait_for(wanted, deadline).await
    }

    /// All requests, in order of arrival.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.desk.log.all()
    }

    /// The newest request.
    pub fn last_request(&self) -> Option<Arc<Recorded>> {
        self.desk.log.all().pop()
    }

    /// Forgets the requests recorded so far; counts stay.
    pub fn clear_requests(&self) {
        self.desk.log.clear();
    }

    /// What the client did that it must never do. A test ends by asserting that this is empty.
    pub fn violations(&self) -> Vec<String> {
        locked(&self.desk.violations).clone()
    }

    /// Refusals that a real provider would audit, all credentials together (C-E10).
    pub fn audit_failures(&self) -> u64 {
        locked(&self.desk.failures).values().sum()
    }

    /// Refusals of one credential: a client id, user name or token as the provider's documentation
    /// says.
    pub fn audit_failures_of(&self, credential: &str) -> u64 {
        locked(&self.desk.failures).get(credential).copied().unwrap_or_default()
    }
}

impl Desk {
    /// Notes something that the client must never do.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        locked(&self.violations).push(what.into());
    }

    /// Notes a refusal of this credential.
    pub(crate) fn failure(&self, credential: &str) {
        *locked(&self.failures).entry(credential.to_owned()).or_default() += 1;
    }

    /// Notes every violation that no provider allows: a query at the token endpoint (§4 Q20), a
    /// cookie (Q19). True when there was one.
    pub(crate) fn common_violations(&self, request: &Recorded, forbidden: &[&str]) -> bool {
        let before = locked(&self.violations).len();
        if request.query().is_some() {
            self.violation("a query in the URL of a token request");
        }
        for name in ["cookie"].iter().chain(forbidden) {
            if request.has(name) {
                self.violation(format!("{name} in a token request"));
            }
        }
        locked(&self.violations).len() > before
    }
}

struct Reception<P> {
    provider: Arc<P>,
    desk: Arc<Desk>,
}

impl<P: Provider> Handler for Reception<P> {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            if self.desk.down.load(Relaxed) {
                return Ok(Reply::fault(Fault::Lost));
            }
            let counted = self.provider.is_token_request(exchange.head());
            let step = if counted { self.desk.script.next() } else { Step::Normal };
            let step = match step {
                Step::Stall | Step::Early(_) => {
                    self.desk.log.record(&Arc::new(exchange.head().clone()));
                    self.desk.token_requests.add();
                    return step.without_body(exchange).await;
                }
                other => other,
            };
            let request = exchange.body().await?;
            self.desk.log.record(&request);
            if counted {
                self.desk.token_requests.add();
            }
            Ok(step.perform(|| self.provider.answer(&request, &self.desk)).await)
        })
    }
}
