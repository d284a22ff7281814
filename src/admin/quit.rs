//! `POST /quitquitquit`, where the configuration allows it: how the application of a Job ends a
//! sidecar that is an ordinary container beside it, so that the pod can complete.
//!
//! The admin listener is often on the pod's address, so only those are heard who share its loopback.
//! A web page could send such a request too, and a browser says so by `Origin` (Fetch §3.2).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::reply;

/// The path that ends the process.
pub(super) const PATH: &str = "/quitquitquit";

/// One connection's part in it.
#[derive(Clone)]
pub(super) struct Caller {
    local: bool,
    asked: Arc<AtomicBool>,
}

impl Caller {
    /// At the other end of the connection is `peer`.
    pub(super) fn new(peer: SocketAddr) -> Self {
        // On [::] an IPv4 peer has an IPv4-mapped address.
        let local = peer.ip().to_canonical().is_loopback();
        Self { local, asked: Arc::default() }
    }

    /// True once the caller has rightly asked for the end.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The answer. When it says 200 the connection closes after it, and then the process may end.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        if !self.local || request.headers().contains_key(ORIGIN) {
            return reply(StatusCode::FORBIDDEN, "text/plain", "only from 127.0.0.1 or [::1]\n");
        }
        self.asked.store(true, Ordering::Relaxed);
        let mut response = reply(StatusCode::OK, "text/plain", "stopping\n");
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(peer: &str, method: Method, origin: Option<&'static str>) -> (u16, bool) {
        let caller = Caller::new(peer.parse().expect("an address"));
        let mut request = Request::new(());
        *request.method_mut() = method;
        if let Some(origin) = origin {
            request.headers_mut().insert(ORIGIN, HeaderValue::from_static(origin));
        }
        let status = caller.answer(&request).status().as_u16();
        (status, caller.asked())
    }

    #[test]
    fn who_shares_the_loopback_may_end_the_process() {
        for peer in ["127.0.0.1:40000", "[::1]:40000", "[::ffff:127.0.0.1]:40000"] {
            assert_eq!(answered(peer, Method::POST, None), (200, true), "{peer}");
        }
    }

    #[test]
    fn who_comes_from_elsewhere_may_not() {
        for peer in ["192.0.2.7:40000", "[2001:db8::7]:40000", "[::ffff:192.0.2.7]:40000"] {
            assert_eq!(answered(peer, Method::POST, None), (403, false), "{peer}");
        }
    }

    #[test]
    fn a_web_page_may_not() {
        for origin in ["http://127.0.0.1:9901", "https://evil.example", "null"] {
            let answer = answered("127.0.0.1:40000", Method::POST, Some(origin));
            assert_eq!(answer, (403, false), "{origin}");
        }
    }

    #[test]
    fn reading_it_ends_nothing() {
        for method in [Method::GET, Method::HEAD, Method::PUT] {
            assert_eq!(answered("127.0.0.1:40000", method, None), (405, false));
        }
    }
}
