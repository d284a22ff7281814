//! The refresher and a person's login: what a login left in the store is taken up at once, whatever
//! the loop was waiting for.

use std::time::Duration;

use tracing::{error, info};

use super::Refresher;
use super::memory::Memory;
use crate::clock::Moment;
use crate::source::TokenSource;
use crate::telemetry::chain;

/// The disk is not looked at more often than this, however many requests wake the loop.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl<S: TokenSource> Refresher<S> {
    /// Begins anew with what a login left, if one did. True if a fetch has to follow: it left no
    /// access token that can be used here.
    pub(super) fn take_up_login(&mut self, memory: &mut Memory, now: Moment) -> bool {
        let rested = |at: Moment| at.plus(LOOK_EVERY).reached(now);
        if !self.rotation.is_stored() || !memory.login_looked_at.is_none_or(rested) {
            return false;
        }
        memory.login_looked_at = Some(now);
        match self.rotation.take_up_login() {
            Ok(false) => {
                memory.login_trouble = None;
                false
            }
            Ok(true) => self.begin_anew(memory, now),
            Err(error) => {
                let trouble = chain(&error);
                if memory.login_trouble.as_ref() != Some(&trouble) {
                    error!(credential = self.name, error = trouble, "a login is not taken up");
                }
                memory.login_trouble = Some(trouble);
                false
            }
        }
    }

    /// Nothing that was learnt about the former refresh token holds for the new one.
    fn begin_anew(&mut self, memory: &mut Memory, now: Moment) -> bool {
        info!(credential = self.name, "a person has signed in");
        (memory.sent, memory.doubt, memory.failures, memory.not_before) = (None, None, 0, None);
        let written = self.rotation.sync();
        self.report_store(memory, &written);
        let token = self.rotation.restored(now).filter(|_| !memory.traits.bound);
        let must_fetch = token.is_none();
        if let Some(token) = token {
            self.publish(memory, token, Duration::ZERO);
        }
        must_fetch
    }
}
