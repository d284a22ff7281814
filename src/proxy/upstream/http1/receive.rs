//! A response on its way down, as HTTP/1.1 (RFC 9112): strict, since what is read wrongly here
//! would be the answer to somebody else's request.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, response};

use crate::proxy::http1::body::{Body, Chunk};
use crate::proxy::http1::fields::{self, Place};
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
}

/// Takes a head from `buffer`, which answers a request with `method`; `None` until all of it is
/// there. `scanned` is the caller's to keep: how far the end was looked for. Its fields are put into the
/// map `spare`.
pub(super) fn head(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    method: &Method,
    spare: &mut HeaderMap,
) -> Result<Option<Head>, Malformed> {
    // A head that comes in one read is gone through once, by the parser. Other ones are not given to
    // it before they are whole, or each byte that drips in would cost another parsing.
    let usual = *scanned == 0 && buffer.starts_with(b"HTTP/");
    if !usual && fields::end(buffer, scanned, MAX_HEAD)?.is_none() {
        return Ok(None);
    }
    let mut places = [Place::default(); MAX_FIELDS];
    let Some(lines) = Lines::parse(buffer, &mut places)? else {
        let whole = fields::end(buffer, scanned, MAX_HEAD)?.is_some();
        return if whole { Err(Malformed("response head")) } else { Ok(None) };
    };
    let bytes = buffer.split_to(lines.length).freeze();
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version) = (lines.status, lines.version);
    let mut said = Said::default();
    let keeps = |name: &_, value: &[u8]| said.note(name, value);
    parts.headers = fields::collect(std::mem::take(spare), &bytes, lines.fields, keeps)?;
    if let (Some(length), true) = (said.length, said.lists_lengths) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = body(&parts, &said, method)?;
    let persistent = parts.version == Version::HTTP_11 && !said.close && !body.ends_at_close();
    Ok(Some(Head { parts, body, persistent }))
}

/// A head as the parser sees it.
struct Lines<'p> {
    length: usize,
    status: StatusCode,
    version: Version,
    fields: &'p [Place],
}

impl<'p> Lines<'p> {
    /// `None` if `buffer` does not have all of it.
    fn parse(buffer: &[u8], places: &'p mut [Place]) -> Result<Option<Self>, Malformed> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let length = match httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields)
            .map_err(|_| Malformed("response head"))?
        {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Malformed("status code"))?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let count = parsed.headers.len();
        for (place, field) in places.iter_mut().zip(parsed.headers.iter()) {
            *place = Place::of(field, buffer)?;
        }
        Ok(Some(Self { length, status, version, fields: &places[..count] }))
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
    let bodiless = head.status.is_informational()
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED
        || *method == Method::HEAD;
    if bodiless {
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

#[cfg(test)]
mod tests;
