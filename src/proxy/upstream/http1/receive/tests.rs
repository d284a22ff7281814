use super::*;
use crate::proxy::hop::strip_response;
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

/// Names and values, sorted.
type Sorted = Vec<(String, Vec<u8>)>;

/// The fields of the answer `wire` as they go down, if they are passed on as lines, and by way of a map.
fn passed_on(wire: &[u8], method: &Method) -> (Option<Sorted>, Sorted) {
    let sorted = |mut fields: HeaderMap| {
        strip_response(&mut fields, false).unwrap();
        fields.remove(CONTENT_LENGTH); // said by who frames
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.as_bytes().to_vec())
        };
        let mut fields: Vec<_> = fields.iter().map(pair).collect();
        fields.sort();
        fields
    };
    let mut lines = FieldLines::default();
    let read = |lines| {
        let buffer = &mut BytesMut::from(wire);
        let head = head(buffer, &mut 0, method, &mut HeaderMap::new(), lines).unwrap().unwrap();
        (head, buffer.clone())
    };
    let ((by_lines, after_lines), (by_map, after_map)) = (read(Some(&mut lines)), read(None));
    assert_eq!(after_lines, after_map);
    assert_eq!(by_lines.persistent, by_map.persistent);
    assert_eq!(by_lines.body.length(), by_map.body.length());
    let by_lines = by_lines.in_lines.then(|| {
        assert!(by_lines.parts.headers.is_empty());
        let mut fields = HeaderMap::new();
        lines.read(&mut fields).unwrap();
        sorted(fields)
    });
    (by_lines, sorted(by_map.parts.headers))
}

#[test]
fn lines_say_what_a_map_would() {
    for fields in [
        "",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        "Server: x\r\nX-Empty:\r\nX-Blank:   \r\nx-tab:\ta\tb \r\n",
        "Set-Cookie: a=b\r\nSET-COOKIE: c=d; Path=/\r\nset-cookie: a=b\r\n",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n",
        "Connection: Close\r\nUpgrade: h2c\r\nTrailer: x\r\n",
        "Proxy-Authenticate: Basic\r\nProxy-Authorization: x\r\nWWW-Authenticate: Bearer\r\n",
        "X-Obs: \u{e4}\u{f6}\r\n",
        "X:a:b\r\n!#$%&'*+-.^_`|~9: odd\r\n",
    ] {
        for body in [
            "Content-Length: 0\r\n",
            "content-length:7,7\r\n",
            "Transfer-Encoding: Chunked\r\n",
            "",
        ] {
            let wire = format!("HTTP/1.1 200 OK\r\n{fields}{body}\r\n");
            let (lines, map) = passed_on(wire.as_bytes(), &Method::GET);
            assert_eq!(lines.as_ref(), Some(&map), "{wire}");
        }
    }
}

#[test]
fn what_has_to_be_read_is_in_a_map() {
    let usual = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (wire, method, in_lines) in [
        (usual, Method::GET, true),
        (usual, Method::HEAD, false),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", Method::GET, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", Method::GET, false),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", Method::GET, false),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Method::GET, false),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Method::GET, false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-mine\r\nX-Mine: 1\r\n\r\n",
            Method::GET,
            false,
        ),
    ] {
        let (lines, map) = passed_on(wire.as_bytes(), &method);
        assert_eq!(lines.is_some(), in_lines, "{wire}");
        assert!(!map.iter().any(|(name, _)| name == "x-mine"), "{wire}");
    }
}

#[test]
fn lines_are_dated_once() {
    let date = || HeaderValue::from_static("today");
    for (fields, expected) in
        [("X: y\r\n", "x: y\r\ndate: today\r\n"), ("DATE: then\r\n", "date: then\r\n")]
    {
        let wire = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
        let (mut buffer, mut lines) = (BytesMut::from(wire.as_bytes()), FieldLines::default());
        head(&mut buffer, &mut 0, &Method::GET, &mut HeaderMap::new(), Some(&mut lines)).unwrap();
        lines.dated(date);
        lines.dated(date);
        assert_eq!(lines.as_bytes(), expected.as_bytes());
    }
}
