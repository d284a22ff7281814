//! The table: a section of RFC 9113 or RFC 7541, what is done, the frames, and what must come of
//! it.

use std::slice::from_ref;

use super::super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITIZED,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, block, frame, get, post,
    pseudo, request, setting,
};
use Want::{Alive, Connection, Status, Stream};

/// Error codes (RFC 9113 §7).
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
/// RFC 9113 §4.2. hyper's h2 says the less exact `PROTOCOL_ERROR` to most of them.
const SIZE: &[u32] = &[6, PROTOCOL];
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;

/// What must come of some frames.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// An answer on the stream.
    Status(u32, u16),
    /// The stream ends with one of these codes, or the connection does.
    Stream(u32, &'static [u32]),
    /// The connection ends with one of these codes.
    Connection(&'static [u32]),
    /// Nothing: the connection lives and the stream was not reset.
    Alive(u32),
}

pub struct Row {
    pub section: &'static str,
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub want: Want,
}

pub fn rows() -> Vec<Row> {
    let mut table = Table { rows: Vec::new() };
    table.generic();
    table.framing();
    table.streams();
    table.data_headers_priority();
    table.reset_settings_push();
    table.ping_goaway_windows();
    table.continuation();
    table.requests();
    table.compression();
    table.rows
}

struct Table {
    rows: Vec<Row>,
}

impl Table {
    fn add(&mut self, section: &'static str, name: &'static str, frames: &[Vec<u8>], want: Want) {
        self.rows.push(Row { section, name, bytes: frames.concat(), want });
    }

    /// What honest callers do.
    fn generic(&mut self) {
        let ok = Status(1, 200);
        self.add("§8.1", "GET", &[get(1, "/")], ok);
        let head = frame(HEADERS, WHOLE, 1, &request("HEAD", "/", &[]));
        self.add("§8.1", "HEAD", &[head], ok);
        let body = frame(DATA, END_STREAM, 1, b"test");
        self.add("§8.1", "POST", &[post(1, "/", &[]), body.clone()], ok);
        let trailers = frame(HEADERS, WHOLE, 1, &block(&[("x-test", "ok")]));
        let data = frame(DATA, 0, 1, b"test");
        self.add("§8.1", "POST with trailers", &[post(1, "/", &[]), data, trailers], ok);
        let padded = frame(DATA, END_STREAM | PADDED, 1, b"\x04test\0\0\0\0");
        self.add("§6.1", "padded data", &[post(1, "/", &[]), padded], ok);
        let padding = [&[4][..], &request("GET", "/", &[]), b"\0\0\0\0"].concat();
        self.add("§6.2", "padded head", &[frame(HEADERS, WHOLE | PADDED, 1, &padding)], ok);
        let weighted = [&[0, 0, 0, 0, 255][..], &request("GET", "/", &[])].concat();
        let weighted = frame(HEADERS, WHOLE | PRIORITIZED, 1, &weighted);
        self.add("§6.2", "head with a priority", &[weighted], ok);
        let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 10]);
        self.add("§6.3", "priority before the head", &[priority, get(1, "/")], ok);
        self.add("§6.4", "reset", &[get(1, "/"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])], Alive(1));
        let settings = frame(SETTINGS, 0, 0, &setting(3, 10));
        self.add("§6.5", "settings", &[settings, get(1, "/")], ok);
        self.add("§6.7", "ping", &[frame(PING, 0, 0, b"h2spec\0\0")], Alive(0));
        let more = [frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), get(1, "/")];
        self.add("§6.9", "a larger window", &more, ok);
        let more = [get(1, "/"), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])];
        self.add("§6.9", "a larger window of a stream", &more, ok);
        let fields = request("GET", "/", &[]);
        let (first, rest) = fields.split_at(10);
        let split =
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)];
        self.add("§6.10", "a head in two frames", &split, ok);
        self.add("§5.1.1", "two streams", &[get(1, "/"), get(3, "/")], Status(3, 200));
        self.add("§5.1.1", "streams left out", &[get(1001, "/")], Status(1001, 200));
    }

    fn framing(&mut self) {
        let unknown = frame(0x16, 0xff, 1, b"unknown");
        self.add("§4.1", "unknown type", &[unknown.clone(), get(1, "/")], Status(1, 200));
        let flags = frame(PING, 0x16, 0, b"h2spec\0\0");
        self.add("§4.1", "undefined flags", &[flags], Alive(0));
        let reserved = frame(PING, 0, 0x8000_0000, b"h2spec\0\0");
        self.add("§4.1", "reserved bit", &[reserved], Alive(0));
        let full = frame(DATA, END_STREAM, 1, &vec![b'x'; 1 << 14]);
        self.add("§4.2", "largest data", &[post(1, "/", &[]), full], Status(1, 200));
        let over = frame(DATA, END_STREAM, 1, &vec![b'x'; (1 << 14) + 1]);
        self.add("§4.2", "too large data", &[post(1, "/", &[]), over], Stream(1, SIZE));
        let long = "x".repeat(1 << 14);
        let over = frame(HEADERS, WHOLE, 1, &request("GET", "/", &[("x", &long)]));
        self.add("§4.2", "too large a head", &[over], Connection(SIZE));
        let over = frame(0x16, 0, 1, &vec![0; (1 << 14) + 1]);
        self.add("§4.2", "too large a frame of unknown type", &[over], Connection(SIZE));
        let garbage = frame(HEADERS, WHOLE, 1, &[0xff; 20]);
        self.add("§4.3", "no header block", &[garbage], Connection(&[COMPRESSION, PROTOCOL]));
        let open = frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
        let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 10]);
        self.add("§4.3", "priority in a head", &[open.clone(), priority], Connection(&[PROTOCOL]));
        self.add("§4.3", "head in a head", &[open.clone(), get(3, "/")], Connection(&[PROTOCOL]));
        self.add("§5.5", "unknown type in a head", &[open, unknown], Connection(&[PROTOCOL]));
    }

    fn streams(&mut self) {
        let data = |stream| frame(DATA, END_STREAM, stream, b"test");
        let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        let window = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 100]);
        let goes_on = frame(CONTINUATION, END_HEADERS, 1, &request("GET", "/", &[]));
        self.add("§5.1 idle", "data", &[data(1)], Connection(&[PROTOCOL]));
        self.add("§5.1 idle", "reset", &[reset(1)], Connection(&[PROTOCOL]));
        self.add("§5.1 idle", "window", &[window(1)], Connection(&[PROTOCOL]));
        self.add("§5.1 idle", "continuation", from_ref(&goes_on), Connection(&[PROTOCOL]));
        let closed: &[u32] = &[CLOSED, PROTOCOL];
        self.add("§5.1 half-closed", "data", &[get(1, "/"), data(1)], Stream(1, closed));
        self.add("§5.1 half-closed", "head", &[get(1, "/"), get(1, "/")], Stream(1, closed));
        let continued = [get(1, "/"), goes_on.clone()];
        self.add("§5.1 half-closed", "continuation", &continued, Connection(closed));
        let open = post(1, "/", &[]);
        // RFC 9113 §5.1: what may have crossed our reset is put up with.
        self.add("§5.1 closed", "data", &[open.clone(), reset(1), data(1)], Stream(1, closed));
        let again = [open.clone(), reset(1), get(1, "/")];
        self.add("§5.1 closed", "head", &again, Stream(1, closed));
        let continued = [open.clone(), reset(1), goes_on];
        self.add("§5.1 closed", "continuation", &continued, Connection(closed));
        self.add("§5.1 closed", "window", &[open.clone(), reset(1), window(1)], Alive(1));
        self.add("§5.1 closed", "reset again", &[open, reset(1), reset(1)], Alive(1));
        self.add("§5.1.1", "even number", &[get(2, "/")], Connection(&[PROTOCOL]));
        self.add("§5.1.1", "smaller number", &[get(5, "/"), get(3, "/")], Connection(closed));
        self.add("§5.1.1", "stream 0", &[get(0, "/")], Connection(&[PROTOCOL]));
        let crowd: Vec<_> = (0..101).map(|n| post(1 + 2 * n, "/", &[])).collect();
        self.add("§5.1.2", "one stream too many", &crowd, Stream(201, &[PROTOCOL, REFUSED]));
        let on_itself = [&[0, 0, 0, 1, 255][..], &request("GET", "/", &[])].concat();
        let on_itself = frame(HEADERS, WHOLE | PRIORITIZED, 1, &on_itself);
        self.add("§5.3.1", "head that depends on itself", &[on_itself], Stream(1, &[PROTOCOL]));
        let bad = frame(PING, 0, 0, b"");
        self.add("§5.4.1", "an error, then more", &[bad, get(1, "/")], Connection(SIZE));
    }

    fn data_headers_priority(&mut self) {
        let protocol = Connection(&[PROTOCOL]);
        self.add("§6.1", "data on 0", &[frame(DATA, END_STREAM, 0, b"x")], protocol);
        let padding = frame(DATA, END_STREAM | PADDED, 1, b"\x06test");
        self.add("§6.1", "more padding than data", &[post(1, "/", &[]), padding], protocol);
        let nothing = frame(DATA, END_STREAM | PADDED, 1, b"");
        let size = Connection(SIZE);
        self.add("§6.1", "padding without a length", &[post(1, "/", &[]), nothing], size);
        let padding = [&[255][..], &request("GET", "/", &[])].concat();
        let padding = frame(HEADERS, WHOLE | PADDED, 1, &padding);
        self.add("§6.2", "more padding than head", &[padding], protocol);
        self.add("§6.2", "an empty priority", &[frame(HEADERS, WHOLE | PRIORITIZED, 1, b"")], size);
        let on_0 = frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 10]);
        self.add("§6.3", "priority on 0", &[on_0], protocol);
        let short = frame(PRIORITY, 0, 1, &[0, 0, 0, 0]);
        self.add("§6.3", "priority of four bytes", &[short], Stream(1, SIZE));
    }

    fn reset_settings_push(&mut self) {
        let (protocol, size) = (Connection(&[PROTOCOL]), Connection(SIZE));
        self.add("§6.4", "reset of 0", &[frame(RST_STREAM, 0, 0, &[0, 0, 0, 8])], protocol);
        let short = [post(1, "/", &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0])];
        self.add("§6.4", "reset of three bytes", &short, size);
        let one = setting(1, 0);
        self.add("§6.5", "settings that acknowledge", &[frame(SETTINGS, ACK, 0, &one)], size);
        self.add("§6.5", "settings on a stream", &[frame(SETTINGS, 0, 1, &one)], protocol);
        self.add("§6.5", "settings of three bytes", &[frame(SETTINGS, 0, 0, &one[..3])], size);
        for (name, number, value, want) in [
            ("push of 2", 2, 2, protocol),
            ("window beyond the largest", 4, 1 << 31, Connection(&[FLOW, PROTOCOL])),
            ("frames below the smallest", 5, (1 << 14) - 1, protocol),
            ("frames beyond the largest", 5, 1 << 24, protocol),
            ("no such setting", 0xff, 1, Alive(0)),
            ("extended CONNECT of 2", 8, 2, protocol),
        ] {
            self.add("§6.5.2", name, &[frame(SETTINGS, 0, 0, &setting(number, value))], want);
        }
        let two = frame(SETTINGS, 0, 0, &[setting(4, 100), setting(4, 1)].concat());
        self.add("§6.5.3", "a setting twice", &[two, get(1, "/")], Status(1, 200));
        let promise = [&[0, 0, 0, 2][..], &request("GET", "/", &[])].concat();
        let promise = frame(PUSH_PROMISE, END_HEADERS, 1, &promise);
        self.add("§6.6", "a caller's promise", &[get(1, "/"), promise], protocol);
    }

    fn ping_goaway_windows(&mut self) {
        let (protocol, size) = (Connection(&[PROTOCOL]), Connection(SIZE));
        self.add("§6.7", "ping that acknowledges", &[frame(PING, ACK, 0, b"invalid\0")], Alive(0));
        self.add("§6.7", "ping on a stream", &[frame(PING, 0, 1, b"h2spec\0\0")], protocol);
        self.add("§6.7", "ping of seven bytes", &[frame(PING, 0, 0, b"h2spec\0")], size);
        let goaway = |stream| frame(GOAWAY, 0, stream, &[0, 0, 0, 0, 0, 0, 0, 0]);
        self.add("§6.8", "goaway on a stream", &[goaway(1)], protocol);
        let none = [0; 4];
        let of = |stream, by: &[u8]| frame(WINDOW_UPDATE, 0, stream, by);
        self.add("§6.9", "window of 0 more", &[of(0, &none)], protocol);
        let on_stream = [post(1, "/", &[]), of(1, &none)];
        self.add("§6.9", "window of 0 more on a stream", &on_stream, Stream(1, &[PROTOCOL]));
        self.add("§6.9", "window of three bytes", &[of(0, &[0, 0, 1])], size);
        let most = [127, 255, 255, 255];
        let twice = [of(0, &most), of(0, &most)];
        self.add("§6.9.1", "window beyond the largest", &twice, Connection(&[FLOW]));
        let twice = [post(1, "/", &[]), of(1, &most), of(1, &most)];
        self.add("§6.9.1", "the same on a stream", &twice, Stream(1, &[FLOW]));
        let initial = frame(SETTINGS, 0, 0, &setting(4, 0x7fff_ffff));
        let grown = [post(1, "/", &[]), of(1, &[0, 0, 1, 0]), initial];
        self.add("§6.9.2", "settings make a window too large", &grown, Connection(&[FLOW]));
        let unknown = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 255]);
        let still = [get(1, "/"), unknown];
        self.add("§7", "goaway with an unknown code", &still, Status(1, 200));
        let unknown = [post(1, "/", &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 255])];
        self.add("§7", "reset with an unknown code", &unknown, Alive(1));
    }

    fn continuation(&mut self) {
        let protocol = Connection(&[PROTOCOL]);
        let fields = request("GET", "/", &[("x-a", "1"), ("x-b", "2")]);
        let part = |n: usize| &fields[10 * n..(10 * n + 10).min(fields.len())];
        let open = frame(HEADERS, END_STREAM, 1, part(0));
        let second = frame(CONTINUATION, 0, 1, part(1));
        let last = frame(CONTINUATION, END_HEADERS, 1, &fields[20..]);
        let three = [open.clone(), second.clone(), last.clone()];
        self.add("§6.10", "a head in three frames", &three, Status(1, 200));
        let data = frame(DATA, END_STREAM, 1, b"x");
        self.add(
            "§6.10",
            "data in a head",
            &[open.clone(), second.clone(), data.clone()],
            protocol,
        );
        let on_0 = [open.clone(), frame(CONTINUATION, END_HEADERS, 0, part(1))];
        self.add("§6.10", "continuation on 0", &on_0, protocol);
        let elsewhere = [open.clone(), frame(CONTINUATION, END_HEADERS, 3, part(1))];
        self.add("§6.10", "continuation on another stream", &elsewhere, protocol);
        self.add("§6.10", "continuation of a whole head", &[get(1, "/"), last.clone()], protocol);
        let after = [open, second, last.clone(), last.clone()];
        self.add("§6.10", "continuation after the end", &after, protocol);
        self.add("§6.10", "continuation of data", &[post(1, "/", &[]), data, last], protocol);
    }

    /// Malformed requests (RFC 9113 §8.1.1): a stream's error each.
    fn requests(&mut self) {
        let again = [post(1, "/", &[]), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))];
        self.add("§8.1", "a second head that ends nothing", &again, Stream(1, &[PROTOCOL]));
        for (name, fields) in [
            ("uppercase name", &[("X-TEST", "ok")][..]),
            ("unknown pseudo-header", &[(":test", "ok")]),
            ("pseudo-header of answers", &[(":status", "200")]),
            ("pseudo-header behind a field", &[("x-test", "ok"), (":path", "/evil")]),
            ("second :method", &[(":method", "POST")]),
            ("second :scheme", &[(":scheme", "https")]),
            ("second :path", &[(":path", "/evil")]),
            ("second :authority", &[(":authority", "evil")]),
            ("connection", &[("connection", "keep-alive")]),
            ("keep-alive", &[("keep-alive", "timeout=1")]),
            ("proxy-connection", &[("proxy-connection", "keep-alive")]),
            ("transfer-encoding", &[("transfer-encoding", "chunked")]),
            ("upgrade", &[("upgrade", "h2c")]),
            ("te other than trailers", &[("te", "gzip")]),
            ("empty name", &[("", "evil")]),
            ("name with a space", &[("x evil", "y")]),
            ("name with a colon", &[("x:evil", "y")]),
            ("name with CR LF", &[("x\r\nevil", "y")]),
            ("value with CR LF", &[("x", "y\r\nauthorization: evil")]),
            ("value with LF", &[("x", "y\nauthorization: evil")]),
            ("value with NUL", &[("x", "y\0")]),
            ("two lengths", &[("content-length", "0"), ("content-length", "1")]),
            ("a length that is none", &[("content-length", "x")]),
        ] {
            let head = frame(HEADERS, WHOLE, 1, &request("GET", "/", fields));
            self.add("§8.2, §8.3", name, &[head], Stream(1, &[PROTOCOL]));
        }
        for left_out in [":method", ":scheme", ":path"] {
            let fields: Vec<_> =
                pseudo("GET", "/").into_iter().filter(|(name, _)| *name != left_out).collect();
            let head = frame(HEADERS, WHOLE, 1, &block(&fields));
            self.add("§8.3.1", left_out, &[head], Stream(1, &[PROTOCOL]));
        }
        for (name, path) in [("empty :path", ""), ("relative :path", "evil")] {
            let head = frame(HEADERS, WHOLE, 1, &request("GET", path, &[]));
            self.add("§8.3.1", name, &[head], Stream(1, &[PROTOCOL]));
        }
        let pseudo = frame(HEADERS, WHOLE, 1, &block(&[(":method", "GET")]));
        let trailers = [post(1, "/", &[]), pseudo];
        // hyper's h2 drops it from the trailers instead of resetting the stream.
        self.add("§8.1", "pseudo-header in trailers", &trailers, Status(1, 200));
        let length = |length| post(1, "/", &[("content-length", length)]);
        let data = |flags, text: &[u8]| frame(DATA, flags, 1, text);
        for (name, frames) in [
            ("less than its length", vec![length("5"), data(END_STREAM, b"test")]),
            ("more than its length", vec![length("3"), data(END_STREAM, b"test")]),
            ("less in two frames", vec![length("9"), data(0, b"te"), data(END_STREAM, b"st")]),
            ("more in two frames", vec![length("3"), data(0, b"te"), data(END_STREAM, b"st")]),
            ("a length and no body", vec![length("3"), data(END_STREAM, b"")]),
        ] {
            self.add("§8.1.1", name, &frames, Stream(1, &[PROTOCOL]));
        }
    }

    /// RFC 7541.
    fn compression(&mut self) {
        let broken = Connection(&[COMPRESSION, PROTOCOL]);
        let with = |tail: &[u8]| {
            let fields = [&request("GET", "/", &[]), tail].concat();
            [frame(HEADERS, WHOLE, 1, &fields)]
        };
        self.add("HPACK §2.3.3", "an index beyond the table", &with(&[0xff, 0x21]), broken);
        let name = [0x7f, 0x21, 1, b'x'];
        self.add("HPACK §2.3.3", "a name beyond the table", &with(&name), broken);
        self.add("HPACK §4.2", "a size at the end", &with(&[0x20]), broken);
        let long = [0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff];
        self.add("HPACK §5.2", "more than seven bits of padding", &with(&long), broken);
        let zeros = [0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90];
        self.add("HPACK §5.2", "padding of zeros", &with(&zeros), broken);
        let eos = [
            0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa,
            0x7f,
        ];
        self.add("HPACK §5.2", "an end inside a string", &with(&eos), broken);
        self.add("HPACK §6.1", "index 0", &with(&[0x80]), broken);
        let larger = [&[0x3f, 0xe1, 0xff, 0x03][..], &request("GET", "/", &[])].concat();
        let larger = frame(HEADERS, WHOLE, 1, &larger);
        self.add("HPACK §6.3", "a size beyond what was granted", &[larger], broken);
        let endless = [&[0x00, 0x7f][..], &[0xff; 20]].concat();
        self.add("HPACK §5.1", "an integer without end", &with(&endless), broken);
    }
}
