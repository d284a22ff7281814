use super::*;
use crate::proxy::http1::body::Next;

/// Everything that `wire` brings, read in two parts: data, and trailers; `None` if malformed.
fn read(wire: &[u8], cut: usize) -> Option<(u16, Vec<u8>, usize)> {
    let mut buffer = BytesMut::from(&wire[..cut]);
    let mut rest = Some(&wire[cut..]);
    let mut scanned = 0;
    let mut found =
        head(&mut buffer, &mut scanned, &Method::GET, &mut HeaderMap::new(), None).ok()?;
    if found.is_none() {
        buffer.extend_from_slice(rest.take()?);
        found = head(&mut buffer, &mut scanned, &Method::GET, &mut HeaderMap::new(), None).ok()?;
    }
    let Head { parts, mut body, .. } = found?;
    let (mut data, mut trailers) = (Vec::new(), 0);
    loop {
        match body.next(&mut buffer, BOUNDS).ok()? {
            Next::Frame(frame) => match frame.into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => trailers += frame.into_trailers().map_or(0, |fields| fields.len()),
            },
            Next::End => break,
            Next::More => match rest.take() {
                Some(more) => buffer.extend_from_slice(more),
                None => break,
            },
        }
    }
    Some((parts.status.as_u16(), data, trailers))
}

#[test]
fn a_response_is_the_same_however_it_is_cut() {
    for (wire, data, trailers) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 0),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", "hello", 0),
        ("HTTP/1.0 200 OK\r\n\r\nto the end", "to the end", 0),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
            "hello",
            2,
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "", 0),
    ] {
        for cut in 0..wire.len() {
            let read = read(wire.as_bytes(), cut).unwrap_or_else(|| panic!("{wire} at {cut}"));
            assert_eq!((read.1, read.2), (data.into(), trailers), "{wire} at {cut}");
        }
    }
}

#[test]
fn what_is_malformed_is_not_read() {
    for wire in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 99 No\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3 x\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ] {
        assert!(read(wire.as_bytes(), wire.len()).is_none(), "{wire}");
    }
}

#[test]
fn only_a_whole_exchange_in_http_1_1_leaves_a_connection_good() {
    for (wire, persistent) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
    ] {
        let mut buffer = BytesMut::from(wire);
        let head =
            head(&mut buffer, &mut 0, &Method::GET, &mut HeaderMap::new(), None).unwrap().unwrap();
        assert_eq!(head.persistent, persistent, "{wire}");
    }
}
