//! An answer on its way down, as HTTP/1 (RFC 9112).

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, Method, StatusCode, Version, response};
use http_body::Body;

use crate::proxy::http1::send::{Framing, put_length, write_fields};

/// What an answer has to fit.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// The request was HEAD: its answer has no body (RFC 9110 §9.3.2).
    pub(super) head_only: bool,
    /// It came as HTTP/1.0.
    pub(super) old: bool,
    /// The connection may go on after the answer.
    pub(super) persistent: bool,
}

impl Asked {
    /// What the answer to a request with `method` in `version` has to fit.
    pub(super) fn new(method: &Method, version: Version, persistent: bool) -> Self {
        Self { head_only: method == Method::HEAD, old: version == Version::HTTP_10, persistent }
    }
}

/// Writes `head`, of an answer with `body`, to `out`, and its fields that are `lines`: how that ends, and
/// whether the connection goes on after it.
pub(super) fn write_head(
    out: &mut BytesMut,
    head: &response::Parts,
    lines: &[u8],
    body: &impl Body,
    asked: Asked,
) -> (Framing, bool) {
    let framing = framing(head, body, asked);
    let persistent = asked.persistent && framing != Framing::Close && !says_close(head);
    // What a usual head needs, so that the buffer grows once.
    out.reserve(512 + lines.len());
    out.put_slice(if asked.old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(head.status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    // That of the answer to HEAD is what another answer's would be (RFC 9110 §8.6). In 304 it says nothing
    // (§15.4.5), and there are callers who wait for that much.
    let passes_length =
        asked.head_only && head.status != StatusCode::NOT_MODIFIED && !no_length(head.status);
    let own = |name: &HeaderName| {
        let length = *name == CONTENT_LENGTH && !passes_length;
        length || *name == TRANSFER_ENCODING || *name == CONNECTION
    };
    out.put_slice(lines);
    write_fields(out, head.headers.iter().filter(|(name, _)| !own(name)));
    match framing {
        Framing::Length(length) => put_length(out, length),
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    out.put_slice(connection(head, asked, persistent));
    out.put_slice(b"\r\n");
    (framing, persistent)
}

/// The end of the body (RFC 9112 §6.3).
fn framing(head: &response::Parts, body: &impl Body, asked: Asked) -> Framing {
    if asked.head_only || head.status == StatusCode::NOT_MODIFIED || no_length(head.status) {
        return Framing::None;
    }
    match body.size_hint().exact() {
        Some(length) => Framing::Length(length),
        // RFC 9112 §7.1: an HTTP/1.0 caller does not know chunks.
        None if asked.old => Framing::Close,
        None => Framing::Chunked,
    }
}

/// RFC 9110 §8.6: never with these.
fn no_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

fn says_close(head: &response::Parts) -> bool {
    head.headers.get(CONNECTION).is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// What is said of the connection (RFC 9110 §7.6.1, RFC 9112 §9.3): what does not go without saying.
fn connection(head: &response::Parts, asked: Asked, persistent: bool) -> &'static [u8] {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        b"connection: upgrade\r\n"
    } else if !persistent {
        if asked.old { b"" } else { b"connection: close\r\n" }
    } else if asked.old {
        b"connection: keep-alive\r\n"
    } else {
        b""
    }
}

#[cfg(test)]
mod tests;
