//! Deadlines of a connection at the price of a store: one timer a connection, moved lazily.
//!
//! Setting a timer for every request and every read would cost more than forwarding does. Instead
//! each phase stores its deadline here, progress sets a flag, and the connection's single timer
//! looks when it fires whether the deadline has moved on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The present phase's deadline, shared by a connection and the request on it.
pub struct Watchdog {
    origin: Instant,
    idle: Duration,
    head: Duration,
    /// Milliseconds after `origin`.
    deadline: AtomicU64,
    /// What progress is worth, in milliseconds; 0 = the deadline stands.
    extension: AtomicU64,
    progressed: AtomicBool,
    /// What was read ends within a message.
    partial: AtomicBool,
    /// A request is under way.
    busy: AtomicBool,
    /// The first bytes of a request head have come, and its deadline is set.
    in_head: AtomicBool,
    expired: AtomicBool,
}

/// What a timer that fired means.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The deadline has moved on to this moment.
    Later(Instant),
    /// It has passed: the request is to be told.
    Expired,
    /// It has passed, and there is nobody to tell: the connection is to be closed.
    Abandoned,
}

impl Watchdog {
    /// Idle from `now` on. Requests may be `idle` apart, and a head may take `head`.
    #[must_use]
    pub fn new(now: Instant, idle: Duration, head: Duration) -> Self {
        Self {
            origin: now,
            idle,
            head,
            deadline: AtomicU64::new(millis(idle)),
            extension: AtomicU64::new(0),
            progressed: AtomicBool::new(false),
            partial: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            in_head: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        }
    }

    /// A request waits until `deadline`, and is granted `extension` more from each progress.
    pub fn request(&self, deadline: Instant, extension: Duration) {
        self.busy.store(true, Relaxed);
        self.arm(deadline, extension);
    }

    /// No request is under way any more.
    pub fn rest(&self, now: Instant) {
        self.busy.store(false, Relaxed);
        self.in_head.store(false, Relaxed);
        self.arm(now + self.idle, Duration::ZERO);
    }

    /// Something moved, which extends a request.
    pub fn progress(&self) {
        self.progressed.store(true, Relaxed);
    }

    /// Something was read, which extends a request. If it is `partial`, it ends within a message:
    /// when no request is under way, that is the next one's head.
    pub fn read(&self, partial: bool) {
        self.progress();
        self.partial.store(partial, Relaxed);
    }

    /// Something was written. The last of a response may be written when its request is over; that
    /// begins nothing.
    pub fn written(&self) {
        if self.busy.load(Relaxed) {
            self.progressed.store(true, Relaxed);
        }
    }

    /// True if the first bytes of a request head have come, perhaps together with the end of the
    /// request before it, and [`Self::head_begins`] was not told yet.
    #[must_use]
    pub fn awaits_head(&self) -> bool {
        !self.busy.load(Relaxed) && self.partial.load(Relaxed) && !self.in_head.load(Relaxed)
    }

    /// True from the moment that the connection's timer found a head too slow.
    #[must_use]
    pub fn head_is_late(&self) -> bool {
        self.expired.load(Relaxed) && self.in_head.load(Relaxed) && !self.busy.load(Relaxed)
    }

    /// The first bytes of a head came at `now`: all of it has to come in time.
    pub fn head_begins(&self, now: Instant) {
        self.in_head.store(true, Relaxed);
        self.arm(now + self.head, Duration::ZERO);
    }

    /// True from the moment that the connection's timer found the deadline passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    /// The deadline as it stands.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.origin + Duration::from_millis(self.deadline.load(Relaxed))
    }

    /// Judges a timer that fired at `now`. Progress is worth its extension from the moment that it
    /// is looked at, so that silence ends a request after one to two of them. A request that was
    /// told has a second to end.
    pub fn judge(&self, now: Instant) -> Verdict {
        let extension = Duration::from_millis(self.extension.load(Relaxed));
        if !extension.is_zero() && self.progressed.swap(false, Relaxed) {
            self.set(now + extension);
        }
        let deadline = self.deadline();
        if now < deadline {
            return Verdict::Later(deadline);
        }
        let told = self.expired.swap(true, Relaxed);
        if told || !(self.busy.load(Relaxed) || self.in_head.load(Relaxed)) {
            return Verdict::Abandoned;
        }
        self.set(now + Duration::from_secs(1));
        Verdict::Expired
    }

    fn arm(&self, deadline: Instant, extension: Duration) {
        self.expired.store(false, Relaxed);
        self.progressed.store(false, Relaxed);
        self.extension.store(millis(extension), Relaxed);
        self.set(deadline);
    }

    fn set(&self, deadline: Instant) {
        self.deadline.store(millis(deadline.saturating_duration_since(self.origin)), Relaxed);
    }
}

/// Rounded up, so that a deadline is never early.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn progress_extends_a_request_and_silence_ends_it() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        dog.request(start + SECOND, SECOND);
        dog.read(true);
        assert_eq!(dog.judge(start + SECOND), Verdict::Later(start + 2 * SECOND));
        assert_eq!(dog.judge(start + 2 * SECOND), Verdict::Expired);
        assert!(dog.expired());
        assert_eq!(dog.judge(start + 3 * SECOND), Verdict::Abandoned);
    }

    #[test]
    fn a_head_has_its_own_deadline_on_every_request() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        for round in 0..3 {
            let now = start + round * 100 * SECOND;
            assert!(!dog.awaits_head());
            dog.read(true);
            assert!(dog.awaits_head());
            dog.head_begins(now);
            dog.read(true);
            assert!(!dog.awaits_head());
            assert_eq!(dog.deadline(), now + 10 * SECOND, "later bytes do not extend it");
            dog.read(false);
            dog.request(now + SECOND, SECOND);
            dog.rest(now + SECOND);
            dog.written();
            assert_eq!(dog.deadline(), now + 61 * SECOND);
        }
        assert_eq!(dog.judge(start + 999 * SECOND), Verdict::Abandoned);
    }

    #[test]
    fn a_head_that_began_with_the_request_before_it_has_its_own_deadline_and_is_told() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        dog.request(start + SECOND, SECOND);
        dog.read(true);
        assert!(!dog.awaits_head(), "it may be this request's body");
        dog.rest(start + SECOND);
        assert!(dog.awaits_head());
        dog.head_begins(start + SECOND);
        assert!(!dog.head_is_late());
        assert_eq!(dog.judge(start + 11 * SECOND), Verdict::Expired);
        assert!(dog.head_is_late());
        assert_eq!(dog.judge(start + 12 * SECOND), Verdict::Abandoned);
    }
}
