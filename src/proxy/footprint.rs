//! The most memory that callers and upstreams can make bearerd use, from the configured bounds.
//!
//! It is what connections come to if all of them do harm at once, in both directions: usual ones take
//! a small part of it, an idle one 4 to 9 KiB. Every term is room that somebody can fill.
//!
//! An HTTP/1 connection has one request at a time. In HTTP/2 what is large is the requests, of which
//! there may be so many over all connections.

use super::connection::http2::{MAX_UNREAD, SEND_BUFFER};
use super::exchange::first;
use super::http1::inbox::MAX_READ;
use super::replay::PIECE;
use super::upstream::{http1, http2, pool};
use crate::config::{Config, Limits, Listen, RouteConfig};

/// The program and its threads.
const BASE: usize = 16 << 20;
/// TLS records that are being put together, on one side of an exchange.
const TLS: usize = 96 << 10;
/// Futures, maps of fields, what the allocator cannot use.
const OVERHEAD: usize = 64 << 10;
/// A request that was turned away, and the answer to it that its caller does not take.
const TURNED_AWAY: usize = 4 << 10;

/// Bytes that can be in use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Without any caller: the program, and each thread's connections to upstreams.
    pub base: usize,
    /// For each HTTP/1 connection, with the request on it.
    pub http1: usize,
    /// For each HTTP/2 connection, without the requests on it.
    pub http2: usize,
    /// For each request over HTTP/2.
    pub request: usize,
    /// Copies kept for replays, over all requests.
    pub copies: usize,
    /// Connections.
    pub connections: usize,
    /// Requests over HTTP/2, on all connections.
    pub requests: usize,
}

impl Footprint {
    /// Under the limits of `config`.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let limits = &config.server.limits;
        let callers_tls =
            config.server.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
        let upstreams_tls = config.routes.iter().any(|route| route.upstream.tls.is_some());
        let of_callers = if callers_tls { TLS } else { 0 };
        let of_upstreams = if upstreams_tls { TLS } else { 0 };
        // Beside all that: what a stream has brought and nobody has taken yet, and what waits for it.
        let sharing = config.routes.iter().filter(|route| may_speak_http2(route)).count();
        let pools = config.routes.len() * pool::MAX_BUFFERED + sharing * http2::MAX_POOLED;
        let of_streams = if sharing > 0 { http2::MAX_BUFFERED } else { 0 };
        let of_calls = of_upstreams + of_streams + OVERHEAD;
        let (asking, streams) = (asking(limits), limits.http2_streams as usize);
        let http1 = blocks_of_caller(limits) + asking.max(answering(limits));
        let request = MAX_UNREAD + asking.max(answering_http2(limits));
        let heads = heads_of_caller(limits) + streams * TURNED_AWAY;
        Self {
            base: BASE + config.server.threads * pools,
            http1: http1 + of_calls + of_callers,
            http2: heads + OVERHEAD + of_callers,
            request: request + of_calls,
            copies: limits.replay_bytes,
            connections: limits.connections,
            requests: limits.http2_requests.min(limits.connections.saturating_mul(streams)),
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
        let requests = self.requests.saturating_mul(self.request);
        self.base + self.copies + self.connections.saturating_mul(self.http2) + requests
    }
}

/// A request's head as it comes in, in a room that may be twice as large, or of its body the room that is
/// read into and those of two frames that are on their way.
fn blocks_of_caller(limits: &Limits) -> usize {
    (2 * limits.head_bytes).max(3 * MAX_READ)
}

/// h2 has of an HTTP/2 caller a head that is not whole yet, as it comes in and as fields, and the room
/// in which it wrote the largest of ours.
fn heads_of_caller(limits: &Limits) -> usize {
    2 * limits.head_bytes + http1::MAX_HEAD
}

/// Until the response has begun: the request's fields, the same as they are written, a piece of a copy
/// that is sent again, what is kept of a first answer, and the response's head as it comes in.
fn asking(limits: &Limits) -> usize {
    2 * limits.head_bytes + PIECE + first::MAX_BYTES + MAX_READ + http1::MAX_BUFFERED
}

/// From then on: what is still written of the request, the response's head in the room that it was read
/// into, its fields as lines, the same as they are written, in a room that may be twice as large, two frames
/// of it that the caller has not taken, and the room that the next one is read into.
fn answering(limits: &Limits) -> usize {
    limits.head_bytes + PIECE + 4 * http1::MAX_HEAD + 3 * MAX_READ
}

/// The same in HTTP/2, where h2 holds the response: its head, less than its buffer and one frame more,
/// the next frame, and the one that is read.
fn answering_http2(limits: &Limits) -> usize {
    limits.head_bytes + PIECE + http1::MAX_HEAD + SEND_BUFFER + 3 * MAX_READ
}

fn may_speak_http2(route: &RouteConfig) -> bool {
    let agreed = route.upstream.tls.is_some() && route.upstream.http2.is_none();
    agreed || route.upstream.http2 == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn footprint(server: &str, upstream: &str) -> Footprint {
        let home = tempfile::tempdir().unwrap();
        let (secret, path) = (home.path().join("token"), home.path().join("bearerd.toml"));
        std::fs::write(&secret, "t").unwrap();
        let text = format!(
            "[server]\n{server}\n[credentials.c]\nprovider = \"file\"\npath = \"{}\"\n\
             [[routes]]\ncredential = \"c\"\n{upstream}\n",
            secret.display()
        );
        std::fs::write(&path, text).unwrap();
        Footprint::of(&config::load(&path).unwrap())
    }

    #[test]
    fn what_is_not_used_is_not_counted() {
        let plain = footprint("", "upstream = \"http://127.0.0.1:1\"");
        let tls = footprint("", "upstream = \"https://api.example\"\nhttp2 = false");
        let either = footprint("", "upstream = \"https://api.example\"");
        assert_eq!((tls.base, tls.http1), (plain.base, plain.http1 + TLS));
        assert_eq!((plain.base, either.base), (33 << 20, plain.base + http2::MAX_POOLED));
        let http2 = footprint("", "upstream = \"http://127.0.0.1:1\"\nhttp2 = true");
        assert_eq!(either.http1, tls.http1 + http2::MAX_BUFFERED);
        assert_eq!(http2.http1, plain.http1 + http2::MAX_BUFFERED);
        assert_eq!(http2.http2, plain.http2);
        assert_eq!(http2.request, plain.request + http2::MAX_BUFFERED);
    }

    #[test]
    fn every_limit_tells() {
        let route = "upstream = \"http://127.0.0.1:1\"";
        let usual = footprint("", route);
        let with = |limits: &str| footprint(&format!("limits = {{ {limits} }}"), route);
        assert_eq!(with("connections = 10").connections, 10);
        let threads = footprint("threads = 3", route);
        assert_eq!(threads.base - usual.base, 2 * (usual.base - BASE));
        assert_eq!(with("replay_bytes = 0").copies, 0);
        assert!(with("head_bytes = 8192").http1 < usual.http1);
        assert!(with("http2_streams = 10").http2 < usual.http2);
        assert_eq!(with("http2_requests = 10").requests, 10);
        let few = with("connections = 2, http2_streams = 3");
        assert_eq!(few.requests, 6, "there cannot be more");
        assert_eq!(usual.with_http1(), usual.base + usual.copies + 10_000 * usual.http1);
        let each = usual.http2 + usual.request;
        assert_eq!(usual.with_http2(), usual.base + usual.copies + 10_000 * each);
    }
}
