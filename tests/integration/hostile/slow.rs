//! Callers that take their time: with heads, on every request of a connection; with bodies; with
//! reading; or by doing nothing at all.

use std::net::SocketAddr;
use std::time::Duration;

use emulator::client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::frames::{
    self, ACK, END_HEADERS, END_STREAM, HEADERS, PING, Raw, SETTINGS, Seen, frame, get, post,
    setting,
};
use crate::by_hand::ByHand;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually, request};

const WHOLE: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A daemon with these limits, on a second listener of which nothing depends.
async fn limited(stage: &Stage, limits: &str, route: &str) -> Daemon {
    let server = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nlimits = {{ {limits} }}\n"
    );
    let config = server + &stage.credential("") + &stage.route(route);
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    daemon
}

/// The statuses on a connection that is sent `parts`, each in a read of its own, and nothing more.
async fn statuses(daemon: &Daemon, parts: &[&str]) -> Vec<(u16, Option<String>)> {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    for part in parts {
        caller.send(part.as_bytes()).await.expect("open");
        sleep(Duration::from_millis(30)).await;
    }
    let mut seen = Vec::new();
    while let Ok(answer) = caller.answer().await {
        seen.push((answer.status, answer.header("bearerd-reason").map(str::to_owned)));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_its_time_on_every_request_of_a_connection_however_it_comes() {
    let stage = Stage::new();
    let daemon = limited(&stage, "head_seconds = 1, idle_seconds = 3600", "").await;
    let whole_and_half = format!("{WHOLE}GET /b HTTP/1.1\r\nHo");
    let two_and_half = format!("{WHOLE}{WHOLE}G");
    let body = "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabcPOST";
    let chunks = "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n0\r\n\r\nGET";
    let refused = "GET /a HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /b";
    for (name, parts, answers) in [
        ("the first", &["GET /a HTTP/1.1\r\nHost: loc"][..], &[][..]),
        ("a letter that HTTP/2 has too", &["P"], &[]),
        ("drop by drop", &["G", "E", "T", " ", "/", " ", "H", "T"], &[]),
        ("the second", &[WHOLE, "GET /b HT"], &[200]),
        ("the second, with the first", &[&whole_and_half], &[200]),
        ("the third, with both", &[&two_and_half], &[200, 200]),
        ("behind a body", &[body], &[200]),
        ("behind chunks", &[chunks], &[200]),
        ("behind a refusal", &[refused], &[421]),
        ("the third, after both", &[WHOLE, WHOLE, "GET /c HTTP/1.1\r\nX"], &[200, 200]),
    ] {
        let seen = timeout(DEADLINE, statuses(&daemon, parts)).await;
        let seen = seen.unwrap_or_else(|_| panic!("{name}: kept open"));
        let codes: Vec<u16> = seen.iter().map(|(status, _)| *status).collect();
        // What comes within HTTP/2's first letters is no request yet, and is not answered.
        if name == "a letter that HTTP/2 has too" {
            assert!(codes.is_empty(), "{seen:?}");
            continue;
        }
        assert_eq!(codes, [answers, &[408]].concat(), "{name}");
        let reason = seen.last().and_then(|(_, reason)| reason.as_deref());
        assert_eq!(reason, Some("bad_request"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_its_time_in_http2_too() {
    let stage = Stage::new();
    let daemon = limited(&stage, "head_seconds = 1, idle_seconds = 3600", "").await;
    let head = frames::request("GET", "/a", &[]);
    let open = frame(HEADERS, END_STREAM, 1, &head[..10]);
    let half = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head);
    let behind = [get(1, "/a"), frame(HEADERS, END_STREAM, 3, &head[..10])].concat();
    let beside = [post(1, "/in", &[]), frame(HEADERS, END_STREAM, 3, &head[..10])].concat();
    for bytes in [&open[..], &half[..15], &half[..5], &behind, &beside] {
        let mut raw = Raw::greet(daemon.proxy).await;
        raw.send(bytes).await;
        assert!(raw.ends().await, "{bytes:?}: kept open");
    }
    // Whoever only waits for an answer, or says nothing, has more time than that.
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&get(1, "/a")).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    sleep(Duration::from_millis(1500)).await;
    raw.send(&get(3, "/a")).await;
    assert_eq!(raw.answer(3).await, Seen::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_idle_are_closed() {
    let stage = Stage::new();
    let daemon = limited(&stage, "idle_seconds = 1", "").await;
    for parts in [&[][..], &[WHOLE], &["\r\n"], &[WHOLE, "\r\n", "\r\n"]] {
        let seen = timeout(DEADLINE, statuses(&daemon, parts)).await;
        let seen = seen.unwrap_or_else(|_| panic!("{parts:?}: kept open"));
        assert_eq!(seen.len(), parts.iter().filter(|part| **part == WHOLE).count(), "{parts:?}");
    }
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&get(1, "/a")).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    assert!(raw.ends().await);
    // A crowd of them, and somebody who works.
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(Client::connect(daemon.proxy).await.expect("a connection"));
    }
    assert_eq!(daemon.get("/a").await.status, 200);
    for mut idle in crowd {
        let rest = timeout(DEADLINE, idle.rest()).await.expect("closed").unwrap_or_default();
        assert!(rest.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_given_up() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "timeouts = { response_ms = 500 }").await;
    for (framing, begun) in [
        ("Content-Length: 1000", "begun"),
        ("Transfer-Encoding: chunked", "5\r\nbegun\r\n"),
        ("Transfer-Encoding: chunked", "9\r\nbegun"),
        ("Transfer-Encoding: chunked", "5\r\nbegun\r\n0"),
    ] {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let head = format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{begun}");
        caller.send(head.as_bytes()).await.expect("sent");
        let mut peer = upstream.accept().await;
        peer.until("begun").await;
        let answer = timeout(DEADLINE, caller.answer()).await.expect("in time").expect("told");
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (408, Some("bad_request")), "{framing} {begun:?}");
        assert_eq!(answer.json()["title"], "the request body stopped coming");
        assert!(caller.rest().await.unwrap_or_default().is_empty(), "nothing can follow");
        assert!(!peer.rest().await.ends_with("0\r\n\r\n"), "a part looks whole");
    }
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&post(1, "/in", &[])).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    let seen = raw.answer(1).await;
    assert!(matches!(seen, Seen::Status(408)), "{seen:?}");
    assert_eq!(daemon.metric("bearerd_refused_total", &["bad_request"]).await as u64, 5);
}

/// An HTTP/2 upstream that takes so many bytes of a body, and says nothing.
async fn silent_http2(window: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut raw = Raw::over(stream);
        raw.greeted().await;
        raw.send(&frame(SETTINGS, 0, 0, &setting(4, window))).await;
        while let Some(came) = raw.next().await {
            match came.kind {
                SETTINGS if came.flags & ACK == 0 => raw.send(&frame(SETTINGS, ACK, 0, b"")).await,
                PING if came.flags & ACK == 0 => {
                    raw.send(&frame(PING, ACK, 0, &came.payload)).await;
                }
                _ => {}
            }
        }
    });
    address
}

/// Sends what is taken of an endless body; what is told about it.
async fn told_about_an_upload(daemon: &Daemon, begun: &[u8], goes_on: bool) -> String {
    let (mut told, mut body) =
        TcpStream::connect(daemon.proxy).await.expect("a connection").into_split();
    let head =
        "POST /in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n";
    body.write_all(&[head.as_bytes(), begun].concat()).await.expect("sent");
    let piece = vec![b'x'; 1 << 16];
    let sending = tokio::spawn(async move {
        while goes_on && body.write_all(&piece).await.is_ok() {}
        body
    });
    let mut answer = Vec::new();
    while !answer.ends_with(b"}\n") {
        let read = timeout(DEADLINE, told.read_buf(&mut answer)).await.expect("in time");
        assert_ne!(read.expect("an answer"), 0, "{}", String::from_utf8_lossy(&answer));
    }
    drop(sending);
    String::from_utf8(answer).expect("text")
}

/// Whoever is slow is told so, and not the other one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_no_body_is_not_its_callers_fault() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "timeouts = { response_ms = 500 }").await;
    let (answer, peer) = tokio::join!(told_about_an_upload(&daemon, b"", true), upstream.accept());
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("upstream_timeout"), "{answer}");
    drop(peer);
    // A body that is whole is out of its caller's hands.
    let whole = request(daemon.proxy, "POST", "/in", &[], b"whole");
    let (answer, _peer) = tokio::join!(whole, upstream.accept());
    assert_eq!((answer.status, answer.header("bearerd-reason")), (504, Some("upstream_timeout")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_one_is_told_from_the_other_over_http2_as_well() {
    for (window, goes_on, status) in [(0, true, 504), (1 << 20, false, 408)] {
        // With a copy for a replay, and without.
        for kept in [0, 64 << 20] {
            let (stage, address) = (Stage::new(), silent_http2(window).await);
            let more = format!(
                "http2 = true\ntimeouts = {{ response_ms = 500 }}\nreplay = {{ body_bytes = {kept} }}"
            );
            let route = route_to(&format!("http://{address}"), &more);
            let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
            daemon.ready().await;
            let answer = told_about_an_upload(&daemon, b"begun", goes_on).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{window} {kept}: {answer}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_given_up() {
    let stage = Stage::new();
    stage.api.serve("/large", emulator::Reply::pattern(64 << 20));
    let daemon = stage.ready("timeouts = { idle_ms = 1000 }").await;
    let mut callers = Vec::new();
    for _ in 0..20 {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        caller.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        callers.push(caller);
    }
    eventually("under way", async || stage.api.request_count() == 20).await;
    assert_eq!(daemon.get("/other").await.status, 200);
    let ended = async || daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0;
    eventually("given up", ended).await;
    assert!(
        stage.api.server().wait_for_open_connections(1, DEADLINE).await,
        "the upstream is told"
    );
    for mut caller in callers {
        assert!(caller.answer().await.is_err(), "a part of an answer looks whole");
    }
}
