//! The fields of an answer that nobody has to read, as they go out: most answers need no map of them.

use bytes::{BufMut, BytesMut};
use http::header::DATE;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::Malformed;
use super::said::Said;
use crate::proxy::hop::is_hop_by_hop;

const FIELD: Malformed = Malformed("field");
const BETWEEN: &[u8] = b": ";
const END: &[u8] = b"\r\n";

/// What is kept of a room between messages, in bytes.
pub(in crate::proxy) const KEPT: usize = 2 << 10;

/// A line that says the date (RFC 9110 §5.6.7), in bytes.
const DATE_LINE: usize = 37;

/// Field lines with their names in lowercase, without what is this hop's own and without what frames.
#[derive(Default)]
pub(in crate::proxy) struct FieldLines {
    bytes: BytesMut,
    dated: bool,
}

impl FieldLines {
    /// Takes the `fields` of a head of `length` bytes, and notes what they say. False if they have to be read
    /// after all, since `Connection` names some of them (RFC 9110 §7.6.1).
    pub(in crate::proxy) fn take(
        &mut self,
        fields: &[httparse::Header<'_>],
        length: usize,
        said: &mut Said,
    ) -> Result<bool, Malformed> {
        self.bytes.clear();
        self.dated = false;
        // In each line the space after the colon and the CR may be ours.
        self.bytes.reserve(length + 2 * fields.len() + DATE_LINE);
        for field in fields {
            let begin = self.bytes.len();
            self.bytes.put_slice(field.name.as_bytes());
            self.bytes[begin..].make_ascii_lowercase();
            let name = &self.bytes[begin..];
            let passes = match name {
                b"connection" if said.note(name, field.value)? => return Ok(false),
                b"connection" => false,
                b"content-length" | b"transfer-encoding" => {
                    said.note(name, field.value)?;
                    false
                }
                _ => !is_hop_by_hop(name),
            };
            if passes {
                self.dated |= name == DATE.as_str().as_bytes();
                self.bytes.put_slice(BETWEEN);
                self.bytes.put_slice(field.value);
                self.bytes.put_slice(END);
            } else {
                self.bytes.truncate(begin);
            }
        }
        Ok(true)
    }

    /// What goes out.
    pub(in crate::proxy) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds the `date` if there is none.
    pub(in crate::proxy) fn dated(&mut self, date: impl FnOnce() -> HeaderValue) {
        if !self.dated {
            for part in [DATE.as_str().as_bytes(), BETWEEN, date().as_bytes(), END] {
                self.bytes.put_slice(part);
            }
            self.dated = true;
        }
    }

    /// Reads them after all, into the map `fields`.
    pub(in crate::proxy) fn read(&self, fields: &mut HeaderMap) -> Result<(), Malformed> {
        for line in self.bytes[..].split(|byte| *byte == b'\n') {
            let Some(colon) = memchr(b':', line) else { continue };
            let value = line.get(colon + BETWEEN.len()..).and_then(|line| line.strip_suffix(b"\r"));
            let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| FIELD)?;
            let value = value.and_then(|value| HeaderValue::from_bytes(value).ok());
            fields.append(name, value.ok_or(FIELD)?);
        }
        Ok(())
    }

    /// What a large head needed is not kept for the next one.
    pub(in crate::proxy) fn settle(&mut self) {
        if self.bytes.capacity() > KEPT {
            self.bytes = BytesMut::new();
        }
    }
}
