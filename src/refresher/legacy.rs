//! What a refresher leaves behind, and what its successor makes of it when a reload changes a
//! credential: the same refresh token in the same doubt, a token that is still usable, and the
//! patience that the identity provider asked for.

use std::time::Duration;

use tracing::{info, warn};

use super::memory::{Doubt, Memory};
use super::storm::Storm;
use super::{Refresher, Sharing};
use crate::clock::Moment;
use crate::credential::{Activity, LastOutcome};
use crate::secret::{Fingerprint, Secret};
use crate::source::TokenSource;
use crate::store::Rotation;
use crate::token::AccessToken;

/// What is left when a refresher has ended.
pub struct Legacy {
    pub(super) rotation: Rotation,
    pub(super) sharing: Option<Sharing>,
    pub(super) past: Past,
}

/// What the attempts of former refreshers have brought and taught.
#[derive(Default)]
pub struct Past {
    pub(super) token: Option<AccessToken>,
    /// That token was asked for otherwise than it would be now.
    asked_otherwise: bool,
    activity: Activity,
    failures: u32,
    not_before: Option<Moment>,
    storm: Storm,
    sent: Option<Fingerprint>,
    doubt: Option<Doubt>,
}

impl From<Memory> for Past {
    fn from(memory: Memory) -> Self {
        let Memory { token, activity, failures, not_before, storm, sent, doubt, .. } = memory;
        let asked_otherwise = false;
        Self { token, asked_otherwise, activity, failures, not_before, storm, sent, doubt }
    }
}

impl<S: TokenSource> Refresher<S> {
    /// Goes on where the one before this ended, unless that was for another account.
    pub fn inherit(&mut self, former: Legacy) {
        let Legacy { rotation, sharing, past } = former;
        if self.rotation.same_account(&rotation) {
            self.past = past;
            self.past.asked_otherwise |= !self.rotation.same_request(&rotation);
            self.rotation.inherit(rotation);
            if let Some(own) = &mut self.sharing {
                own.inherit(sharing, self.rotation.record());
            }
        }
    }

    /// Begins, or goes on after `past`: with the token that it left or that the last process
    /// stored, if it is still usable.
    pub(super) fn resume(&mut self, past: Past) -> Memory {
        let now = Moment::now();
        if self.rotation.holds_anothers() {
            warn!(credential = self.name, "the store holds another account's tokens: not used");
        }
        let mut memory = Memory::new(self.source.traits(), self.source.inputs(), now);
        memory.certificate = self.source.certificate();
        memory.shared = self.sharing.is_some();
        if let Some(sharing) = &self.sharing {
            info!(credential = self.name, holder = sharing.holder(), "sharing the refresh token");
        }
        let Past { failures, not_before, storm, sent, .. } = past;
        (memory.failures, memory.not_before, memory.storm) = (failures, not_before, storm);
        // Another refresh token than the one in doubt may have been put in place.
        let current = self.rotation.current();
        if current.is_ok_and(|token| token.as_ref().map(Secret::fingerprint) == sent) {
            (memory.sent, memory.doubt) = (sent, past.doubt);
        }
        // While the refresh token may be spent, the token at hand is the only one to be had.
        let wanted = !past.asked_otherwise || memory.doubt.is_some();
        if let Some(token) = past.token.filter(|token| wanted && token.usable(now)) {
            info!(credential = self.name, "continuing with the access token of before the reload");
            self.publish(&mut memory, token, Duration::ZERO);
        } else if let Some(token) = self.rotation.restored(now).filter(|_| !memory.traits.bound) {
            info!(credential = self.name, "continuing with the stored access token");
            self.publish(&mut memory, token, Duration::ZERO);
        }
        if let Some(rest) = memory.rest(past.activity, now) {
            let detail = Some("waiting on, since before the reload".to_owned());
            let last = LastOutcome { detail, ..LastOutcome::of("transient", now) };
            self.publisher.settle(last, rest);
            memory.activity = rest;
        }
        memory
    }
}
