//! HTTP/2 by raw frames (RFC 9113 §4.1), sent as they are, whatever they mean.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::DEADLINE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 0x20;
/// A whole request head without a body.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The number that stands there in the payload.
    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_be_bytes)
    }
}

/// The bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block: literal fields that are never indexed (RFC 7541 §6.2.2), as they are.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).expect("below 127"));
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The pseudo-header fields of a request for `path`.
pub fn pseudo<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")]
}

/// A request head with more fields, as a block.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&pseudo(method, path), more].concat())
}

/// A whole GET on `stream`.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request("GET", path, &[]))
}

/// The head of a POST on `stream`, whose body is to come.
pub fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path, more))
}

/// One setting.
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// What came of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A response head with this status.
    Status(u16),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection was closed.
    Closed,
    /// Nothing of that kind, and the connection lives.
    Alive,
}

/// A connection of frames.
pub struct Raw {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing yet.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP");
        Self::over(stream)
    }

    /// Frames over an accepted connection.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Connects and greets; answers come without a dynamic table, so that they can be read alone.
    pub async fn greet(to: SocketAddr) -> Self {
        let mut raw = Self::connect(to).await;
        let settings = frame(SETTINGS, 0, 0, &setting(1, 0));
        raw.send(&[PREFACE, &settings, &frame(SETTINGS, ACK, 0, b"")].concat()).await;
        raw
    }

    /// Sends; who has closed does not hear it.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _closed = self.try_send(bytes).await;
    }

    /// Sends, and tells whether it was taken.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads the preface of who connected.
    pub async fn greeted(&mut self) {
        while self.ahead.len() < PREFACE.len() {
            assert!(self.fill().await, "no preface");
        }
        let rest = self.ahead.split_off(PREFACE.len());
        assert_eq!(std::mem::replace(&mut self.ahead, rest), PREFACE);
    }

    async fn fill(&mut self) -> bool {
        let reading = timeout(DEADLINE, self.stream.read_buf(&mut self.ahead)).await;
        matches!(reading.expect("frames or the end in time"), Ok(1..))
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.ahead.first_chunk::<9>().copied() {
                let number =
                    |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
                let end = 9 + number(&head[..3]) as usize;
                if self.ahead.len() >= end {
                    let rest = self.ahead.split_off(end);
                    let payload = std::mem::replace(&mut self.ahead, rest).split_off(9);
                    let (kind, flags, stream) = (head[3], head[4], number(&head[5..]) & !(1 << 31));
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The status of the answer on `stream`, or what ended it.
    pub async fn answer(&mut self, stream: u32) -> Seen {
        self.until(|seen, on| on == stream || !matches!(seen, Seen::Status(_) | Seen::Reset(_)))
            .await
    }

    /// The first reset of `stream`, or the connection's end; [`Seen::Alive`] if two more questions
    /// are answered before there is any.
    pub async fn verdict(&mut self, stream: u32) -> Seen {
        self.send(&frame(PING, 0, 0, b"question")).await;
        self.until(|seen, on| match seen {
            Seen::Status(_) => false,
            Seen::Reset(_) => on == stream,
            _ => true,
        })
        .await
    }

    async fn until(&mut self, is_it: impl Fn(&Seen, u32) -> bool) -> Seen {
        let mut acknowledged = 0;
        while let Some(frame) = self.next().await {
            let seen = match frame.kind {
                HEADERS => Seen::Status(status(&frame.payload)),
                RST_STREAM => Seen::Reset(frame.number(0)),
                GOAWAY => Seen::GoAway(frame.number(4)),
                PING if frame.flags & ACK != 0 && frame.payload == b"question" => {
                    acknowledged += 1;
                    if acknowledged < 2 {
                        self.send(&self::frame(PING, 0, 0, b"question")).await;
                        continue;
                    }
                    Seen::Alive
                }
                _ => continue,
            };
            if is_it(&seen, frame.stream) {
                return seen;
            }
        }
        Seen::Closed
    }

    /// True once the connection has been closed.
    pub async fn ends(&mut self) -> bool {
        while self.next().await.is_some() {}
        true
    }
}

/// The status in a header block of somebody who uses no dynamic table.
fn status(block: &[u8]) -> u16 {
    let block: &[u8] = match block {
        // A new size of the table (RFC 7541 §6.3).
        [0x20..=0x3f, rest @ ..] => rest,
        block => block,
    };
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => indexed[usize::from(first - 0x88)],
        [0x08 | 0x18 | 0x48, length, value @ ..] => {
            let value = &value[..usize::from(length & 127)];
            let text = if length & 128 == 0 { value.to_vec() } else { digits(value) };
            String::from_utf8_lossy(&text).parse().expect("a status")
        }
        block => panic!("no status first: {block:?}"),
    }
}

/// Three digits in Huffman code (RFC 7541 appendix B).
fn digits(coded: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> =
        coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let (mut text, mut at) = (Vec::new(), 0);
    while text.len() < 3 {
        let take = |count: usize| bits[at..at + count].iter().fold(0, |n, bit| n << 1 | bit);
        // 0, 1 and 2 have five bits; 3 to 9 have six, from 25 on.
        let (digit, count) = if take(5) < 3 { (take(5), 5) } else { (take(6) - 22, 6) };
        text.push(b'0' + digit);
        at += count;
    }
    text
}
