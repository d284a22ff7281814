//! Field lines: where they end, and the map that they make.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::{Bounds, Malformed};

pub(in crate::proxy) const TOO_LARGE: Malformed = Malformed("too large a head");
/// A map with room for more is not kept between messages.
const KEPT_FIELDS: usize = 100;
const FIELD: Malformed = Malformed("field");

/// Where in a buffer a field's name and value are: small, since there is room for all of them.
#[derive(Clone, Copy, Default)]
pub(in crate::proxy) struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

impl Place {
    /// The place of `field`, which was found in `buffer`.
    fn of(field: &httparse::Header<'_>, buffer: &[u8]) -> Result<Self, Malformed> {
        let name = place(field.name.as_bytes(), buffer);
        let value = place(field.value, buffer);
        name.zip(value).map(|(name, value)| Self { name, value }).ok_or(FIELD)
    }
}

/// So many are noted without an allocation.
const FEW: usize = 16;

/// The places of the fields of one head.
pub(in crate::proxy) struct Places {
    few: [Place; FEW],
    count: usize,
    /// All of them, if they are more than a few.
    many: Vec<Place>,
}

impl Places {
    /// The places of `fields`, which were found in `buffer`.
    pub(in crate::proxy) fn of(
        fields: &[httparse::Header<'_>],
        buffer: &[u8],
    ) -> Result<Self, Malformed> {
        let count = fields.len();
        let mut places = Self { few: [Place::default(); FEW], count, many: Vec::new() };
        let room = if count > FEW {
            places.many.resize(count, Place::default());
            &mut places.many[..]
        } else {
            &mut places.few[..]
        };
        for (place, field) in room.iter_mut().zip(fields) {
            *place = Place::of(field, buffer)?;
        }
        Ok(places)
    }

    pub(in crate::proxy) fn as_slice(&self) -> &[Place] {
        if self.count > FEW { &self.many } else { &self.few[..self.count] }
    }
}

/// Where `part` is in `buffer`.
pub(in crate::proxy) fn place(part: &[u8], buffer: &[u8]) -> Option<(u32, u32)> {
    let start = part.as_ptr().addr() - buffer.as_ptr().addr();
    Some((u32::try_from(start).ok()?, u32::try_from(start + part.len()).ok()?))
}

/// What [`place`] told.
pub(in crate::proxy) fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

/// The map of the `fields` in `bytes` that are to be kept, made in `headers`, which is empty.
pub(in crate::proxy) fn collect<E: From<Malformed>>(
    mut headers: HeaderMap,
    bytes: &Bytes,
    fields: &[Place],
    mut keeps: impl FnMut(&HeaderName, &[u8]) -> Result<bool, E>,
) -> Result<HeaderMap, E> {
    headers.try_reserve(fields.len()).map_err(|_| TOO_LARGE)?;
    for field in fields {
        let name = HeaderName::from_bytes(&bytes[range(field.name)]).map_err(|_| FIELD)?;
        let value = range(field.value);
        if keeps(&name, &bytes[value.clone()])? {
            // Without a copy: each value is a part of what was read.
            let value = HeaderValue::from_maybe_shared(bytes.slice(value)).map_err(|_| FIELD)?;
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// The map `fields` for those of another message: empty, with the room that a usual one needs.
pub(in crate::proxy) fn emptied(mut fields: HeaderMap) -> HeaderMap {
    if fields.capacity() > KEPT_FIELDS {
        return HeaderMap::new();
    }
    fields.clear();
    fields
}

/// The length of the lines up to and with the empty one, of no more than `most` bytes. `scanned` is
/// the caller's to keep: how far the end was looked for.
pub(in crate::proxy) fn end(
    buffer: &[u8],
    scanned: &mut usize,
    most: usize,
) -> Result<Option<usize>, Malformed> {
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
        return if end > most { Err(TOO_LARGE) } else { Ok(Some(end)) };
    }
    *scanned = buffer.len();
    if buffer.len() > most { Err(TOO_LARGE) } else { Ok(None) }
}

/// Takes trailers, and the empty line after them, from `buffer`; `None` until all of it is there.
pub(super) fn trailers(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    bounds: Bounds,
) -> Result<Option<HeaderMap>, Malformed> {
    match buffer.as_ref() {
        [b'\r', b'\n', ..] => {
            buffer.advance(2);
            return Ok(Some(HeaderMap::new()));
        }
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let Some(length) = end(buffer, scanned, bounds.bytes)? else { return Ok(None) };
    let bytes = buffer.split_to(length).freeze();
    let mut fields = vec![httparse::EMPTY_HEADER; bounds.fields];
    match httparse::parse_headers(&bytes, &mut fields) {
        // RFC 9112 §7.1.2: it may take another line for the last one.
        Ok(httparse::Status::Complete((end, fields))) if end == length => {
            let places = Places::of(fields, &bytes)?;
            collect(HeaderMap::new(), &bytes, places.as_slice(), |_, _| Ok(true)).map(Some)
        }
        _ => Err(Malformed("trailers")),
    }
}
