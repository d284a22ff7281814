//! HTTP/2 to an upstream: each thread has one connection, which its requests share. hyper drives
//! it in a task of its own.

use std::cell::RefCell;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{Failed, Outgoing, UpstreamError};
use crate::dial::Stream;
use crate::proxy::replay::{Outbound, Thirst};

/// What one response may bring before it is read.
const STREAM_WINDOW: u32 = 512 << 10;
/// What all responses on a connection may bring before they are read.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// What a connection and the one that takes its place hold of responses at most.
pub(in crate::proxy) const MAX_BUFFERED: usize = 2 * CONNECTION_WINDOW as usize;
/// The largest head of a response.
const MAX_HEAD: u32 = 64 << 10;
/// A connection with requests on it that is silent for so long is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A connection without requests is closed after this.
const MAX_IDLE_TIME: Duration = Duration::from_secs(55);

/// A connection that takes requests.
struct Shared {
    sender: SendRequest<Outbound>,
    used_at: Instant,
    good_until: Instant,
}

thread_local! {
    /// By slot.
    static POOL: RefCell<Vec<Option<Shared>>> = const { RefCell::new(Vec::new()) };
}

/// The open connection of `slot`.
pub(super) fn take(slot: usize, now: Instant) -> Option<SendRequest<Outbound>> {
    POOL.with_borrow_mut(|pool| {
        let shared = pool.get_mut(slot)?.as_mut()?;
        if shared.sender.is_closed() || now >= shared.good_until {
            pool[slot] = None;
            return None;
        }
        shared.used_at = now;
        Some(shared.sender.clone())
    })
}

/// Opens a connection on `stream`, for `slot` to share until `good_until`.
#[allow(clippy::disallowed_methods)] // a connection that requests share is nobody's to drive
pub(super) async fn open(
    stream: Stream,
    slot: usize,
    now: Instant,
    good_until: Instant,
) -> Result<SendRequest<Outbound>, UpstreamError> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_EVERY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UpstreamError::Http2)?;
    // Its error is every request's on it.
    tokio::spawn(async { drop(connection.await) });
    let shared = Shared { sender: sender.clone(), used_at: now, good_until };
    POOL.with_borrow_mut(|pool| {
        if pool.len() <= slot {
            pool.resize_with(slot + 1, || None);
        }
        pool[slot] = Some(shared);
    });
    Ok(sender)
}

/// Lets go of connections that are closed, old or unused; requests on them go on.
pub(super) fn sweep(now: Instant) {
    POOL.with_borrow_mut(|pool| {
        for shared in pool {
            let good = |shared: &Shared| {
                let idle = now.saturating_duration_since(shared.used_at);
                !shared.sender.is_closed() && now < shared.good_until && idle < MAX_IDLE_TIME
            };
            *shared = shared.take().filter(good);
        }
    });
}

type Sent = dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Outbound>>>> + Send;

/// One request and its response.
pub struct Call {
    sent: Pin<Box<Sent>>,
    body: Option<Incoming>,
    /// What became of a request that failed.
    unsent: Option<Outbound>,
    refused: bool,
    pooled: bool,
    thirst: Thirst,
}

impl Call {
    /// Hands `request` and `body` to the connection.
    pub(super) fn new(
        mut sender: SendRequest<Outbound>,
        request: &Outgoing,
        mut body: Outbound,
        scheme: &Scheme,
        pooled: bool,
    ) -> Self {
        let thirst = body.thirst();
        let request = message(request, body, scheme);
        let sent: Pin<Box<Sent>> = Box::pin(async move { sender.try_send_request(request).await });
        Self { sent, body: None, unsent: None, refused: false, pooled, thirst }
    }

    /// The response head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, UpstreamError>> {
        match ready!(self.sent.as_mut().poll(cx)) {
            Ok(response) => {
                let (head, body) = response.into_parts();
                self.body = Some(body);
                Poll::Ready(Ok(head))
            }
            Err(mut failure) => {
                self.unsent = failure.take_message().map(Request::into_body);
                let error = failure.into_error();
                self.refused = is_refusal(&error);
                Poll::Ready(Err(UpstreamError::Http2(error)))
            }
        }
    }

    /// True while it is the caller who has to go on: all that it sent is with the upstream.
    pub(super) fn awaits_caller(&self) -> bool {
        self.thirst.is_felt()
    }

    /// What is known about how far the request came, after `error`.
    pub(super) fn failed(self, error: UpstreamError) -> Failed {
        let sent = self.unsent.is_none() && !self.refused;
        let broke = matches!(&error, UpstreamError::Http2(error) if is_broken(error));
        Failed { error, sent, body: self.unsent, stale: self.pooled && broke }
    }

    /// What is next of the response body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(cx).map_err(UpstreamError::Http2)
    }

    /// True if the response has been read to its end.
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// How much of the response is to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}

/// RFC 9113 §8.3.1: the target in pseudo-fields, and no field of the connection's own (§8.2.2).
fn message(request: &Outgoing, body: Outbound, scheme: &Scheme) -> Request<Outbound> {
    let mut message = Request::new(body);
    *message.method_mut() = request.method.clone();
    *message.version_mut() = Version::HTTP_2;
    let mut headers = request.headers.clone();
    headers.remove(CONNECTION);
    // hyper does not tell when the upstream wants the body.
    headers.remove(EXPECT);
    let authority = headers.remove(HOST);
    *message.uri_mut() = uri(scheme, authority.as_ref().map(AsRef::as_ref), &request.target);
    *message.headers_mut() = headers;
    message
}

fn uri(scheme: &Scheme, authority: Option<&[u8]>, target: &PathAndQuery) -> Uri {
    Uri::builder()
        .scheme(scheme.clone())
        .authority(authority.unwrap_or_default())
        .path_and_query(target.clone())
        .build()
        // An authority that went into a field goes into a URI, and every target is one.
        .unwrap_or_default()
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// RFC 9113 §8.7: the upstream says that it has not looked at the request.
fn is_refusal(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| {
        let reason = error.reason();
        let left = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (left || reason == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// The connection broke, rather than this request on it.
fn is_broken(error: &hyper::Error) -> bool {
    let by_io = error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>);
    error.is_closed() || error.is_canceled() || by_io || cause(error).is_some_and(h2::Error::is_io)
}
