//! What was first seen when. Durations that processes leave for each other count from there, by the
//! monotonic clock or whichever is earlier: never by the clock of another machine.

use crate::clock::Moment;
use crate::store::shared::document::{Document, Intent, Token};

/// The moments at which one process first saw what stands in the document.
#[derive(Default)]
pub(super) struct Sightings {
    /// Anything at all.
    pub(super) first: Option<Moment>,
    /// These tokens.
    pub(super) age: Option<((u64, u64), Moment)>,
    /// This intent, which may be another process's.
    pub(super) intent: Option<(Intent, Moment)>,
    /// This life of the register, without tokens.
    pub(super) empty: Option<(u64, Moment)>,
    /// This token in doubt, sent so often.
    pub(super) doubt: Option<((Token, u32), Moment)>,
    /// This pause, by its writer's nonce.
    pub(super) pause: Option<(String, Moment)>,
}

impl Sightings {
    pub(super) fn note(&mut self, document: &Document, now: Moment) {
        self.first.get_or_insert(now);
        first(&mut self.age, Some(document.age()), now);
        first(&mut self.intent, document.intent.clone(), now);
        first(&mut self.empty, document.record.is_none().then_some(document.epoch), now);
        let doubt = document.doubt.as_ref().map(|doubt| (doubt.about.clone(), doubt.sends));
        first(&mut self.doubt, doubt, now);
        first(&mut self.pause, document.pause.as_ref().map(|pause| pause.by.clone()), now);
    }
}

fn first<T: PartialEq>(seen: &mut Option<(T, Moment)>, there: Option<T>, now: Moment) {
    if seen.as_ref().map(|(seen, _)| seen) != there.as_ref() {
        *seen = there.map(|there| (there, now));
    }
}
