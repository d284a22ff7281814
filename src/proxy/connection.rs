//! One caller's connection: which protocol it speaks, and who serves that.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::http1::inbox::Inbox;
use super::listener::Drain;
use super::prefixed::Prefixed;
use super::route::Routes;
use crate::clock::monotonic;
use crate::stream::Stream;

mod http1;
pub(super) mod http2;

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

/// The beginning of every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves every request on `stream` until the caller leaves, idles for too long, or draining begins
/// and no request is under way.
pub(super) async fn serve(mut stream: Stream, protocol: Protocol, served: Served) {
    let (inbox, begun, is_http2) = match protocol {
        Protocol::Http2 => (Inbox::new(BytesMut::new()), None, true),
        Protocol::Http1 => (Inbox::new(BytesMut::new()), None, false),
        Protocol::Unknown => match first_bytes(&mut stream, &served).await {
            Ok((inbox, begun, is_http2)) => (inbox, Some(begun), is_http2),
            Err(_) => return,
        },
    };
    if is_http2 {
        let whole = Prefixed { io: stream, prefix: inbox.bytes.freeze() };
        return Box::pin(http2::serve(whole, served)).await;
    }
    // Empty lines may precede a request (RFC 9112 §2.2); with them none has begun.
    let begun = begun.filter(|_| !inbox.bytes.iter().all(|byte| b"\r\n".contains(byte)));
    http1::serve(stream, inbox.bytes, begun, served).await;
}

/// Reads until it is clear whether the caller begins with HTTP/2's preface; also tells when the first
/// byte came, which is to be within the time that a connection may be idle.
async fn first_bytes(stream: &mut Stream, served: &Served) -> io::Result<(Inbox, Instant, bool)> {
    let limits = served.routes.borrow().limits;
    let mut inbox = Inbox::new(BytesMut::new());
    let reading = async {
        let mut deadline = monotonic() + limits.idle_time;
        let mut begun = None;
        loop {
            if timeout_at(deadline, poll_fn(|cx| inbox.poll_wait(cx, stream))).await?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let begun = *begun.get_or_insert_with(monotonic);
            deadline = begun + limits.head_time;
            let compared = inbox.bytes.len().min(PREFACE.len());
            if inbox.bytes[..compared] != PREFACE[..compared] {
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
    Ok((inbox, first, is_http2))
}
