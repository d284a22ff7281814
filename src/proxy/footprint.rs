//! The most memory that callers and upstreams can make bearerd use, from the configured bounds.
//!
//! Usual connections take a small part of it: an idle one some 16 KiB. It is what they come to if all
//! of them do harm at once.

use super::connection::http2::{CONNECTION_WINDOW, SEND_BUFFER};
use super::upstream::http1;
use crate::config::Limits;

/// The program, its threads and its pools, before anybody connects.
const BASE: usize = 32 << 20;
/// TLS records that are being put together, on both sides of an exchange.
const TLS: usize = 192 << 10;
/// Futures, maps of fields, what the allocator cannot use.
const OVERHEAD: usize = 64 << 10;

/// Bytes that can be in use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Without any connection.
    pub base: usize,
    /// For each HTTP/1 connection, with the request on it.
    pub http1: usize,
    /// For each HTTP/2 connection, with all the requests on it.
    pub http2: usize,
    /// Copies kept for replays, over all requests.
    pub copies: usize,
    /// Connections.
    pub connections: usize,
}

impl Footprint {
    /// Under `limits`.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        // Towards the upstream: what was read and not passed on, and what was not written yet.
        let call = 2 * http1::MAX_BUFFERED;
        let request = limits.head_bytes + call + OVERHEAD;
        let streams = limits.http2_streams as usize;
        Self {
            base: BASE,
            // hyper bounds what it has read and what it has to write by the size of a head.
            http1: 2 * limits.head_bytes + request + TLS,
            http2: CONNECTION_WINDOW as usize + streams * (request + SEND_BUFFER) + TLS,
            copies: limits.replay_bytes,
            connections: limits.connections,
        }
    }

    /// All of it, if all callers speak HTTP/1.
    #[must_use]
    pub fn with_http1(&self) -> usize {
        self.base + self.copies + self.connections.saturating_mul(self.http1)
    }

    /// All of it, if all callers speak HTTP/2.
    #[must_use]
    pub fn with_http2(&self) -> usize {
        self.base + self.copies + self.connections.saturating_mul(self.http2)
    }
}
