//! The connection to an upstream: taken from this thread's pool or opened, polled by the task of
//! the request that uses it, and put back when its answer has been read.
//!
//! No task is spawned for it and no channel crossed: a request, its upstream connection and its
//! response run in one task on one thread.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::Instant;

use super::gate::Gate;
use super::replay::Outbound;
use super::watchdog::Watchdog;
use crate::dial::{DialError, Peer, Stream};

/// Idle connections that one thread keeps for one upstream.
const MAX_IDLE: usize = 512;
/// An idle connection is closed after this: most servers close theirs after 60 s or more.
const MAX_IDLE_TIME: Duration = Duration::from_secs(55);

/// Somebody to send requests to.
pub struct Upstream {
    peer: Peer,
    connect_timeout: Duration,
    /// Where this upstream's idle connections are in each thread's pool; never used again.
    slot: usize,
}

/// Why an exchange did not come to a response head.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    #[error("upstream not reachable")]
    Unreachable(#[from] DialError),
    /// No response head in time.
    #[error("upstream did not answer in time")]
    Timeout,
    /// The connection broke, or what came was not HTTP.
    #[error("upstream connection failed")]
    Protocol(#[source] hyper::Error),
}

/// An attempt that failed.
pub struct Failed {
    /// Why.
    pub error: UpstreamError,
    /// The request, if no byte of it can have reached the upstream.
    pub unsent: Option<Request<Outbound>>,
    /// A pooled connection that closed before a byte of the response: it may have been closing
    /// already when the request was written.
    pub stale: bool,
}

impl Upstream {
    /// An upstream at `peer`.
    #[must_use]
    pub fn new(peer: Peer, connect_timeout: Duration) -> Self {
        static SLOTS: AtomicUsize = AtomicUsize::new(0);
        Self { peer, connect_timeout, slot: SLOTS.fetch_add(1, Ordering::Relaxed) }
    }

    /// A pooled connection that can take a request.
    #[must_use]
    pub fn pooled(&self, now: Instant) -> Option<Lease> {
        let mut connection = take(self.slot, now)?;
        connection.used_at = now;
        Some(Lease { connection, slot: self.slot, pooled: true, reusable: true })
    }

    /// A new connection.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn connect(&self, now: Instant) -> Result<Lease, UpstreamError> {
        let stream = self.peer.connect(now + self.connect_timeout).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(UpstreamError::Protocol)?;
        let connection =
            Box::new(Connection { sender, driver: Some(driver), gate: Gate::new(), used_at: now });
        Ok(Lease { connection, slot: self.slot, pooled: false, reusable: true })
    }
}

/// Boxed wherever it is: it moves between pool, request and response.
struct Connection {
    sender: http1::SendRequest<Outbound>,
    /// Gone when it has ended: hyper tells a request that it had not begun with only then.
    driver: Option<http1::Connection<TokioIo<Stream>, Outbound>>,
    gate: Gate,
    /// When its last use began: idle time is overestimated by that use, and a clock is not read.
    used_at: Instant,
}

/// A connection in use. Dropped before [`Lease::give_back`], it is closed: that is how a caller
/// that goes away, or a message cut short, reaches the upstream.
pub struct Lease {
    connection: Box<Connection>,
    slot: usize,
    pooled: bool,
    reusable: bool,
}

/// The response that hyper will make of a request that was started.
pub trait Sent:
    Future<Output = Result<Response<Incoming>, TrySendError<Request<Outbound>>>> + Send
{
}

impl<F> Sent for F where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<Outbound>>>> + Send
{
}

impl Lease {
    /// Hands `request` to the connection; [`Lease::head`] drives it to the response.
    #[must_use]
    pub fn start(mut self, request: Request<Outbound>) -> (Self, Pin<Box<impl Sent>>) {
        // Boxed: it has room for the request, and would stand several times in its caller's future.
        // Unconstrained: with its budget used up a task would defer a waker that wakes nobody.
        let response = self.connection.sender.try_send_request(request);
        let response = Box::pin(tokio::task::coop::unconstrained(response));
        self.connection.gate.touch();
        (self, response)
    }

    /// Drives the connection until the response head is there, or `watchdog` says that time is up.
    ///
    /// # Errors
    /// [`Failed`] says what is known about how far the request came.
    pub async fn head(
        &mut self,
        mut response: Pin<Box<impl Sent>>,
        watchdog: &Watchdog,
    ) -> Result<Response<Incoming>, Box<Failed>> {
        let connection = &mut *self.connection;
        let result = poll_fn(|cx| {
            connection.poll(cx.waker());
            // The connection completes the response within that very poll, so the response needs
            // no waker of its own; with one, every response would cause a second, idle poll.
            match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending if watchdog.expired() => Poll::Ready(None),
                other => other.map(Some),
            }
        })
        .await;
        match result {
            Some(Ok(response)) => {
                // hyper would speak HTTP/1.0 to this peer from now on, without chunks.
                self.reusable = response.version() >= Version::HTTP_11;
                Ok(response)
            }
            Some(Err(mut failure)) => {
                let unsent = failure.take_message();
                let error = failure.into_error();
                let stale = self.pooled && is_gone(&error);
                Err(Box::new(Failed { error: UpstreamError::Protocol(error), unsent, stale }))
            }
            None => {
                let (error, unsent, stale) = (UpstreamError::Timeout, None, false);
                Err(Box::new(Failed { error, unsent, stale }))
            }
        }
    }

    /// Lets the connection make progress: while a body is read, nobody else does.
    pub fn drive(&mut self, task: &Waker) -> Progress {
        self.connection.poll(task)
    }

    /// Reads from the response, which may make the connection able to go on; nobody is woken for
    /// that, since [`Lease::drive`] follows.
    pub fn reading<T>(&self, read: impl FnOnce() -> T) -> T {
        self.connection.gate.quietly(read)
    }

    /// Puts the connection back once its response has been read to the end; one that cannot take
    /// another request right now is closed.
    pub fn give_back(mut self) {
        if self.reusable && self.connection.is_idle() {
            self.connection.gate.leave();
            put(self.slot, self.connection);
        }
    }
}

/// The peer had closed the connection, in one of the ways that this shows.
fn is_gone(error: &hyper::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    let kind = cause.map(io::Error::kind);
    let reset =
        [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].map(Some).contains(&kind);
    reset || error.is_incomplete_message() || error.is_closed()
}

/// What polling a connection came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing had woken it, or it has ended before.
    None,
    /// It did what it could.
    Some,
    /// It did what it could, and that was the last of it.
    Ended,
}

impl Connection {
    /// Lets it do what it can, if something woke it since the last time; wakes `task` for more.
    fn poll(&mut self, task: &Waker) -> Progress {
        let (Some(driver), Some(mut cx)) = (&mut self.driver, self.gate.enter(task)) else {
            return Progress::None;
        };
        if Pin::new(driver).poll(&mut cx).is_pending() {
            return Progress::Some;
        }
        self.driver = None;
        Progress::Ended
    }

    /// It can take a request: by itself after a response was read, or after one more poll. While
    /// it is idle nobody polls it, but the gate knows whether the upstream has closed it.
    fn is_idle(&mut self) -> bool {
        if self.driver.is_some() && self.sender.is_ready() && !self.gate.is_woken() {
            return true;
        }
        self.gate.touch();
        self.poll(Waker::noop()) == Progress::Some && self.sender.is_ready()
    }
}

thread_local! {
    /// This thread's idle connections, by slot.
    #[allow(clippy::vec_box)] // they move between here and their leases
    static POOL: RefCell<Vec<Vec<Box<Connection>>>> = const { RefCell::new(Vec::new()) };
}

fn put(slot: usize, connection: Box<Connection>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() <= slot {
            pool.resize_with(slot + 1, Vec::new);
        }
        if pool[slot].len() < MAX_IDLE {
            pool[slot].push(connection);
        }
    });
}

/// The connection used last, if it is still open: it is the least likely to be closing.
fn take(slot: usize, now: Instant) -> Option<Box<Connection>> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.get_mut(slot)?;
        while let Some(mut connection) = idle.pop() {
            if is_open(&mut connection, now) {
                return Some(connection);
            }
        }
        None
    })
}

fn is_open(connection: &mut Connection, now: Instant) -> bool {
    let young = now.saturating_duration_since(connection.used_at) < MAX_IDLE_TIME;
    young && connection.is_idle()
}

/// Closes this thread's idle connections that are old or closed by the upstream.
pub fn sweep(now: Instant) {
    POOL.with_borrow_mut(|pool| {
        for idle in pool {
            idle.retain_mut(|connection| is_open(connection, now));
        }
    });
}
