//! What came of a call is written over the intent, unless somebody has gone on meanwhile.

use super::{Effect, Goal, Outcome, Protocol, Rest, What};
use crate::clock::Moment;
use crate::store::shared::Version;
use crate::store::shared::document::{Dead, Document};

impl Protocol {
    /// The identity provider answered, or did not.
    pub(super) fn answered(&mut self, outcome: Outcome, now: Moment) -> Effect {
        // A refusal may have another reason than a dead token: somebody was faster.
        let look_first = matches!(outcome, Outcome::Refused(_));
        if let Some(mine) = &mut self.mine {
            mine.outcome = Some(outcome);
        }
        (self.goal, self.rounds) = (Goal::Settle, 0);
        if look_first { Effect::Read } else { self.decide(now) }
    }

    /// The write that is owed, if one is.
    pub(super) fn settle(
        &mut self,
        version: &Version,
        document: &Document,
        now: Moment,
    ) -> Option<Effect> {
        let mine = self.mine.as_ref()?;
        let outcome = mine.outcome.clone()?;
        let ours = document.intent.as_ref().is_some_and(|i| i.nonce == mine.intent.nonce);
        // While the intent stands nobody has, also in another life of the register.
        let gone_on = !ours && document.age() > mine.age && document.record.is_some();
        let went_back = !ours && document.dead == Some(Dead::Lost);
        let spent = mine.intent.spends.clone();
        let next = match outcome {
            // The others could not know these tokens, and none is newer: they are not given up.
            Outcome::Renewed(record) if !gone_on && !went_back => {
                if let (false, Err(until)) = (ours, self.standing(document, now)) {
                    return Some(Rest::Busy(until).into());
                }
                document.renewed(self.nonce(), &spent, *record)
            }
            Outcome::Refused(failure) if ours => {
                document.refused(self.nonce(), &spent).paused(failure)
            }
            Outcome::Lost if ours => document.doubted(self.nonce()),
            Outcome::Failed(failure) if ours => document.failed(self.nonce()).paused(failure),
            _ => {
                self.mine = None;
                return None;
            }
        };
        Some(self.swap(version.clone(), What::Settle, next))
    }

    /// It is written.
    pub(super) fn settled(&mut self, now: Moment) -> Effect {
        self.mine = None;
        self.taken = self.known.as_ref().map_or(self.taken, |(_, document)| document.age());
        self.decide(now)
    }

    /// The first document of a life, with the tokens that an empty register must not lose.
    pub(super) fn newest(&self) -> Option<(Document, What)> {
        let mine = self.mine.as_ref()?;
        let Some(Outcome::Renewed(record)) = &mine.outcome else { return None };
        let empty = Document::new(mine.age.0 + 1, String::new(), None);
        Some((empty.renewed(String::new(), &mine.intent.spends, (**record).clone()), What::Settle))
    }
}
