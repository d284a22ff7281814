//! HTTP/1: hyper's server, the connection's single timer, and the end at shutdown.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::Served;
use crate::clock::monotonic;
use crate::proxy::alarm::{Alarm, Rung};
use crate::proxy::handle;
use crate::proxy::listener::Drain;
use crate::proxy::relay::Downstream;
use crate::proxy::watchdog::Watchdog;
use crate::proxy::wire::{Wire, Wired};

/// Serves HTTP/1 on `io`, and what it is upgraded to; gives `io` back when no request has come for a
/// while, with the time that it may still stay idle. The first request's head may have `begun`.
pub(super) fn serve<I>(
    io: I,
    served: Served,
    begun: Option<Instant>,
) -> impl Future<Output = Option<Drowsy<I>>> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Served { mut routes, drain } = served;
    let current = Arc::clone(&routes.borrow_and_update());
    let limits = current.limits;
    let watchdog = Watchdog::new(monotonic(), limits.idle_time, limits.head_time);
    if let Some(begun) = begun {
        watchdog.head_begins(begun);
    }
    let alarm = Alarm::new(&watchdog);
    let wire = Arc::new(Wire::new(watchdog));
    let io = TokioIo::new(Wired::new(io, Arc::clone(&wire), Arc::clone(&current)));
    let (of_requests, of_tunnel) = (Arc::clone(&wire), Arc::clone(&wire));
    let seen = RefCell::new((routes, current));
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, current) = &mut *seen.borrow_mut();
        // A reload reaches a connection with its next request, for one atomic load each.
        if routes.has_changed().unwrap_or(false) {
            *current = Arc::clone(&routes.borrow_and_update());
        }
        of_requests.answer_begins();
        let answer = handle(Arc::clone(current), Arc::clone(&of_requests), request);
        async move { Ok::<Response<Downstream>, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .max_headers(limits.head_fields)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes)
        // Answers pass with the upstream's date, and ours have one of our own.
        .auto_date_header(false)
        .serve_connection(io, service)
        .with_upgrades();
    let serving = Serve {
        connection: Some(connection),
        alarm,
        drained: Arc::clone(&drain.begun).notified_owned(),
        watched: false,
        draining: false,
        drain,
        wire,
    };
    async move {
        let drowsy = serving.await;
        if let Some(tunnel) = of_tunnel.take_tunnel() {
            Box::pin(tunnel.run()).await;
        }
        drowsy
    }
}

/// A connection that no request has come on for a while.
pub(super) struct Drowsy<I> {
    pub(super) io: I,
    /// How long it may still stay idle.
    pub(super) left: Duration,
}

pin_project! {
    struct Serve<I, S>
    where
        S: HttpService<Incoming>,
    {
        connection: Option<http1::UpgradeableConnection<TokioIo<Wired<I>>, S>>,
        #[pin]
        alarm: Alarm,
        #[pin]
        drained: OwnedNotified,
        // True while the notification holds this task's waker.
        watched: bool,
        draining: bool,
        drain: Arc<Drain>,
        wire: Arc<Wire>,
    }
}

impl<I, S> Future for Serve<I, S>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Downstream>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Option<Drowsy<I>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let dog = &this.wire.watchdog;
        loop {
            let Some(connection) = this.connection else { return Poll::Ready(None) };
            let mut connection = Pin::new(connection);
            if this.drain.has_begun() && !*this.draining {
                *this.draining = true;
                connection.as_mut().graceful_shutdown();
            }
            // An error is the caller's: it broke off, or spoke no HTTP and has been told so.
            if connection.poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            // What ends an upload may end its response.
            if this.wire.is_uploading() && this.wire.poll_upload(cx).is_ready() {
                continue;
            }
            if dog.awaits_head() {
                dog.head_begins(monotonic());
            }
            if !*this.draining && !*this.watched {
                *this.watched = true;
                if this.drained.as_mut().poll(cx).is_ready() {
                    continue;
                }
            }
            match ready!(this.alarm.as_mut().poll(cx, dog)) {
                Rung::Drowsy if this.wire.is_settled() => {
                    let parts =
                        this.connection.take().and_then(http1::UpgradeableConnection::into_parts);
                    // Nothing that it has read may be left behind.
                    let parts = parts.filter(|parts| parts.read_buf.is_empty());
                    let left = dog.left_when_drowsy();
                    let io = parts.map(|parts| parts.io.into_inner().into_inner());
                    return Poll::Ready(io.map(|io| Drowsy { io, left }));
                }
                Rung::Expired | Rung::Drowsy => {}
                Rung::Abandoned => return Poll::Ready(None),
            }
        }
    }
}
