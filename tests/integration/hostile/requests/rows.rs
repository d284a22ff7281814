//! The table: a name, the bytes, and what must come of them.

use Want::{Closed, Passed, Refused};

/// What must come of a request.
pub enum Want {
    /// This refusal, and the connection is closed: where the next request begins nobody knows.
    Closed(u16, &'static str),
    /// This refusal; the next request is answered.
    Refused(u16, &'static str),
    /// It goes on, as these requests; then the next one is answered.
    Passed(Vec<&'static str>),
}

pub struct Row {
    pub name: String,
    pub bytes: Vec<u8>,
    pub want: Want,
}

const BAD: Want = Closed(400, "bad_request");
const HOST: &str = "Host: localhost\r\n";

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    request_lines(&mut rows);
    hosts(&mut rows);
    paths(&mut rows);
    lengths(&mut rows);
    codings(&mut rows);
    chunks(&mut rows);
    lines(&mut rows);
    names(&mut rows);
    injected(&mut rows);
    nominated(&mut rows);
    trailers(&mut rows);
    pages(&mut rows);
    rows.extend(sizes());
    rows
}

fn row(name: &str, bytes: impl Into<Vec<u8>>, want: Want) -> Row {
    Row { name: name.to_owned(), bytes: bytes.into(), want }
}

/// Request lines and versions.
fn request_lines(rows: &mut Vec<Row>) {
    for (start, want) in [
        ("GET foo HTTP/1.1", BAD),
        ("GET * HTTP/1.1", BAD),
        ("GET evil:80 HTTP/1.1", BAD),
        ("GET @evil/x HTTP/1.1", BAD),
        ("GET ?x HTTP/1.1", BAD),
        ("GET  HTTP/1.1", BAD),
        ("GET / / HTTP/1.1", BAD),
        ("GET /\t/ HTTP/1.1", BAD),
        ("GET\t/ HTTP/1.1", BAD),
        ("GET  / HTTP/1.1", BAD),
        ("GET /  HTTP/1.1", BAD),
        (" GET / HTTP/1.1", BAD),
        ("GET /", BAD),
        ("GET", BAD),
        ("GET / HTTP/1.1 x", BAD),
        ("GET / HTTP/1.2", BAD),
        ("GET / HTTP/2.0", BAD),
        ("GET / HTTP/0.9", BAD),
        ("GET / HTTP/1", BAD),
        ("GET / HTTP/1.10", BAD),
        ("GET / HTTP/01.1", BAD),
        ("GET / http/1.1", BAD),
        ("GET / HTTPS/1.1", BAD),
        ("GET / FTP/1.1", BAD),
        ("G@T / HTTP/1.1", BAD),
        ("G(T) / HTTP/1.1", BAD),
        ("G\u{e9}T / HTTP/1.1", BAD),
        ("GET /\u{0} HTTP/1.1", BAD),
        ("GET /\u{7f} HTTP/1.1", BAD),
        ("GET /a\u{b}b HTTP/1.1", BAD),
        ("GET http:// HTTP/1.1", BAD),
        ("GET http:///a HTTP/1.1", BAD),
        ("GET http://evil/ HTTP/1.1", BAD),
        ("GET https://evil/ HTTP/1.1", BAD),
        ("GET http://evil@localhost/ HTTP/1.1", BAD),
        ("GET http://localhost@evil/ HTTP/1.1", BAD),
        ("GET http://localhost:1/ HTTP/1.1", BAD),
        ("GET http://localhost,evil/ HTTP/1.1", BAD),
        ("GET http:localhost/ HTTP/1.1", BAD),
        ("GET file:///etc/passwd HTTP/1.1", BAD),
        ("GET http://localhost/a HTTP/1.1", Passed(vec!["GET /a"])),
        ("GET HTTP://LOCALHOST/a?b HTTP/1.1", Passed(vec!["GET /a?b"])),
        ("GET ftp://localhost/a HTTP/1.1", Passed(vec!["GET /a"])),
        ("GET http://localhost?x HTTP/1.1", Passed(vec!["GET /?x"])),
        ("OPTIONS * HTTP/1.1", Passed(vec!["OPTIONS *"])),
        ("OPTIONS http://localhost HTTP/1.1", Passed(vec!["OPTIONS /"])),
        ("get / HTTP/1.1", Passed(vec!["get /"])),
        ("PURGE / HTTP/1.1", Passed(vec!["PURGE /"])),
        ("TRACE / HTTP/1.1", Refused(405, "method_not_allowed")),
        ("CONNECT localhost:443 HTTP/1.1", Refused(405, "method_not_allowed")),
        ("CONNECT / HTTP/1.1", Refused(405, "method_not_allowed")),
        ("CONNECT evil:443 HTTP/1.1", Refused(405, "method_not_allowed")),
    ] {
        let bytes = format!("{start}\r\n{HOST}\r\n");
        rows.push(row(&format!("{start:?}"), bytes, want));
    }
    let twice = format!("\r\n\r\nGET /a HTTP/1.1\r\n{HOST}\r\n");
    rows.push(row("empty lines before it", twice, Passed(vec!["GET /a"])));
    let spaced = format!(" \r\nGET /a HTTP/1.1\r\n{HOST}\r\n");
    rows.push(row("a line of space before it", spaced, BAD));
    rows.push(row("HTTP/1.0 without a host", "GET /a HTTP/1.0\r\n\r\n", BAD));
    rows.push(row("nothing but lines", "\r\n".repeat(8), Passed(vec![])));
    rows.push(row("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n", BAD));
    rows.push(row("HTTP/2's preface, almost", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", BAD));
}

/// Who is asked for.
fn hosts(rows: &mut Vec<Row>) {
    for (lines, want) in [
        ("", BAD),
        ("Host:\r\n", BAD),
        ("Host: localhost\r\nHost: localhost\r\n", BAD),
        ("Host: localhost\r\nHost: evil\r\n", BAD),
        ("Host: evil\r\nhost: localhost\r\n", BAD),
        ("Host: localhost,evil\r\n", BAD),
        ("Host: localhost evil\r\n", BAD),
        ("Host: evil@localhost\r\n", BAD),
        ("Host: localhost:80@evil\r\n", BAD),
        ("Host: localhost/evil\r\n", BAD),
        ("Host: localhost#evil\r\n", BAD),
        ("Host: localhost:evil\r\n", BAD),
        ("Host: localhost:-1\r\n", BAD),
        ("Host: localhost:1:2\r\n", BAD),
        ("Host: [::1\r\n", BAD),
        ("Host: ::1\r\n", BAD),
        ("Host: \"localhost\"\r\n", BAD),
        ("Host: local\u{e9}host\r\n", BAD),
        ("Host: localhost\u{b}\r\n", BAD),
        ("Host: evil\r\n", Refused(421, "host_not_allowed")),
        ("Host: localhost.\r\n", Refused(421, "host_not_allowed")),
        ("Host: localhost.evil.test\r\n", Refused(421, "host_not_allowed")),
        ("Host: 127.0.0.1.evil.test\r\n", Refused(421, "host_not_allowed")),
        ("Host: 2130706433\r\n", Refused(421, "host_not_allowed")),
        ("Host: 0\r\n", Refused(421, "host_not_allowed")),
        ("Host: [::ffff:127.0.0.1]\r\n", Refused(421, "host_not_allowed")),
        ("X-Forwarded-Host: localhost\r\nHost: evil\r\n", Refused(421, "host_not_allowed")),
        ("Host : localhost\r\n", BAD),
        ("Host_: localhost\r\n", BAD),
        ("Host:\tlocalhost \r\n", Passed(vec!["GET /a"])),
        ("hOsT: LOCALHOST:65535\r\n", Passed(vec!["GET /a"])),
        ("Host: localhost:\r\n", Passed(vec!["GET /a"])),
        ("Host: localhost\r\nX_Host: evil\r\nForwarded: host=evil\r\n", Passed(vec!["GET /a"])),
    ] {
        let bytes = format!("GET /a HTTP/1.1\r\n{lines}\r\n");
        rows.push(row(&format!("{lines:?}"), bytes, want));
    }
}

/// Where an allow list judges paths, and where none does.
fn paths(rows: &mut Vec<Row>) {
    for path in [
        "/judged/../x",
        "/judged/./x",
        "/judged/..",
        "/judged/%2e%2e/x",
        "/judged/.%2E/x",
        "/judged/a%2fb",
        "/judged/a%5Cb",
        "/judged/a\\..\\b",
        "/judged//x",
        "/judged/x;a=/../",
        "/judged/%00",
        "/judged/..;/x",
    ] {
        let bytes = format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
        rows.push(row(path, bytes, BAD));
    }
    for (path, told) in [
        ("//evil/x", "GET //evil/x"),
        ("/..//evil", "GET /..//evil"),
        ("/http://evil/", "GET /http://evil/"),
        ("/\\evil", "GET /\\evil"),
        ("/a?x=http://evil\\@localhost", "GET /a?x=http://evil\\@localhost"),
        ("/a#fragment", "GET /a"),
    ] {
        let (told, path) = (told.replace("evil", "e"), path.replace("evil", "e"));
        let told: &'static str = told.leak();
        let bytes = format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
        rows.push(row(&path, bytes, Passed(vec![told])));
    }
}

/// `Content-Length`.
fn lengths(rows: &mut Vec<Row>) {
    for (lines, want) in [
        ("Content-Length: 3\r\nContent-Length: 4", BAD),
        ("Content-Length: 3\r\nContent-Length: 3", Passed(vec!["POST /in abc"])),
        ("Content-Length: 3, 4", BAD),
        ("Content-Length: 3, 3", BAD),
        ("Content-Length: 3,", BAD),
        ("Content-Length: +3", BAD),
        ("Content-Length: -3", BAD),
        ("Content-Length: 0x3", BAD),
        ("Content-Length: 3.0", BAD),
        ("Content-Length: 3e0", BAD),
        ("Content-Length: 3 3", BAD),
        ("Content-Length: \"3\"", BAD),
        ("Content-Length: three", BAD),
        ("Content-Length: \u{665}", BAD),
        ("Content-Length:", BAD),
        ("Content-Length: 18446744073709551616", BAD),
        ("Content-Length: 18446744073709551619", BAD),
        ("Content-Length : 3", BAD),
        ("Content-Length\t: 3", BAD),
        ("Content-Length: 3\r\n 4", BAD),
        ("Content-Length:\r\n 3", BAD),
        ("Content-Length: 3\u{b}", BAD),
        ("Content_Length: 4\r\nContent-Length: 3", Passed(vec!["POST /in abc"])),
        ("Content-Length: 003", Passed(vec!["POST /in abc"])),
        ("Content-Length:3", Passed(vec!["POST /in abc"])),
        ("content-length: \t3 ", Passed(vec!["POST /in abc"])),
        ("X-Content-Length: 9\r\nContent-Length: 3", Passed(vec!["POST /in abc"])),
    ] {
        let bytes = format!("POST /in HTTP/1.1\r\n{HOST}{lines}\r\n\r\nabc");
        rows.push(row(&format!("{lines:?}"), bytes, want));
    }
    let get = format!("GET /in HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc");
    rows.push(row("a body of GET", get, Passed(vec!["GET /in abc"])));
    let hidden = format!("GET /a HTTP/1.1\r\n{HOST}Content-Length: 47\r\n\r\n");
    let inner = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\r\n";
    let hidden = hidden.replace("47", &inner.len().to_string()) + inner;
    let told: &'static str = format!("GET /a {inner}").trim_end().to_owned().leak();
    rows.push(row("a request in a body", hidden, Passed(vec![told])));
}

/// `Transfer-Encoding`, with a body that is whole in chunks.
fn codings(rows: &mut Vec<Row>) {
    let whole = || Passed(vec!["POST /in abc"]);
    for (lines, want) in [
        ("Transfer-Encoding: chunked", whole()),
        ("transfer-encoding:CHUNKED", whole()),
        ("Transfer-Encoding: \tchunked ", whole()),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", BAD),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", BAD),
        ("Content-Length: 0\r\nX: y\r\ntransfer-encoding: chunked", BAD),
        ("Transfer-Encoding: chunked\r\nContent-length: 13", BAD),
        ("Transfer-Encoding: chunked, chunked", BAD),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", BAD),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", BAD),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", BAD),
        ("Transfer-Encoding: identity", BAD),
        ("Transfer-Encoding: gzip", BAD),
        ("Transfer-Encoding: gzip, chunked", BAD),
        ("Transfer-Encoding: chunked, gzip", BAD),
        ("Transfer-Encoding: xchunked", BAD),
        ("Transfer-Encoding: chunkedx", BAD),
        ("Transfer-Encoding: x chunked", BAD),
        ("Transfer-Encoding: \"chunked\"", BAD),
        ("Transfer-Encoding: chunked;q=1", BAD),
        ("Transfer-Encoding: ,chunked", BAD),
        ("Transfer-Encoding: chunked,", BAD),
        ("Transfer-Encoding:", BAD),
        ("Transfer-Encoding: \u{b}chunked", BAD),
        ("Transfer-Encoding: chunked\u{0}", BAD),
        ("Transfer-Encoding : chunked", BAD),
        ("Transfer-Encoding:\r\n chunked", BAD),
        ("Transfer-Encoding: x\r\n chunked", BAD),
        (" Transfer-Encoding: chunked", BAD),
        ("X: y\nTransfer-Encoding: chunked", whole()),
        ("X: y\rTransfer-Encoding: chunked", BAD),
        ("Transfer_Encoding: identity\r\nTransfer-Encoding: chunked", whole()),
    ] {
        let bytes = format!("POST /in HTTP/1.1\r\n{HOST}{lines}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        rows.push(row(&format!("{lines:?}"), bytes, want));
    }
    let underscored = format!("GET /a HTTP/1.1\r\n{HOST}Transfer_Encoding: chunked\r\n\r\n");
    rows.push(row("a coding in an underscored name", underscored, Passed(vec!["GET /a"])));
    let old = format!(
        "POST /in HTTP/1.0\r\n{HOST}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n"
    );
    rows.push(row("chunks of HTTP/1.0", old, BAD));
}

/// Chunks.
fn chunks(rows: &mut Vec<Row>) {
    for (chunks, want) in [
        ("x\r\nabc\r\n0\r\n\r\n", BAD),
        ("-3\r\nabc\r\n0\r\n\r\n", BAD),
        ("+3\r\nabc\r\n0\r\n\r\n", BAD),
        ("0x3\r\nabc\r\n0\r\n\r\n", BAD),
        (" 3\r\nabc\r\n0\r\n\r\n", BAD),
        ("\r\nabc\r\n0\r\n\r\n", BAD),
        ("3 3\r\nabc\r\n0\r\n\r\n", BAD),
        ("fffffffffffffffff\r\nabc\r\n0\r\n\r\n", BAD),
        ("10000000000000003\r\nabc\r\n0\r\n\r\n", BAD),
        ("3\nabc\r\n0\r\n\r\n", BAD),
        ("3\rabc\r\n0\r\n\r\n", BAD),
        ("3\r\nabc\n0\r\n\r\n", BAD),
        ("3\r\nabcd\r\n0\r\n\r\n", BAD),
        ("3\r\nabc0\r\n\r\n", BAD),
        ("3;a\nb\r\nabc\r\n0\r\n\r\n", BAD),
        ("3\r\nabc\r\n0\r\nno colon\r\n\r\n", BAD),
        ("3\r\nabc\r\n0\r\nX : y\r\n\r\n", BAD),
        ("3;a=b\r\nabc\r\n0\r\n\r\n", Passed(vec!["POST /in abc"])),
        ("3;a=\"b\\\"\"\r\nabc\r\n0;x\r\n\r\n", Passed(vec!["POST /in abc"])),
        ("03\r\nabc\r\n00\r\n\r\n", Passed(vec!["POST /in abc"])),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", Passed(vec!["POST /in abc"])),
    ] {
        let head = format!("POST /in HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
        rows.push(row(&format!("chunks {chunks:?}"), head + chunks, want));
    }
}

/// Ends of lines, folded lines, and what is no text.
fn lines(rows: &mut Vec<Row>) {
    let passed = || Passed(vec!["GET /a"]);
    for (lines, want) in [
        ("X: a\rY: b\r\n", BAD),
        ("X: a\r\r\n", BAD),
        ("X: a\r\n b\r\n", BAD),
        ("X: a\r\n\tb\r\n", BAD),
        (" X: a\r\n", BAD),
        ("X: a\0b\r\n", BAD),
        ("X: a\u{1}b\r\n", BAD),
        ("X: a\u{7f}b\r\n", BAD),
        ("X\r\n", BAD),
        (": a\r\n", BAD),
        ("X: a\nAuthorization: evil\r\n", passed()),
        ("X: a\n", passed()),
        ("X: a\tb\r\n", passed()),
        ("X: \u{e9}\r\n", passed()),
        ("X:\r\n", passed()),
    ] {
        let bytes = format!("GET /a HTTP/1.1\r\n{HOST}{lines}\r\n");
        rows.push(row(&format!("lines {lines:?}"), bytes, want));
    }
    let bare = "GET /a HTTP/1.1\nHost: localhost\n\n";
    rows.push(row("nothing but bare LF", bare, passed()));
    rows.push(row("nothing but bare CR", "GET /a HTTP/1.1\rHost: localhost\r\r", BAD));
}

/// Names.
fn names(rows: &mut Vec<Row>) {
    for (lines, want) in [
        ("X Y: a\r\n", BAD),
        ("X : a\r\n", BAD),
        ("X\t: a\r\n", BAD),
        ("X(y): a\r\n", BAD),
        ("X\u{e9}: a\r\n", BAD),
        ("X\0: a\r\n", BAD),
        ("X\u{b}: a\r\n", BAD),
        ("\"X\": a\r\n", BAD),
        ("X/Y: a\r\n", BAD),
        ("X@Y: a\r\n", BAD),
        ("X[0]: a\r\n", BAD),
        ("X_Y: evil\r\n", Passed(vec!["GET /a"])),
        ("_: evil\r\n__: evil\r\n", Passed(vec!["GET /a"])),
        ("X.Y: a\r\nX!Y: b\r\nX~Y: c\r\n", Passed(vec!["GET /a"])),
    ] {
        let bytes = format!("GET /a HTTP/1.1\r\n{HOST}{lines}\r\n");
        rows.push(row(&format!("names {lines:?}"), bytes, want));
    }
}

/// The injected header in the caller's own spellings.
fn injected(rows: &mut Vec<Row>) {
    for (lines, want) in [
        ("Authorization: evil\r\n", Passed(vec!["GET /a"])),
        ("AUTHORIZATION:evil\r\naUtHoRiZaTiOn: evil\r\n", Passed(vec!["GET /a"])),
        ("Author_ization: evil\r\n", Passed(vec!["GET /a"])),
        ("Authorization_: evil\r\n_Authorization: evil\r\n", Passed(vec!["GET /a"])),
        ("Proxy-Authorization: evil\r\n", Passed(vec!["GET /a"])),
        ("X: a\nAuthorization: evil\r\n", Passed(vec!["GET /a"])),
        ("Authorization:\r\n", Passed(vec!["GET /a"])),
        ("Authorization : evil\r\n", BAD),
        ("Authorization\0: evil\r\n", BAD),
        ("Authorization\u{b}: evil\r\n", BAD),
        (" Authorization: evil\r\n", BAD),
        ("Authorization: evil\r\n evil\r\n", BAD),
        ("\u{ff21}uthorization: evil\r\n", BAD),
    ] {
        let bytes = format!("GET /a HTTP/1.1\r\n{HOST}{lines}\r\n");
        rows.push(row(&format!("injected {lines:?}"), bytes, want));
    }
}

/// `Connection`, which must take nothing of ours away.
fn nominated(rows: &mut Vec<Row>) {
    for options in [
        "authorization",
        "Authorization",
        "AUTHORIZATION, authorization",
        "close, authorization",
        "keep-alive,authorization",
        " authorization ,",
        "authorization\r\nConnection: authorization",
        "host, authorization, via, connection",
        "content-length, transfer-encoding",
        "te, trailer, upgrade",
        "x-evil\r\nX-Evil: 1",
    ] {
        let head = "POST /in HTTP/1.1\r\n";
        let bytes = format!("{head}{HOST}Content-Length: 3\r\nConnection: {options}\r\n\r\nabc");
        // Whoever says close is not answered again.
        if !options.contains("close") {
            rows.push(row(&format!("Connection {options:?}"), bytes, Passed(vec!["POST /in abc"])));
        }
    }
    for (name, lines) in [
        ("eleven names", format!("Connection: {}", ["a"; 11].join(","))),
        ("eleven lines", "Connection: a\r\n".repeat(11).trim_end().to_owned()),
        ("a hundred names", format!("Connection: {}", ["authorization"; 100].join(","))),
        ("a name that is none", "Connection: a b".to_owned()),
        ("a name in quotes", "Connection: \"authorization\"".to_owned()),
        ("a name that is no ASCII", "Connection: \u{e9}".to_owned()),
    ] {
        let bytes = format!("GET /a HTTP/1.1\r\n{HOST}{lines}\r\n\r\n");
        rows.push(row(&format!("Connection with {name}"), bytes, BAD));
    }
    let ten = format!("GET /a HTTP/1.1\r\n{HOST}Connection: {}\r\n\r\n", ["a"; 10].join(","));
    rows.push(row("Connection with ten names", ten, Passed(vec!["GET /a"])));
}

/// Trailers, in which nothing is believed.
fn trailers(rows: &mut Vec<Row>) {
    for trailers in [
        "Authorization: evil\r\n",
        "Author_ization: evil\r\nX_Y: evil\r\n",
        "Host: evil\r\n",
        "Content-Length: 9\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: evil\r\n",
        "Cookie: evil\r\n",
    ] {
        let announced = "Trailer: authorization, x-y\r\nTransfer-Encoding: chunked\r\n";
        let head = format!("POST /in HTTP/1.1\r\n{HOST}{announced}\r\n");
        let bytes = format!("{head}3\r\nabc\r\n0\r\n{trailers}\r\n");
        rows.push(row(&format!("trailers {trailers:?}"), bytes, Passed(vec!["POST /in abc"])));
    }
}

/// Requests of web pages from elsewhere.
fn pages(rows: &mut Vec<Row>) {
    for (lines, want) in [
        ("Origin: https://evil.test", Refused(403, "origin_not_allowed")),
        ("Origin: null", Refused(403, "origin_not_allowed")),
        ("Origin: http://localhost.evil.test", Refused(403, "origin_not_allowed")),
        ("Origin: http://localhost@evil.test", Refused(403, "origin_not_allowed")),
        ("Origin: http://localhost, http://evil", Refused(403, "origin_not_allowed")),
        ("Origin: localhost", Refused(403, "origin_not_allowed")),
        ("Origin: http://localhost\r\nOrigin: http://localhost", BAD),
        ("Sec-Fetch-Site: cross-site", Refused(403, "origin_not_allowed")),
        ("Sec-Fetch-Site: same-site", Refused(403, "origin_not_allowed")),
        ("Sec-Fetch-Site: Same-Origin", Refused(403, "origin_not_allowed")),
        ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: none", BAD),
        ("Origin: http://localhost:1", Passed(vec!["GET /a"])),
        ("Sec-Fetch-Site: same-origin", Passed(vec!["GET /a"])),
    ] {
        let bytes = format!("GET /a HTTP/1.1\r\n{HOST}{lines}\r\n\r\n");
        rows.push(row(&format!("{lines:?}"), bytes, want));
    }
}

/// One more than is allowed.
fn sizes() -> [Row; 4] {
    let many: String = (0..100).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = "a".repeat(16 << 10);
    let block = format!("X: {}\r\n", "a".repeat(64 << 10));
    let size_line = format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(20 << 10));
    let chunked = format!("POST /in HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    [
        row(
            "a field too many",
            format!("GET / HTTP/1.1\r\n{HOST}{many}\r\n"),
            Closed(431, "too_large"),
        ),
        row(
            "a target too long",
            format!("GET /{long} HTTP/1.1\r\n{HOST}\r\n"),
            Refused(414, "too_large"),
        ),
        row(
            "a head too long",
            format!("GET / HTTP/1.1\r\n{HOST}{block}\r\n"),
            Closed(431, "too_large"),
        ),
        row("a chunk's extension too long", chunked + &size_line, BAD),
    ]
}
