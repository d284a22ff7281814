//! The register of the model: what must hold of every write is checked here.

use super::provider::Provider;
use super::*;

#[derive(Default)]
pub(super) struct Register {
    held: Option<Document>,
    version: u64,
    /// Writes whose sender has given up, and which may still arrive.
    late: Vec<(String, Document)>,
    /// All that was written, for what may come back.
    history: Vec<Document>,
    oldest_allowed: (u64, u64),
    newest_seen: (usize, u64),
}

impl Register {
    pub(super) fn held(&self) -> Option<&Document> {
        self.held.as_ref()
    }

    pub(super) fn version(&self) -> Version {
        Version(self.version.to_string())
    }

    pub(super) fn age(&self) -> (u64, u64) {
        self.held.as_ref().map_or((0, 0), Document::age)
    }

    /// Another writer changes what is not ours.
    pub(super) fn meddle(&mut self) {
        self.version += 1;
    }

    /// A write that is on its way.
    pub(super) fn later(&mut self, expected: Version, document: Document) {
        self.late.push((expected.0, document));
    }

    /// One of those arrives.
    pub(super) fn arrive(&mut self, rng: &mut Rng, provider: &Provider) {
        if !self.late.is_empty() {
            let (expected, document) = self.late.swap_remove(rng.usize(..self.late.len()));
            self.write(&Version(expected), document, provider);
        }
    }

    pub(super) fn write(
        &mut self,
        expected: &Version,
        document: Document,
        provider: &Provider,
    ) -> bool {
        if *expected != self.version() {
            return false;
        }
        // A generation never decreases, and is one thing only.
        let age = document.age();
        assert!(age >= self.oldest_allowed, "went back to {age:?}");
        if let Some(held) = self.held.as_ref().filter(|held| held.age() == age) {
            assert!(held.record == document.record, "two records of {age:?}");
            assert!(document.revision > held.revision);
        }
        if let Some(token) = token_of(&document) {
            let newest = provider.order(token);
            assert!(newest >= self.newest_seen, "{newest:?} came over {:?}", self.newest_seen);
            self.newest_seen = newest;
        }
        self.oldest_allowed = age;
        self.history.push(document.clone());
        self.held = Some(document);
        self.version += 1;
        true
    }

    /// The engine fails over to a copy that lacks the last so many writes, or all of them.
    pub(super) fn go_back(&mut self, by: Option<usize>) {
        let left = by.map_or(0, |by| self.history.len().saturating_sub(by));
        self.history.truncate(left);
        self.held = self.history.last().cloned();
        self.oldest_allowed = self.age();
        self.version += 1;
        self.late.clear();
        self.newest_seen = (0, 0);
    }
}

/// The number of the refresh token that lies there.
pub(super) fn token_of(document: &Document) -> Option<u64> {
    let token = document.record.as_ref()?.refresh_token.as_ref()?;
    Some(number(token))
}

pub(super) fn number(text: &str) -> u64 {
    text.trim_start_matches("rt-").parse().unwrap()
}
