//! HTTP/2: hyper's server, and a timer for each request instead of one for the connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

mod heads;
mod streams;

use heads::Heads;
use streams::{Open, Streams};

use super::Served;
use crate::clock::monotonic;
use crate::proxy::handle;
use crate::proxy::relay::Downstream;
use crate::proxy::watchdog::Watchdog;
use crate::proxy::wire::Wire;

/// What one stream may send before we have read it.
const WINDOW: u32 = 256 << 10;
/// What all streams of a connection may send before we have read it.
pub(in crate::proxy) const CONNECTION_WINDOW: u32 = 4 * WINDOW;
/// What one stream may have written of its response before the caller takes it.
pub(in crate::proxy) const SEND_BUFFER: usize = 64 << 10;
/// A caller that has been told to go may take so long.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves HTTP/2 on `io`.
pub(super) async fn serve<I>(io: I, served: Served)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Served { routes, drain } = served;
    let limits = routes.borrow().limits;
    let open = Arc::new(AtomicUsize::new(0));
    let streams = Streams::default();
    let (counted, begun) = (Arc::clone(&open), streams.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = Arc::clone(&routes.borrow());
        let dog = Watchdog::new(monotonic(), limits.idle_time, limits.head_time);
        let wire = Arc::new(Wire::new(dog));
        let answer = handle(routes, Arc::clone(&wire), request);
        begun.begin(wire, Open::count(&counted));
        async move { Ok::<Response<Downstream>, Infallible>(answer.await) }
    });
    let io = TokioIo::new(Heads::new(io, limits.head_time));
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets)
        .max_local_error_reset_streams(limits.http2_resets)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.idle_time)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    // An error is the caller's: it broke off, or did what HTTP/2 forbids and has been told so.
    tokio::select! {
        _ = &mut connection => return,
        () = drain.wait() => {}
        () = idle(&open, limits.idle_time) => {}
    }
    connection.as_mut().graceful_shutdown();
    let gone = async {
        loop {
            tokio::time::sleep(FAREWELL).await;
            if open.load(Relaxed) == 0 {
                return;
            }
        }
    };
    tokio::select! {
        _ = connection => {}
        () = gone => {}
    }
}

/// Returns when no request has been open for `limit` or longer.
async fn idle(open: &AtomicUsize, limit: Duration) {
    let mut was_idle = false;
    loop {
        tokio::time::sleep(limit / 2).await;
        let is_idle = open.load(Relaxed) == 0;
        if is_idle && was_idle {
            return;
        }
        was_idle = is_idle;
    }
}
