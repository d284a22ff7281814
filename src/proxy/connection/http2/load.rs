//! What is under way on an HTTP/2 connection. A request is over when the last of its answer is with
//! h2, which keeps that for as long as its caller opens no window for it, or does not read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::shares::Held;
use crate::proxy::relay::{Downstream, RelayError};

/// What is under way on one connection.
#[derive(Clone, Default)]
pub(super) struct Load(Arc<Counts>);

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    /// All requests there ever were.
    begun: AtomicUsize,
    /// Pieces that the caller has not taken yet.
    unsaid: AtomicUsize,
    writes: AtomicUsize,
    /// Not all that h2 has written so far is with the caller.
    writing: AtomicBool,
}

impl Load {
    /// A request is open as long as that lives.
    pub(super) fn request(&self) -> Open {
        self.0.begun.fetch_add(1, Relaxed);
        Open::count(self, |counts| &counts.requests)
    }

    /// Something is not said yet as long as that lives.
    pub(super) fn unsaid(&self) -> Open {
        Open::count(self, |counts| &counts.unsaid)
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        self.0.writes.fetch_add(1, Relaxed);
    }

    /// What h2 writes is on its way, or all of it is with the caller.
    pub(super) fn writes(&self, writing: bool) {
        self.0.writing.store(writing, Relaxed);
    }

    /// True while it is on its way.
    pub(super) fn is_writing(&self) -> bool {
        self.0.writing.load(Relaxed)
    }

    /// Every piece of `body` is unsaid, and `held`, until it has been written.
    pub(super) fn answer(self, body: Downstream, held: Held) -> Answer {
        Answer { body, load: self, held }
    }

    /// True if no request is open and all is said.
    pub(super) fn is_none(&self) -> bool {
        self.0.requests.load(Relaxed) == 0 && self.0.unsaid.load(Relaxed) == 0
    }

    /// `None` while a request is open; else numbers that change when a request has come since, and as
    /// long as the caller takes what is left of its answers.
    pub(super) fn rest(&self) -> Option<(usize, usize)> {
        let left = self.0.unsaid.load(Relaxed) > 0;
        let moved = if left { self.0.writes.load(Relaxed) } else { 0 };
        let begun = self.0.begun.load(Relaxed);
        (self.0.requests.load(Relaxed) == 0).then_some((begun, moved))
    }
}

/// Counts one thing.
pub(super) struct Open {
    load: Load,
    counter: fn(&Counts) -> &AtomicUsize,
}

impl Open {
    fn count(load: &Load, counter: fn(&Counts) -> &AtomicUsize) -> Self {
        counter(&load.0).fetch_add(1, Relaxed);
        Self { load: load.clone(), counter }
    }
}

impl Clone for Open {
    fn clone(&self) -> Self {
        Self::count(&self.load, self.counter)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.counter)(&self.load.0).fetch_sub(1, Relaxed);
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: Downstream,
    load: Load,
    held: Held,
}

/// A piece of it.
struct Piece {
    data: Bytes,
    _unsaid: Open,
    _held: Held,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let counted = |data| {
            let (unsaid, held) = (self.load.unsaid(), self.held.clone());
            Bytes::from_owner(Piece { data, _unsaid: unsaid, _held: held })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_requests_came_on_was_not_at_rest() {
        let load = Load::default();
        let before = load.rest();
        assert!(before.is_some());
        assert_eq!(load.rest(), before, "nothing has come");
        let request = load.request();
        assert_eq!(load.rest(), None);
        drop(request);
        assert_ne!(load.rest(), before, "one has come and gone");
    }
}
