//! `credentials.NAME.limits`

use std::time::Duration;

use crate::config::reader::Item;
use crate::config::server::number;
use crate::schedule::RefreshPolicy;
use crate::source::Bounds;

/// Requests that wait for one credential if the configuration does not say.
const WAITERS: usize = 1024;

/// What has a bound of its own for each credential.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) waiters: usize,
    bounds: Bounds,
}

impl Limits {
    /// The bounds of a source whose tokens live as `refresh` says if they do not say it themselves.
    pub(super) fn bounds(self, refresh: RefreshPolicy) -> Bounds {
        Bounds { default_lifetime: refresh.default_lifetime, ..self.bounds }
    }
}

pub(super) fn read(item: Option<Item<'_>>) -> Option<Limits> {
    let usual = Bounds::default();
    let Some(item) = item else {
        return Some(Limits { waiters: WAITERS, bounds: usual });
    };
    let section = item.section()?;
    let size = |key, default: usize, range| {
        number(&section, key, default as u64, range).and_then(|n| usize::try_from(n).ok())
    };
    let waiters = size("waiters", WAITERS, 0..=1_000_000);
    let answer_bytes = size("answer_bytes", usual.answer_bytes, 1024..=64 << 20);
    let answer_seconds = number(&section, "answer_seconds", usual.answer_time.as_secs(), 1..=600);
    let token_bytes = size("token_bytes", usual.token_bytes, 16..=Bounds::LONGEST_TOKEN as u64);
    section.finish();
    let bounds = Bounds {
        answer_bytes: answer_bytes?,
        answer_time: Duration::from_secs(answer_seconds?),
        token_bytes: token_bytes?,
        ..usual
    };
    Some(Limits { waiters: waiters?, bounds })
}
