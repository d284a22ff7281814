//! The same over HTTP/2: an upstream that breaks its frames, its fields or its lengths. The caller
//! is told, and the next one gets its own answer, on that connection or on another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpListener;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE,
    RST_STREAM, Raw, SETTINGS, WHOLE, WINDOW_UPDATE, block, frame, setting,
};
use crate::stage::{Stage, route_to};
use crate::support::{Daemon, request};

/// A name, and what is sent on the stream of the request.
type Row = (&'static str, fn(u32) -> Vec<u8>);

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

const OK: (&str, &str) = (":status", "200");

/// RFC 9113 §6.8: the request is beyond the last one that was looked at, so it is sent again.
const FAREWELL: &str = "a farewell";

/// h2 drops it; what is left is an answer.
const LENIENT: Row =
    ("a field of requests", |on| head(on, END_STREAM, &[OK, (":path", "/smuggled")]));

/// Half an answer of unknown length.
fn half(stream: u32) -> Vec<u8> {
    [head(stream, 0, &[OK]), frame(DATA, 0, stream, b"smug")].concat()
}

const ROWS: [Row; 29] = [
    LENIENT,
    ("data before a head", |on| frame(DATA, END_STREAM, on, b"smuggled")),
    ("no status", |on| head(on, END_STREAM, &[("x", "smuggled")])),
    ("two statuses", |on| head(on, END_STREAM, &[OK, (":status", "201")])),
    ("a status that is none", |on| head(on, END_STREAM, &[(":status", "2xx")])),
    ("a status behind a field", |on| head(on, END_STREAM, &[("x", "smuggled"), OK])),
    ("an uppercase name", |on| head(on, END_STREAM, &[OK, ("X-Smuggled", "1")])),
    ("a connection's field", |on| head(on, END_STREAM, &[OK, ("connection", "close")])),
    ("a coding", |on| head(on, END_STREAM, &[OK, ("transfer-encoding", "chunked")])),
    ("a line break in a value", |on| head(on, END_STREAM, &[OK, ("x", "a\r\nsmuggled: b")])),
    ("less than its length", |on| {
        let data = frame(DATA, END_STREAM, on, b"smug");
        [head(on, 0, &[OK, ("content-length", "9")]), data].concat()
    }),
    ("more than its length", |on| {
        let data = frame(DATA, END_STREAM, on, b"smuggled");
        [head(on, 0, &[OK, ("content-length", "2")]), data].concat()
    }),
    ("two lengths", |on| {
        let fields = [OK, ("content-length", "2"), ("content-length", "8")];
        [head(on, 0, &fields), frame(DATA, END_STREAM, on, b"smuggled")].concat()
    }),
    ("a switch of protocols", |on| head(on, END_STREAM, &[(":status", "101")])),
    ("an interim answer that ends", |on| head(on, END_STREAM, &[(":status", "103")])),
    ("interim answers without end", |on| head(on, 0, &[(":status", "103")]).repeat(5000)),
    ("a promise", |on| {
        let promise = [&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat();
        frame(PUSH_PROMISE, END_HEADERS, on, &promise)
    }),
    ("a head for nobody", |on| head(on + 100, END_STREAM, &[OK, ("x", "smuggled")])),
    ("data for nobody", |on| frame(DATA, END_STREAM, on + 100, b"smuggled")),
    ("a head that never ends", |on| {
        let part = frame(CONTINUATION, 0, on, &[b'a'; 100]);
        [frame(HEADERS, 0, on, &block(&[OK])), part.repeat(5000)].concat()
    }),
    ("data in a head", |on| {
        [frame(HEADERS, 0, on, &block(&[OK])), frame(DATA, END_STREAM, on, b"smuggled")].concat()
    }),
    ("no header block", |on| frame(HEADERS, WHOLE, on, &[0xff; 20])),
    ("a reset", |on| frame(RST_STREAM, 0, on, &[0, 0, 0, 2])),
    ("half an answer and a reset", |on| {
        [half(on), frame(RST_STREAM, 0, on, &[0, 0, 0, 2])].concat()
    }),
    // RFC 9113 §8.1: it would be none after a whole answer.
    ("half an answer and a reset that tells of no error", |on| {
        [half(on), frame(RST_STREAM, 0, on, &[0; 4])].concat()
    }),
    ("half an answer and a farewell that tells of no error", |on| {
        [half(on), frame(GOAWAY, 0, 0, &[0; 8])].concat()
    }),
    (FAREWELL, |_| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2])),
    ("settings that are none", |_| frame(SETTINGS, 0, 0, &setting(4, 1 << 31))),
    ("a window beyond the largest", |_| {
        frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255]).repeat(2)
    }),
];

/// An upstream whose first answer on a connection is the row that is current, the others good.
async fn upstream(row: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(Raw::over(stream), Arc::clone(&row)));
        }
    });
    address
}

async fn answer(mut raw: Raw, row: Arc<AtomicUsize>) {
    raw.greeted().await;
    raw.send(&frame(SETTINGS, 0, 0, b"")).await;
    while let Some(came) = raw.next().await {
        let answer = match came.kind {
            SETTINGS if came.flags & ACK == 0 => frame(SETTINGS, ACK, 0, b""),
            PING if came.flags & ACK == 0 => frame(PING, ACK, 0, &came.payload),
            HEADERS => match row.swap(usize::MAX, Relaxed) {
                usize::MAX => {
                    let own = frame(DATA, END_STREAM, came.stream, b"own");
                    [head(came.stream, 0, &[OK, ("content-length", "3")]), own].concat()
                }
                index => ROWS[index].1(came.stream),
            },
            _ => continue,
        };
        if raw.try_send(&answer).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_caller_gets_its_own_answer_whatever_an_http2_upstream_did() {
    let row = Arc::new(AtomicUsize::new(usize::MAX));
    let address = upstream(Arc::clone(&row)).await;
    let stage = Stage::new();
    let more = "http2 = true\ntimeouts = { response_ms = 500 }";
    let route = route_to(&format!("http://{address}"), more);
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    for (index, (name, _)) in ROWS.iter().enumerate() {
        row.store(index, Relaxed);
        let mut caller = emulator::client::Client::connect(daemon.proxy).await.expect("connects");
        let mut answered = caller.request("GET", "/", &[], b"").await;
        // Hints that came before the rest went wrong were good ones.
        while answered.as_ref().is_ok_and(|answer| answer.status == 103) {
            answered = caller.answer().await;
        }
        // Cut short, or our own answer.
        if let Ok(answer) = answered {
            let reason = answer.header("bearerd-reason");
            let told = matches!(reason, Some("upstream_protocol" | "upstream_timeout"));
            let left = *name == LENIENT.0 && answer.status == 200 && answer.body.is_empty();
            assert!(!format!("{:?}", answer.head).contains("smuggled"), "{name}");
            let again = *name == FAREWELL && answer.text() == "own";
            assert!(
                told || left || again,
                "{name}: {} {:?} {}",
                answer.status,
                answer.head,
                answer.text()
            );
        }
        for _ in 0..3 {
            let next = request(daemon.proxy, "GET", "/own", &[], b"").await;
            assert_eq!((next.status, next.text().as_str()), (200, "own"), "{name}");
            assert!(!format!("{:?}", next.head).to_lowercase().contains("smuggled"), "{name}");
        }
    }
    assert!(daemon.stop().success());
}
