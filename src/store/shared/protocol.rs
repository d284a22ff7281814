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

use super::Version;
use super::document::{Dead, Document, Intent, millis};
use crate::clock::Moment;

mod claim;
mod settle;
mod sightings;
mod words;

use sightings::Sightings;

pub use words::{Call, Claim, Effect, Event, Fate, Goal, Outcome, Rest, Terms, Verdict};

/// Reads and writes that one call may cost: each lost race is somebody else's progress.
const MAX_ROUNDS: u32 = 16;

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
        }
    }

    /// What this process calls itself.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Goes on where `former` ended, on terms of its own.
    pub fn inherit(&mut self, former: Self) {
        let terms = self.terms.clone();
        *self = Self { terms, ..former };
    }

    /// Takes one event and says what to do.
    pub fn step(&mut self, event: Event, now: Moment) -> Effect {
        match event {
            Event::Begin(goal) => {
                (self.goal, self.rounds) = (goal, 0);
                Effect::Read
            }
            Event::Answered(outcome) => self.answered(outcome, now),
            Event::Read(None) | Event::Swapped(None) => Rest::Unreachable.into(),
            Event::Read(Some((version, document))) => {
                self.read(version, document.map(|boxed| *boxed), now)
            }
            Event::Swapped(Some(Fate::Done(version))) => match self.write.take() {
                Some(write) => self.landed(version, write, now),
                None => Effect::Read,
            },
            Event::Swapped(Some(Fate::Conflict)) => {
                self.write = None;
                self.again(now)
            }
            Event::Swapped(Some(Fate::Unknown)) => self.again(now),
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

    fn again(&mut self, now: Moment) -> Effect {
        self.rounds += 1;
        if self.rounds < MAX_ROUNDS {
            return Effect::Read;
        }
        Rest::Busy(now.plus(self.terms.lease / 8)).into()
    }

    fn read(&mut self, version: Version, document: Option<Document>, now: Moment) -> Effect {
        let write = self.write.take();
        if let (Some(document), Some(write)) = (&document, write)
            && document.nonce == write.document.nonce
        {
            return self.landed(version, write, now);
        }
        if let Some(lost) = self.went_back(document.as_ref(), now) {
            // What is there is to be told from what was known, by everybody.
            let anyone = document.map_or(lost.revision, |document| document.revision + 1);
            let lost = Document { revision: anyone.max(lost.revision), ..lost };
            return self.swap(version, What::Other, lost);
        }
        match document {
            Some(document) => self.see(version, document, now),
            None => return self.found_empty(version, now),
        }
        self.decide(now)
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
        // Somebody put another refresh token in place: nothing is lost with the former ones.
        let replaced = matches!(&self.goal, Goal::Claim(Claim { configured: Some(digest), .. })
            if known.is_new(digest));
        if replaced || !known.is_precious() {
            self.known = None;
            return None;
        }
        let found = document.map_or(0, |found| found.epoch);
        let epoch = (known.epoch.max(found) + 1).max(millis(now) / 1000);
        let (known, nonce) = (known.clone(), self.nonce());
        Some(known.lost(nonce, epoch))
    }

    /// Nothing is there: whoever has tokens, or wants to call, begins.
    fn found_empty(&mut self, version: Version, now: Moment) -> Effect {
        let nonce = self.nonce();
        let epoch = (millis(now) / 1000).max(self.taken.0 + 1);
        let (first, what) = match (self.newest(), &self.goal) {
            (Some(newest), _) => newest,
            (None, Goal::Claim(claim)) => {
                (Document::new(epoch, String::new(), claim.seed.clone()), What::Other)
            }
            (None, _) => return Rest::Settled.into(),
        };
        self.swap(version, what, Document { epoch, nonce, ..first })
    }

    /// Remembers what was read.
    fn see(&mut self, version: Version, mut document: Document, now: Moment) {
        let known = self.known.as_ref().map(|(_, known)| known);
        let older = known.is_some_and(|known| {
            document.age() == known.age() && document.revision < known.revision
        });
        // A write was lost by the engine: whoever made that intent may be calling all the same.
        if let (true, None, Some((lost, _))) = (older, &document.intent, &self.seen.intent) {
            document.intent = Some(lost.clone());
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
