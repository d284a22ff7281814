//! The loop under a paused clock, with a source that answers as a script says. No sockets.
//!
//! The paused clock moves the monotonic half of a [`Moment`] only; the wall clock stands nearly
//! still meanwhile, which by design must not matter.

mod endings;
mod legacy;
mod once;
mod pace;
mod refusals;
mod sharing;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::credential::{Credential, Held, Scheme, Unavailable, publish};
use crate::metrics::Metrics;
use crate::secret::Fingerprint;
use crate::source::{Class, Reason, Traits};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What one fetch brings.
enum Answer {
    /// A new token that lives so long.
    Token(Duration),
    /// A new token and a new refresh token.
    Rotated(Duration, &'static str),
    /// A token whose wall-clock half lies so far in the past: the wall clock was stepped forward.
    Stepped(Duration, Duration),
    /// The token of before, until this moment; after it a new one for 100 s.
    Same(Instant),
    Fails(FetchError),
}

/// One fetch as it was made.
#[derive(Clone, Debug, PartialEq)]
struct Fetch {
    at: Instant,
    refresh_token: Option<String>,
    in_doubt: bool,
}

/// What the test and the source share.
struct Script {
    answers: VecDeque<Answer>,
    /// After the script.
    always: Box<dyn Fn() -> Answer + Send>,
    takes: Duration,
    traits: Traits,
    fetches: Vec<Fetch>,
    inputs: u64,
    looks: usize,
    revoked: usize,
    certificate: Option<u64>,
}

/// A [`TokenSource`] that answers as its script says.
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }
}

impl TokenSource for Scripted {
    async fn fetch(&mut self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        let takes = {
            let mut script = self.script();
            script.fetches.push(Fetch {
                at: attempt.now.mono,
                refresh_token: attempt.refresh_token.map(|token| token.expose().to_owned()),
                in_doubt: attempt.in_doubt,
            });
            script.takes
        };
        sleep(takes).await;
        let mut script = self.script();
        let answer = script.answers.pop_front().unwrap_or_else(|| (script.always)());
        let named = format!("token-{}", script.fetches.len());
        let (name, at, life, refresh_token) = match answer {
            Answer::Token(life) => (named, attempt.now, life, None),
            Answer::Rotated(life, refresh_token) => (named, attempt.now, life, Some(refresh_token)),
            Answer::Stepped(life, by) => {
                (named, Moment { wall: attempt.now.wall - by, ..attempt.now }, life, None)
            }
            Answer::Same(until) => match until.saturating_duration_since(attempt.now.mono) {
                Duration::ZERO => (named, attempt.now, seconds(100.0), None),
                left => ("same".to_owned(), attempt.now, left, None),
            },
            Answer::Fails(error) => return Err(error),
        };
        Ok(Fetched {
            token: AccessToken::new(Secret::new(name), at, life).unwrap(),
            refresh_token: refresh_token.map(|text| Secret::new(text.to_owned())),
            gave_up: false,
            renewable: false,
        })
    }

    async fn revoke(&mut self, _: &AccessToken) -> Result<(), FetchError> {
        self.script().revoked += 1;
        Ok(())
    }

    fn inputs(&self) -> Fingerprint {
        let mut script = self.script();
        script.looks += 1;
        Fingerprint::of(&script.inputs.to_be_bytes())
    }

    fn certificate(&self) -> Option<Fingerprint> {
        self.script().certificate.map(|certificate| Fingerprint::of(&certificate.to_be_bytes()))
    }

    fn traits(&self) -> Traits {
        self.script().traits.clone()
    }
}

/// A refresher that runs, and the readers' end of its credential.
struct Bench {
    script: Arc<Mutex<Script>>,
    credential: Credential,
    stop: watch::Sender<Option<Ending>>,
    task: JoinHandle<Legacy>,
    began: Instant,
}

/// What differs between tests.
struct Setting {
    answers: Vec<Answer>,
    always: fn() -> Answer,
    traits: Traits,
    takes: Duration,
    idle_after: Option<Duration>,
    rotation: Rotation,
    sharing: Option<Sharing>,
    revoke_on_shutdown: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            answers: Vec::new(),
            always: || Answer::Token(seconds(86_400.0)),
            traits: Traits::default(),
            takes: Duration::from_millis(5),
            idle_after: None,
            rotation: Rotation::new(None, None),
            sharing: None,
            revoke_on_shutdown: false,
        }
    }
}

/// A refresher that does not run yet, what its source answers, and the readers' end.
fn build(setting: Setting) -> (Refresher<Scripted>, Arc<Mutex<Script>>, Credential) {
    let script = Arc::new(Mutex::new(Script {
        answers: setting.answers.into(),
        always: Box::new(setting.always),
        takes: setting.takes,
        traits: setting.traits,
        fetches: Vec::new(),
        inputs: 0,
        looks: 0,
        revoked: 0,
        certificate: None,
    }));
    let (publisher, credential) = publish("c", 1024);
    let refresher = Refresher {
        name: "c".to_owned(),
        source: Scripted(Arc::clone(&script)),
        rotation: setting.rotation,
        sharing: setting.sharing,
        past: Past::default(),
        publisher,
        policy: RefreshPolicy {
            min_interval: SECOND,
            default_lifetime: seconds(300.0),
            idle_after: setting.idle_after,
        },
        revoke_on_shutdown: setting.revoke_on_shutdown,
        remedy: None,
        metrics: Metrics::new().unwrap().credential("c"),
        entropy: || 0.5,
    };
    (refresher, script, credential)
}

impl Bench {
    fn run(setting: Setting) -> Self {
        Self::run_after(setting, None)
    }

    /// A refresher that goes on where another one ended.
    #[allow(clippy::disallowed_methods)] // a test is a composition root of its own
    fn run_after(setting: Setting, legacy: Option<Legacy>) -> Self {
        let (mut refresher, script, credential) = build(setting);
        if let Some(legacy) = legacy {
            refresher.inherit(legacy);
        }
        let (stop, stopped) = watch::channel(None);
        let began = Moment::now().mono;
        Self { script, credential, stop, task: tokio::spawn(refresher.run(stopped)), began }
    }

    /// Ends it in favour of another one.
    async fn give_way(self) -> Legacy {
        self.stop.send_replace(Some(Ending::Succeeded));
        self.task.await.unwrap()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn fetches(&self) -> usize {
        self.script().fetches.len()
    }

    /// When the fetches were made, in seconds since the start.
    fn times(&self) -> Vec<f64> {
        let times = self.script();
        times.fetches.iter().map(|fetch| (fetch.at - self.began).as_secs_f64()).collect()
    }

    fn bearer(&self) -> Option<Held> {
        self.credential.bearer(Moment::now(), &Scheme::Bearer)
    }

    /// A request that finds no token and waits for one.
    async fn waits(&self, patience: Duration) -> Result<Held, Unavailable> {
        let deadline = Moment::now().mono + patience;
        self.credential.newer_than(self.generation(), deadline, &Scheme::Bearer).await
    }

    fn generation(&self) -> u64 {
        self.credential.outlook().generation
    }

    fn activity(&self) -> Activity {
        self.credential.outlook().activity
    }

    /// A secret was replaced on disk.
    fn replace_inputs(&self) {
        self.script().inputs += 1;
    }

    /// Looks at the inputs so far. A source that is watched is looked at on each round of the
    /// loop, but not more than five times a second.
    fn looks(&self) -> usize {
        self.script().looks
    }
}

fn failure(class: Class, reason: Reason) -> Answer {
    Answer::Fails(FetchError::new(class, reason))
}

fn refusal() -> Answer {
    failure(Class::Terminal, Reason::BadGrant)
}

fn outage() -> Answer {
    failure(Class::Transient, Reason::Server)
}

/// The request went out and no answer came back.
fn lost() -> Answer {
    Answer::Fails(FetchError {
        ambiguous: true,
        ..FetchError::new(Class::Transient, Reason::Timeout)
    })
}

fn rotating() -> Traits {
    Traits { rotating: true, rotation_expected: true, ..Traits::default() }
}

fn watched() -> Traits {
    Traits { watched: true, ..Traits::default() }
}
