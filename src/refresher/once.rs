//! One attempt outside the loop, as `check --fetch` makes it.

use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;

use super::memory::Memory;
use super::permit::Permit;
use super::{Past, Refresher, Trigger};
use crate::clock::Moment;
use crate::credential::{Activity, LastOutcome};
use crate::source::{Attempt, Class, FetchError, Reason, TokenSource};
use crate::store::StoreError;
use crate::token::AccessToken;

/// How long a store that could not be written is tried again.
const SYNC_FOR: Duration = Duration::from_secs(3);
/// How often.
const SYNC_EVERY: Duration = Duration::from_millis(250);
/// How long others are waited for that use the same refresh token.
const TURN_WITHIN: Duration = Duration::from_secs(30);
/// When nothing else is known.
const NO_TURN: &str = "other processes are at it";

/// Why one attempt brought no token, or lost more than it brought.
#[derive(Debug, Error)]
pub enum OnceError {
    /// Sending it would leave the credential without a refresh token.
    #[error("not fetched: its refresh token rotates and there is no store to keep the next one")]
    NowhereToKeep,
    /// The one that was sent is spent, and its successor ends with this process.
    #[error("the newest refresh token is lost, sign in again: it could not be stored")]
    Lost(#[source] StoreError),
    /// The same, where others share it; with why the attempt failed, if it did.
    #[error("what came of it could not be stored: others may have to wait, or a person to sign in")]
    Unwritten(#[source] Option<FetchError>),
    /// Nothing was sent, or nothing was replaced.
    #[error("token store not available")]
    Store(#[source] StoreError),
    /// As the source classifies it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl OnceError {
    /// True if only a person can mend it.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Fetch(error) => error.needs_operator(),
            Self::Lost(_) => true,
            Self::Unwritten(error) => error.as_ref().is_some_and(FetchError::needs_operator),
            Self::NowhereToKeep | Self::Store(_) => false,
        }
    }
}

impl<S: TokenSource> Refresher<S> {
    /// Makes one attempt and publishes the token that it brought. A refresh token whose successor could not be
    /// kept is not sent.
    ///
    /// # Errors
    /// [`OnceError`]
    pub async fn once(self) -> Result<AccessToken, OnceError> {
        self.published(false).await
    }

    /// The stored token if it is still usable, else the one that an attempt brings; published too.
    ///
    /// # Errors
    /// [`OnceError`]
    pub async fn stored_or_once(self) -> Result<AccessToken, OnceError> {
        self.published(true).await
    }

    async fn published(mut self, stored: bool) -> Result<AccessToken, OnceError> {
        let result = self.attempt_once(stored).await;
        let now = Moment::now();
        let (outcome, activity) = match &result {
            Ok(token) => {
                self.publisher.publish(token, token.expires_at());
                ("ok", Activity::Scheduled(token.expires_at()))
            }
            // Nobody is to wait for another attempt.
            Err(_) => ("terminal", Activity::Refused(now)),
        };
        self.publisher.settle(LastOutcome::of(outcome, now), activity);
        result
    }

    async fn attempt_once(&mut self, stored: bool) -> Result<AccessToken, OnceError> {
        if self.sharing.is_some() {
            return self.attempt_once_among_others(stored).await;
        }
        self.rotation.open().map_err(OnceError::Store)?;
        let login = self.rotation.take_up_login();
        login.and_then(|_| self.rotation.sync()).map_err(OnceError::Store)?;
        let traits = self.source.traits();
        let held = self.rotation.restored(Moment::now()).filter(|_| stored && !traits.bound);
        if let Some(held) = held {
            return Ok(held);
        }
        let mut refresh_token = self.rotation.current().map_err(FetchError::from)?;
        let spared =
            traits.rotation_expected && refresh_token.is_some() && !self.rotation.is_stored();
        if spared && !traits.fallback {
            return Err(OnceError::NowhereToKeep);
        }
        if spared {
            refresh_token = None;
        }
        let sent = refresh_token.as_ref();
        let now = Moment::now();
        let attempt = Attempt { refresh_token: sent, in_doubt: spared, ..Attempt::at(now) };
        let result = self.source.fetch(attempt).await;
        let (written, rotated) = match &result {
            Ok(fetched) => (self.rotation.take(sent, fetched), fetched.refresh_token.is_some()),
            Err(error) => {
                let written = self.rotation.after_failure(sent, error);
                (written.unwrap_or(Ok(())), error.rotated.is_some())
            }
        };
        if written.is_err() {
            let written = self.sync_for(SYNC_FOR).await;
            written.map_err(if rotated { OnceError::Lost } else { OnceError::Store })?;
        }
        Ok(result?.token)
    }

    /// As the loop does it, until it was this one's turn.
    async fn attempt_once_among_others(&mut self, stored: bool) -> Result<AccessToken, OnceError> {
        let mut memory = self.resume(Past::default());
        if stored && let Some(held) = self.held_by_the_others(&mut memory).await {
            return Ok(held);
        }
        let end = Moment::now().plus(TURN_WITHIN);
        let permit = loop {
            if let Some(permit) = self.agree(&mut memory, Trigger::Changed).await {
                break permit;
            }
            let over = matches!(memory.activity, Activity::Refused(_));
            if over || end.reached(Moment::now()) {
                let mut error = FetchError::new(Class::Transient, Reason::Conflict);
                error.hint = self.publisher.said().or_else(|| Some(NO_TURN.to_owned()));
                return Err(error.into());
            }
            sleep(SYNC_EVERY).await;
        };
        // No pause of the others follows from what becomes of this.
        memory.activity = Activity::Fetching;
        let Permit { refresh_token, in_doubt, until } = permit;
        let sent = refresh_token.as_ref();
        let attempt =
            Attempt { refresh_token: sent, in_doubt, until, ..Attempt::at(Moment::now()) };
        match self.source.fetch(attempt).await {
            Ok(fetched) => {
                // In memory first, which cannot fail: the store of these is the agreement.
                let _ = self.rotation.take(sent, &fetched);
                self.tell_success(&mut memory).await;
                let settled = self.settled_within(SYNC_FOR).await;
                if settled { Ok(fetched.token) } else { Err(OnceError::Unwritten(None)) }
            }
            Err(error) => {
                let _ = self.rotation.after_failure(sent, &error);
                self.tell_failure(&mut memory, &error, sent.is_some()).await;
                let settled = self.settled_within(SYNC_FOR).await;
                Err(if settled { error.into() } else { OnceError::Unwritten(Some(error)) })
            }
        }
    }

    /// The token that lies in the store, if it is usable.
    async fn held_by_the_others(&mut self, memory: &mut Memory) -> Option<AccessToken> {
        self.follow(memory).await;
        let bound = memory.traits.bound;
        self.rotation.restored(Moment::now()).filter(|_| !bound)
    }

    /// Whether the others know what came of it by then.
    async fn settled_within(&mut self, time: Duration) -> bool {
        let end = Moment::now().plus(time);
        while self.owes_the_others().await {
            if end.reached(Moment::now()) {
                return false;
            }
            sleep(SYNC_EVERY).await;
        }
        true
    }

    async fn sync_for(&mut self, time: Duration) -> Result<(), StoreError> {
        let end = Moment::now().plus(time);
        loop {
            sleep(SYNC_EVERY).await;
            let written = self.rotation.sync();
            if written.is_ok() || end.reached(Moment::now()) {
                return written;
            }
        }
    }
}
