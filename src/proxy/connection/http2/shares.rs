//! The shares that a connection's requests have of what all connections may have at once.
//!
//! A request has one for as long as anything of it is in memory. Its task ends before that: what it
//! has answered is with h2 then, which writes as fast as the caller reads. So a share is left here, and
//! given back when the connection has nothing more to write; and each piece of a body, which waits for
//! a window besides, holds it, too.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::load::Load;
use crate::proxy::budget::Share;

/// What a request has; nothing if it was turned away.
pub(super) type Held = Option<Arc<Share>>;

/// What was left by requests that are over.
#[derive(Clone, Default)]
pub(super) struct Shares(Arc<Mutex<Vec<Held>>>);

impl Shares {
    /// Left here when that is dropped.
    pub(super) fn keep(&self, held: Held) -> Kept {
        Kept { held, shares: self.clone() }
    }

    /// Has h2 write by `poll`; if it has written all, what was left before is given back.
    pub(super) fn written<T>(&self, load: &Load, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let mut left = mem::take(&mut *self.lock());
        let polled = poll();
        if load.is_writing() {
            self.lock().append(&mut left);
        }
        polled
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's share until its task ends.
pub(super) struct Kept {
    held: Held,
    shares: Shares,
}

impl Kept {
    /// The same for what the request leaves behind.
    pub(super) fn held(&self) -> Held {
        self.held.clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.held.is_some() {
            self.shares.lock().push(self.held.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::budget::Budget;

    #[test]
    fn a_share_is_given_back_when_all_has_been_written() {
        let (budget, shares, load) = (Arc::new(Budget::new(2)), Shares::default(), Load::default());
        let request = || shares.keep(budget.one().map(Arc::new));
        let poll = || shares.written(&load, || Poll::<()>::Pending).is_pending();
        let (first, second) = (request(), request());
        assert!(request().held().is_none());
        drop(first);
        load.writes(true);
        assert!(poll() && budget.one().is_none(), "its end is not written");
        load.writes(false);
        assert!(poll() && budget.held() == 1);
        let piece = second.held();
        drop(second);
        assert!(poll() && budget.held() == 1, "a piece is not written");
        drop(piece);
        assert_eq!(budget.held(), 0);
    }
}
