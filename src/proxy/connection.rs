//! One caller's connection: which protocol it speaks, and hyper's server for that.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
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

/// Serves every request on `io` until the caller leaves, idles for too long, or draining begins and
/// no request is under way.
pub(super) async fn serve<I>(mut io: I, protocol: Protocol, served: Served)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (prefix, begun, is_http2) = match protocol {
        Protocol::Unknown => match first_bytes(&mut io, &served).await {
            Ok((prefix, begun, is_http2)) => (prefix, Some(begun), is_http2),
            Err(_) => return,
        },
        known => (Bytes::new(), None, known == Protocol::Http2),
    };
    // Empty lines may precede a request (RFC 9112 §2.2); with them none has begun.
    let begun = begun.filter(|_| !prefix.iter().all(|byte| b"\r\n".contains(byte)));
    let io = Prefixed { io, prefix };
    if is_http2 {
        // Large, and rarer than connections that idle in the other branch.
        Box::pin(http2::serve(io, served)).await;
    } else {
        http1::serve(io, served, begun).await;
    }
}

/// Reads until it is clear whether the caller begins with HTTP/2's preface; also tells when the first
/// byte came.
async fn first_bytes<I: AsyncRead + Unpin>(
    io: &mut I,
    served: &Served,
) -> io::Result<(Bytes, Instant, bool)> {
    let limits = served.routes.borrow().limits;
    let mut prefix = BytesMut::with_capacity(1024);
    let reading = async {
        let mut deadline = monotonic() + limits.idle_time;
        let mut begun = None;
        loop {
            if timeout_at(deadline, io.read_buf(&mut prefix)).await?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let begun = *begun.get_or_insert_with(monotonic);
            deadline = begun + limits.head_time;
            let compared = prefix.len().min(PREFACE.len());
            if prefix[..compared] != PREFACE[..compared] {
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
