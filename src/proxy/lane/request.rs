//! A request's head as it comes in (RFC 9112 §3).

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{EXPECT, HeaderMap};
use http::{HeaderName, Method, Request, Uri, Version};

use crate::proxy::http1::body::{Body, Chunk};
use crate::proxy::http1::fields::{self, Places};
use crate::proxy::http1::said::{Coding, Said};
use crate::proxy::http1::{Bounds, Malformed};
use crate::proxy::inbound::Inbound;
use crate::proxy::reject::Reason;

/// So many fields are read without an allocation.
const USUAL_FIELDS: usize = 100;
/// The longest target, in bytes; that of [`Uri`].
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// A request's head. Its body is put in when it is taken.
pub(in crate::proxy) struct Head {
    pub(in crate::proxy) request: Request<Inbound>,
    /// The connection may carry another request after this one (RFC 9112 §9.3).
    pub(in crate::proxy) persistent: bool,
}

impl Head {
    /// RFC 9110 §15.2: not what HTTP/1.0 understands.
    pub(super) fn takes_interim(&self) -> bool {
        self.request.version() == Version::HTTP_11
    }
}

impl From<Malformed> for Reason {
    fn from(_: Malformed) -> Self {
        Self::BadRequest
    }
}

/// Takes a head from `buffer`, the body that is to come after it, and whether that waits for a word;
/// `None` until all of it is there. Its fields are put into the map `spare`.
pub(super) fn head(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    bounds: Bounds,
    spare: &mut HeaderMap,
) -> Result<Option<(Head, Body, bool)>, Reason> {
    // What comes in one read is gone through once, by the parser. Other heads are not given to it
    // before they are whole, or each byte that drips in would cost another parsing.
    if *scanned > 0 && ended(buffer, scanned, bounds)?.is_none() {
        return Ok(None);
    }
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut many = Vec::new();
    let fields = if let Some(fields) = usual.get_mut(..bounds.fields) {
        fields
    } else {
        many.resize_with(bounds.fields, MaybeUninit::uninit);
        &mut many[..]
    };
    let Some(lines) = Lines::parse(buffer, fields)? else {
        let whole = ended(buffer, scanned, bounds)?.is_some();
        return if whole { Err(Reason::BadRequest) } else { Ok(None) };
    };
    if lines.length > bounds.bytes {
        return Err(Reason::HeadTooLarge);
    }
    let bytes = buffer.split_to(lines.length).freeze();
    let target = bytes.slice(fields::range(lines.target));
    let uri = Uri::from_maybe_shared(target).map_err(|_| Reason::BadRequest)?;
    let (mut said, mut expects) = (Said::default(), false);
    let keeps = |name: &HeaderName, value: &[u8]| {
        expects |= *name == EXPECT && value.eq_ignore_ascii_case(b"100-continue");
        said.note(name.as_str().as_bytes(), value).map_err(Reason::from)
    };
    let headers = fields::collect(std::mem::take(spare), &bytes, lines.fields.as_slice(), keeps)?;
    let body = body(lines.version, &said)?;
    let mut request = Request::new(Inbound::empty());
    *request.method_mut() = lines.method;
    *request.uri_mut() = uri;
    *request.version_mut() = lines.version;
    *request.headers_mut() = headers;
    let head = Head { request, persistent: said.persists(lines.version) };
    Ok(Some((head, body, expects)))
}

fn ended(buffer: &BytesMut, scanned: &mut usize, bounds: Bounds) -> Result<Option<usize>, Reason> {
    fields::end(buffer, scanned, bounds.bytes).map_err(|_| Reason::HeadTooLarge)
}

/// What is to come after a head (RFC 9112 §6.3). A request that is framed in more than one way is an
/// attempt to smuggle (§6.1): somebody on the way may have read it by the other one.
fn body(version: Version, said: &Said) -> Result<Body, Reason> {
    match (said.length, said.coding) {
        (None, Coding::None) => Ok(Body::Length(0)),
        (Some(length), Coding::None) if !said.lists_lengths => Ok(Body::Length(length)),
        // A coding beneath chunked would be lost with the field that names it.
        (None, Coding::Chunked) if version == Version::HTTP_11 => Ok(Body::Chunked(Chunk::Size)),
        _ => Err(Reason::BadRequest),
    }
}

/// A head as the parser sees it.
struct Lines {
    length: usize,
    method: Method,
    /// Where it is.
    target: (u32, u32),
    version: Version,
    fields: Places,
}

impl Lines {
    /// `None` if `buffer` does not have all of it. There may be as many fields as `room` is for.
    fn parse<'p>(
        buffer: &'p [u8],
        room: &'p mut [MaybeUninit<httparse::Header<'p>>],
    ) -> Result<Option<Self>, Reason> {
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(buffer, room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeadTooLarge),
            Err(_) => return Err(Reason::BadRequest),
        };
        let (method, target) = parsed.method.zip(parsed.path).ok_or(Reason::BadRequest)?;
        if target.len() > MAX_TARGET {
            return Err(Reason::TooLarge);
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::BadRequest)?;
        let target = fields::place(target.as_bytes(), buffer).ok_or(Reason::BadRequest)?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let fields = Places::of(parsed.headers, buffer)?;
        Ok(Some(Self { length, method, target, version, fields }))
    }
}

#[cfg(test)]
mod tests;
