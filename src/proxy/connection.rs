//! One caller's connection: which protocol it speaks, and hyper's server for that.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::listener::Drain;
use super::route::Routes;
use crate::clock::monotonic;

mod http1;
pub(super) mod http2;
mod prefixed;

use prefixed::Prefixed;

/// What a connection is served with.
#[derive(Clone)]
pub(super) struct Served {
    /// The newest.
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    /// The end.
    pub(super) drain: Arc<Drain>,
}

/// Which protocol a caller speaks, as far as that is known without reading.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Its first bytes tell: HTTP/2 with prior knowledge has a preface (RFC 9113 §3.3).
    Unknown,
    /// HTTP/1, as agreed in a TLS handshake.
    Http1,
    /// HTTP/2, as agreed in a TLS handshake (RFC 9113 §3.2).
    Http2,
}

/// Room for the first read: a usual request head.
const FIRST_READ: usize = 1024;

/// The beginning of every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves every request on `io` until the caller leaves, idles for too long, or draining begins and
/// no request is under way.
///
/// An HTTP/1 connection without a request is what it was before its first one: a stream that is
/// waited on, with no buffer and no hyper. Each is as large as it is only while it is used.
pub(super) async fn serve<I>(mut io: I, mut protocol: Protocol, served: Served)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut left = served.routes.borrow().limits.idle_time;
    loop {
        let (prefix, begun, is_http2) = match protocol {
            Protocol::Http2 => (Bytes::new(), None, true),
            _ => match first_bytes(&mut io, protocol, left, &served).await {
                Ok((prefix, begun, is_http2)) => (prefix, Some(begun), is_http2),
                Err(_) => return,
            },
        };
        // Empty lines may precede a request (RFC 9112 §2.2); with them none has begun.
        let begun = begun.filter(|_| !prefix.iter().all(|byte| b"\r\n".contains(byte)));
        let whole = Prefixed { io, prefix };
        if is_http2 {
            return Box::pin(http2::serve(whole, served)).await;
        }
        let Some(drowsy) = Box::pin(http1::serve(whole, served.clone(), begun)).await else {
            return;
        };
        // All of the prefix was read, or it would be a part of a request.
        io = drowsy.io.io;
        (left, protocol) = (drowsy.left, Protocol::Http1);
    }
}

/// Reads until it is clear whether the caller begins with HTTP/2's preface, if that is still open;
/// also tells when the first byte came, which is to be within `limit`.
async fn first_bytes<I: AsyncRead + Unpin>(
    io: &mut I,
    protocol: Protocol,
    limit: Duration,
    served: &Served,
) -> io::Result<(Bytes, Instant, bool)> {
    let head_time = served.routes.borrow().limits.head_time;
    let mut prefix = BytesMut::new();
    let reading = async {
        let mut deadline = monotonic() + limit;
        let mut begun = None;
        loop {
            if timeout_at(deadline, poll_fn(|cx| poll_more(io, cx, &mut prefix))).await?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let begun = *begun.get_or_insert_with(monotonic);
            deadline = begun + head_time;
            let compared = prefix.len().min(PREFACE.len());
            if protocol == Protocol::Http1 || prefix[..compared] != PREFACE[..compared] {
                return Ok((begun, false));
            }
            if compared == PREFACE.len() {
                return Ok((begun, true));
            }
        }
    };
    let draining = served.drain.begun.notified();
    if served.drain.has_begun() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let (first, is_http2) = tokio::select! {
        read = reading => read?,
        () = draining => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    Ok((prefix.freeze(), first, is_http2))
}

/// Reads by way of the stack, so that waiting takes no buffer.
fn poll_more<I: AsyncRead + Unpin>(
    io: &mut I,
    cx: &mut Context<'_>,
    bytes: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut buffer = [0; FIRST_READ];
    let mut buffer = ReadBuf::new(&mut buffer);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    bytes.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}
