use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Method;
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::*;
use crate::proxy::http1::send::{COPIED, SendError};
use crate::proxy::replay::BodyError;

use Piece::Later;

/// A body as a script.
#[derive(Clone)]
struct Script {
    frames: VecDeque<Piece>,
    /// What was said about its length beforehand.
    length: Option<u64>,
}

/// What comes next.
#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing yet.
    Later,
}

impl Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            None => Poll::Ready(None),
            Some(Later) => Poll::Pending,
            Some(Piece::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Piece::Trailers(fields)) => Poll::Ready(Some(Ok(Frame::trailers(fields)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn data(text: &str) -> Piece {
    Piece::Data(Bytes::copy_from_slice(text.as_bytes()))
}

fn trailers(fields: &[(&'static str, &'static str)]) -> Piece {
    Piece::Trailers(map(fields))
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    fields.iter().map(pair).collect()
}

fn request(method: Method, fields: &[(&'static str, &'static str)]) -> Outgoing {
    let target = http::uri::PathAndQuery::from_static("/a%2Fb?x=%20");
    Outgoing { method, target, headers: map(fields), answer_in_lines: false }
}

/// Takes so many bytes at once, and then nothing for once.
struct Wire {
    at_once: usize,
    taken: Vec<u8>,
    tired: bool,
    writes: usize,
}

impl Wire {
    fn new(at_once: usize) -> Self {
        Self { at_once, taken: Vec::new(), tired: false, writes: 0 }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if std::mem::replace(&mut self.tired, true) {
            self.tired = false;
            return Poll::Pending;
        }
        self.writes += 1;
        let mut left = self.at_once;
        for slice in slices {
            let here = slice.len().min(left);
            self.taken.extend_from_slice(&slice[..here]);
            left -= here;
        }
        Poll::Ready(Ok(self.at_once - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What `upload` writes on a wire that takes `at_once`, and how it ends.
fn write(
    upload: &mut Sending<Script>,
    at_once: usize,
) -> (String, Result<(), SendError<BodyError>>) {
    let mut wire = Wire::new(at_once);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(ended) = upload.poll(&mut cx, &mut wire) {
            return (String::from_utf8(wire.taken).unwrap(), ended);
        }
        if upload.is_held() {
            return (String::from_utf8(wire.taken).unwrap(), Ok(()));
        }
    }
    panic!("it does not end: {}", wire.taken.len());
}

fn upload(
    method: Method,
    fields: &[(&'static str, &'static str)],
    length: Option<u64>,
    frames: &[Piece],
    held: bool,
) -> Sending<Script> {
    let body = Script { frames: frames.iter().cloned().collect(), length };
    send(&request(method, fields), body, held, BytesMut::new())
}

const GET: &str = "GET /a%2Fb?x=%20 HTTP/1.1\r\n";
const POST: &str = "POST /a%2Fb?x=%20 HTTP/1.1\r\n";

#[test]
fn a_request_is_the_same_bytes_however_they_are_taken() {
    let large = "x".repeat(COPIED + 1);
    let large_chunk = format!("{:x}\r\n{large}\r\n", large.len());
    for (method, fields, length, frames, expected) in [
        // Without a body: what frames one is not passed on, but for a length of 0 that was said.
        (
            Method::GET,
            &[("a", "1"), ("b", "")][..],
            Some(0),
            &[][..],
            format!("{GET}a: 1\r\nb: \r\n\r\n"),
        ),
        (Method::GET, &[("transfer-encoding", "chunked")], Some(0), &[], format!("{GET}\r\n")),
        (
            Method::POST,
            &[("content-length", "0")],
            Some(0),
            &[],
            format!("{POST}content-length: 0\r\n\r\n"),
        ),
        // A length, said once and last, whatever the head has.
        (
            Method::POST,
            &[("content-length", "99"), ("a", "1")],
            Some(5),
            &[data("hel"), Later, data("lo")],
            format!("{POST}a: 1\r\ncontent-length: 5\r\n\r\nhello"),
        ),
        (
            Method::POST,
            &[],
            Some(large.len() as u64 + 2),
            &[data("a"), data(&large), data(""), data("b")],
            format!("{POST}content-length: {}\r\n\r\na{large}b", large.len() + 2),
        ),
        // Trailers have no place after a length.
        (
            Method::POST,
            &[],
            Some(1),
            &[data("a"), trailers(&[("t", "1")])],
            format!("{POST}content-length: 1\r\n\r\na"),
        ),
        // Chunks: no empty one but the last.
        (
            Method::POST,
            &[],
            None,
            &[data("hello"), Later, data(""), data("0123456789abcdef")],
            format!(
                "{POST}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n\
                 10\r\n0123456789abcdef\r\n0\r\n\r\n"
            ),
        ),
        (
            Method::POST,
            &[],
            None,
            &[data(&large), data(&large), data("a"), data(&large)],
            format!(
                "{POST}transfer-encoding: chunked\r\n\r\n\
                 {large_chunk}{large_chunk}1\r\na\r\n{large_chunk}0\r\n\r\n"
            ),
        ),
        // Nothing comes after all, although nobody knew beforehand.
        (
            Method::GET,
            &[],
            None,
            &[Later],
            format!("{GET}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            Method::POST,
            &[("trailer", "t")],
            None,
            &[data("a"), Later, trailers(&[("t", "1"), ("u", "two words")])],
            format!(
                "{POST}trailer: t\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\na\r\n0\r\nt: 1\r\nu: two words\r\n\r\n"
            ),
        ),
        (
            Method::POST,
            &[],
            None,
            &[data(&large), trailers(&[("t", "1")])],
            format!("{POST}transfer-encoding: chunked\r\n\r\n{large_chunk}0\r\nt: 1\r\n\r\n"),
        ),
    ] {
        for at_once in (1..40).chain([4095, 4096, 4097, 1 << 20]) {
            let mut upload = upload(method.clone(), fields, length, frames, false);
            let (wire, ended) = write(&mut upload, at_once);
            assert!(ended.is_ok(), "{expected:.80}: {ended:?}");
            assert_eq!(wire, expected, "{at_once} at once");
            assert!(upload.is_done() && upload.has_written());
        }
    }
}

#[test]
fn a_body_of_another_length_than_was_said_is_never_made_whole() {
    for (length, frames) in [
        (5, &[data("hell")][..]),
        (5, &[data("hello!")]),
        (5, &[data("hello"), Later, data("!")]),
        (5, &[data("hel"), trailers(&[("t", "1")])]),
        (u64::MAX, &[data("hello")]),
    ] {
        let mut upload = upload(Method::POST, &[], Some(length), frames, false);
        let (wire, ended) = write(&mut upload, 7);
        assert!(matches!(ended, Err(SendError::Length)), "{length} {wire}");
        assert!(!wire.contains('!'), "{wire}");
    }
}

#[test]
fn a_held_body_waits_for_its_word() {
    let frames = [data("hello")];
    let head = format!("{POST}expect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let mut upload = upload(Method::POST, &[("expect", "100-continue")], Some(5), &frames, true);
    let (wire, _) = write(&mut upload, 1 << 20);
    assert_eq!(wire, head);
    assert!(upload.is_held() && !upload.is_done() && upload.has_written());
    upload.go_on();
    let (wire, ended) = write(&mut upload, 3);
    assert!(ended.is_ok() && upload.is_done());
    assert_eq!(wire, "hello");
}

#[test]
fn a_body_can_be_had_back_until_something_was_taken_of_it() {
    let frames = [Later, Later, Later, data("hello")];
    let body = || upload(Method::POST, &[], Some(5), &frames, false);
    assert!(body().into_untouched().is_some());
    assert!(!body().has_written());
    let mut begun = body();
    let mut wire = Wire::new(1 << 20);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(begun.poll(&mut cx, &mut wire).is_pending());
    assert!(begun.has_written());
    assert!(begun.into_untouched().is_some(), "only the head is out");
    let mut whole = body();
    assert!(write(&mut whole, 1 << 20).1.is_ok());
    assert!(whole.into_untouched().is_none());
}

#[test]
fn small_pieces_behind_a_large_one_share_their_writes() {
    let large = "x".repeat(COPIED + 1);
    let small = std::iter::repeat_n(data("x"), 5000);
    let frames = std::iter::once(data(&large)).chain(small).collect();
    let body = Script { frames, length: None };
    let mut upload = send(&request(Method::POST, &[]), body, false, BytesMut::new());
    let mut wire = Wire::new(usize::MAX);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while upload.poll(&mut cx, &mut wire).is_pending() {}
    assert!(wire.writes < 10, "{} writes", wire.writes);
}

/// A body without a frame, which is not known before it is asked for one.
struct Nothing {
    _held: Arc<()>,
}

impl Body for Nothing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(None)
    }
}

#[test]
fn a_body_that_ended_without_a_frame_is_let_go_of() {
    let held = Arc::new(());
    let body = Nothing { _held: Arc::clone(&held) };
    let mut upload = send(&request(Method::POST, &[]), body, false, BytesMut::new());
    let (mut wire, mut cx) = (Wire::new(1 << 10), Context::from_waker(Waker::noop()));
    while upload.poll(&mut cx, &mut wire).is_pending() {}
    assert!(upload.is_done() && wire.taken.ends_with(b"\r\n\r\n0\r\n\r\n"));
    upload.take_buffer();
    assert_eq!(Arc::strong_count(&held), 1);
}
