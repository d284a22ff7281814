//! The shares that a connection's requests have of what all connections may have at once.
//!
//! A request has one for as long as anything of it is in memory. Its task ends before that: what it
//! has answered is with h2 then, which writes as fast as the caller reads. So a share is left here, and
//! given back when the connection has nothing more to write; and each piece of a body, which waits for
//! a window besides, holds it, too.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::load::Load;
use crate::proxy::budget::Share;

/// What a request has; nothing if it was turned away.
pub(super) type Held = Option<Arc<Share>>;

/// What was left by requests that are over.
#[derive(Clone, Default)]
pub(super) struct Shares(Arc<Mutex<Vec<Arc<Share>>>>);

impl Shares {
    /// Left here when that is dropped.
    pub(super) fn keep(&self, held: Held) -> Kept {
        Kept { held, shares: self.clone() }
    }

    /// Given back by `connection`, which has this `load`.
    pub(super) fn given_back_by<C>(self, connection: C, load: Load) -> Writing<C> {
        Writing { connection, shares: self, load, before: Vec::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Share>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pin_project! {
    /// A connection. Whenever all has been written, what was left before is given back.
    pub(super) struct Writing<C> {
        #[pin]
        connection: C,
        shares: Shares,
        load: Load,
        // What had been left when it was polled.
        before: Vec<Arc<Share>>,
    }
}

impl<C> Writing<C> {
    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future> Future for Writing<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.project();
        this.before.append(&mut this.shares.lock());
        let polled = this.connection.poll(cx);
        if !this.load.is_writing() {
            this.before.clear();
        }
        polled
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
        if let Some(share) = self.held.take() {
            self.shares.lock().push(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;
    use crate::proxy::budget::Budget;

    #[test]
    fn a_share_is_given_back_when_all_has_been_written() {
        let (budget, shares, load) = (Arc::new(Budget::new(2)), Shares::default(), Load::default());
        let request = || shares.keep(budget.one().map(Arc::new));
        let mut connection = pin!(shares.clone().given_back_by(pending::<()>(), load.clone()));
        let mut poll =
            || connection.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
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
