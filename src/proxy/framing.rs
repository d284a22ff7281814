//! Follows a caller's HTTP/1 messages on the wire, for the one thing that hyper does not show.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is to be refused (RFC 9112 §6.1):
//! somebody on the way may have read it by the other one. hyper drops the length before anybody
//! sees it. What is malformed in any other way hyper refuses itself. Where it puts up with more than
//! is understood here, nobody knows where heads are from there on, and no chunked request on that
//! connection is believed any more.

use memchr::memchr;

use super::upstream::http1::receive::chunk_size;

/// As much of a line as is looked at: a name and a length, or a chunk's size.
const LOOKED_AT: usize = 64;

/// Where in its messages a connection is.
pub(super) struct Follower {
    state: State,
    /// The beginning of a line that is not all there yet.
    line: [u8; LOOKED_AT],
    held: usize,
    length: Option<u64>,
    coded: bool,
}

#[derive(Clone, Copy)]
enum State {
    /// Before a request line; empty lines may precede it (RFC 9112 §2.2).
    Start,
    Fields,
    /// So many bytes that are no lines.
    Skip(u64, After),
    ChunkSize,
    Trailers,
    /// Not followed any more.
    Lost,
}

#[derive(Clone, Copy)]
enum After {
    Message,
    Chunk,
}

impl Follower {
    pub(super) fn new() -> Self {
        Self { state: State::Start, line: [0; LOOKED_AT], held: 0, length: None, coded: false }
    }

    /// False in the middle of a message, or of what is none.
    pub(super) fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Start) && self.held == 0
    }

    /// Follows `bytes`; true if a head in them has both framings, or may have.
    pub(super) fn sees_both(&mut self, mut bytes: &[u8]) -> bool {
        let mut both = false;
        while !bytes.is_empty() {
            match self.state {
                State::Lost => return true,
                State::Skip(left, after) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[here..];
                    self.state = match (left - here as u64, after) {
                        (0, After::Message) => State::Start,
                        (0, After::Chunk) => State::ChunkSize,
                        (left, after) => State::Skip(left, after),
                    };
                }
                _ => {
                    let end = memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
                    let (part, rest) = bytes.split_at(end);
                    both |= self.part(part);
                    bytes = rest;
                }
            }
        }
        both
    }

    /// A line, or a part of one.
    fn part(&mut self, part: &[u8]) -> bool {
        let whole = part.ends_with(b"\n");
        if whole && self.held == 0 {
            return self.line(part);
        }
        let room = (LOOKED_AT - self.held).min(part.len());
        self.line[self.held..self.held + room].copy_from_slice(&part[..room]);
        self.held += room;
        if !whole {
            return false;
        }
        let (line, held) = (self.line, std::mem::take(&mut self.held));
        self.line(&line[..held])
    }

    fn line(&mut self, line: &[u8]) -> bool {
        let text = line.trim_ascii_end();
        match self.state {
            State::Start if text.is_empty() => {}
            State::Start => {
                (self.length, self.coded) = (None, false);
                self.state = State::Fields;
            }
            State::Fields if text.is_empty() => return self.head_ends(),
            State::Fields => self.field(text),
            State::ChunkSize => {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                self.state = match chunk_size(line) {
                    Some(0) => State::Trailers,
                    // And its line's end.
                    Some(size) => State::Skip(size.saturating_add(2), After::Chunk),
                    None => State::Lost,
                };
            }
            State::Trailers if text.is_empty() => self.state = State::Start,
            State::Trailers | State::Skip(..) | State::Lost => {}
        }
        false
    }

    fn field(&mut self, line: &[u8]) {
        let is = |name: &[u8]| {
            line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        // Most lines are told apart by their first letter.
        match line[0] | 0x20 {
            b'c' if is(b"content-length:") => {
                let digits = line[b"content-length:".len()..].trim_ascii();
                let length = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
                // What is no number hyper refuses.
                self.length = Some(length.unwrap_or(0));
            }
            b't' if is(b"transfer-encoding:") => self.coded = true,
            _ => {}
        }
    }

    fn head_ends(&mut self) -> bool {
        self.state = match (self.length, self.coded) {
            (_, true) => State::ChunkSize,
            (Some(length), false) if length > 0 => State::Skip(length, After::Message),
            _ => State::Start,
        };
        self.coded && self.length.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\
                        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                           1c;x=y\r\nContent-Length: 5\r\nHost: x\r\n\r\n0\r\nX-T: 1\r\n\r\n";
    const SIZED: &str = "POST / HTTP/1.1\r\nContent-Length: 31\r\n\r\n\
                         \r\nTransfer-Encoding: chunked\r\n\n";
    const NONE: &str = "\r\nGET / HTTP/1.1\r\nHost: x\r\nX-Long: \
                        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";

    /// Cut in every possible way into two reads, and byte by byte.
    fn sees(text: &str) -> Vec<bool> {
        let bytes = text.as_bytes();
        let mut seen: Vec<bool> = (0..bytes.len())
            .map(|cut| {
                let mut follower = Follower::new();
                let first = follower.sees_both(&bytes[..cut]);
                first | follower.sees_both(&bytes[cut..])
            })
            .collect();
        let mut follower = Follower::new();
        let each = bytes.iter().map(|byte| follower.sees_both(&[*byte]));
        seen.push(each.fold(false, |seen, both| seen | both));
        seen
    }

    #[test]
    fn a_head_with_both_framings_is_seen_however_it_is_cut() {
        for before in ["", CHUNKED, SIZED, NONE] {
            let text = format!("{before}{before}{BOTH}");
            assert!(sees(&text).into_iter().all(|both| both), "{text}");
        }
    }

    #[test]
    fn bodies_and_trailers_are_no_heads() {
        let text = format!("{CHUNKED}{SIZED}{NONE}{CHUNKED}{SIZED}");
        assert!(sees(&text).into_iter().all(|both| !both));
    }

    #[test]
    fn the_end_of_a_message_is_known() {
        for message in [SIZED, NONE, CHUNKED, BOTH] {
            let mut follower = Follower::new();
            for byte in &message.as_bytes()[2..message.len() - 1] {
                follower.sees_both(&[*byte]);
                assert!(!follower.is_between_messages());
            }
            follower.sees_both(&message.as_bytes()[message.len() - 1..]);
            assert!(follower.is_between_messages(), "{message}");
        }
    }

    #[test]
    fn behind_what_is_not_understood_every_head_may_have_both() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for line in ["zz\r\n", "00000000000000000005\r\nhello\r\n0\r\n\r\n"] {
            let mut follower = Follower::new();
            assert!(!follower.sees_both(head.as_bytes()));
            follower.sees_both(line.as_bytes());
            assert!(follower.sees_both(BOTH.as_bytes()), "{line:?}");
            assert!(!follower.is_between_messages());
        }
    }
}
