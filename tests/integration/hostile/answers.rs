//! Upstreams that answer with more, less or other than an answer: the caller is told so, and the
//! next callers on the same pool get their own answers, never what was left over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use emulator::client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, request};

/// An answer to somebody else's request.
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

/// What the caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// A whole answer.
    Whole(u16, &'static str),
    /// 502, `upstream_protocol`.
    Bad,
    /// An answer that breaks off.
    Cut,
}

use Sees::{Bad, Cut, Whole};

/// A name, how it answers, whether it closes then, and what the caller sees.
type Row = (&'static str, String, bool, Sees);

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}")
}

fn chunked(chunks: &str) -> String {
    ok("Transfer-Encoding: chunked", chunks)
}

/// With another answer behind it.
fn more(text: impl Into<String>) -> String {
    text.into() + SMUGGLED
}

fn rows() -> Vec<Row> {
    [bodies(), heads(), framings()].concat()
}

/// Good heads, and bodies that are more or less than they say.
fn bodies() -> Vec<Row> {
    vec![
        (
            "a second answer behind a length",
            more(ok("Content-Length: 2", "ok")),
            false,
            Whole(200, "ok"),
        ),
        (
            "a second answer behind chunks",
            more(chunked("2\r\nok\r\n0\r\n\r\n")),
            false,
            Whole(200, "ok"),
        ),
        (
            "a second answer behind no body",
            more(ok("Content-Length: 0", "")),
            false,
            Whole(200, ""),
        ),
        ("a body of 204", more("HTTP/1.1 204 No Content\r\n\r\n"), false, Whole(204, "")),
        ("a body of 304", more("HTTP/1.1 304 Not Modified\r\n\r\n"), false, Whole(304, "")),
        (
            "a length of 204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 47\r\n\r\n".to_owned() + SMUGGLED,
            false,
            Whole(204, ""),
        ),
        (
            "line ends behind an answer",
            ok("Content-Length: 2", "ok\r\n\r\n"),
            false,
            Whole(200, "ok"),
        ),
        ("more than its length", ok("Content-Length: 2", "okay"), false, Whole(200, "ok")),
        ("less than its length", ok("Content-Length: 9", "ok"), true, Cut),
        ("chunks without an end", chunked("2\r\nok\r\n"), true, Cut),
        ("half a chunk", chunked("9\r\nok"), true, Cut),
        ("half a size", chunked("2\r\nok\r\n1"), true, Cut),
        ("a size that is none", more(chunked("2\r\nok\r\nzz\r\n")), false, Cut),
        ("a size with a sign", more(chunked("2\r\nok\r\n-1\r\n")), false, Cut),
        ("a size beyond all", more(chunked("2\r\nok\r\nfffffffffffffffff\r\n")), false, Cut),
        ("a size that lies", more(chunked("2\r\nok\r\n1\r\nok\r\n0\r\n\r\n")), false, Cut),
        ("sizes with bare LF", more(chunked("2\r\nok\r\n2\nok\n0\n\n")), false, Cut),
    ]
}

/// What is no head.
fn heads() -> Vec<Row> {
    let many: String = (0..101).map(|n| format!("X-{n}: a\r\n")).collect();
    let large = format!("X: {}", "a".repeat(100 << 10));
    vec![
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le".into(), true, Bad),
        ("nothing", String::new(), true, Bad),
        ("no HTTP", more("smuggled\r\n\r\n"), false, Bad),
        ("HTTP/2", "\0\0\x12\x04\0\0\0\0\0".into(), true, Bad),
        ("no status", more("HTTP/1.1 OK\r\n\r\n"), false, Bad),
        ("a status of two digits", more("HTTP/1.1 20 OK\r\n\r\n"), false, Bad),
        ("a status of five digits", more("HTTP/1.1 20000 OK\r\n\r\n"), false, Bad),
        ("an unasked 101", more("HTTP/1.1 101 Switching Protocols\r\n\r\n"), false, Bad),
        (
            "an unasked 101 to something",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: evil\r\n\r\n"
                .to_owned()
                + SMUGGLED,
            false,
            Bad,
        ),
        ("1xx without end", "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000) + SMUGGLED, false, Bad),
        (
            "a body of 103",
            more("HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\nsmuggled!"),
            false,
            Bad,
        ),
        ("a field too many", more(ok(&format!("{many}Content-Length: 2"), "ok")), false, Bad),
        ("a head too large", more(ok(&format!("{large}\r\nContent-Length: 2"), "ok")), false, Bad),
    ]
}

/// Heads that frame their bodies ambiguously.
fn framings() -> Vec<Row> {
    vec![
        ("two lengths", more(ok("Content-Length: 2\r\nContent-Length: 3", "ok")), false, Bad),
        ("two lengths in one", more(ok("Content-Length: 2, 3", "ok")), false, Bad),
        (
            "length and coding",
            more(ok("Content-Length: 2\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
            false,
            Bad,
        ),
        (
            "coding and length",
            more(ok("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n")),
            false,
            Bad,
        ),
        ("a coding beneath", more(ok("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")), false, Bad),
        ("another coding", more(ok("Transfer-Encoding: xchunked", "0\r\n\r\n")), false, Bad),
        ("chunked twice", more(ok("Transfer-Encoding: chunked, chunked", "0\r\n\r\n")), false, Bad),
        ("a folded line", more(ok("Content-Length: 2\r\nX: a\r\n b", "ok")), false, Bad),
        ("a space before a colon", more(ok("Content-Length : 2", "ok")), false, Bad),
        ("a bare CR", more(ok("Content-Length: 2\r\nX: a\rY: b", "ok")), false, Bad),
        ("a NUL", more(ok("Content-Length: 2\r\nX: a\0", "ok")), false, Bad),
        (
            "chunks of HTTP/1.0",
            more("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            false,
            Bad,
        ),
        (
            "eleven nominated names",
            more(ok(&format!("Connection: {}", ["a"; 11].join(",")), "")),
            false,
            Bad,
        ),
    ]
}

/// An upstream that answers `/attack/N` as row N says, and every other request with its own target.
async fn poisoner(rows: Arc<Vec<Row>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Relaxed);
            tokio::spawn(answer(stream, Arc::clone(&rows)));
        }
    });
    (address, connections)
}

async fn answer(mut stream: TcpStream, rows: Arc<Vec<Row>>) {
    let mut head = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut head).await {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let target = text.split(' ').nth(1).unwrap_or_default();
        let attack = target.strip_prefix("/attack/").and_then(|index| index.parse::<usize>().ok());
        let (answer, closes) = if let Some(index) = attack {
            let (_, answer, closes, _): &Row = &rows[index];
            (answer.clone(), *closes)
        } else {
            let length = target.len();
            (format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}"), false)
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || closes {
            return;
        }
        head.clear();
    }
}

async fn sees(daemon: &Daemon, target: &str) -> Sees {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.send(head.as_bytes()).await.expect("sent");
    let last = async {
        loop {
            let answer = caller.answer().await;
            // What an upstream says before its answer may pass (RFC 9110 §15.2).
            if !answer.as_ref().is_ok_and(|answer| answer.status == 103) {
                return answer;
            }
        }
    };
    let answer = timeout(DEADLINE, last).await.expect("an answer or the end in time");
    match answer {
        Err(_) => Cut,
        Ok(answer) if answer.header("bearerd-reason") == Some("upstream_protocol") => Bad,
        Ok(answer) => Whole(answer.status, answer.text().leak()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_caller_never_gets_what_an_answer_left_behind() {
    let rows = Arc::new(rows());
    assert!(rows.len() >= 15);
    let (address, connections) = poisoner(Arc::clone(&rows)).await;
    let stage = Stage::new();
    let route = route_to(&format!("http://{address}"), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let mut wrong = Vec::new();
    for (index, (name, _, _, wanted)) in rows.iter().enumerate() {
        // The attack comes on a pooled connection, which was good until then.
        let before = request(daemon.proxy, "GET", &format!("/before/{index}"), &[], b"").await;
        assert_eq!(before.text(), format!("/before/{index}"), "{name}");
        let pooled = connections.load(Relaxed);
        let seen = sees(&daemon, &format!("/attack/{index}")).await;
        if seen != *wanted {
            wrong.push(format!("{name}: {seen:?} instead of {wanted:?}"));
        }
        for turn in 0..3 {
            let own = format!("/own/{index}/{turn}");
            let next = request(daemon.proxy, "GET", &own, &[], b"").await;
            assert_eq!((next.status, next.text()), (200, own), "{name}: another's bytes");
        }
        assert!(connections.load(Relaxed) > pooled, "{name}: its connection was used again");
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
