//! A message's body on its way in: how much of it is to come, and the next piece.

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use memchr::memchr;

use super::{Bounds, Malformed, fields};

/// The longest line that tells a chunk's size, extensions included.
const MAX_SIZE_LINE: usize = 1024;

/// What is still to come of a body (RFC 9112 §6.3).
#[derive(Debug)]
pub(in crate::proxy) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All until the sender closes: responses only.
    Close,
}

/// What is next in a chunked body (RFC 9112 §7.1).
#[derive(Debug)]
pub(in crate::proxy) enum Chunk {
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
pub(in crate::proxy) enum Next {
    /// Data or trailers.
    Frame(Frame<Bytes>),
    /// Nothing before more has been read.
    More,
    /// Nothing any more.
    End,
}

impl Body {
    /// True if nothing is to come.
    pub(in crate::proxy) fn is_end(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// How much is to come, if that was said.
    pub(in crate::proxy) fn length(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunk::Done) => Some(0),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// True if the sender's closing is the end.
    pub(in crate::proxy) fn ends_at_close(&self) -> bool {
        matches!(self, Self::Close)
    }

    /// Takes what is next from `buffer`; `trailers` may be so large.
    pub(in crate::proxy) fn next(
        &mut self,
        buffer: &mut BytesMut,
        trailers: Bounds,
    ) -> Result<Next, Malformed> {
        match self {
            Self::Length(0) => Ok(Next::End),
            Self::Length(left) => Ok(take(left, buffer)),
            Self::Close if buffer.is_empty() => Ok(Next::More),
            Self::Close => Ok(Next::Frame(Frame::data(buffer.split().freeze()))),
            Self::Chunked(chunk) => chunk.next(buffer, trailers),
        }
    }
}

impl Chunk {
    fn next(&mut self, buffer: &mut BytesMut, bounds: Bounds) -> Result<Next, Malformed> {
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
                    let Some(trailers) = fields::trailers(buffer, scanned, bounds)? else {
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
fn chunk_size(line: &[u8]) -> Option<u64> {
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
