//! The storm guard: how often 401s may cause refreshes when no fresh token pleases the upstream.

use std::time::Duration;

use crate::clock::Moment;
use crate::schedule::storm_interval;

/// A streak is forgotten after this many of its intervals without a refused token.
const FORGET_AFTER: u32 = 10;

/// Refreshes that 401s caused, in a row.
#[derive(Default)]
pub(super) struct Storm {
    last: Option<Strike>,
}

#[derive(Clone, Copy)]
struct Strike {
    at: Moment,
    streak: u32,
    interval: Duration,
}

impl Storm {
    /// Whether a 401 may cause a refresh at `now`.
    pub(super) fn allows(&self, now: Moment) -> bool {
        self.clears_at().is_none_or(|at| at.reached(now))
    }

    /// When the next one may.
    pub(super) fn clears_at(&self) -> Option<Moment> {
        self.last.map(|strike| strike.at.plus(strike.interval))
    }

    /// A 401 causes a refresh at `now`.
    pub(super) fn strike(&mut self, now: Moment, min_interval: Duration) {
        let streak = match self.last {
            Some(last) if !last.at.plus(last.interval * FORGET_AFTER).reached(now) => {
                last.streak + 1
            }
            _ => 1,
        };
        self.last =
            Some(Strike { at: now, streak, interval: storm_interval(streak, min_interval) });
    }

    /// Until when requests need not wait for a replacement: from the second refused token in a row
    /// on, another one is not expected to help. A single refusal is worth the short wait.
    pub(super) fn bars_waiting(&self) -> Option<Moment> {
        self.last.filter(|strike| strike.streak > 1).and(self.clears_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn refused_tokens_in_a_row_space_refreshes_out() {
        let mut storm = Storm::default();
        let mut now = Moment::now();
        let mut gaps = Vec::new();
        for _ in 0..5 {
            assert!(storm.allows(now));
            storm.strike(now, SECOND);
            let clear = storm.clears_at().unwrap();
            gaps.push(clear.remaining(now).as_secs());
            assert!(!storm.allows(now));
            now = clear;
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16]);
        now = now.plus(SECOND * 16 * FORGET_AFTER);
        storm.strike(now, SECOND);
        assert_eq!(storm.clears_at().unwrap().remaining(now), SECOND, "forgotten");
    }

    #[test]
    fn only_a_streak_bars_waiting() {
        let mut storm = Storm::default();
        let now = Moment::now();
        storm.strike(now, SECOND);
        assert!(storm.bars_waiting().is_none());
        storm.strike(now.plus(SECOND), SECOND);
        assert_eq!(storm.bars_waiting(), storm.clears_at());
    }
}
