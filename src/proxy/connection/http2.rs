//! HTTP/2: hyper's server, and a timer for each request instead of one for the connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

mod heads;
mod load;
mod shares;
mod streams;

use heads::Heads;
use load::Load;
use shares::Shares;
use streams::Streams;

use super::Served;
use crate::clock::monotonic;
use crate::proxy::exchange::turn_away;
use crate::proxy::handle;
use crate::proxy::inbound::Inbound;
use crate::proxy::reject::Reason;
use crate::proxy::relay::Downstream;
use crate::proxy::route::Routes;
use crate::proxy::watchdog::Watchdog;
use crate::proxy::wire::Wire;

/// What one stream may send before we have read it.
const WINDOW: u32 = 128 << 10;
/// What h2 may hold of one request: its window, and for small frames, which take more room than they
/// bring, half as much again.
pub(in crate::proxy) const MAX_UNREAD: usize = WINDOW as usize * 3 / 2;
/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// What one stream may have written of its response before the caller takes it.
pub(in crate::proxy) const SEND_BUFFER: usize = 64 << 10;
/// A caller that has been told to go, and whose requests are over, may take so long.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all streams of a connection may send before we have read it: `streams` that stand still do not
/// hold up the others.
fn connection_window(streams: u32) -> u32 {
    WINDOW.saturating_mul(streams).min(MAX_WINDOW)
}

/// Serves HTTP/2 on `io`.
pub(super) async fn serve<I>(io: I, served: Served)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Served { routes, drain } = served;
    let limits = routes.borrow().limits;
    let load = Load::default();
    let (streams, shares) = (Streams::default(), Shares::default());
    let (of_requests, begun, left) = (load.clone(), streams.clone(), shares.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = Arc::clone(&routes.borrow());
        let dog = Watchdog::new(monotonic(), limits.idle_time, limits.head_time);
        let wire = Arc::new(Wire::http2(dog));
        let request = request.map(|body| Inbound::http2(body, Arc::clone(&wire)));
        let share = routes.http2_requests.one().map(Arc::new);
        begun.begin(Arc::clone(&wire), of_requests.request(), left.keep(share.clone()));
        let answer = match &share {
            Some(_) => Ok(handle(routes, wire, request)),
            None => Err(too_many(&routes)),
        };
        let load = of_requests.clone();
        async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(refusal) => *refusal,
            };
            Ok::<_, Infallible>(answer.map(|body| load.answer(body, share)))
        }
    });
    let io = TokioIo::new(Heads::new(io, limits.head_time, load.clone()));
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets)
        .max_local_error_reset_streams(limits.http2_resets)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(connection_window(limits.http2_streams))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.idle_time)
        .serve_connection(io, service);
    let mut connection = pin!(shares.given_back_by(connection, load.clone()));
    // An error is the caller's: it broke off, or did what HTTP/2 forbids and has been told so.
    tokio::select! {
        _ = &mut connection => return,
        () = drain.wait() => {}
        () = idle(&load, limits.idle_time) => {}
    }
    connection.as_mut().connection().graceful_shutdown();
    // hyper ends the connection once its caller has answered, which it may never do.
    tokio::select! {
        _ = connection => {}
        () = gone(&load) => {}
        () = idle(&load, limits.idle_time) => {}
    }
}

/// The answer to a request beyond what all connections may have at once.
fn too_many(routes: &Routes) -> Box<Response<Downstream>> {
    let limit = routes.limits.http2_requests;
    tracing::warn!(limit, "too many requests over HTTP/2: one was turned away");
    Box::new(turn_away(routes, Reason::Overloaded))
}

/// Returns a while after nothing is under way any more.
async fn gone(load: &Load) {
    loop {
        tokio::time::sleep(FAREWELL).await;
        if load.is_none() {
            return;
        }
    }
}

/// Returns when no request has come or been open for half of `limit` or longer, and nothing was taken of what
/// is left of answers.
async fn idle(load: &Load, limit: Duration) {
    let mut before = None;
    loop {
        tokio::time::sleep(limit / 2).await;
        let rest = load.rest();
        if rest.is_some() && rest == before {
            return;
        }
        before = rest;
    }
}
