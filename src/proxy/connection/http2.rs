//! HTTP/2: hyper's server, and a timer for each request instead of one for the connection.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Served;
use crate::clock::monotonic;
use crate::proxy::alarm::{Alarm, Rung};
use crate::proxy::handle;
use crate::proxy::relay::{Downstream, RelayError};
use crate::proxy::watchdog::Watchdog;
use crate::proxy::wire::Wire;

/// Requests at the same time on one connection.
const MAX_STREAMS: u32 = 100;
/// Streams that the caller may reset before they were looked at (CVE-2023-44487), and that we may
/// reset for its errors, before the connection is closed.
const MAX_RESETS: usize = 64;
/// What one stream, and all of them together, may send before we have read it.
const WINDOW: u32 = 256 << 10;
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
    let counted = Arc::clone(&open);
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = Arc::clone(&routes.borrow());
        let dog = Watchdog::new(monotonic(), limits.idle_time, limits.head_time);
        let wire = Arc::new(Wire::new(dog));
        let answer = handle(routes, Arc::clone(&wire), request);
        answered(answer, wire, Stream::begin(&counted))
    });
    let io = TokioIo::new(io);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
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

/// Counts one open request.
struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn begin(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// `answer` in time.
async fn answered(
    answer: impl Future<Output = Response<Downstream>>,
    wire: Arc<Wire>,
    stream: Stream,
) -> Result<Response<Timed>, Abandoned> {
    let mut alarm = Box::pin(Alarm::new(&wire.watchdog));
    let mut answer = pin!(answer);
    let response = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            match std::task::ready!(alarm.as_mut().poll(cx, &wire.watchdog)) {
                Rung::Expired => {}
                Rung::Abandoned => return Poll::Ready(Err(Abandoned)),
            }
        }
    })
    .await?;
    Ok(response.map(|body| Timed { body, wire, alarm, _stream: stream }))
}

/// A request that was told that its time is up and did not end.
#[derive(Debug, thiserror::Error)]
#[error("request abandoned")]
struct Abandoned;

/// A response body in time.
struct Timed {
    body: Downstream,
    wire: Arc<Wire>,
    alarm: Pin<Box<Alarm>>,
    _stream: Stream,
}

impl Body for Timed {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            match std::task::ready!(this.alarm.as_mut().poll(cx, &this.wire.watchdog)) {
                Rung::Expired => {}
                Rung::Abandoned => return Poll::Ready(Some(Err(RelayError::Idle))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
