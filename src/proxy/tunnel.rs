//! An upgraded connection (RFC 9110 §7.8): bytes pass both ways, and nobody looks at them. The token
//! was in the handshake only, so a tunnel outlives it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio_util::io::{InspectReader, InspectWriter};

use super::alarm::Alarm;
use super::lane::Lane;
use super::relay::Record;
use crate::clock::monotonic;
use crate::stream::Stream;

/// What a request asks to go on with (RFC 9110 §7.8).
///
/// Another version of HTTP is not tunnelled: its requests would pass without being looked at, and
/// without a token.
#[must_use]
pub(super) fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let (Some(protocols), None) = (lines.next(), lines.next()) else { return None };
    let nominated = headers.get_all(CONNECTION).iter().any(|line| {
        let upgrade = |option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(b"upgrade");
        line.as_bytes().split(|b| *b == b',').any(upgrade)
    });
    let is_http = |protocol: &[u8]| {
        let name = protocol.trim_ascii().to_ascii_lowercase();
        name.starts_with(b"http") || name.starts_with(b"h2") || name.starts_with(b"tls/")
    };
    let fit = nominated && !protocols.as_bytes().split(|b| *b == b',').any(is_http);
    fit.then(|| protocols.clone())
}

/// True if `answered` is one of the protocols that were `asked` for.
#[must_use]
pub(super) fn agrees(asked: &HeaderValue, answered: &HeaderMap) -> bool {
    let mut lines = answered.get_all(UPGRADE).iter();
    let (Some(chosen), None) = (lines.next(), lines.next()) else { return false };
    let chosen = chosen.as_bytes().trim_ascii();
    asked
        .as_bytes()
        .split(|b| *b == b',')
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(chosen))
}

/// The caller's end, once the answer that opens the tunnel has been written.
pub(super) enum Caller {
    /// The connection itself.
    Http1(Lane),
    /// A stream of one.
    Http2(OnUpgrade),
}

/// Two ends, soon to be connected.
pub(super) struct Tunnel {
    caller: Caller,
    upstream: Stream,
    /// What the upstream said right after its 101.
    first: Bytes,
    record: Record,
}

impl Tunnel {
    /// Between `caller` and `upstream`, whose `first` bytes have been read already.
    #[must_use]
    pub(super) fn new(caller: Caller, upstream: Stream, first: Bytes, record: Record) -> Self {
        Self { caller, upstream, first, record }
    }

    /// Passes bytes until both ends have closed, one broke, or nothing moved for the route's idle
    /// time.
    pub(super) async fn run(self) {
        let Self { caller, upstream, first, record } = self;
        match caller {
            Caller::Http1(lane) => {
                if let Some(caller) = lane.take_stream() {
                    connect(caller, upstream, &first, &record).await;
                }
            }
            Caller::Http2(caller) => {
                if let Ok(caller) = caller.await {
                    connect(TokioIo::new(caller), upstream, &first, &record).await;
                }
            }
        }
    }
}

async fn connect(
    caller: impl AsyncRead + AsyncWrite + Unpin,
    mut upstream: Stream,
    first: &[u8],
    record: &Record,
) {
    let idle = record.route().config.timeouts.idle;
    let dog = record.watchdog();
    let moved = |_: &[u8]| dog.progress();
    let caller = InspectWriter::new(caller, moved);
    let mut caller = InspectReader::new(caller, moved);
    dog.request(monotonic() + idle, idle);
    let mut alarm = pin!(Alarm::new(dog));
    let copying = async {
        caller.write_all(first).await?;
        copy_bidirectional(&mut caller, &mut upstream).await
    };
    let mut copying = pin!(copying);
    poll_fn(|cx| {
        // What broke is told to the other end by closing; whatever the alarm says, time is up.
        if copying.as_mut().poll(cx).is_ready() || alarm.as_mut().poll(cx, dog).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
