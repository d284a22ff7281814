//! The refresher among others that use the same refresh token: it asks before it fetches, tells what
//! came of it, and takes over what others have fetched. How they agree is the store's business.

use std::time::Duration;

use tracing::{error, info, warn};

use super::memory::Memory;
use super::permit::Permit;
use super::{Refresher, Trigger};
use crate::clock::Moment;
use crate::credential::{Activity, LastOutcome};
use crate::schedule;
use crate::secret::Secret;
use crate::source::{Class, FetchError, Reason, TokenSource};
use crate::store::Record;
use crate::store::shared::document::{Dead, Document};
use crate::store::shared::protocol::{Claim, Outcome, Rest, Sends, Verdict};
use crate::store::shared::{Agreement, RegisterError};
use crate::telemetry::chain;

/// How often the store is looked at while somebody else fetches, or something is owed to it.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// How often leave to fetch is asked for again while somebody else fetches.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The others, and how they are heard of.
pub struct Sharing {
    agreement: Agreement,
    look_at: Moment,
    /// The store could not be used, and that was told, with whether a person is needed.
    down: Option<bool>,
}

impl Sharing {
    /// By that agreement.
    #[must_use]
    pub fn by(agreement: Agreement) -> Self {
        Self { agreement, look_at: Moment::now(), down: None }
    }

    /// What this process calls itself in the store.
    pub(super) fn holder(&self) -> &str {
        self.agreement.holder()
    }

    /// Goes on for a refresher whose tokens were shared as `former` says, if they were. What it held
    /// moves to another store, at the first look at that.
    pub(super) fn inherit(&mut self, former: Option<Self>, held: Option<&Record>) {
        match former {
            Some(former) if self.agreement.is_at(&former.agreement) => {
                self.agreement.inherit(former.agreement);
            }
            _ => held.into_iter().for_each(|held| self.agreement.move_in(held.clone())),
        }
    }

    pub(super) fn look_at(&self) -> Moment {
        self.look_at
    }

    /// Returns when the others have written something.
    pub(super) async fn changed(sharing: &mut Option<Self>) {
        match sharing {
            Some(sharing) => {
                sharing.agreement.changed().await;
                sharing.look_at = Moment::now();
            }
            None => std::future::pending().await,
        }
    }
}

impl<S: TokenSource> Refresher<S> {
    /// Asks the others for leave to fetch.
    pub(super) async fn agree(&mut self, memory: &mut Memory, trigger: Trigger) -> Option<Permit> {
        let configured = self.rotation.configured();
        // Whoever was just started may have been given something else.
        let hasty = trigger == Trigger::Changed || !std::mem::replace(&mut memory.asked, true);
        let sharing = self.sharing.as_mut()?;
        let verdict = sharing.agreement.claim(Claim { configured, hasty }).await;
        let call = match self.heard(memory, verdict)? {
            Verdict::Call(call) => call,
            Verdict::Adopt(document) => {
                self.adopt(memory, *document);
                return None;
            }
            Verdict::Rest(rest) => {
                self.rest(memory, rest);
                return None;
            }
        };
        memory.failures = memory.failures.max(call.failures);
        match self.to_send(call.sends) {
            Ok(refresh_token) => {
                let (in_doubt, until) = (call.in_doubt, Some(call.until));
                Some(Permit { refresh_token, in_doubt, until })
            }
            Err(error) => {
                self.fail(memory, trigger, &error, Duration::ZERO);
                self.tell(memory, Outcome::Failed(None)).await;
                None
            }
        }
    }

    fn to_send(&self, sends: Sends) -> Result<Option<Secret>, FetchError> {
        match sends {
            Sends::Nothing => Ok(None),
            Sends::Stored(secret) => Ok(Some(secret)),
            Sends::Configured(digest) => match self.rotation.configured_as(&digest)? {
                Some(secret) => Ok(Some(secret)),
                // Replaced between two looks at it.
                None => Err(FetchError::new(Class::Transient, Reason::Input)),
            },
        }
    }

    /// Tells the others of new tokens; true if what they have is newer, and was taken over.
    pub(super) async fn tell_success(&mut self, memory: &mut Memory) -> bool {
        let Some(record) = self.rotation.record().filter(|_| self.sharing.is_some()) else {
            return false;
        };
        let record = Box::new(record.clone());
        self.tell(memory, Outcome::Renewed(record)).await
    }

    /// Tells the others of a failure: what it means for the refresh token, and when to go on.
    pub(super) async fn tell_failure(
        &mut self,
        memory: &mut Memory,
        error: &FetchError,
        sent: bool,
    ) {
        if self.sharing.is_none() {
            return;
        }
        let refused = matches!(error.reason, Reason::BadGrant | Reason::NeedsOperator);
        let (now, failures) = (Moment::now(), memory.failures);
        let next = memory.activity.next_attempt().map(|at| (at.remaining(now), failures));
        let outcome = if error.rotated.is_some() {
            self.tell_success(memory).await;
            return;
        } else if error.gave_up && sent {
            Outcome::Refused(next)
        } else if error.class == Class::Terminal && refused && sent {
            Outcome::Refused(None)
        } else if error.ambiguous {
            Outcome::Lost
        } else {
            Outcome::Failed(next)
        };
        self.tell(memory, outcome).await;
    }

    async fn tell(&mut self, memory: &mut Memory, outcome: Outcome) -> bool {
        let Some(sharing) = &mut self.sharing else { return false };
        let new = matches!(outcome, Outcome::Renewed(_));
        let verdict = sharing.agreement.answered(outcome).await;
        sharing.look_at = Moment::now().plus(LOOK_SOON);
        if new {
            let unsynced = sharing.agreement.unsynced();
            self.metrics.store_write(!unsynced, unsynced);
            if unsynced {
                error!(credential = self.name, "the new refresh token is in memory only");
            }
        }
        match self.heard(memory, verdict) {
            Some(Verdict::Adopt(document)) => self.adopt(memory, *document),
            _ => false,
        }
    }

    /// Nothing came of what was claimed, and nothing will.
    pub(super) async fn give_up(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            // What cannot be written now is written at the end, or its time passes.
            let _ = sharing.agreement.answered(Outcome::Failed(None)).await;
        }
    }

    /// Looks at what the others did, and writes what is owed to them, if it is time.
    pub(super) async fn follow(&mut self, memory: &mut Memory) {
        let now = Moment::now();
        let Some(sharing) = self.sharing.as_mut().filter(|s| s.look_at.reached(now)) else {
            return;
        };
        let owed = sharing.agreement.unsynced();
        let verdict = sharing.agreement.look().await;
        let soon = memory.held_up.is_some() || sharing.agreement.unsettled();
        let usual = sharing.agreement.look_every();
        sharing.look_at = Moment::now().plus(if soon { LOOK_SOON } else { usual });
        let unsynced = sharing.agreement.unsynced();
        if owed {
            self.metrics.store_write(!unsynced, unsynced);
        }
        match self.heard(memory, verdict) {
            Some(Verdict::Adopt(document)) => {
                self.adopt(memory, *document);
            }
            Some(Verdict::Rest(rest @ Rest::Dead(_))) if memory.over != Some(rest) => {
                self.rest(memory, rest);
            }
            _ => {}
        }
    }

    /// True while something is owed to the others that could not be written now.
    pub(super) async fn owes_the_others(&mut self) -> bool {
        match &mut self.sharing {
            Some(sharing) if sharing.agreement.unsettled() => {
                let _ = sharing.agreement.look().await;
                sharing.agreement.unsettled()
            }
            _ => false,
        }
    }

    /// A verdict, or what follows from there being none: the token at hand goes on, and nothing is
    /// fetched.
    fn heard(
        &mut self,
        memory: &mut Memory,
        verdict: Result<Verdict, RegisterError>,
    ) -> Option<Verdict> {
        let sharing = self.sharing.as_mut()?;
        let error = match verdict {
            Ok(verdict) => {
                if sharing.down.take().is_some() {
                    info!(credential = self.name, "token store available again");
                }
                return Some(verdict);
            }
            Err(error) => error,
        };
        let text = chain(&error);
        let needs_operator = matches!(error, RegisterError::Unusable { .. });
        if sharing.down.replace(needs_operator) != Some(needs_operator) {
            error!(credential = self.name, error = text, "token store not available");
        }
        let now = Moment::now();
        if matches!(memory.activity, Activity::Fetching) {
            let next = now.plus(Duration::from_secs_f64(1.0 + (self.entropy)()));
            self.say(memory, Activity::BackingOff(next), format!("store: {text}"), needs_operator);
        }
        None
    }

    /// Takes over what somebody else has fetched; true if its token is in force now.
    fn adopt(&mut self, memory: &mut Memory, document: Document) -> bool {
        let Some(record) = document.record else { return false };
        let now = Moment::now();
        self.rotation.adopt(record, &document.begun);
        (memory.failures, memory.over, memory.held_up) = (0, None, None);
        let Some(token) = self.rotation.restored(now) else {
            // Not one that is wanted here, or spent: the next one is to be fetched.
            let paused = matches!(memory.activity, Activity::Refused(_) | Activity::BackingOff(_));
            if paused || !memory.token.as_ref().is_some_and(|token| token.usable(now)) {
                memory.activity = Activity::Fetching;
                self.publisher.activity(Activity::Fetching);
            }
            return false;
        };
        self.publish(memory, token, Duration::ZERO);
        self.metrics.adopted();
        let generation = self.publisher.generation();
        info!(
            credential = self.name,
            generation,
            shared_generation = document.generation,
            "token adopted"
        );
        true
    }

    /// Does nothing now, for that reason.
    fn rest(&mut self, memory: &mut Memory, rest: Rest) {
        let now = Moment::now();
        let (until, detail) = match rest {
            Rest::Settled => (now.plus(LOOK_SOON), ""),
            Rest::Busy(until) | Rest::New(until) => (until, ""),
            Rest::Paused(until) => (until, "another process failed, too: waiting on"),
            Rest::Doubtful(until) => {
                (until, "the refresh token may be spent: the token is used up")
            }
            Rest::Dead(_) | Rest::Foreign => {
                return self.end(memory, rest, now);
            }
        };
        if detail.is_empty() {
            // A token may come at any moment: those who wait go on waiting.
            memory.activity = Activity::Fetching;
            memory.held_up = Some(now.plus(until.remaining(now).min(ASK_EVERY)));
            if let Some(sharing) = &mut self.sharing {
                sharing.look_at = now.plus(LOOK_SOON);
            }
            return;
        }
        if !matches!(rest, Rest::Paused(_)) {
            warn!(credential = self.name, "{detail}");
        }
        self.say(memory, Activity::BackingOff(until), detail.to_owned(), false);
    }

    /// Only a person can mend it.
    fn end(&mut self, memory: &mut Memory, rest: Rest, now: Moment) {
        let detail = match rest {
            Rest::Dead(Dead::Refused) => {
                "the refresh token was refused, and nobody sends it again: sign in again"
            }
            Rest::Dead(Dead::Lost) => {
                "the store went back to an older state: which refresh token is the newest is not \
                 known, and none is sent; sign in again"
            }
            _ => "the store holds another account's tokens: not used",
        };
        if memory.over != Some(rest) {
            error!(credential = self.name, needs_operator = true, "{detail}");
            memory.over = Some(rest);
        }
        let pause = schedule::terminal_retry_at(now, None, Duration::ZERO, (self.entropy)());
        // While its token lives, a credential has all that it needs but a future.
        self.say(memory, Activity::Refused(pause), detail.to_owned(), true);
    }

    fn say(&self, memory: &mut Memory, next: Activity, detail: String, needs_operator: bool) {
        memory.activity = next;
        memory.held_up = None;
        self.metrics.needs_operator(needs_operator);
        let outcome = if needs_operator { "terminal" } else { "transient" };
        let remedy = self.remedy.clone().filter(|_| needs_operator);
        let detail = Some(detail);
        let at = Moment::now();
        let last = LastOutcome { at, outcome, detail, needs_operator, remedy };
        self.publisher.settle(last, next);
    }
}
