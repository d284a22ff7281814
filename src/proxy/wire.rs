//! What a connection and the requests on it share.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{StatusCode, response};

use super::hop;
use super::lane::Lane;
use super::tunnel::Tunnel;
use super::turns::Mover;
use super::upstream::Call;
use super::watchdog::Watchdog;

/// What a connection and the requests on it share.
pub struct Wire {
    /// The deadline of what it is at.
    pub watchdog: Watchdog,
    /// What it moves for the present request.
    pub(super) mover: Mover,
    /// The connection itself, if it speaks HTTP/1. A stream of HTTP/2 has none of its own.
    lane: Option<Lane>,
    tunnel: Mutex<Option<Box<Tunnel>>>,
    /// There is something in `upload`.
    has_upload: AtomicBool,
    upload: Mutex<Weak<Mutex<Call>>>,
}

impl Wire {
    /// An HTTP/1 connection under `watchdog`.
    #[must_use]
    pub(super) fn http1(watchdog: Watchdog, lane: Lane) -> Self {
        Self { lane: Some(lane), ..Self::http2(watchdog) }
    }

    /// A stream of HTTP/2 under `watchdog`.
    #[must_use]
    pub(super) fn http2(watchdog: Watchdog) -> Self {
        let (tunnel, upload) = (Mutex::default(), Mutex::default());
        let (mover, has_upload) = (Mover::default(), AtomicBool::new(false));
        Self { watchdog, mover, lane: None, tunnel, has_upload, upload }
    }

    /// Says a 103 before the final head (RFC 8297); other interim responses are of no use to who did
    /// not ask for them. Nor is it said in HTTP/2: hyper has no way to.
    pub(super) fn say_early(&self, mut head: response::Parts) {
        if let Some(lane) = &self.lane
            && head.status == StatusCode::EARLY_HINTS
            && hop::strip_response(&mut head.headers, true).is_ok()
        {
            // RFC 9110 §8.6: not in an interim response.
            head.headers.remove(CONTENT_LENGTH);
            lane.say_early(&head.headers);
        }
    }

    /// The connection itself, if it speaks HTTP/1.
    pub(super) fn lane(&self) -> Option<&Lane> {
        self.lane.as_ref()
    }

    /// Leaves `tunnel` for when all is said of HTTP.
    pub(super) fn leave(&self, tunnel: Tunnel) {
        *lock(&self.tunnel) = Some(Box::new(tunnel));
    }

    /// The tunnel that was left.
    pub(super) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        lock(&self.tunnel).take()
    }

    /// Leaves a call whose request is not all out yet, although its response has begun.
    pub(super) fn leave_upload(&self, call: Weak<Mutex<Call>>) {
        *lock(&self.upload) = call;
        self.has_upload.store(true, Relaxed);
    }

    /// True if a call was left of which something is still to be sent.
    pub(super) fn is_uploading(&self) -> bool {
        self.has_upload.load(Relaxed)
    }

    /// Sends what can be sent of the request that was left; ready when there is no more to come, or
    /// it is over. Without this a caller that does not read its response would have its upload
    /// stopped, too: nobody asks for more of the response then.
    pub(super) fn poll_upload(&self, cx: &mut Context<'_>) -> Poll<()> {
        let upload = lock(&self.upload).upgrade();
        let polled = upload.map_or(Poll::Ready(()), |call| lock(&call).poll_upload(cx));
        if polled.is_ready() {
            self.has_upload.store(false, Relaxed);
        }
        polled
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
