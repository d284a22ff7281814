//! One reading of both clocks, taken at the edges and passed on as an argument.
//!
//! The monotonic clock stands still while a machine is suspended, the wall clock may be stepped at
//! any time; a token is dead as soon as either of them says so. Everything that judges a lifetime
//! takes a [`Moment`] and never reads a clock itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A point in time on the monotonic clock and on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For durations and timers. Under a paused test clock this is the one that moves.
    pub mono: Instant,
    /// For what outlives the process or comes from outside: `exp`, the store, `/status`.
    pub wall: SystemTime,
}

impl Moment {
    /// Reads both clocks.
    #[must_use]
    #[allow(clippy::disallowed_methods)]
    pub fn now() -> Self {
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }

    /// The moment `by` later; saturates instead of overflowing.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self {
            mono: self.mono.checked_add(by).unwrap_or(self.mono),
            wall: self.wall.checked_add(by).unwrap_or(self.wall),
        }
    }

    /// True once either clock has reached `self`.
    #[must_use]
    pub fn reached(self, now: Self) -> bool {
        now.mono >= self.mono || now.wall >= self.wall
    }

    /// What is left until `self`, by the clock that is nearer to it; zero once reached.
    #[must_use]
    pub fn remaining(self, now: Self) -> Duration {
        let mono = self.mono.saturating_duration_since(now.mono);
        let wall = self.wall.duration_since(now.wall).unwrap_or(Duration::ZERO);
        mono.min(wall)
    }
}

/// Reads the monotonic clock alone, for durations.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Whole seconds of `time` since the epoch; 0 before it.
#[must_use]
pub fn epoch_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
