//! The loop that keeps one credential fresh: fetch, store, publish, sleep.
//!
//! It is the credential's only writer and never ends before shutdown. It decides *whether and why*
//! to fetch; `schedule` says when, the source says how, the store comes before the publication.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use crate::clock::{Moment, epoch_seconds};
use crate::credential::{Activity, LastOutcome, Publisher};
use crate::metrics::CredentialMetrics;
use crate::schedule::{self, RefreshPolicy};
use crate::secret::Secret;
use crate::source::{Attempt, FetchError, Fetched, TokenSource};
use crate::store::Rotation;
use crate::telemetry::chain;
use crate::token::AccessToken;

mod legacy;
mod login;
mod memory;
mod once;
mod permit;
mod sharing;
mod storing;
mod storm;

pub use legacy::{Legacy, Past};
use memory::Memory;
pub use once::OnceError;
use permit::Permit;
pub use sharing::Sharing;

/// The longest sleep: what can change without waking the loop (files, the wall clock) is looked at
/// this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a fetch was made; the `trigger` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// No token yet.
    Startup,
    /// Its time had come, or requests waited.
    Scheduled,
    /// An upstream refused the current token.
    Unauthorized,
    /// A secret or token file changed.
    Changed,
}

impl Trigger {
    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Scheduled => "scheduled",
            Self::Unauthorized => "unauthorized",
            Self::Changed => "changed",
        }
    }
}

/// How a refresher is to end.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// The process ends: what must not be lost may take until then, and the token is revoked if
    /// that was asked for.
    Process(Moment),
    /// The credential is no longer configured: the same, but nothing is revoked.
    Removed(Moment),
    /// A successor that keeps its refresh token elsewhere goes on: the same.
    Replaced(Moment),
    /// A successor takes the [`Rotation`] over as it is.
    Succeeded,
}

/// Holds an [`Ending`] from when the refresher is to end.
pub type Stop = watch::Receiver<Option<Ending>>;

/// The writer of one credential.
pub struct Refresher<S> {
    /// For logs.
    pub name: String,
    /// Where tokens come from.
    pub source: S,
    /// The refresh token and its store.
    pub rotation: Rotation,
    /// The others that use the same refresh token, if there may be any.
    pub sharing: Option<Sharing>,
    /// Of those before this one.
    pub past: Past,
    /// The writer's end of the credential.
    pub publisher: Publisher,
    /// Intervals from the configuration.
    pub policy: RefreshPolicy,
    /// Revoke the access token at the end.
    pub revoke_on_shutdown: bool,
    /// The command by which a person signs in, where that is possible.
    pub remedy: Option<String>,
    /// Counters and gauges of this credential.
    pub metrics: Arc<CredentialMetrics>,
    /// Uniform in `0.0..1.0`, different in every process.
    pub entropy: fn() -> f64,
}

impl<S: TokenSource> Refresher<S> {
    /// Runs until `stop`. A refresh that may rotate is finished first, and a store that lags behind
    /// is written, both within the grace that `stop` carries. Returns what a successor needs.
    pub async fn run(mut self, mut stop: Stop) -> Legacy {
        let mut past = std::mem::take(&mut self.past);
        if self.open_store(&mut stop).await {
            let mut memory = self.resume(past);
            while let Some(trigger) = self.next_trigger(&mut memory, &mut stop).await {
                if !self.attempt(&mut memory, trigger, &mut stop).await {
                    break;
                }
            }
            past = memory.into();
        }
        self.finish(past.token.as_ref(), &stop).await;
        Legacy { rotation: self.rotation, sharing: self.sharing, past }
    }

    /// Sleeps until there is a reason to fetch; `None` when stopped.
    async fn next_trigger(&mut self, memory: &mut Memory, stop: &mut Stop) -> Option<Trigger> {
        loop {
            if stop.borrow().is_some() {
                return None;
            }
            self.sync(memory, Moment::now());
            self.follow(memory).await;
            let now = Moment::now();
            if self.take_up_login(memory, now) {
                return Some(Trigger::Changed);
            }
            if let Some(trigger) = self.due(memory, now) {
                return Some(trigger);
            }
            let storm = memory.storm.clears_at().filter(|_| self.refused_now());
            let sync = self.rotation.unsynced().then_some(memory.sync_at);
            let look = self.sharing.as_ref().map(Sharing::look_at);
            let rested = memory.attempted_at.map(|at| at.plus(self.policy.min_interval));
            let next = [memory.activity.next_attempt(), memory.held_up, storm, sync, look, rested];
            let next = next.into_iter().flatten();
            // What was reached without being a reason to fetch is none soon.
            let next = next.filter(|at| !at.reached(now)).map(|at| at.remaining(now)).min();
            // At least a millisecond: a wall clock that jitters around `next` must not spin.
            let next = next.map_or(LOOK_EVERY, |wait| wait.max(Duration::from_millis(1)));
            let wake = now.mono + next.min(LOOK_EVERY);
            tokio::select! {
                () = sleep_until(wake) => {}
                () = self.publisher.woken() => {}
                () = Sharing::changed(&mut self.sharing) => {}
                _ = stop.changed() => return None,
            }
        }
    }

    /// The reason to fetch now, if there is one.
    fn due(&mut self, memory: &mut Memory, now: Moment) -> Option<Trigger> {
        if self.publisher.take_used() {
            memory.used_at = now;
        }
        let wanted = std::mem::replace(&mut memory.wanted, self.publisher.wanted());
        let waited_for = wanted != memory.wanted;
        let usable = memory.token.as_ref().is_some_and(|token| token.usable(now));
        if self.inputs_changed(memory, now, usable) {
            return Some(Trigger::Changed);
        }
        let ordinary = if memory.token.is_none() { Trigger::Startup } else { Trigger::Scheduled };
        match memory.activity {
            Activity::Fetching => {
                memory.held_up.is_none_or(|until| until.reached(now)).then_some(ordinary)
            }
            // Never around a backoff or a pause: the identity provider is in trouble, or said no.
            Activity::BackingOff(at) => at.reached(now).then_some(ordinary),
            Activity::Refused(at) => {
                (at.reached(now) && !memory.traits.one_time).then_some(ordinary)
            }
            Activity::Scheduled(at) => {
                if self.refused_now() && memory.storm.allows(now) {
                    return Some(Trigger::Unauthorized);
                }
                let lapsing = !waited_for && self.lapsing(memory, now);
                // A token that ended before its time to refresh: still not within the interval.
                let wanted = waited_for && !usable && memory.rested(now, &self.policy);
                ((at.reached(now) && !lapsing) || wanted).then_some(ordinary)
            }
        }
    }

    /// An upstream refused the current generation.
    fn refused_now(&self) -> bool {
        let generation = self.publisher.generation();
        generation > 0 && self.publisher.refused() >= generation
    }

    /// No request used the token for longer than the policy pays for.
    fn lapsing(&self, memory: &Memory, now: Moment) -> bool {
        self.policy.idle_after.is_some_and(|idle| memory.used_at.plus(idle).reached(now))
    }

    /// What the source reads is different from what the last attempt read, and that matters: the
    /// token itself is read there, or the last answer was no. One that lapses needs nothing.
    fn inputs_changed(&self, memory: &mut Memory, now: Moment, usable: bool) -> bool {
        let failed = match memory.activity {
            Activity::Fetching => return false,
            Activity::Scheduled(_) => false,
            Activity::BackingOff(_) => !usable,
            Activity::Refused(_) => true,
        };
        let (watched, bound) = (memory.traits.watched, usable && memory.certificate.is_some());
        if !(watched || ((failed || bound) && memory.rested(now, &self.policy))) {
            return false;
        }
        // Many requests may wake the loop; the disk is not read for each of them.
        if !memory.inputs_seen_at.plus(Duration::from_millis(200)).reached(now) {
            return false;
        }
        memory.inputs_seen_at = now;
        // RFC 8705 §3: a token that is bound to the former certificate is of no use with another.
        let shown = self.source.certificate().filter(|_| bound);
        let rebound = shown.is_some() && shown != memory.certificate;
        rebound || ((watched || failed) && self.source.inputs() != memory.inputs)
    }

    /// Makes one attempt and settles what follows; false if it was abandoned because of `stop`.
    async fn attempt(&mut self, memory: &mut Memory, trigger: Trigger, stop: &mut Stop) -> bool {
        let now = Moment::now();
        memory.activity = Activity::Fetching;
        memory.attempted_at = Some(now);
        memory.inputs = self.source.inputs();
        memory.certificate = self.source.certificate().or(memory.certificate);
        memory.inputs_seen_at = now;
        if trigger == Trigger::Unauthorized {
            memory.storm.strike(now, self.policy.min_interval);
        }
        self.publisher.activity(Activity::Fetching);
        let Some(permit) = self.permit(memory, trigger).await else {
            return true;
        };
        let Permit { refresh_token, in_doubt, until } = permit;
        let now = Moment::now();
        let held = memory.token.as_ref().filter(|token| token.usable(now));
        let attempt = Attempt {
            now,
            refresh_token: refresh_token.as_ref(),
            in_doubt,
            held,
            refused: self.refused_now(),
            until,
        };
        let result = tokio::select! {
            biased;
            result = self.source.fetch(attempt) => result,
            // What may rotate is finished: its answer is the only copy of the next refresh token.
            _ = stop.changed(), if !memory.traits.rotating => {
                self.give_up().await;
                return false;
            }
        };
        let took = Moment::now().mono - now.mono;
        match result {
            Ok(fetched) => {
                self.metrics.fetched(trigger.as_str(), "ok", took);
                self.accept(memory, refresh_token.as_ref(), fetched, took).await;
            }
            Err(error) => {
                let sent = refresh_token.as_ref();
                if let Some(written) = self.rotation.after_failure(sent, &error) {
                    memory.doubt = None;
                    self.report_store(memory, &written);
                }
                self.fail(memory, trigger, &error, took);
                self.tell_failure(memory, &error, refresh_token.is_some()).await;
            }
        }
        true
    }

    /// Store first, then publish.
    async fn accept(
        &mut self,
        memory: &mut Memory,
        sent: Option<&Secret>,
        fetched: Fetched,
        took: Duration,
    ) {
        memory.failures = 0;
        memory.not_before = None;
        memory.doubt = None;
        memory.over = None;
        let written = self.rotation.take(sent, &fetched);
        self.report_store(memory, &written);
        if self.tell_success(memory).await {
            return;
        }
        let rotated = fetched.refresh_token.is_some();
        self.publish(memory, fetched.token, took);
        let generation = self.publisher.generation();
        info!(credential = self.name, generation, rotated, ?took, "token refreshed");
    }

    fn publish(&mut self, memory: &mut Memory, token: AccessToken, took: Duration) {
        let now = Moment::now();
        let due = schedule::refresh_at(&token, took, self.policy.min_interval, (self.entropy)());
        self.publisher.bar(memory.storm.bars_waiting());
        self.publisher.publish(&token, due);
        self.metrics.published(epoch_seconds(token.expires_at().wall), self.publisher.generation());
        self.metrics.needs_operator(false);
        memory.token = Some(token);
        memory.held_up = None;
        memory.activity = Activity::Scheduled(due);
        self.publisher.settle(LastOutcome::of("ok", now), memory.activity);
    }

    /// Keeps what is held and decides when to try again.
    fn fail(&mut self, memory: &mut Memory, trigger: Trigger, error: &FetchError, took: Duration) {
        let now = Moment::now();
        memory.failures = memory.failures.saturating_add(1);
        let activity = memory.after_failure(error, now, &self.policy, (self.entropy)());
        let outcome = match activity {
            Activity::Refused(_) => "terminal",
            _ => "transient",
        };
        self.metrics.fetched(trigger.as_str(), outcome, took);
        let (text, needs_operator) = (chain(error), error.needs_operator());
        let remedy = self.remedy.as_ref().filter(|_| needs_operator);
        self.metrics.needs_operator(needs_operator);
        let usable = memory.token.as_ref().is_some_and(|token| token.usable(now));
        let retry_in_s = activity.next_attempt().map(|at| at.remaining(now).as_secs_f32());
        if usable && outcome == "transient" {
            warn!(
                credential = self.name,
                outcome,
                error = text,
                retry_in_s,
                "refresh failed, the held token goes on"
            );
        } else {
            error!(
                credential = self.name,
                outcome,
                error = text,
                usable,
                retry_in_s,
                needs_operator,
                remedy,
                "refresh failed"
            );
        }
        memory.activity = activity;
        let (detail, remedy) = (Some(text), remedy.cloned());
        let last = LastOutcome { at: now, outcome, detail, needs_operator, remedy };
        self.publisher.settle(last, activity);
    }
}

#[cfg(test)]
mod tests;
