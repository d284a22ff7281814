//! How processes that share a refresh token agree on who calls the identity provider: a pure state
//! machine. Events go in, effects come out; it does no I/O and reads no clock.
//!
//! One refresh: read; write an intent over what was read (only one of all who try succeeds); call the
//! identity provider, within the time that the intent stands; write the new tokens over the intent,
//! which is the fence. The others adopt what they find. Safety rests on conditional writes and on
//! what is remembered here, never on an engine's time-outs, nor on clocks that agree: how long an
//! intent has stood is counted from when it was first seen.
//!
//! An intent that is over without a word leaves a refresh token that may be spent, and sending a
//! spent one revokes its family (RFC 9700 §4.14.2). So it is sent once more inside the identity
//! provider's grace window, or else when the access token is nearly used up.

use std::collections::VecDeque;

use super::Version;
use super::document::{Dead, Document, Intent, millis};
use crate::clock::Moment;
use crate::store::Record;

mod claim;
pub mod login;
mod settle;
mod sightings;
mod words;

use sightings::Sightings;

pub use words::{Call, Claim, Effect, Event, Fate, Goal, Outcome, Rest, Sends, Terms, Verdict};

/// Writes that one call may cost: each lost race is somebody else's progress.
const MAX_ROUNDS: u32 = 16;
/// What one of unknown fate counts for: it is nobody's progress, and took its time.
const UNKNOWN_ROUNDS: u32 = 4;

/// Own calls that are remembered: no engine should lose so many writes of one generation.
const MAX_CALLED: usize = 16;

/// One process's part in the agreement.
pub struct Protocol {
    holder: String,
    terms: Terms,
    /// Makes nonces.
    counter: u64,
    goal: Goal,
    rounds: u32,
    /// The newest that was read or written, to write over.
    known: Option<(Version, Document)>,
    /// Of which age the tokens are that the owner has.
    taken: (u64, u64),
    seen: Sightings,
    /// The write under way, or whose fate is not known.
    write: Option<Write>,
    /// The attempt of this process.
    mine: Option<Mine>,
    /// The intents that this process has called by, of the last ones.
    called: VecDeque<String>,
    /// What was kept elsewhere until now, for a register that has no tokens.
    seed: Option<Record>,
}

/// A write, told again by its document's nonce.
struct Write {
    what: What,
    document: Document,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// An intent, the moment that its time counts from, and what the call is told.
    Claim {
        in_doubt: bool,
        at: Moment,
    },
    Settle,
    /// What is to be on record before the goal is looked at again.
    Other,
}

/// An intent that was written, and what came of it as soon as that is known.
struct Mine {
    intent: Intent,
    age: (u64, u64),
    outcome: Option<Outcome>,
}

impl Protocol {
    /// For a process that calls itself `holder`, unlike any other.
    #[must_use]
    pub fn new(holder: String, terms: Terms) -> Self {
        Self {
            holder,
            terms,
            counter: 0,
            goal: Goal::Look,
            rounds: 0,
            known: None,
            taken: (0, 0),
            seen: Sightings::default(),
            write: None,
            mine: None,
            called: VecDeque::new(),
            seed: None,
        }
    }

    /// What this process calls itself.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Whose tokens are wanted.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.terms.account.as_deref()
    }

    /// Goes on where `former` ended, on terms of its own.
    pub fn inherit(&mut self, former: Self) {
        let terms = self.terms.clone();
        *self = Self { terms, ..former };
    }

    /// Puts `record`, which was kept elsewhere until now, where no tokens are.
    pub fn move_in(&mut self, record: Record) {
        self.seed = Some(record);
    }

    /// Takes one event and says what to do.
    pub fn step(&mut self, event: Event, now: Moment) -> Effect {
        match event {
            Event::Begin(goal) => {
                (self.goal, self.rounds) = (goal, 0);
                Effect::Read
            }
            Event::Answered(outcome) => self.answered(outcome, now),
            Event::Read(version, document) => self.read(version, document.map(|boxed| *boxed), now),
            Event::Swapped(Fate::Done(version)) => match self.write.take() {
                Some(write) => self.landed(version, write, now),
                None => Effect::Read,
            },
            Event::Swapped(Fate::Conflict) => {
                self.write = None;
                self.again(1)
            }
            Event::Swapped(Fate::Unknown) => self.again(UNKNOWN_ROUNDS),
        }
    }

    /// True while tokens, or what else came of a call, are not in the register yet.
    #[must_use]
    pub fn unsettled(&self) -> bool {
        self.mine.as_ref().is_some_and(|mine| mine.outcome.is_some())
    }

    /// True while new tokens are in this process only.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        let outcome = self.mine.as_ref().and_then(|mine| mine.outcome.as_ref());
        matches!(outcome, Some(Outcome::Renewed(_)))
    }

    fn again(&mut self, rounds: u32) -> Effect {
        self.rounds += rounds;
        if self.rounds < MAX_ROUNDS { Effect::Read } else { Effect::GiveUp }
    }

    fn read(&mut self, version: Version, document: Option<Document>, now: Moment) -> Effect {
        let write = self.write.take();
        if let (Some(document), Some(write)) = (&document, write)
            && document.nonce == write.document.nonce
        {
            return self.landed(version, write, now);
        }
        if let Some(lost) = self.went_back(document.as_ref(), now) {
            return self.swap(version, What::Other, lost);
        }
        let Some(document) = document else {
            return self.found_empty(version, now);
        };
        if let Some(restored) = self.forgotten(&document) {
            return self.swap(version, What::Other, restored);
        }
        self.see(version, document, now);
        self.decide(now)
    }

    /// What to write instead if the engine lost the last writes of this generation, and they said
    /// something that nobody must forget.
    fn forgotten(&mut self, found: &Document) -> Option<Document> {
        let (_, known) = self.known.as_ref()?;
        let older = known.age() == found.age() && known.revision > found.revision;
        let recalled = found.recalling(known).filter(|_| older)?;
        Some(recalled.next(self.nonce()))
    }

    /// What to write instead if the register holds something older than what was known, and what was
    /// known is nowhere else.
    fn went_back(&mut self, document: Option<&Document>, now: Moment) -> Option<Document> {
        let known = self.known.as_ref().map(|(_, known)| known)?;
        let back = match document {
            None => true,
            Some(found) if found.epoch > known.epoch => {
                found.record.is_none() && found.dead.is_none()
            }
            Some(found) => found.age() < known.age(),
        };
        if !back {
            return None;
        }
        if document.is_some_and(|found| found.began_since(known)) {
            // Somebody mended it, and that chain is the one that goes on.
            (self.taken, self.known) = ((0, 0), None);
            return None;
        }
        if !known.is_precious() {
            // What is there is as good, and the owner's are not newer in any way that counts.
            self.taken = document.map_or(self.taken, Document::age);
            self.known = None;
            return None;
        }
        let found = document.map_or(0, |found| found.epoch);
        let epoch = (known.epoch.max(found) + 1).max(millis(now) / 1000);
        let (known, nonce) = (known.clone(), self.nonce());
        Some(known.brought_back(nonce, epoch, document, self.terms.rotates))
    }

    /// Nothing is there: whoever has tokens, or wants to call, begins.
    fn found_empty(&mut self, version: Version, now: Moment) -> Effect {
        let nonce = self.nonce();
        let epoch = (millis(now) / 1000).max(self.taken.0 + 1);
        let (first, what) = match (self.newest(), self.seed.clone()) {
            (Some(newest), _) => newest,
            (None, None) if !matches!(self.goal, Goal::Claim(_)) => return Rest::Settled.into(),
            (None, seed) => (Document::new(epoch, String::new(), seed), What::Other),
        };
        self.swap(version, what, Document { epoch, nonce, ..first })
    }

    /// Remembers what was read.
    fn see(&mut self, version: Version, document: Document, now: Moment) {
        if document.record.is_some() {
            self.seed = None;
        }
        self.seen.note(&document, now);
        self.known = Some((version, document));
    }

    /// A write of this process is there.
    fn landed(&mut self, version: Version, write: Write, now: Moment) -> Effect {
        let Write { what, document } = write;
        self.see(version, document, now);
        match what {
            What::Claim { in_doubt, at } if matches!(self.goal, Goal::Claim(_)) => {
                self.granted(in_doubt, at, now)
            }
            What::Settle => self.settled(now),
            What::Claim { .. } | What::Other => self.decide(now),
        }
    }

    /// What to do about the goal, given what is known.
    fn decide(&mut self, now: Moment) -> Effect {
        let Some((version, document)) = self.known.clone() else {
            return Effect::Read;
        };
        if let Some(effect) = self.settle(&version, &document, now) {
            return effect;
        }
        // Kept until it is seen there. Not under a call that nobody knows the outcome of.
        if let Some(seed) = self.seed.clone()
            && self.standing(&document, now).is_ok()
        {
            let next = document.moved_in(self.nonce(), seed);
            return self.swap(version, What::Other, next);
        }
        // Tokens of a register that went back may be older than those at hand.
        if document.dead == Some(Dead::Lost) {
            self.taken = document.age();
        }
        if document.age() > self.taken && document.record.is_some() {
            self.taken = document.age();
            return Effect::Tell(Verdict::Adopt(Box::new(document)));
        }
        match self.goal.clone() {
            Goal::Claim(claim) => self.claim(&claim, version, &document, now),
            Goal::Look | Goal::Settle => match document.dead {
                Some(dead) if !self.terms.fallback => Rest::Dead(dead).into(),
                _ => Rest::Settled.into(),
            },
        }
    }

    fn swap(&mut self, version: Version, what: What, document: Document) -> Effect {
        self.write = Some(Write { what, document: document.clone() });
        Effect::Swap(version, Box::new(document))
    }

    fn nonce(&mut self) -> String {
        self.counter += 1;
        format!("{}-{}", self.holder, self.counter)
    }
}

#[cfg(test)]
mod tests;
