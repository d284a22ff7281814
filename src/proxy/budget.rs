//! A bound that all requests share: what one takes is not there for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much there is for all.
pub struct Budget {
    limit: AtomicUsize,
    held: AtomicUsize,
}

impl Budget {
    /// At most `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), held: AtomicUsize::new(0) }
    }

    /// At most `limit` from now on. What was taken stays taken; while that is more, nobody gets any.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// What is taken now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// True if there was room for so much `more`, which is held from now on.
    pub(super) fn take(&self, more: usize) -> bool {
        let held = self.held.fetch_add(more, Ordering::Relaxed);
        let fits = held.saturating_add(more) <= self.limit.load(Ordering::Relaxed);
        if !fits {
            self.give_back(more);
        }
        fits
    }

    pub(super) fn give_back(&self, less: usize) {
        self.held.fetch_sub(less, Ordering::Relaxed);
    }

    /// One of what is counted, if there is one left.
    pub(super) fn one(self: &Arc<Self>) -> Option<Share> {
        self.take(1).then(|| Share(Arc::clone(self)))
    }
}

/// Given back when it is dropped.
pub(super) struct Share(Arc<Budget>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_there_again_when_it_is_dropped() {
        let budget = Arc::new(Budget::new(2));
        let (first, second) = (budget.one(), budget.one());
        assert!(first.is_some() && second.is_some() && budget.one().is_none());
        drop(first);
        assert!(budget.one().is_some());
        budget.resize(1);
        assert!(budget.one().is_none(), "the second one is still there");
    }
}
