//! When to act next. Pure functions of the moment, the history and one random number.
//!
//! `entropy` is uniform in `0.0..1.0` and differs between processes, so that replicas started
//! together do not refresh together.

use std::time::Duration;

use crate::clock::Moment;
use crate::token::AccessToken;

/// The first ceiling of the exponential backoff.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The last ceiling of the exponential backoff after transient failures.
const BACKOFF_CAP: Duration = Duration::from_mins(1);
/// How exactly servers count lives.
const COUNTED_IN: Duration = Duration::from_secs(1);
/// The shortest and the longest pause after a terminal answer. Failed sign-ins are audited or
/// lock accounts, and nothing gets better by asking again.
const TERMINAL_PAUSE: (Duration, Duration) = (Duration::from_mins(4), Duration::from_mins(6));
/// `Retry-After` is believed up to this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(15);
/// The longest interval between two refreshes that 401s caused.
const STORM_CAP: Duration = Duration::from_mins(5);

/// What the configuration says about refreshing (`refresh = { … }`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// The least time between two attempts.
    pub min_interval: Duration,
    /// The life of a token about which nothing is known.
    pub default_lifetime: Duration,
    /// Let a token that no request used for so long lapse; `None` = never.
    pub idle_after: Option<Duration>,
}

/// The point of a token's life at which its refresh starts: between 70 % and 80 %, but early enough
/// for two fetches as slow as the last one, and never within `min_interval` of the last attempt.
///
/// Margins are fractions, since lives between 10 s and a day are real. Servers count whole seconds,
/// so that a token may die up to a second before its time: of a short life the earlier part of that
/// range is used.
#[must_use]
pub fn refresh_at(
    token: &AccessToken,
    fetch_duration: Duration,
    min_interval: Duration,
    entropy: f64,
) -> Moment {
    let life = token.lifetime();
    let earliest = life.mul_f64(0.7);
    let whole_second_early = life.saturating_sub(2 * fetch_duration + COUNTED_IN).max(earliest);
    let fraction = life.mul_f64(0.7 + 0.1 * entropy.clamp(0.0, 1.0)).min(whole_second_early);
    let two_fetches_early = life.saturating_sub(2 * fetch_duration);
    token.obtained_at().plus(fraction.min(two_fetches_early).max(min_interval))
}

/// When to try again after `failures` (at least 1) transient failures in a row: capped exponential
/// backoff with full jitter, but not before the server's `Retry-After`.
#[must_use]
pub fn retry_at(
    now: Moment,
    failures: u32,
    retry_after: Option<Duration>,
    min_interval: Duration,
    entropy: f64,
) -> Moment {
    let ceiling = doubled(BACKOFF_BASE, failures, BACKOFF_CAP);
    let jittered = ceiling.mul_f64(entropy.clamp(0.0, 1.0)).max(min_interval);
    now.plus(jittered.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)))
}

/// When to look again after the identity provider said no.
#[must_use]
pub fn terminal_retry_at(
    now: Moment,
    retry_after: Option<Duration>,
    min_interval: Duration,
    entropy: f64,
) -> Moment {
    let (shortest, longest) = TERMINAL_PAUSE;
    let pause = shortest + longest.saturating_sub(shortest).mul_f64(entropy.clamp(0.0, 1.0));
    let pause = pause.max(min_interval);
    now.plus(pause.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)))
}

/// The storm guard: how long after a refresh that a 401 caused the next 401 may cause one, when
/// the upstream has refused `streak` fresh tokens in a row.
#[must_use]
pub fn storm_interval(streak: u32, min_interval: Duration) -> Duration {
    doubled(min_interval.max(Duration::from_millis(100)), streak, STORM_CAP)
}

/// `base` doubled `times - 1` times, at most `cap`.
fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(1 << times.saturating_sub(1).min(20)).min(cap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    const SECOND: Duration = Duration::from_secs(1);

    fn token(at: Moment, life: f64) -> AccessToken {
        AccessToken::new(Secret::new("t".into()), at, Duration::from_secs_f64(life)).unwrap()
    }

    #[test]
    fn refresh_lies_between_70_and_80_percent_of_a_real_life() {
        let at = Moment::now();
        for (life, earliest, latest) in [
            (10.0, 7.0, 8.0),
            (299.0, 209.3, 239.2),
            (3600.0, 2520.0, 2880.0),
            (86400.0, 60480.0, 69120.0),
        ] {
            for entropy in [0.0, 0.5, 1.0] {
                let due = refresh_at(&token(at, life), Duration::from_millis(50), SECOND, entropy);
                let after = due.remaining(at).as_secs_f64();
                assert!((earliest..=latest + 1e-6).contains(&after), "{life} s: {after}");
            }
        }
    }

    #[test]
    fn a_one_second_token_is_refreshed_once_a_second() {
        let at = Moment::now();
        let due = refresh_at(&token(at, 1.0), Duration::from_millis(5), SECOND, 0.0);
        assert_eq!(due.remaining(at), SECOND);
    }

    #[test]
    fn slow_fetches_start_earlier() {
        let at = Moment::now();
        let due = refresh_at(&token(at, 10.0), Duration::from_secs(4), SECOND, 1.0);
        assert_eq!(due.remaining(at), Duration::from_secs(2));
    }

    #[test]
    fn retry_after_is_honoured_and_clamped() {
        let now = Moment::now();
        let wait =
            |after| retry_at(now, 1, Some(Duration::from_secs(after)), SECOND, 0.5).remaining(now);
        assert_eq!(wait(7), Duration::from_secs(7));
        assert_eq!(wait(u64::MAX), MAX_RETRY_AFTER);
        assert_eq!(wait(0), SECOND);
    }

    #[test]
    fn storm_interval_doubles_up_to_its_cap() {
        let seconds = |streak| storm_interval(streak, SECOND).as_secs();
        assert_eq!([0, 1, 2, 3, 9, 40].map(seconds), [1, 1, 2, 4, 256, 300]);
    }

    proptest! {
        #[test]
        fn no_schedule_is_in_the_past_or_beyond_its_bound(
            life in 0.0f64..1e9, fetch in 0.0f64..100.0, failures in 0u32..1000, entropy in 0.0f64..1.0,
        ) {
            let now = Moment::now();
            let fetch = Duration::from_secs_f64(fetch);
            let due = refresh_at(&token(now, life), fetch, SECOND, entropy).remaining(now);
            prop_assert!(due >= SECOND);
            prop_assert!(due <= SECOND.max(token(now, life).lifetime()));
            let retry = retry_at(now, failures, None, SECOND, entropy).remaining(now);
            prop_assert!(retry >= SECOND && retry <= BACKOFF_CAP);
            let pause = terminal_retry_at(now, None, SECOND, entropy).remaining(now);
            prop_assert!(pause >= TERMINAL_PAUSE.0 && pause <= TERMINAL_PAUSE.1);
            let hour = Duration::from_hours(1);
            prop_assert_eq!(terminal_retry_at(now, None, hour, entropy).remaining(now), hour);
        }
    }
}
