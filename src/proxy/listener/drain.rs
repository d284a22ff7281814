//! The end of accepting, and the connections that are still open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The end of accepting and the connections that are still open.
#[derive(Default)]
pub struct Drain {
    /// Wakes every connection when draining begins.
    pub(in crate::proxy) begun: Arc<Notify>,
    draining: AtomicBool,
    open: AtomicUsize,
    /// Wakes who waits for the last connection.
    closed: Notify,
}

impl Drain {
    /// Stops accepting; connections end after the request that they are at.
    pub fn begin(&self) {
        self.draining.store(true, Ordering::Release);
        self.begun.notify_waiters();
    }

    /// True once [`Drain::begin`] was called.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns when draining begins.
    pub(in crate::proxy) async fn wait(&self) {
        let begun = self.begun.notified();
        if !self.has_begun() {
            begun.await;
        }
    }

    /// Returns when no connection is open any more.
    pub async fn finished(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// Connections beyond the limit that are told so; further ones are just closed.
const MAX_TURNED_AWAY: usize = 256;

/// Counts one open connection.
pub(super) struct Open(Arc<Drain>);

/// What becomes of a new connection.
pub(super) enum Place {
    /// It is served.
    Free(Open),
    /// The limit is reached: it is told so.
    Full(Open),
    /// There are too many to be told even that.
    None,
}

impl Open {
    pub(super) fn enter(drain: &Arc<Drain>, limit: usize) -> Place {
        let open = drain.open.fetch_add(1, Ordering::AcqRel);
        let place = Self(Arc::clone(drain));
        if open < limit {
            Place::Free(place)
        } else if open < limit.saturating_add(MAX_TURNED_AWAY) {
            Place::Full(place)
        } else {
            Place::None
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.closed.notify_waiters();
        }
    }
}
