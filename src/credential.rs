//! One credential: a single writer publishes tokens, any number of readers look.
//!
//! [`publish`] makes the two ends. The refresher holds the [`Publisher`]; routes hold the
//! [`Credential`]. Looking costs one atomic load and a comparison with the clock; nothing here ever
//! fetches. Readers that need another token than the present one wait, bounded, for a newer
//! *generation*; a 401 is told to the writer as a *nudge* that names the generation it refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::clock::Moment;
use crate::token::AccessToken;

mod bearer;
pub mod directory;
pub mod sign;

use bearer::Bearer;
pub use bearer::{Bound, Held, Scheme};

/// Makes the two ends of a credential, with no token yet. At most `max_waiters` requests wait for it
/// at the same time; further ones are refused at once.
#[must_use]
pub fn publish(name: &str, max_waiters: usize) -> (Publisher, Credential) {
    let shared = Arc::new(Shared {
        name: name.to_owned(),
        bearer: ArcSwapOption::empty(),
        outlook: watch::Sender::new(Outlook::default()),
        wake: Notify::new(),
        refused: AtomicU64::new(0),
        wanted: AtomicU64::new(0),
        used: AtomicBool::new(false),
        waiters: AtomicUsize::new(0),
        max_waiters,
    });
    (Publisher(Arc::clone(&shared)), Credential(shared))
}

struct Shared {
    name: String,
    bearer: ArcSwapOption<Bearer>,
    outlook: watch::Sender<Outlook>,
    wake: Notify,
    /// The newest generation that an upstream refused; 0 = none.
    refused: AtomicU64,
    /// How often a reader found no usable token: tells the writer that somebody waits.
    wanted: AtomicU64,
    /// Set by readers, cleared by the writer: was the token used since it last asked?
    used: AtomicBool,
    waiters: AtomicUsize,
    max_waiters: usize,
}

/// What the writer is up to, for those who wait and for `/status`.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// Counts published tokens from 1; 0 = none yet. Never decreases.
    pub generation: u64,
    /// Expiry of the current token.
    pub expires_at: Option<Moment>,
    /// When the current token's refresh was scheduled.
    pub refresh_at: Option<Moment>,
    /// The storm guard: until then a 401 causes no refresh, and waiting for one is pointless.
    pub barred_until: Option<Moment>,
    /// What the writer does now.
    pub activity: Activity,
    /// How the last attempt ended; `None` before the first has.
    pub last: Option<LastOutcome>,
}

/// What the writer of a credential does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// A fetch is under way, or about to be.
    #[default]
    Fetching,
    /// Asleep until then; the last attempt succeeded or there was none.
    Scheduled(Moment),
    /// Backing off until then after a failure that may pass.
    BackingOff(Moment),
    /// Pausing until then after the identity provider said no.
    Refused(Moment),
}

impl Activity {
    /// When the next attempt starts, if not now.
    #[must_use]
    pub fn next_attempt(self) -> Option<Moment> {
        match self {
            Self::Fetching => None,
            Self::Scheduled(at) | Self::BackingOff(at) | Self::Refused(at) => Some(at),
        }
    }
}

/// How the last attempt ended, in words that are safe to show.
#[derive(Clone, Debug)]
pub struct LastOutcome {
    /// When it ended.
    pub at: Moment,
    /// `ok`, `transient` or `terminal`.
    pub outcome: &'static str,
    /// What went wrong, from closed sets; `None` after success.
    pub detail: Option<String>,
    /// A person has to act.
    pub needs_operator: bool,
    /// The command by which that person mends it, if there is one.
    pub remedy: Option<String>,
}

impl LastOutcome {
    /// One that there is nothing more to say about.
    #[must_use]
    pub fn of(outcome: &'static str, at: Moment) -> Self {
        Self { at, outcome, detail: None, needs_operator: false, remedy: None }
    }
}

/// Why a request gets no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// How long to wait before asking again makes sense.
    pub retry_after: Duration,
}

/// The readers' end.
#[derive(Clone)]
pub struct Credential(Arc<Shared>);

impl Credential {
    /// The name from the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The current token if it is usable at `now`, rendered for `scheme`.
    #[must_use]
    pub fn bearer(&self, now: Moment, scheme: &Scheme) -> Option<Held> {
        // Read first: a store by every request would bounce the cache line between threads.
        if !self.0.used.load(Ordering::Relaxed) {
            self.0.used.store(true, Ordering::Relaxed);
        }
        self.unused(now, scheme)
    }

    /// The same for those who only look, and use it for nothing.
    #[must_use]
    pub fn unused(&self, now: Moment, scheme: &Scheme) -> Option<Held> {
        self.0.bearer.load().as_ref()?.held(now, scheme)
    }

    /// Reports that an upstream refused the token of `generation`. Any number of reports about one
    /// generation cause at most one refresh.
    pub fn nudge(&self, generation: u64) {
        if self.0.refused.fetch_max(generation, Ordering::Relaxed) < generation {
            self.0.wake.notify_one();
        }
    }

    /// Reports that an upstream refused the token of `generation` and waits for its replacement.
    ///
    /// # Errors
    /// As [`Self::newer_than`]; and at once while the storm guard holds, that is when fresh tokens
    /// are being refused one after the other and another one would not help.
    pub async fn replacement(
        &self,
        generation: u64,
        deadline: Instant,
        scheme: &Scheme,
    ) -> Result<Held, Unavailable> {
        let now = Moment::now();
        if let Some(held) = self.bearer(now, scheme).filter(|held| held.generation > generation) {
            return Ok(held);
        }
        self.nudge(generation);
        let barred = self.0.outlook.borrow().barred_until.filter(|until| !until.reached(now));
        match barred {
            Some(until) => Err(Unavailable { retry_after: until.remaining(now) }),
            None => self.newer_than(generation, deadline, scheme).await,
        }
    }

    /// Asks the writer to look again at what its token comes from: something on disk changed.
    pub fn look_again(&self) {
        self.0.wake.notify_one();
    }

    /// Waits until `deadline` for a usable token of a generation above `generation`.
    ///
    /// # Errors
    /// [`Unavailable`] when too many wait already, when the writer will not try again before
    /// `deadline`, or at `deadline`.
    pub async fn newer_than(
        &self,
        generation: u64,
        deadline: Instant,
        scheme: &Scheme,
    ) -> Result<Held, Unavailable> {
        let _place = Waiting::enter(&self.0.waiters, self.0.max_waiters)
            .ok_or(Unavailable { retry_after: Duration::from_secs(1) })?;
        let mut outlook = self.0.outlook.subscribe();
        self.0.wanted.fetch_add(1, Ordering::Relaxed);
        self.0.wake.notify_one();
        let settled = outlook.wait_for(|outlook| {
            let now = Moment::now();
            let here = outlook.generation > generation
                && outlook.expires_at.is_some_and(|at| !at.reached(now));
            here || hopeless(outlook, now, deadline)
        });
        let _ = timeout_at(deadline, settled).await;
        let now = Moment::now();
        self.bearer(now, scheme)
            .filter(|held| held.generation > generation)
            .ok_or_else(|| self.unavailable(now))
    }

    /// What the writer is up to.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        self.0.outlook.borrow().clone()
    }

    /// Wakes at every change of [`Self::outlook`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Outlook> {
        self.0.outlook.subscribe()
    }

    fn unavailable(&self, now: Moment) -> Unavailable {
        let next = self.0.outlook.borrow().activity.next_attempt();
        let wait = next.map_or(Duration::ZERO, |at| at.remaining(now));
        Unavailable { retry_after: wait.max(Duration::from_secs(1)) }
    }
}

/// True if no attempt can end before `deadline`: the writer sleeps past it after a failure.
fn hopeless(outlook: &Outlook, now: Moment, deadline: Instant) -> bool {
    match outlook.activity {
        Activity::Refused(_) => true,
        Activity::BackingOff(at) => now.mono + at.remaining(now) >= deadline,
        Activity::Fetching | Activity::Scheduled(_) => false,
    }
}

/// One place among those who wait, given back on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer's end. There is one per credential and it cannot be cloned.
pub struct Publisher(Arc<Shared>);

impl Publisher {
    /// Makes `token` the current one, under the next generation, and wakes those who wait. What was
    /// there before, lent by a former writer, is not another one.
    pub fn publish(&self, token: &AccessToken, refresh_at: Moment) {
        let lent = self.0.bearer.load().as_ref().and_then(|bearer| bearer.of_its_own(token));
        if let Some(bearer) = lent {
            self.0.bearer.store(Some(Arc::new(bearer)));
            return self.0.outlook.send_modify(|outlook| {
                outlook.expires_at = Some(token.expires_at());
                outlook.refresh_at = Some(refresh_at);
            });
        }
        let generation = self.generation() + 1;
        self.0.bearer.store(Some(Arc::new(Bearer::new(token, generation))));
        self.0.outlook.send_modify(|outlook| {
            outlook.generation = generation;
            outlook.expires_at = Some(token.expires_at());
            outlook.refresh_at = Some(refresh_at);
        });
    }

    /// Begins with the token that `former` has in force, if it is usable: requests go on with it until
    /// the writer, which waits for the former one to end, publishes.
    pub fn begin_with(&self, former: &Credential) {
        let (before, now) = (former.outlook(), Moment::now());
        let bearer = former.0.bearer.load();
        let Some(bearer) = bearer.as_ref().filter(|bearer| bearer.usable(now)) else { return };
        self.0.bearer.store(Some(Arc::new(bearer.lent())));
        self.0.outlook.send_modify(|outlook| {
            (outlook.generation, outlook.expires_at) = (1, before.expires_at);
            outlook.refresh_at = before.refresh_at;
        });
    }

    /// Says what the writer does now.
    pub fn activity(&self, activity: Activity) {
        self.0.outlook.send_if_modified(|outlook| {
            let changed = outlook.activity != activity;
            outlook.activity = activity;
            changed
        });
    }

    /// Says how an attempt ended and what comes next, in one step, so that nobody who waits sees
    /// the one without the other.
    pub fn settle(&self, last: LastOutcome, activity: Activity) {
        self.0.outlook.send_modify(|outlook| {
            outlook.last = Some(last);
            outlook.activity = activity;
        });
    }

    /// What the last attempt came to, if not to a token.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        self.0.outlook.borrow().last.as_ref()?.detail.clone()
    }

    /// Sets the storm guard.
    pub fn bar(&self, until: Option<Moment>) {
        self.0.outlook.send_modify(|outlook| outlook.barred_until = until);
    }

    /// Whether any request used the token since the last call.
    #[must_use]
    pub fn take_used(&self) -> bool {
        self.0.used.swap(false, Ordering::Relaxed)
    }

    /// The current generation; 0 before the first token.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.outlook.borrow().generation
    }

    /// The newest generation that an upstream refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// How many requests have found no usable token so far.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.0.wanted.load(Ordering::Relaxed)
    }

    /// Returns when a reader nudged, waits, or asked to look again since the last call.
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn token(text: &str, life: u64) -> AccessToken {
        let life = Duration::from_secs(life);
        AccessToken::new(Secret::new(text.into()), Moment::now(), life).unwrap()
    }

    fn give(publisher: &Publisher, text: &str, life: u64) {
        let token = token(text, life);
        publisher.publish(&token, token.expires_at());
    }

    fn soon() -> Instant {
        Moment::now().mono + Duration::from_secs(5)
    }

    #[test]
    fn a_token_is_rendered_for_each_scheme_and_marked_sensitive() {
        let (publisher, credential) = publish("c", 16);
        give(&publisher, "tok", 60);
        for (scheme, line) in [
            (Scheme::Bearer, "Bearer tok"),
            (Scheme::Bare, "tok"),
            (Scheme::Other("OAuth".into()), "OAuth tok"),
        ] {
            let held = credential.bearer(Moment::now(), &scheme).unwrap();
            assert_eq!(held.value, line);
            assert!(held.value.is_sensitive());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_not_given() {
        let (publisher, credential) = publish("c", 16);
        assert!(credential.bearer(Moment::now(), &Scheme::Bearer).is_none());
        give(&publisher, "tok", 10);
        assert!(credential.bearer(Moment::now(), &Scheme::Bearer).is_some());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(credential.bearer(Moment::now(), &Scheme::Bearer).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_get_the_next_generation() {
        let (publisher, credential) = publish("c", 16);
        give(&publisher, "one", 60);
        let (deadline, scheme) = (soon(), Scheme::Bare);
        let waiting = credential.newer_than(1, deadline, &scheme);
        let publishing = async {
            publisher.woken().await;
            give(&publisher, "two", 60);
        };
        let (held, ()) = tokio::join!(waiting, publishing);
        let held = held.unwrap();
        assert_eq!((held.value.as_bytes(), held.generation), (&b"two"[..], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_answer_ends_waiting_at_once() {
        let (publisher, credential) = publish("c", 16);
        let next = Moment::now().plus(Duration::from_mins(5));
        publisher.activity(Activity::Refused(next));
        let before = Moment::now().mono;
        let error = credential.newer_than(0, soon(), &Scheme::Bare).await.err().unwrap();
        assert_eq!(error.retry_after.as_secs().div_ceil(10), 30);
        assert_eq!(Moment::now().mono, before);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_in_time_and_number() {
        let (_publisher, credential) = publish("c", 16);
        let deadline = soon();
        let crowd: Vec<_> = (0..16)
            .map(|_| {
                let credential = credential.clone();
                async move { credential.newer_than(0, deadline, &Scheme::Bare).await.is_err() }
            })
            .map(Box::pin)
            .collect();
        let mut crowd = tokio::task::JoinSet::from_iter(crowd);
        while credential.0.waiters.load(Ordering::Relaxed) < 16 {
            tokio::task::yield_now().await;
        }
        let before = Moment::now().mono;
        assert!(credential.newer_than(0, deadline, &Scheme::Bare).await.is_err());
        assert_eq!(Moment::now().mono, before, "one too many is refused at once");
        while let Some(refused) = crowd.join_next().await {
            assert!(refused.unwrap());
        }
        let late = Moment::now().mono.duration_since(deadline);
        assert!(late < Duration::from_millis(5), "timers tick in milliseconds: {late:?}");
        assert_eq!(credential.0.waiters.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_has_the_former_token_while_that_is_usable() {
        let (publisher, former) = publish("c", 16);
        give(&publisher, "one", 60);
        give(&publisher, "two", 60);
        let (successor, credential) = publish("d", 16);
        successor.begin_with(&former);
        let held = credential.bearer(Moment::now(), &Scheme::Bearer).unwrap();
        assert_eq!((held.value.as_bytes(), held.generation), (&b"Bearer two"[..], 1));
        // Taken over it is still the same one, and published by itself another one.
        for generation in [1, 2] {
            give(&successor, "two", 60);
            assert_eq!(credential.outlook().generation, generation);
        }
        // A refusal of the former is not one of what follows.
        credential.nudge(2);
        give(&successor, "three", 60);
        let held = credential.bearer(Moment::now(), &Scheme::Bare).unwrap();
        assert_eq!((held.value.as_bytes(), held.generation), (&b"three"[..], 3));
        assert!(successor.refused() < successor.generation());
        tokio::time::advance(Duration::from_mins(1)).await;
        let (late, credential) = publish("e", 16);
        late.begin_with(&former);
        assert_eq!(credential.outlook().generation, 0, "an expired one is none");
    }

    #[test]
    fn nudges_about_one_generation_count_once() {
        let (publisher, credential) = publish("c", 16);
        credential.nudge(3);
        credential.nudge(2);
        assert_eq!(publisher.refused(), 3);
    }
}
