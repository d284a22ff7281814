//! What the refresher remembers between attempts, and what follows from that when one fails.

use crate::clock::Moment;
use crate::credential::Activity;
use crate::schedule::{self, RefreshPolicy};
use crate::secret::Fingerprint;
use crate::source::{Class, FetchError, Traits};
use crate::token::AccessToken;

use super::storm::Storm;
use crate::store::shared::protocol::Rest;

/// A refresh in doubt is put off until the held token has this share of its life left.
const NEARLY_SPENT: f64 = 0.05;

/// What the loop remembers between attempts.
pub(super) struct Memory {
    pub(super) traits: Traits,
    pub(super) token: Option<AccessToken>,
    /// Of the last attempt, whatever it brought.
    pub(super) attempted_at: Option<Moment>,
    pub(super) activity: Activity,
    pub(super) failures: u32,
    /// The identity provider's `Retry-After` with the last failure.
    pub(super) not_before: Option<Moment>,
    /// Digest of the inputs that the last attempt used.
    pub(super) inputs: Fingerprint,
    pub(super) inputs_seen_at: Moment,
    /// Digest of the certificate that the last attempt showed, which tokens may be bound to.
    pub(super) certificate: Option<Fingerprint>,
    pub(super) wanted: u64,
    pub(super) used_at: Moment,
    pub(super) storm: Storm,
    /// Digest of the refresh token that the last attempt was made with.
    pub(super) sent: Option<Fingerprint>,
    /// Answers to it were lost.
    pub(super) doubt: Option<Doubt>,
    pub(super) sync_at: Moment,
    /// When it was looked last whether a person has signed in.
    pub(super) login_looked_at: Option<Moment>,
    /// What was told last about a login that cannot be taken up.
    pub(super) login_trouble: Option<String>,
    /// Somebody else is about to bring a token; until then it is not fetched here.
    pub(super) held_up: Option<Moment>,
    /// What may be spent, and when to send it again, is agreed on with others.
    pub(super) shared: bool,
    /// They were asked before.
    pub(super) asked: bool,
    /// Why the others cannot go on either, once that was told.
    pub(super) over: Option<Rest>,
}

/// A refresh token that may be spent.
pub(super) struct Doubt {
    /// When the attempt was made whose answer was lost first.
    since: Moment,
    /// How many were lost.
    lost: u32,
}

impl Memory {
    /// Of nothing yet.
    pub(super) fn new(traits: Traits, inputs: Fingerprint, now: Moment) -> Self {
        Self {
            traits,
            token: None,
            attempted_at: None,
            activity: Activity::Fetching,
            failures: 0,
            not_before: None,
            inputs,
            inputs_seen_at: now,
            certificate: None,
            wanted: 0,
            used_at: now,
            storm: Storm::default(),
            sent: None,
            doubt: None,
            sync_at: now,
            login_looked_at: None,
            login_trouble: None,
            held_up: None,
            shared: false,
            asked: false,
            over: None,
        }
    }

    /// What the wait `of_before` means after a reload: a refresh token in doubt is not sent sooner
    /// for it, and what the identity provider asked for holds. Other waits end: what was changed may
    /// be what failed.
    pub(super) fn rest(&self, of_before: Activity, now: Moment) -> Option<Activity> {
        // Another way in may be taken as soon as it is needed.
        let spared = self.traits.fallback && self.token.is_none();
        let waits = matches!(of_before, Activity::BackingOff(_) | Activity::Refused(_));
        let rest = if self.doubt.is_some() && waits && !spared {
            of_before
        } else {
            Activity::BackingOff(self.not_before?)
        };
        rest.next_attempt().is_some_and(|at| !at.reached(now)).then_some(rest)
    }

    /// Whether the last attempt was made long enough ago.
    pub(super) fn rested(&self, now: Moment, policy: &RefreshPolicy) -> bool {
        self.attempted_at.is_none_or(|at| at.plus(policy.min_interval).reached(now))
    }

    /// Whether the refresh token may be spent for an attempt at `now`: not for the one that a known
    /// grace window allows.
    pub(super) fn in_doubt(&self, now: Moment) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| doubt.lost > 1 || !self.in_grace(doubt.since, now))
    }

    fn in_grace(&self, since: Moment, now: Moment) -> bool {
        self.traits.rotation_grace.is_some_and(|grace| now.mono < since.mono + grace)
    }

    /// What to do after an attempt failed at `now`.
    pub(super) fn after_failure(
        &mut self,
        error: &FetchError,
        now: Moment,
        policy: &RefreshPolicy,
        entropy: f64,
    ) -> Activity {
        let (after, least) = (error.retry_after, policy.min_interval);
        self.not_before = after.map(|after| now.plus(after.min(schedule::MAX_RETRY_AFTER)));
        let backoff = schedule::retry_at(now, self.failures, after, least, entropy);
        let pause = schedule::terminal_retry_at(now, after, least, entropy);
        match error.class {
            Class::Terminal => Activity::Refused(pause),
            Class::Transient if error.ambiguous && self.traits.rotating && !self.shared => {
                self.after_lost_answer(now, backoff, pause)
            }
            Class::Transient => Activity::BackingOff(backoff),
        }
    }

    /// The refresh token may be spent, and sending a spent one revokes its whole family (RFC 9700
    /// §4.14.2). Inside a known grace window: once more, soon. Else the held token is used up first;
    /// then another way in, or the same refresh token once more; after that a person is needed.
    fn after_lost_answer(&mut self, now: Moment, backoff: Moment, pause: Moment) -> Activity {
        let attempted_at = self.attempted_at.unwrap_or(now);
        let again = self.in_doubt(attempted_at);
        let doubt = self.doubt.get_or_insert(Doubt { since: attempted_at, lost: 0 });
        doubt.lost += 1;
        if !self.in_doubt(backoff) || (again && self.traits.fallback) {
            return Activity::BackingOff(backoff);
        }
        if again {
            return Activity::Refused(pause);
        }
        let Some(token) = self.token.as_ref().filter(|token| token.usable(now)) else {
            return Activity::BackingOff(backoff);
        };
        let left = token.expires_at().remaining(now);
        let nearly = now.plus(left.saturating_sub(token.lifetime().mul_f64(NEARLY_SPENT)));
        Activity::BackingOff(if nearly.mono > backoff.mono { nearly } else { backoff })
    }
}
