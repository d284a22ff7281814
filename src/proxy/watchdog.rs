//! Deadlines of a connection at the price of a store: one timer a connection, moved lazily.
//!
//! Setting a timer for every request and every read would cost more than forwarding does. Instead
//! each phase stores its deadline here, progress sets a flag, and the connection's single timer
//! looks when it fires whether the deadline has moved on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// A connection without a request for so long holds nothing any more that can be made again: an idle
/// connection should cost little, and one that is used often should not be made anew each time.
const DROWSY_AFTER: Duration = Duration::from_millis(500);

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
    /// A request is under way.
    busy: AtomicBool,
    /// The first bytes of a request head have come, and its deadline is set.
    in_head: AtomicBool,
    /// No request is under way, and the deadline is not yet that of an idle connection.
    drowsy: AtomicBool,
    expired: AtomicBool,
}

/// What a timer that fired means.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The deadline has moved on to this moment.
    Later(Instant),
    /// No request has come for a while; there is still time for one.
    Drowsy,
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
            busy: AtomicBool::new(false),
            in_head: AtomicBool::new(false),
            drowsy: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        }
    }

    /// A request waits until `deadline`, and is granted `extension` more from each progress.
    pub fn request(&self, deadline: Instant, extension: Duration) {
        self.busy.store(true, Relaxed);
        self.arm(deadline, extension);
    }

    /// A response has begun, to a request that began at `begun`: from now on, and at each progress,
    /// it is granted `extension`. Now is found out by the timer, for which reading a clock is cheaper
    /// than for every response.
    pub fn response(&self, begun: Instant, extension: Duration) {
        self.request(begun + extension, extension);
        self.progress();
    }

    /// No request is under way any more.
    pub fn rest(&self, now: Instant) {
        self.busy.store(false, Relaxed);
        self.in_head.store(false, Relaxed);
        self.drowsy.store(DROWSY_AFTER < self.idle, Relaxed);
        self.arm(now + self.idle.min(DROWSY_AFTER), Duration::ZERO);
    }

    /// Something moved, which extends a request.
    pub fn progress(&self) {
        self.progressed.store(true, Relaxed);
    }

    /// Something was written. The last of a response may be written when its request is over; that
    /// begins nothing.
    pub fn written(&self) {
        if self.busy.load(Relaxed) {
            self.progressed.store(true, Relaxed);
        }
    }

    /// True from the moment that the connection's timer found a head too slow.
    #[must_use]
    pub fn head_is_late(&self) -> bool {
        self.expired.load(Relaxed) && self.in_head.load(Relaxed) && !self.busy.load(Relaxed)
    }

    /// A part of a head has come; if it is the first one, `now` is when.
    pub fn head_comes(&self, now: impl FnOnce() -> Instant) {
        if !self.in_head.load(Relaxed) {
            self.head_begins(now());
        }
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

    /// How long a connection that has become drowsy may still stay idle.
    fn left_when_drowsy(&self) -> Duration {
        self.idle.saturating_sub(DROWSY_AFTER)
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
        let between = !self.busy.load(Relaxed) && !self.in_head.load(Relaxed);
        if between && self.drowsy.swap(false, Relaxed) {
            self.set(now + self.left_when_drowsy());
            return Verdict::Drowsy;
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

/// Rounded up, so that a deadline is never early. In parts, since dividing 128 bits is a call.
fn millis(duration: Duration) -> u64 {
    let part = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration.as_secs().saturating_mul(1000).saturating_add(part)
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
        dog.progress();
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
            dog.head_comes(|| now);
            dog.head_comes(|| now + SECOND);
            assert_eq!(dog.deadline(), now + 10 * SECOND, "later bytes do not extend it");
            dog.request(now + SECOND, SECOND);
            dog.rest(now + SECOND);
            dog.written();
            assert_eq!(dog.deadline(), now + SECOND + DROWSY_AFTER);
        }
        assert_eq!(dog.judge(start + 999 * SECOND), Verdict::Drowsy);
        assert_eq!(dog.judge(start + 1999 * SECOND), Verdict::Abandoned);
    }

    #[test]
    fn a_connection_is_drowsy_once_and_idle_for_no_longer_than_it_may() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        assert_eq!(dog.judge(start + 60 * SECOND), Verdict::Abandoned, "it never had a request");
        dog.request(start, SECOND);
        dog.rest(start);
        assert_eq!(dog.judge(start + DROWSY_AFTER), Verdict::Drowsy);
        let end = start + 60 * SECOND;
        assert_eq!(dog.judge(start + 59 * SECOND), Verdict::Later(end));
        assert_eq!(dog.judge(end), Verdict::Abandoned);
        let short = Watchdog::new(start, DROWSY_AFTER, SECOND);
        short.rest(start);
        assert_eq!(short.judge(start + DROWSY_AFTER), Verdict::Abandoned);
    }

    #[test]
    fn a_head_that_has_begun_is_not_slept_through() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        dog.rest(start);
        dog.progress();
        dog.head_begins(start);
        assert_eq!(dog.judge(start + 10 * SECOND), Verdict::Expired);
        assert_eq!(dog.judge(start + 11 * SECOND), Verdict::Abandoned);
    }

    #[test]
    fn a_response_is_granted_its_time_from_when_it_began() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        dog.response(start, SECOND);
        assert_eq!(dog.judge(start + 9 * SECOND), Verdict::Later(start + 10 * SECOND));
        assert_eq!(dog.judge(start + 10 * SECOND), Verdict::Expired);
    }

    #[test]
    fn a_head_that_began_with_the_request_before_it_has_its_own_deadline_and_is_told() {
        let start = Moment::now().mono;
        let dog = Watchdog::new(start, 60 * SECOND, 10 * SECOND);
        dog.request(start + SECOND, SECOND);
        dog.progress();
        dog.rest(start + SECOND);
        dog.head_comes(|| start + SECOND);
        assert!(!dog.head_is_late());
        assert_eq!(dog.judge(start + 11 * SECOND), Verdict::Expired);
        assert!(dog.head_is_late());
        assert_eq!(dog.judge(start + 12 * SECOND), Verdict::Abandoned);
    }
}
