//! A request's head on its way up, as HTTP/1.1 (RFC 9112).

use bytes::{BufMut, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body;

use crate::proxy::http1::send::{Framing, Sending, put_length, write_fields};
use crate::proxy::upstream::Outgoing;

/// `request` with `body`, to be written by way of the buffer `out`; the body may be `held`.
pub(super) fn send<B: Body<Data = bytes::Bytes> + Unpin>(
    request: &Outgoing,
    body: B,
    held: bool,
    mut out: BytesMut,
) -> Sending<B> {
    let framing = framing(&body, &request.headers);
    write_head(&mut out, request, framing);
    Sending::new(body, framing, held, out)
}

fn framing(body: &impl Body, headers: &HeaderMap) -> Framing {
    if body.is_end_stream() {
        // A length of 0 is said again if the caller said it: some servers want it of a POST.
        let said = headers.contains_key(CONTENT_LENGTH);
        return if said { Framing::Length(0) } else { Framing::None };
    }
    body.size_hint().exact().map_or(Framing::Chunked, Framing::Length)
}

fn write_head(out: &mut BytesMut, request: &Outgoing, framing: Framing) {
    // What a usual head needs, so that the buffer grows once.
    out.reserve(512 + request.target.as_str().len());
    out.put_slice(request.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(request.target.as_str().as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    let own = |name: &http::HeaderName| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    write_fields(out, request.headers.iter().filter(|(name, _)| !own(name)));
    match framing {
        Framing::None | Framing::Close => {}
        Framing::Length(length) => {
            put_length(out, length);
        }
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
