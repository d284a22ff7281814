//! One caller's connection: which protocol it speaks, and hyper's server for that.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use super::listener::Drain;
use super::route::Routes;

mod http1;
mod http2;
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
    let (prefix, is_http2) = match protocol {
        Protocol::Unknown => match first_bytes(&mut io, &served).await {
            Ok(known) => known,
            Err(_) => return,
        },
        known => (Bytes::new(), known == Protocol::Http2),
    };
    let io = Prefixed { io, prefix };
    if is_http2 {
        // Large, and rarer than connections that idle in the other branch.
        Box::pin(http2::serve(io, served)).await;
    } else {
        http1::serve(io, served).await;
    }
}

/// Reads until it is clear whether the caller begins with HTTP/2's preface.
async fn first_bytes<I: AsyncRead + Unpin>(
    io: &mut I,
    served: &Served,
) -> io::Result<(Bytes, bool)> {
    let limit = served.routes.borrow().limits.idle_time;
    let mut prefix = BytesMut::with_capacity(1024);
    let reading = async {
        loop {
            if io.read_buf(&mut prefix).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let compared = prefix.len().min(PREFACE.len());
            if prefix[..compared] != PREFACE[..compared] {
                return Ok(false);
            }
            if compared == PREFACE.len() {
                return Ok(true);
            }
        }
    };
    let begun = served.drain.begun.notified();
    if served.drain.has_begun() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let is_http2 = tokio::select! {
        read = timeout(limit, reading) => read??,
        () = begun => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    Ok((prefix.freeze(), is_http2))
}
