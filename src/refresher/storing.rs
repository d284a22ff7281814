//! The refresher and the store: taken over at the start, written again until it holds what is in
//! memory, and not left behind at the end.

use std::time::Duration;

use tokio::time::{sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::memory::Memory;
use super::{Ending, Refresher, Stop};
use crate::clock::Moment;
use crate::credential::{Activity, LastOutcome};
use crate::source::TokenSource;
use crate::store::StoreError;
use crate::telemetry::chain;
use crate::token::AccessToken;

/// How often a store that could not be written is tried again.
const SYNC_EVERY: Duration = Duration::from_secs(2);
/// So long before the end of the grace the loop ends, so that what was lost is still told.
const LAST_LINE: Duration = Duration::from_millis(50);

impl<S: TokenSource> Refresher<S> {
    /// Waits for the store: without it no refresh token may be sent. False if stopped before.
    pub(super) async fn open_store(&mut self, stop: &mut Stop) -> bool {
        let mut told = false;
        while let Err(error) = self.rotation.open() {
            if !told {
                error!(credential = self.name, error = chain(&error), "token store not available");
                told = true;
            }
            let now = Moment::now();
            let next = now.plus(SYNC_EVERY);
            let detail = Some(format!("store: {}", chain(&error)));
            let needs_operator = error.needs_operator();
            self.metrics.needs_operator(needs_operator);
            let last = LastOutcome { detail, needs_operator, ..LastOutcome::of("transient", now) };
            self.publisher.settle(last, Activity::BackingOff(next));
            tokio::select! {
                () = sleep_until(next.mono) => {}
                _ = stop.changed() => return false,
            }
        }
        true
    }

    pub(super) fn sync(&mut self, memory: &mut Memory, now: Moment) {
        if self.rotation.unsynced() && memory.sync_at.reached(now) {
            let written = self.rotation.sync();
            self.report_store(memory, &written);
        }
    }

    pub(super) fn report_store(&self, memory: &mut Memory, written: &Result<(), StoreError>) {
        if !self.rotation.is_stored() {
            return;
        }
        memory.sync_at = Moment::now().plus(SYNC_EVERY);
        self.metrics.store_write(written.is_ok(), self.rotation.unsynced());
        if let Err(error) = written {
            let error = chain(error);
            error!(credential = self.name, error, "the new refresh token is in memory only");
        }
    }

    /// Holds the exit for a store that lags behind and for a revocation, within the grace.
    pub(super) async fn finish(&mut self, token: Option<&AccessToken>, stop: &Stop) {
        let ending = *stop.borrow();
        let (until, revoke) = match ending {
            Some(Ending::Process(until)) => (until.mono, self.revoke_on_shutdown),
            Some(Ending::Removed(until) | Ending::Replaced(until)) => (until.mono, false),
            Some(Ending::Succeeded) => return,
            None => (Moment::now().mono, false),
        };
        let until = until.checked_sub(LAST_LINE).unwrap_or(until);
        if let (true, Some(token)) = (revoke, token) {
            // Revoked or in doubt: the next process must not go on with it.
            self.rotation.forget_access_token();
            match timeout_at(until, self.source.revoke(token)).await {
                Ok(Ok(())) => info!(credential = self.name, "access token revoked"),
                Ok(Err(error)) => {
                    warn!(credential = self.name, error = chain(&error), "not revoked");
                }
                Err(_) => warn!(credential = self.name, "not revoked: the grace is over"),
            }
        }
        let written = timeout_at(until, async {
            while self.rotation.sync().is_err() || self.owes_the_others().await {
                tokio::time::sleep(SYNC_EVERY / 8).await;
            }
        });
        if written.await.is_err() {
            error!(credential = self.name, "ending with a refresh token that could not be stored");
        }
    }
}
