//! A person's login in a store that several processes share: nobody signs in for nothing, and what
//! comes is written for all of them.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::sleep;

use super::super::RegisterError;
use super::super::protocol::Fate;
use super::super::protocol::login::{Login, Next, is_anothers, trial};
use super::Agreement;
use crate::clock::Moment;
use crate::store::Record;

/// For how long, and how often, a login is tried to be written.
const WITHIN: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(250);
/// Writes that are tried before a person signs in: one that comes too late is somebody's progress.
const TRIALS: u32 = 8;

const OVERTAKEN: &str = "was written by others meanwhile: what became of this login is not known";
const ANOTHERS: &str = "holds the tokens of another account (another host, client_id or username), \
                        which others may be using: choose another place, or delete what is there";

/// What one attempt came to: an end, or why to try once more.
type Round = ControlFlow<Result<(), RegisterError>, RegisterError>;

impl Agreement {
    /// Whether a login could be put there: by a write that changes nothing, since a server that can
    /// be read is not always one that takes writes.
    ///
    /// # Errors
    /// [`RegisterError`]: why not. Another account's tokens are not written over.
    pub async fn can_sign_in(&mut self) -> Result<(), RegisterError> {
        let nonce = format!("{}-before-login", self.holder());
        self.unknown = None;
        for _ in 0..TRIALS {
            let (version, held) = self.read().await?;
            if held.as_ref().is_some_and(|held| is_anothers(held, self.protocol.account())) {
                return Err(self.unfit(ANOTHERS));
            }
            let same = trial(held.as_deref(), nonce.clone(), Moment::now());
            match self.swap(&version, &same).await? {
                Fate::Done(_) => return Ok(()),
                Fate::Conflict => {}
                Fate::Unknown => return Err(self.gave_up()),
            }
        }
        Err(self.gave_up())
    }

    /// Puts what a person's login brought over whatever is there. There is no other copy of it, so a
    /// register that does not take it is asked again for a while.
    ///
    /// # Errors
    /// [`RegisterError`]: not written, as far as is known.
    pub async fn sign_in(&mut self, record: Record) -> Result<(), RegisterError> {
        let account = self.protocol.account().map(str::to_owned);
        let mut login = Login::new(format!("{}-login", self.holder()), record, account);
        let end = Moment::now().plus(WITHIN);
        self.unknown = None;
        loop {
            match self.try_sign_in(&mut login).await {
                ControlFlow::Break(ended) => return ended,
                ControlFlow::Continue(error) if end.reached(Moment::now()) => return Err(error),
                ControlFlow::Continue(_) => sleep(AGAIN).await,
            }
        }
    }

    async fn try_sign_in(&mut self, login: &mut Login) -> Round {
        let (version, held) = match self.read().await {
            Ok(read) => read,
            Err(error) => return ControlFlow::Continue(error),
        };
        let document = match login.next(held.as_deref(), Moment::now()) {
            Next::Write(document) => document,
            Next::Done => return ControlFlow::Break(Ok(())),
            Next::Overtaken => return ControlFlow::Break(Err(self.unfit(OVERTAKEN))),
            Next::Anothers => return ControlFlow::Break(Err(self.unfit(ANOTHERS))),
        };
        match self.swap(&version, &document).await {
            Ok(Fate::Done(_)) => ControlFlow::Break(Ok(())),
            Ok(Fate::Conflict) => ControlFlow::Continue(self.gave_up()),
            Ok(Fate::Unknown) => {
                login.unknown(&document);
                ControlFlow::Continue(self.gave_up())
            }
            Err(error) => ControlFlow::Continue(error),
        }
    }

    fn unfit(&self, problem: &str) -> RegisterError {
        let place = self.settings.place.to_string();
        RegisterError::Unusable { place, problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::super::memory::Memory;
    use super::super::super::{DEADLINE, Place, Settings};
    use super::super::{Document, Party};
    use super::*;
    use crate::store::Identity;
    use zeroize::Zeroizing;

    fn party(account: &str) -> Party {
        let account = Some(account.to_owned());
        Party { grace: None, rotates: true, fallback: false, account }
    }

    fn agreement(register: &Memory, account: &str) -> Agreement {
        let place = Place::Memory(register.clone());
        Agreement::new(
            &Settings { place, encryption_key: None, deadline: DEADLINE },
            party(account),
        )
    }

    fn record(account: &str, refresh_token: &str) -> Record {
        let (account, request) = (account.to_owned(), String::new());
        Record {
            refresh_token: Some(Zeroizing::new(refresh_token.to_owned())),
            bootstrap_sha256: None,
            access_token: None,
            obtained_at: 1,
            expires_at: 2,
            identity: Some(Identity { account, request }),
        }
    }

    async fn held(register: &Memory) -> Option<Box<Document>> {
        agreement(register, "a").read().await.unwrap().1
    }

    #[tokio::test(start_paused = true)]
    async fn another_accounts_tokens_are_not_written_over_while_they_are_alive() {
        let register = Memory::default();
        agreement(&register, "a").sign_in(record("a", "first")).await.unwrap();
        let mut stranger = agreement(&register, "b");
        for error in [stranger.can_sign_in().await, stranger.sign_in(record("b", "x")).await] {
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("memory holds the tokens of another account"), "{error}");
        }
        let first = held(&register).await.unwrap();
        assert!(first.record == Some(record("a", "first")));
        // One's own are, and those that are over.
        agreement(&register, "a").sign_in(record("a", "second")).await.unwrap();
        let mut dead = *held(&register).await.unwrap();
        dead.dead = Some(crate::store::shared::document::Dead::Refused);
        let (version, _) = stranger.read().await.unwrap();
        stranger.swap(&version, &dead).await.unwrap();
        stranger.can_sign_in().await.unwrap();
        stranger.sign_in(record("b", "third")).await.unwrap();
        let third = held(&register).await.unwrap();
        assert!(third.record == Some(record("b", "third")) && third.dead.is_none());
        assert!(third.age() > first.age());
    }

    #[tokio::test(start_paused = true)]
    async fn before_a_login_it_is_tried_to_write_and_nothing_is_changed_by_that() {
        let register = Memory::default();
        agreement(&register, "a").can_sign_in().await.unwrap();
        assert!(held(&register).await.unwrap().record.is_none());
        agreement(&register, "a").sign_in(record("a", "first")).await.unwrap();
        let before = held(&register).await.unwrap();
        agreement(&register, "a").can_sign_in().await.unwrap();
        let after = held(&register).await.unwrap();
        assert!(after.revision > before.revision);
        let (revision, nonce) = (after.revision, after.nonce.clone());
        assert!(Document { revision, nonce, ..*before } == *after);
        for trouble in [&register.down, &register.void] {
            trouble.store(true, Relaxed);
            let error = agreement(&register, "a").can_sign_in().await.unwrap_err();
            assert!(matches!(error, RegisterError::Unreachable { .. }), "{error}");
            trouble.store(false, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_outlasts_a_register_that_takes_nothing_for_a_while() {
        let register = Memory::default();
        for trouble in [register.down.clone(), register.void.clone(), register.deaf.clone()] {
            trouble.store(true, Relaxed);
            let well_again = async {
                sleep(Duration::from_secs(20)).await;
                trouble.store(false, Relaxed);
            };
            let mut login = agreement(&register, "a");
            let (written, ()) = tokio::join!(login.sign_in(record("a", "new")), well_again);
            written.unwrap();
            assert!(held(&register).await.unwrap().record == Some(record("a", "new")));
            register.go_back(None);
        }
        register.void.store(true, Relaxed);
        let error = agreement(&register, "a").sign_in(record("a", "new")).await.unwrap_err();
        assert!(matches!(error, RegisterError::Unreachable { .. }), "{error}");
    }

    #[test]
    fn a_login_that_may_have_been_used_is_not_written_again() {
        let mut login = Login::new("n".to_owned(), record("a", "new"), Some("a".to_owned()));
        let now = Moment::now();
        let Next::Write(ours) = login.next(None, now) else { panic!("nothing is there") };
        login.unknown(&ours);
        let older = Document::new(1, "o".to_owned(), None);
        // Not arrived, or not the newest any more.
        assert!(matches!(login.next(Some(&older), now), Next::Write(_)));
        assert!(matches!(login.next(Some(&ours.next("i".to_owned())), now), Next::Done));
        let used = ours.signed_in("u".to_owned(), ours.epoch, record("a", "newer"));
        assert!(matches!(login.next(Some(&used), now), Next::Overtaken));
    }
}
