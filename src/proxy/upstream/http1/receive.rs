//! A response on its way down, as HTTP/1.1 (RFC 9112): strict, since what is read wrongly here
//! would be the answer to somebody else's request.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, response};
use http_body::Frame;
use memchr::memchr;

use super::Malformed;

/// The largest head and the largest trailers, in bytes.
pub(in crate::proxy) const MAX_HEAD: usize = 64 << 10;
const TOO_LARGE: Malformed = Malformed("too large a head");
/// The most fields of a head or of trailers.
const MAX_FIELDS: usize = 100;
/// The longest line that tells a chunk's size, extensions included.
const MAX_SIZE_LINE: usize = 1024;

/// A response head and what it says about the rest.
pub(super) struct Head {
    pub(super) parts: response::Parts,
    pub(super) body: Body,
    /// The connection may carry another request after this one (RFC 9112 §9.3).
    pub(super) persistent: bool,
}

/// Takes a head from `buffer`, which answers a request with `method`; `None` until all of it is
/// there. `scanned` is the caller's to keep: how far the end was looked for.
pub(super) fn head(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    method: &Method,
) -> Result<Option<Head>, Malformed> {
    // A head that comes in one read is gone through once, by the parser. Other ones are not given to
    // it before they are whole, or each byte that drips in would cost another parsing.
    let usual = *scanned == 0 && buffer.starts_with(b"HTTP/");
    if !usual && end_of_fields(buffer, scanned)?.is_none() {
        return Ok(None);
    }
    let mut places = [Place::default(); MAX_FIELDS];
    let Some(lines) = Lines::parse(buffer, &mut places)? else {
        let whole = end_of_fields(buffer, scanned)?.is_some();
        return if whole { Err(Malformed("response head")) } else { Ok(None) };
    };
    let bytes = buffer.split_to(lines.length).freeze();
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version) = (lines.status, lines.version);
    let mut said = Said::default();
    parts.headers = collect(&bytes, lines.fields, |name, value| said.note(name, value))?;
    if let (Some(length), 2..) = (said.length, said.lengths) {
        // RFC 9112 §6.3: once is what may be passed on.
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = Body::of(&parts, &said, method)?;
    let ends = matches!(body, Body::Close) || said.close;
    let persistent = parts.version == Version::HTTP_11 && !ends;
    Ok(Some(Head { parts, body, persistent }))
}

/// Where in a buffer a field's name and value are: small, since there is room for all of them.
#[derive(Clone, Copy, Default)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

impl Place {
    /// The place of `field`, which was found in `buffer`.
    fn of(field: &httparse::Header<'_>, buffer: &[u8]) -> Result<Self, Malformed> {
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr() - buffer.as_ptr().addr();
            Some((u32::try_from(start).ok()?, u32::try_from(start + part.len()).ok()?))
        };
        let (name, value) = (place(field.name.as_bytes()), place(field.value));
        name.zip(value).map(|(name, value)| Self { name, value }).ok_or(Malformed("field"))
    }

    fn range((start, end): (u32, u32)) -> Range<usize> {
        start as usize..end as usize
    }
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

/// The length of the lines up to and with the empty one.
fn end_of_fields(buffer: &[u8], scanned: &mut usize) -> Result<Option<usize>, Malformed> {
    let mut from = scanned.saturating_sub(2);
    while let Some(found) = memchr(b'\n', &buffer[from..]) {
        let next = from + found + 1;
        let end = match &buffer[next..] {
            [b'\n', ..] => next + 1,
            [b'\r', b'\n', ..] => next + 2,
            _ => {
                from = next;
                continue;
            }
        };
        return if end > MAX_HEAD { Err(TOO_LARGE) } else { Ok(Some(end)) };
    }
    *scanned = buffer.len();
    if buffer.len() > MAX_HEAD { Err(TOO_LARGE) } else { Ok(None) }
}

fn collect(
    bytes: &Bytes,
    fields: &[Place],
    mut keeps: impl FnMut(&HeaderName, &[u8]) -> Result<bool, Malformed>,
) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(&bytes[Place::range(field.name)]);
        let name = name.map_err(|_| Malformed("field"))?;
        let value = Place::range(field.value);
        if keeps(&name, &bytes[value.clone()])? {
            // Without a copy: each value is a part of what was read.
            let value = HeaderValue::from_maybe_shared(bytes.slice(value));
            headers.append(name, value.map_err(|_| Malformed("field"))?);
        }
    }
    Ok(headers)
}

/// What a head says about framing and connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    /// How often the length was said.
    lengths: usize,
    coded: bool,
    /// Exactly once, and nothing beneath it.
    chunked: bool,
    close: bool,
}

impl Said {
    /// Notes what a field says; false if that was all it is for.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, Malformed> {
        if *name == CONTENT_LENGTH {
            for length in value.split(|b| *b == b',') {
                let length = content_length(length.trim_ascii());
                let length = length.ok_or(Malformed("Content-Length"))?;
                if self.length.replace(length).is_some_and(|earlier| earlier != length) {
                    return Err(Malformed("differing Content-Length values"));
                }
                self.lengths += 1;
            }
        } else if *name == TRANSFER_ENCODING {
            self.chunked = !self.coded && value.eq_ignore_ascii_case(b"chunked");
            self.coded = true;
        } else if *name == CONNECTION {
            // The usual ones, which nominate no field.
            if value.eq_ignore_ascii_case(b"keep-alive") {
                return Ok(false);
            }
            let close = |option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(b"close");
            self.close |= value.split(|b| *b == b',').any(close);
            return Ok(!value.eq_ignore_ascii_case(b"close"));
        }
        Ok(true)
    }
}

/// RFC 9110 §8.6: digits only.
fn content_length(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// What is still to come of a response (RFC 9112 §6.3).
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All until the upstream closes.
    Close,
}

/// What is next in a chunked body (RFC 9112 §7.1).
#[derive(Debug)]
pub(super) enum Chunk {
    /// A line with a size.
    Size,
    /// So many bytes.
    Data(u64),
    /// The line's end after them.
    DataEnd,
    /// Trailers, of which so much was looked at, and an empty line.
    Trailers(usize),
    /// Nothing.
    Done,
}

/// What a body gives next.
pub(super) enum Next {
    /// Data or trailers.
    Frame(Frame<Bytes>),
    /// Nothing before more has been read.
    More,
    /// Nothing any more.
    End,
}

impl Body {
    const EMPTY: Self = Self::Length(0);

    fn of(head: &response::Parts, said: &Said, method: &Method) -> Result<Self, Malformed> {
        // RFC 9112 §6.1: two framings are an attempt to smuggle, or an upstream that is broken.
        if said.coded && said.length.is_some() {
            return Err(Malformed("both Content-Length and Transfer-Encoding"));
        }
        if said.coded && head.version == Version::HTTP_10 {
            return Err(Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        let bodiless = head.status.is_informational()
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED
            || *method == Method::HEAD;
        if bodiless {
            return Ok(Self::EMPTY);
        }
        match said.length {
            Some(length) => Ok(Self::Length(length)),
            None if said.chunked => Ok(Self::Chunked(Chunk::Size)),
            // A coding beneath chunked would be lost with the field that names it.
            None if said.coded => Err(Malformed("transfer coding")),
            None => Ok(Self::Close),
        }
    }

    /// True if nothing is to come.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// How much is to come, if that was said.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunk::Done) => Some(0),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// True if the upstream's closing is the end.
    pub(super) fn ends_at_close(&self) -> bool {
        matches!(self, Self::Close)
    }

    /// Takes what is next from `buffer`.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Next, Malformed> {
        match self {
            Self::Length(0) => Ok(Next::End),
            Self::Length(left) => Ok(take(left, buffer)),
            Self::Close if buffer.is_empty() => Ok(Next::More),
            Self::Close => Ok(Next::Frame(Frame::data(buffer.split().freeze()))),
            Self::Chunked(chunk) => chunk.next(buffer),
        }
    }
}

impl Chunk {
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Next, Malformed> {
        loop {
            match self {
                Self::Size => {
                    let Some(end) = memchr(b'\n', buffer) else {
                        return if buffer.len() > MAX_SIZE_LINE {
                            Err(Malformed("too long a chunk size"))
                        } else {
                            Ok(Next::More)
                        };
                    };
                    let size = chunk_size(&buffer[..end]).ok_or(Malformed("chunk size"))?;
                    buffer.advance(end + 1);
                    *self = if size == 0 { Self::Trailers(0) } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let next = take(left, buffer);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(next);
                }
                Self::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(Next::More),
                    _ => return Err(Malformed("end of a chunk")),
                },
                Self::Trailers(scanned) => {
                    let Some(trailers) = trailers(buffer, scanned)? else {
                        return Ok(Next::More);
                    };
                    *self = Self::Done;
                    if !trailers.is_empty() {
                        return Ok(Next::Frame(Frame::trailers(trailers)));
                    }
                }
                Self::Done => return Ok(Next::End),
            }
        }
    }
}

/// As much of `left` as is there.
fn take(left: &mut u64, buffer: &mut BytesMut) -> Next {
    if buffer.is_empty() {
        return Next::More;
    }
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= here as u64;
    Next::Frame(Frame::data(buffer.split_to(here).freeze()))
}

/// `1*HEXDIG`, then perhaps extensions, which nobody uses, then CR; the line's LF is gone already.
pub(in crate::proxy) fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r").filter(|line| line.len() <= MAX_SIZE_LINE)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    // RFC 9112 §7.1.1: whitespace before an extension is bad, and to be put up with.
    let extended = matches!(rest.trim_ascii_start(), [] | [b';', ..]);
    if !extended || digits > 16 || rest.contains(&b'\r') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

fn trailers(buffer: &mut BytesMut, scanned: &mut usize) -> Result<Option<HeaderMap>, Malformed> {
    match buffer.as_ref() {
        [b'\r', b'\n', ..] => {
            buffer.advance(2);
            return Ok(Some(HeaderMap::new()));
        }
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let Some(length) = end_of_fields(buffer, scanned)? else { return Ok(None) };
    let bytes = buffer.split_to(length).freeze();
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(&bytes, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            let places = fields.iter().map(|field| Place::of(field, &bytes));
            collect(&bytes, &places.collect::<Result<Vec<_>, _>>()?, |_, _| Ok(true)).map(Some)
        }
        _ => Err(Malformed("trailers")),
    }
}

#[cfg(test)]
mod tests;
