//! A response on its way down, as HTTP/1.1 (RFC 9112): strict, since what is read wrongly here
//! would be the answer to somebody else's request.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, response};

use crate::proxy::http1::body::{Body, Chunk};
use crate::proxy::http1::fields::{self, Places};
use crate::proxy::http1::lines::FieldLines;
use crate::proxy::http1::said::{Coding, Said};
use crate::proxy::http1::{Bounds, Malformed};

/// The largest head and the largest trailers, in bytes.
pub(in crate::proxy) const MAX_HEAD: usize = 64 << 10;
/// The most fields of a head or of trailers.
const MAX_FIELDS: usize = 100;
/// The same together.
pub(super) const BOUNDS: Bounds = Bounds { bytes: MAX_HEAD, fields: MAX_FIELDS };

/// A response head and what it says about the rest.
pub(super) struct Head {
    pub(super) parts: response::Parts,
    pub(super) body: Body,
    /// The connection may carry another request after this one (RFC 9112 §9.3).
    pub(super) persistent: bool,
    /// Its fields are lines, and not in a map.
    pub(super) in_lines: bool,
}

/// Takes a head from `buffer`, which answers a request with `method`; `None` until all of it is
/// there. `scanned` is the caller's to keep: how far the end was looked for. Its fields become `lines`, where
/// they may, a body may follow and `Connection` names none of them; otherwise they are put into the map
/// `spare`.
pub(super) fn head(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    method: &Method,
    spare: &mut HeaderMap,
    lines: Option<&mut FieldLines>,
) -> Result<Option<Head>, Malformed> {
    // A head that comes in one read is gone through once, by the parser. Other ones are not given to
    // it before they are whole, or each byte that drips in would cost another parsing.
    let usual = *scanned == 0 && buffer.starts_with(b"HTTP/");
    if !usual && fields::end(buffer, scanned, MAX_HEAD)?.is_none() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let Some(parsed) = Parsed::of(buffer, &mut fields)? else {
        let whole = fields::end(buffer, scanned, MAX_HEAD)?.is_some();
        return if whole { Err(Malformed("response head")) } else { Ok(None) };
    };
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version, parts.headers) =
        (parsed.status, parsed.version, std::mem::take(spare));
    let (mut said, length) = (Said::default(), parsed.length);
    let in_lines = match lines {
        Some(lines) if !is_bodiless(parts.status, method) => {
            lines.take(parsed.fields, length, &mut said)?
        }
        _ => false,
    };
    if in_lines {
        buffer.advance(length);
    } else {
        said = Said::default();
        let places = Places::of(parsed.fields, buffer)?;
        let bytes = buffer.split_to(length).freeze();
        let keeps = |name: &HeaderName, value: &[u8]| said.note(name.as_str().as_bytes(), value);
        parts.headers = fields::collect(parts.headers, &bytes, places.as_slice(), keeps)?;
        if let (Some(length), true) = (said.length, said.lists_lengths) {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let body = body(&parts, &said, method)?;
    let persistent = parts.version == Version::HTTP_11 && !said.close && !body.ends_at_close();
    Ok(Some(Head { parts, body, persistent, in_lines }))
}

/// A head as the parser sees it.
struct Parsed<'p> {
    length: usize,
    status: StatusCode,
    version: Version,
    fields: &'p [httparse::Header<'p>],
}

impl<'p> Parsed<'p> {
    /// `None` if `buffer` does not have all of it.
    fn of(
        buffer: &'p [u8],
        fields: &'p mut [MaybeUninit<httparse::Header<'p>>],
    ) -> Result<Option<Self>, Malformed> {
        let mut parsed = httparse::Response::new(&mut []);
        let length = match httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, buffer, fields)
            .map_err(|_| Malformed("response head"))?
        {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Malformed("status code"))?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        Ok(Some(Self { length, status, version, fields: parsed.headers }))
    }
}

/// What is to come after `head` (RFC 9112 §6.3).
fn body(head: &response::Parts, said: &Said, method: &Method) -> Result<Body, Malformed> {
    // RFC 9112 §6.1: two framings are an attempt to smuggle, or an upstream that is broken.
    if said.coding != Coding::None && said.length.is_some() {
        return Err(Malformed("both Content-Length and Transfer-Encoding"));
    }
    if said.coding != Coding::None && head.version == Version::HTTP_10 {
        return Err(Malformed("Transfer-Encoding in HTTP/1.0"));
    }
    if is_bodiless(head.status, method) {
        return Ok(Body::Length(0));
    }
    match (said.length, said.coding) {
        (Some(length), _) => Ok(Body::Length(length)),
        (None, Coding::None) => Ok(Body::Close),
        (None, Coding::Chunked) => Ok(Body::Chunked(Chunk::Size)),
        // A coding beneath chunked would be lost with the field that names it.
        (None, Coding::Other) => Err(Malformed("transfer coding")),
    }
}

/// RFC 9112 §6.3: whatever its fields say.
fn is_bodiless(status: StatusCode, method: &Method) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *method == Method::HEAD
}

#[cfg(test)]
mod tests;
