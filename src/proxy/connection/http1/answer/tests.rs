use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{Empty, Full};

use super::*;

const USUAL: Asked = Asked { head_only: false, old: false, persistent: true };
const OLD: Asked = Asked { old: true, ..USUAL };
const LAST: Asked = Asked { persistent: false, ..USUAL };
const HELLO: Bytes = Bytes::from_static(b"hello");

/// Nobody knows how long it is.
struct Stream;

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

fn head(status: u16, fields: &[(&'static str, &'static str)]) -> response::Parts {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    *response.headers_mut() = fields.iter().map(pair).collect::<HeaderMap>();
    response.into_parts().0
}

fn written(head: &response::Parts, body: &impl Body, asked: Asked) -> (String, Framing, bool) {
    let mut out = BytesMut::new();
    let (framing, persistent) = write_head(&mut out, head, b"", body, asked);
    (String::from_utf8(out.to_vec()).unwrap(), framing, persistent)
}

#[test]
fn an_answer_says_once_how_it_ends() {
    let ok = head(200, &[("x-a", "b"), ("content-length", "99"), ("transfer-encoding", "x")]);
    let (hello, empty) = (Full::new(HELLO), Empty::<Bytes>::new());
    let length = |wire: &str, length| (wire.to_owned(), Framing::Length(length), true);
    assert_eq!(
        written(&ok, &hello, USUAL),
        length("HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\n", 5)
    );
    assert_eq!(
        written(&ok, &empty, USUAL),
        length("HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 0\r\n\r\n", 0)
    );
    let (wire, framing, persistent) = written(&ok, &Stream, USUAL);
    assert_eq!(wire, "HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n");
    assert!(framing == Framing::Chunked && persistent);
    let (wire, framing, persistent) = written(&ok, &Stream, OLD);
    assert_eq!(wire, "HTTP/1.0 200 OK\r\nx-a: b\r\n\r\n");
    assert!(framing == Framing::Close && !persistent);
}

#[test]
fn an_answer_without_a_body_tells_only_the_length_that_another_would_have() {
    let hello = Full::new(HELLO);
    for (status, asked, wire) in [
        (200, Asked { head_only: true, ..USUAL }, "200 OK\r\ncontent-length: 99\r\n\r\n"),
        (304, USUAL, "304 Not Modified\r\n\r\n"),
        (204, USUAL, "204 No Content\r\n\r\n"),
        (101, USUAL, "101 Switching Protocols\r\nconnection: upgrade\r\n\r\n"),
    ] {
        let head = head(status, &[("content-length", "99")]);
        let (written, framing, _) = written(&head, &hello, asked);
        assert_eq!(written, format!("HTTP/1.1 {wire}"));
        assert_eq!(framing, Framing::None);
    }
}

#[test]
fn what_becomes_of_the_connection_is_said_where_it_does_not_go_without_saying() {
    let empty = Empty::<Bytes>::new();
    let (plain, closing) = (head(599, &[]), head(599, &[("connection", "close")]));
    for (head, asked, line, goes_on) in [
        (&plain, USUAL, "", true),
        (&plain, OLD, "connection: keep-alive\r\n", true),
        (&plain, LAST, "connection: close\r\n", false),
        (&plain, Asked { old: true, ..LAST }, "", false),
        (&closing, USUAL, "connection: close\r\n", false),
        (&closing, OLD, "", false),
    ] {
        let (wire, _, persistent) = written(head, &empty, asked);
        let version = if asked.old { "1.0" } else { "1.1" };
        assert_eq!(wire, format!("HTTP/{version} 599 \r\ncontent-length: 0\r\n{line}\r\n"));
        assert_eq!(persistent, goes_on);
    }
}
