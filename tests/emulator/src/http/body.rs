//! Reading a request's body, by length or in chunks, and the pattern that long answers are made of.

use std::io;

use aws_lc_rs::digest::{Context, SHA256};

use super::message::Recorded;
use super::wire::Wire;

/// How much of a body is kept; the rest is only counted and hashed.
const KEPT: usize = 1 << 20;
/// A chunk's size line and a trailer section stay below this.
const LINE_LIMIT: usize = 64 * 1024;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Length(u64),
    Chunked,
}

/// The first `length` bytes of the pattern that [`Body::Pattern`](super::Body::Pattern) sends: byte
/// `i` is `i % 251`.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Reads the framing from the head. Anything that two parsers could read differently is refused.
pub(super) fn expected(request: &Recorded) -> Result<Expected, &'static str> {
    let lengths = request.headers("content-length");
    let encodings = request.headers("transfer-encoding");
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => Ok(Expected::Length(0)),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => std::str::from_utf8(length)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .map(Expected::Length)
            .ok_or("content-length"),
        ([], [encoding]) if encoding.eq_ignore_ascii_case(b"chunked") && request.version == 1 => {
            Ok(Expected::Chunked)
        }
        _ => Err("ambiguous framing"),
    }
}

/// Reads the whole body into `request`.
pub(super) async fn read(
    wire: &mut Wire,
    expected: Expected,
    request: &mut Recorded,
) -> io::Result<()> {
    let mut sink = Sink { request, digest: Context::new(&SHA256) };
    match expected {
        Expected::Length(length) => sink.take(wire, length).await?,
        Expected::Chunked => sink.chunks(wire).await?,
    }
    let Sink { request, digest } = sink;
    request.body_sha256 = crate::style::hex(digest.finish().as_ref());
    Ok(())
}

struct Sink<'r> {
    request: &'r mut Recorded,
    digest: Context,
}

impl Sink<'_> {
    async fn take(&mut self, wire: &mut Wire, mut length: u64) -> io::Result<()> {
        while length > 0 {
            if wire.ahead().is_empty() {
                wire.fill_some().await?;
            }
            let here = (wire.ahead().len() as u64).min(length) as usize;
            let bytes = &wire.ahead()[..here];
            self.digest.update(bytes);
            let room = KEPT.saturating_sub(self.request.body.len());
            self.request.body.extend_from_slice(&bytes[..here.min(room)]);
            self.request.body_length += here as u64;
            wire.skip(here);
            length -= here as u64;
        }
        Ok(())
    }

    async fn chunks(&mut self, wire: &mut Wire) -> io::Result<()> {
        loop {
            let line = line(wire).await?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size)
                .ok()
                .filter(|size| size.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|size| u64::from_str_radix(size, 16).ok())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "chunk size"))?;
            if size == 0 {
                return self.trailers(wire).await;
            }
            self.take(wire, size).await?;
            if !self::line(wire).await?.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "chunk end"));
            }
        }
    }

    async fn trailers(&mut self, wire: &mut Wire) -> io::Result<()> {
        loop {
            let line = line(wire).await?;
            if line.is_empty() {
                return Ok(());
            }
            let colon = line
                .iter()
                .position(|byte| *byte == b':')
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "trailer"))?;
            let name = String::from_utf8_lossy(&line[..colon]).into_owned();
            self.request.trailers.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }
}

/// One line without its CRLF.
async fn line(wire: &mut Wire) -> io::Result<Vec<u8>> {
    loop {
        if let Some(end) = wire.ahead().windows(2).position(|pair| pair == b"\r\n") {
            let line = wire.take(end);
            wire.skip(2);
            return Ok(line);
        }
        if wire.ahead().len() > LINE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
        }
        wire.fill_some().await?;
    }
}
