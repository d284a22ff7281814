//! Carries out what the protocol says: reads and writes the register, seals and opens what lies
//! there, and gives the owner its verdicts.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::document::Document;
use super::protocol::{Claim, Effect, Event, Fate, Goal, Outcome, Protocol, Terms, Verdict};
use super::seal::{Seal, SealError};
use super::{Engine, Held, Place, Register, RegisterError, Settings, Swapped, Version};
use crate::clock::Moment;
use crate::store::Record;

mod login;

/// The longest that one read or write may take.
const OPERATION: Duration = Duration::from_secs(2);
/// Before a write of unknown fate is read back, which may well be the next one of many.
const BREATH: Duration = Duration::from_millis(50);
/// How long a new register is left alone.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks where they cost something, and all that happens is told.
const SELDOM: Duration = Duration::from_secs(5);

/// One process's way to agree with the others on a refresh token.
pub struct Agreement {
    settings: Settings,
    engine: Engine,
    seal: Seal,
    protocol: Protocol,
    /// Why it is not known what became of a write, of those that were made for the present goal.
    unknown: Option<RegisterError>,
}

/// What the owner's credential is like, for the protocol.
#[derive(Clone, Debug)]
pub struct Party {
    /// How long the identity provider accepts a refresh token that it has replaced.
    pub grace: Option<Duration>,
    /// Refresh tokens are replaced when they are used.
    pub rotates: bool,
    /// There is another way in.
    pub fallback: bool,
    /// Whose tokens are wanted.
    pub account: Option<String>,
}

impl Agreement {
    /// At the register that `settings` name, under a name that no other process has.
    #[must_use]
    pub fn new(settings: &Settings, party: Party) -> Self {
        let engine = Engine::new(&settings.place);
        let seal = Seal::new(settings.place.register(), settings.encryption_key.clone());
        let holder = format!("{:016x}", fastrand::u64(..));
        let protocol = Protocol::new(holder, terms(settings, party));
        Self { settings: settings.clone(), engine, seal, protocol, unknown: None }
    }

    /// Whether both are about the same register.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.settings.place.is(&other.settings.place)
    }

    /// Goes on where `former` ended, if that is about the same register: what it owes is owed still.
    pub fn inherit(&mut self, former: Self) {
        if self.is_at(&former) {
            self.protocol.inherit(former.protocol);
        }
    }

    /// Puts `record`, which was kept elsewhere until now, where no tokens are, at the next look.
    pub fn move_in(&mut self, record: Record) {
        self.protocol.move_in(record);
    }

    /// What this process calls itself.
    #[must_use]
    pub fn holder(&self) -> &str {
        self.protocol.holder()
    }

    /// Asks to call the identity provider.
    ///
    /// # Errors
    /// [`RegisterError`]: without an answer nobody may call.
    pub async fn claim(&mut self, claim: Claim) -> Result<Verdict, RegisterError> {
        self.run(Event::Begin(Goal::Claim(claim))).await
    }

    /// Looks at what the others did, and writes what is owed.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn look(&mut self) -> Result<Verdict, RegisterError> {
        self.run(Event::Begin(Goal::Look)).await
    }

    /// Says what came of the call.
    ///
    /// # Errors
    /// [`RegisterError`]: not written yet; [`Self::look`] does it again.
    pub async fn answered(&mut self, outcome: Outcome) -> Result<Verdict, RegisterError> {
        self.run(Event::Answered(outcome)).await
    }

    /// Returns when the others may have written; see [`Register::changed`].
    pub async fn changed(&mut self) {
        self.engine.changed().await;
    }

    /// How often to look, beside that: soon enough to object to a beginning.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        match self.settings.place {
            // Each look is a TLS handshake at the API server, and the watch tells what happens.
            Place::Kubernetes(_) if self.engine.listens() => SELDOM,
            _ => SETTLE / 2,
        }
    }

    /// True while something that came of a call is not written yet.
    #[must_use]
    pub fn unsettled(&self) -> bool {
        self.protocol.unsettled()
    }

    /// True while new tokens are in this process only.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        self.protocol.unsynced()
    }

    async fn run(&mut self, first: Event) -> Result<Verdict, RegisterError> {
        let mut event = first;
        self.unknown = None;
        loop {
            event = match self.protocol.step(event, Moment::now()) {
                Effect::Tell(verdict) => return Ok(verdict),
                Effect::GiveUp => return Err(self.gave_up()),
                Effect::Read => {
                    let (version, document) = self.read().await?;
                    Event::Read(version, document)
                }
                Effect::Swap(version, document) => {
                    Event::Swapped(self.swap(&version, &document).await?)
                }
            };
        }
    }

    /// Why nothing gets through.
    fn gave_up(&mut self) -> RegisterError {
        let others = "others write all the time, or what is written is lost";
        self.unknown.take().unwrap_or_else(|| RegisterError::Unreachable {
            place: self.settings.place.to_string(),
            source: std::io::Error::other(others).into(),
        })
    }

    async fn read(&mut self) -> Result<(Version, Option<Box<Document>>), RegisterError> {
        let read = timeout(OPERATION, self.engine.read()).await;
        let Held { version, content } = read.unwrap_or_else(|_| Err(self.silent()))?;
        let document = content.map(|content| self.seal.open(&content)).transpose();
        let document = document.map_err(|error| self.unusable(&error))?;
        Ok((version, document.map(Box::new)))
    }

    async fn swap(
        &mut self,
        version: &Version,
        document: &Document,
    ) -> Result<Fate, RegisterError> {
        let content = self.seal.seal(document).map_err(|error| self.unusable(&error))?;
        let swapped = timeout(OPERATION, self.engine.swap(version, &content)).await;
        Ok(match swapped.unwrap_or_else(|_| Ok(Swapped::Unknown(self.silent())))? {
            Swapped::Done(version) => Fate::Done(version),
            Swapped::Conflict => Fate::Conflict,
            Swapped::Unknown(error) => {
                let text = crate::telemetry::chain(&error);
                tracing::debug!(error = text, "a write to the store has to be read back");
                self.unknown = Some(error);
                sleep(BREATH).await;
                Fate::Unknown
            }
        })
    }

    fn silent(&self) -> RegisterError {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
        RegisterError::Unreachable { place: self.settings.place.to_string(), source: source.into() }
    }

    fn unusable(&self, error: &SealError) -> RegisterError {
        let place = self.settings.place.to_string();
        RegisterError::Unusable { place, problem: crate::telemetry::chain(error) }
    }
}

fn terms(settings: &Settings, party: Party) -> Terms {
    let Party { grace, rotates, fallback, account } = party;
    Terms { lease: settings.deadline, settle: SETTLE, grace, rotates, fallback, account }
}
