//! Idle HTTP/1.1 connections: each thread keeps its own, so nobody locks.
//!
//! An idle connection is polled by nobody. Whether it is still open is asked when it is taken, and
//! now and then by the sweep.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use super::http1::Connection;
use crate::proxy::http1::{inbox, lines};

/// Idle connections that one thread keeps for one upstream.
const MAX_IDLE: usize = 512;
/// What those hold at most: two buffers each and the lines of a head; larger ones are given back after
/// their use.
pub(in crate::proxy) const MAX_BUFFERED: usize = MAX_IDLE * (2 * inbox::KEPT + lines::KEPT);
/// An idle connection is closed after this: most servers close theirs after 60 s or more.
const MAX_IDLE_TIME: Duration = Duration::from_secs(55);

thread_local! {
    /// By slot.
    #[allow(clippy::vec_box)] // they move between here and their requests
    static POOL: RefCell<Vec<Vec<Box<Connection>>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an idle connection.
pub(super) fn put(slot: usize, connection: Box<Connection>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() <= slot {
            pool.resize_with(slot + 1, Vec::new);
        }
        if pool[slot].len() < MAX_IDLE {
            pool[slot].push(connection);
        }
    });
}

/// The connection used last, if it is open and not too old: it is the least likely to be closing.
pub(super) fn take(slot: usize, now: Instant) -> Option<Box<Connection>> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.get_mut(slot)?;
        while let Some(mut connection) = idle.pop() {
            if is_good(&mut connection, now) {
                connection.used_at = now;
                return Some(connection);
            }
        }
        None
    })
}

fn is_good(connection: &mut Connection, now: Instant) -> bool {
    now.saturating_duration_since(connection.used_at) < MAX_IDLE_TIME
        && now < connection.good_until
        && connection.is_open()
}

/// Closes this thread's idle connections that are old or closed by the upstream.
pub(super) fn sweep(now: Instant) {
    POOL.with_borrow_mut(|pool| {
        for idle in pool {
            idle.retain_mut(|connection| is_good(connection, now));
        }
    });
}
