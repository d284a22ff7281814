//! One caller's connection: hyper's server, the connection's single timer, and the end at shutdown.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::handle;
use super::listener::Drain;
use super::relay::Downstream;
use super::route::Routes;
use super::watchdog::{Verdict, Watchdog};
use crate::clock::monotonic;

/// Serves every request on `io` until the caller leaves, idles for too long, or `drain` begins and
/// no request is under way.
pub(super) fn serve<I>(
    io: I,
    mut routes: watch::Receiver<Arc<Routes>>,
    drain: Arc<Drain>,
) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let current = Arc::clone(&routes.borrow_and_update());
    let limits = current.limits;
    let now = monotonic();
    let watchdog = Arc::new(Watchdog::new(now, limits.idle_time, limits.head_time));
    let io = Noticing { io: TokioIo::new(io), watchdog: Arc::clone(&watchdog) };
    let dog = Arc::clone(&watchdog);
    let seen = RefCell::new((routes, current));
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, current) = &mut *seen.borrow_mut();
        // A reload reaches a connection with its next request, for one atomic load each.
        if routes.has_changed().unwrap_or(false) {
            *current = Arc::clone(&routes.borrow_and_update());
        }
        let answer = handle(Arc::clone(current), Arc::clone(&dog), request);
        async move { Ok::<Response<Downstream>, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .max_headers(limits.head_fields)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes)
        .serve_connection(io, service);
    Serve {
        connection,
        timer: tokio::time::sleep_until(watchdog.deadline()),
        drained: Arc::clone(&drain.begun).notified_owned(),
        watched: false,
        draining: false,
        drain,
        watchdog,
    }
}

pin_project! {
    struct Serve<I, S>
    where
        S: HttpService<Incoming>,
    {
        #[pin]
        connection: http1::Connection<Noticing<I>, S>,
        #[pin]
        timer: Sleep,
        #[pin]
        drained: OwnedNotified,
        // True while timer and notification hold this task's waker: they wake it by themselves and
        // need not be polled at every step.
        watched: bool,
        draining: bool,
        drain: Arc<Drain>,
        watchdog: Arc<Watchdog>,
    }
}

impl<I, S> Future for Serve<I, S>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Downstream>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            if this.drain.has_begun() && !*this.draining {
                *this.draining = true;
                this.connection.as_mut().graceful_shutdown();
            }
            // An error is the caller's: it broke off, or spoke no HTTP and has been told so.
            if this.connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if this.watchdog.awaits_head() {
                this.watchdog.head_begins(monotonic());
            }
            let deadline = this.watchdog.deadline();
            if deadline < this.timer.deadline() {
                this.timer.as_mut().reset(deadline);
                *this.watched = false;
            }
            if *this.watched && !this.timer.is_elapsed() {
                return Poll::Pending;
            }
            // A task that has used its budget up is scheduled again, but a timer that it polls then
            // does not take its waker.
            let watched = tokio::task::coop::has_budget_remaining();
            if !*this.draining && this.drained.as_mut().poll(cx).is_ready() {
                continue;
            }
            *this.watched = watched;
            ready!(this.timer.as_mut().poll(cx));
            *this.watched = false;
            match this.watchdog.judge(monotonic()) {
                Verdict::Later(deadline) => this.timer.as_mut().reset(deadline),
                Verdict::Expired => this.timer.as_mut().reset(this.watchdog.deadline()),
                Verdict::Abandoned => return Poll::Ready(()),
            }
        }
    }
}

/// Tells the watchdog that something moved.
struct Noticing<I> {
    io: TokioIo<I>,
    watchdog: Arc<Watchdog>,
}

impl<I> Noticing<I> {
    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = result {
            self.watchdog.written();
        }
        result
    }
}

impl<I: AsyncRead + Unpin> Read for Noticing<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = result {
            self.watchdog.progress();
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> Write for Noticing<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
