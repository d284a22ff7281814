use super::*;

const BOUNDS: Bounds = Bounds { bytes: 1000, fields: 5 };

/// The head of `wire`, which comes in two parts, and what is to come of its body.
fn read(wire: &str, cut: usize) -> Result<Option<(Head, Body, bool)>, Reason> {
    read_bytes(wire.as_bytes(), cut)
}

fn read_bytes(wire: &[u8], cut: usize) -> Result<Option<(Head, Body, bool)>, Reason> {
    let (first, rest) = wire.split_at(cut);
    let (mut buffer, mut scanned) = (BytesMut::from(first), 0);
    let mut spare = HeaderMap::new();
    match head(&mut buffer, &mut scanned, BOUNDS, &mut spare)? {
        None => {
            buffer.extend_from_slice(rest);
            head(&mut buffer, &mut scanned, BOUNDS, &mut spare)
        }
        found => Ok(found),
    }
}

#[test]
fn a_head_is_the_same_however_it_is_cut() {
    let wire = "POST /a%2fb?c=%20 HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\
                EXPECT: 100-Continue\r\nX-A: \tb c \r\nX-A:\r\n\r\n";
    for cut in 0..=wire.len() {
        let (head, body, expects) = read(wire, cut).unwrap().unwrap_or_else(|| panic!("{cut}"));
        let (parts, _) = head.request.into_parts();
        assert_eq!((parts.method, parts.version), (Method::POST, Version::HTTP_11));
        assert_eq!(parts.uri, "/a%2fb?c=%20");
        let values: Vec<_> = parts.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["b c", ""]);
        assert!(head.persistent && expects);
        assert_eq!(body.length(), Some(3));
    }
}

#[test]
fn every_head_says_what_comes_after_it() {
    for (fields, length, persistent) in [
        ("HTTP/1.1\r\n", Some(0), true),
        ("HTTP/1.1\r\nContent-Length: 0\r\n", Some(0), true),
        ("HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n", Some(3), true),
        ("HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n", None, true),
        ("HTTP/1.1\r\nConnection: close\r\n", Some(0), false),
        ("HTTP/1.1\r\nConnection: keep-alive, x , CLOSE\r\n", Some(0), false),
        ("HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive\r\n", Some(0), false),
        ("HTTP/1.0\r\n", Some(0), false),
        ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", Some(0), true),
        ("HTTP/1.0\r\nContent-Length: 7\r\nConnection: keep-alive\r\n", Some(7), true),
    ] {
        let wire = format!("GET / {fields}\r\n");
        let (head, body, expects) = read(&wire, wire.len()).unwrap().unwrap();
        assert_eq!((body.length(), head.persistent), (length, persistent), "{fields}");
        assert!(!expects);
    }
}

#[test]
fn what_is_ambiguous_or_malformed_is_refused() {
    for wire in [
        "GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / a HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        "GET http:/// HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let refused = read(wire, wire.len()).err();
        assert_eq!(refused, Some(Reason::BadRequest), "{wire:?}");
    }
}

#[test]
fn what_is_too_large_is_refused_as_soon_as_that_is_clear() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(6));
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1000));
    for wire in [&many[..], &long, &long[..1010]] {
        assert_eq!(read(wire, wire.len()).err(), Some(Reason::HeadTooLarge), "{wire}");
    }
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_TARGET));
    let bounds = Bounds { bytes: 1 << 20, fields: 1000 };
    let refused =
        head(&mut BytesMut::from(&target[..]), &mut 0, bounds, &mut HeaderMap::new()).err();
    assert_eq!(refused, Some(Reason::TooLarge));
    assert!(read("GET / HTTP/1.1\r\na: b\r\n", 3).unwrap().is_none(), "it may still come");
}

/// What heads are made of, and what they are spoilt with.
const PARTS: [&str; 30] = [
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "GET",
    " ",
    "/",
    "*",
    "HTTP/1.1",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\n\n",
    "\0",
    "\t",
    ":",
    "Host: x\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 4\r\n",
    "Content-Length",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "A: b\r\n",
    "A:\r\n b\r\n",
    "A :b\r\n",
    ": b\r\n",
    "\u{e9}",
    "abc",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_comes_means_the_same_however_it_is_cut(
        parts in proptest::collection::vec(0..PARTS.len(), 0..14),
        cut in 0..200_usize,
    ) {
        let wire: String = parts.iter().map(|part| PARTS[*part]).collect();
        let wire = wire.trim_start_matches(['\r', '\n']);
        let told = |cut| match read_bytes(wire.as_bytes(), cut) {
            Ok(found) => Ok(found.map(|(head, body, expects)| {
                let (parts, _) = head.request.into_parts();
                let fields = (parts.method, parts.uri, parts.version, parts.headers);
                (fields, head.persistent, body.length(), expects)
            })),
            Err(reason) => Err(reason),
        };
        let whole = told(wire.len());
        let cut = told(cut.min(wire.len()));
        // What comes in parts is not judged before it is whole.
        if !matches!(cut, Ok(None)) {
            proptest::prop_assert_eq!(&cut, &whole);
        }
        if let Ok(Some(((_, _, _, fields), _, length, _))) = whole {
            // RFC 9112 §6.1, §6.3: one framing, one length.
            let coded = fields.contains_key("transfer-encoding");
            let lengths = fields.get_all("content-length").iter().count();
            proptest::prop_assert!(lengths + usize::from(coded) <= 1);
            proptest::prop_assert_eq!(coded, length.is_none());
        }
    }
}
