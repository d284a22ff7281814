//! Writing an answer, whole or broken in the way that its fault says.

use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use super::body::pattern;
use super::reply::{Body, EventSource, Fault, Feed, Framing, Reply};
use super::wire::Wire;

/// Long answers leave in pieces of at most this size.
const PIECE: usize = 16 * 1024;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next request may come.
    Next,
    /// It closes once everything has left.
    Close,
    /// It is dropped as it stands.
    Drop,
}

pub(super) async fn reply(
    wire: &mut Wire,
    mut reply: Reply,
    method: &str,
    keep_alive: bool,
) -> io::Result<After> {
    tokio::time::sleep(reply.delay).await;
    reply.body = reply.body.rendered();
    match &reply.fault {
        Fault::Hang => {
            wire.drain().await;
            return Ok(After::Drop);
        }
        Fault::Lost => return Ok(After::Drop),
        Fault::Reset => {
            wire.reset_on_close();
            return Ok(After::Drop);
        }
        Fault::Garbage(bytes) => {
            wire.send(bytes).await?;
            return Ok(After::Close);
        }
        Fault::Raw(bytes) => {
            wire.send(bytes).await?;
            return Ok(After::Next);
        }
        Fault::None | Fault::Cut { .. } | Fault::CutHalf | Fault::CutHead { .. } => {}
    }
    let close = reply.close || !keep_alive || reply.framing == Framing::Close;
    let bodiless = method == "HEAD" || matches!(reply.status, 100..=199 | 204 | 304);
    let head = head(&reply, close, matches!(reply.status, 100..=199 | 204 | 304));
    let mut pen = Pen { wire, drip: reply.drip, held: reply.interim.clone() };
    if let Fault::CutHead { after_bytes } = reply.fault {
        pen.put(&head.as_slice()[..after_bytes.min(head.len())]).await?;
        pen.flush().await?;
        return Ok(After::Drop);
    }
    pen.put(&head).await?;
    if let Body::Echo = reply.body {
        pen.flush().await?;
        return echo(pen.wire).await;
    }
    let whole = bodiless || body(&mut pen, &reply).await?;
    pen.flush().await?;
    Ok(match (whole, close) {
        (false, _) => After::Drop,
        (true, true) => After::Close,
        (true, false) => After::Next,
    })
}

fn head(reply: &Reply, close: bool, unframed: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status)).into_bytes();
    for (name, value) in &reply.headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    let own = |name: &str| reply.headers.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
    if !(unframed || own("content-length") || own("transfer-encoding")) {
        match reply.framing {
            Framing::Length => {
                head.extend_from_slice(
                    format!("Content-Length: {}\r\n", length(&reply.body)).as_bytes(),
                );
            }
            Framing::Chunked(_) => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Close => {}
        }
    }
    if close && !own("connection") {
        head.extend_from_slice(b"Connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Whether the body went out whole.
async fn body(pen: &mut Pen<'_>, reply: &Reply) -> io::Result<bool> {
    let limit = match reply.fault {
        Fault::Cut { after_bytes } => Some(after_bytes),
        Fault::CutHalf => Some(length(&reply.body) / 2),
        _ => None,
    };
    match &reply.body {
        Body::Events(source) => {
            pen.flush().await?;
            if !events(pen, source, reply.framing).await? {
                return Ok(false);
            }
        }
        Body::Feed(feed) => {
            pen.flush().await?;
            if limit.is_some() || !pieces(pen, feed, reply.framing).await? {
                return Ok(false);
            }
        }
        body => {
            let end = limit.unwrap_or(u64::MAX).min(length(body));
            let mut sent = 0;
            while sent < end {
                let size =
                    piece_size(reply.framing).min(usize::try_from(end - sent).unwrap_or(PIECE));
                pen.frame(piece(body, sent, size), reply.framing).await?;
                sent += size as u64;
            }
            if limit.is_some() {
                return Ok(false);
            }
        }
    }
    if let Framing::Chunked(_) = reply.framing {
        pen.put(b"0\r\n").await?;
        for (name, value) in &reply.trailers {
            pen.put(format!("{name}: {value}\r\n").as_bytes()).await?;
        }
        pen.put(b"\r\n").await?;
    }
    Ok(true)
}

fn length(body: &Body) -> u64 {
    match body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::Pattern(length) => *length,
        Body::Json(..) | Body::Events(_) | Body::Feed(_) | Body::Echo => 0,
    }
}

fn piece_size(framing: Framing) -> usize {
    match framing {
        Framing::Chunked(most) => most.min(PIECE),
        Framing::Length | Framing::Close => PIECE,
    }
}

fn piece(body: &Body, at: u64, size: usize) -> &[u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(PIECE + 251));
    match body {
        Body::Bytes(bytes) => &bytes[at as usize..][..size],
        _ => &PATTERN[(at % 251) as usize..][..size],
    }
}

/// Passes messages on until the source ends (true) or the client closes (false).
async fn events(pen: &mut Pen<'_>, source: &EventSource, framing: Framing) -> io::Result<bool> {
    let mut subscription = source.subscribe();
    loop {
        let message = tokio::select! {
            message = subscription.messages.recv() => message,
            read = pen.wire.fill() => match read? {
                0 => return Ok(false),
                _ => continue,
            },
        };
        match message {
            Ok(Some(bytes)) => {
                pen.frame(&bytes, framing).await?;
                pen.flush().await?;
            }
            Ok(None) | Err(RecvError::Closed) => return Ok(true),
            Err(RecvError::Lagged(_)) => return Ok(false),
        }
    }
}

/// Passes pieces on until the feed ends (true), is cut, or the client closes (false).
async fn pieces(pen: &mut Pen<'_>, feed: &Feed, framing: Framing) -> io::Result<bool> {
    let mut pieces = feed.pieces().await;
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            read = pen.wire.fill() => match read? {
                0 => return Ok(false),
                _ => continue,
            },
        };
        match piece {
            Some(Some(bytes)) => {
                pen.frame(&bytes, framing).await?;
                pen.flush().await?;
            }
            Some(None) => return Ok(true),
            None => return Ok(false),
        }
    }
}

async fn echo(wire: &mut Wire) -> io::Result<After> {
    loop {
        let bytes = wire.take(wire.ahead().len());
        if !bytes.is_empty() {
            wire.send(&bytes).await?;
        }
        if wire.fill().await? == 0 {
            return Ok(After::Close);
        }
    }
}

/// Gathers small writes, so that a short answer leaves in one piece, and drips if told to.
struct Pen<'w> {
    wire: &'w mut Wire,
    drip: Option<(usize, Duration)>,
    held: Vec<u8>,
}

impl Pen<'_> {
    async fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush().await?;
        }
        Ok(())
    }

    async fn frame(&mut self, bytes: &[u8], framing: Framing) -> io::Result<()> {
        match framing {
            Framing::Chunked(_) if bytes.is_empty() => Ok(()),
            Framing::Chunked(_) => {
                self.put(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                self.put(bytes).await?;
                self.put(b"\r\n").await
            }
            Framing::Length | Framing::Close => self.put(bytes).await,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        match self.drip {
            None => self.wire.send(&held).await,
            Some((size, pause)) => {
                for piece in held.chunks(size) {
                    self.wire.send(piece).await?;
                    tokio::time::sleep(pause).await;
                }
                Ok(())
            }
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
