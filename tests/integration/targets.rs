//! Targets, hosts and origins that a caller may try: it chooses neither upstream nor scheme, and
//! what an allow list judges means the same upstream.

use std::time::Duration;

use emulator::client::{Answer, Client};
use tokio::time::timeout;

use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon};

async fn send(daemon: &Daemon, head: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(format!("{head}\r\n\r\n").as_bytes()).await.expect("sent");
    caller.answer().await.unwrap_or_else(|error| panic!("{error} after {head}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_chooses_neither_upstream_nor_port_nor_scheme() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let authority = stage.api.server().address().to_string();
    for (head, target) in [
        ("GET http://localhost:1/a HTTP/1.1\r\nHost: localhost:1", "/a"),
        ("GET https://localhost/a HTTP/1.1\r\nHost: localhost", "/a"),
        ("GET http://LOCALHOST HTTP/1.1\r\nHost: localhost", "/"),
        ("GET /a HTTP/1.1\r\nHost: localhost:1\r\nX-Forwarded-Host: evil.test", "/a"),
        ("GET /http://evil.test/ HTTP/1.1\r\nHost: localhost", "/http://evil.test/"),
        ("GET //evil.test/ HTTP/1.1\r\nHost: localhost", "//evil.test/"),
    ] {
        let answer = send(&daemon, head).await;
        assert_eq!(answer.status, 200, "{head}: {}", answer.text());
        assert_eq!(answer.json()["target"], target, "{head}");
        let seen = stage.api.last_request().expect("a request");
        assert_eq!(seen.headers("host"), [authority.as_bytes()], "{head}");
        assert!(!answer.text().contains("Forwarded"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_target_is_refused() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    for head in [
        "GET a HTTP/1.1\r\nHost: localhost",
        "GET localhost:80 HTTP/1.1\r\nHost: localhost",
        "GET * HTTP/1.1\r\nHost: localhost",
        "GET ?a HTTP/1.1\r\nHost: localhost",
        "GET  HTTP/1.1\r\nHost: localhost",
        "GET / / HTTP/1.1\r\nHost: localhost",
        "GET http://localhost:1/ HTTP/1.1\r\nHost: localhost:2",
        "GET http:///a HTTP/1.1\r\nHost: localhost",
        "GET /a#b\u{1} HTTP/1.1\r\nHost: localhost",
        "GET / HTTP/3.0\r\nHost: localhost",
        "GET / http/1.1\r\nHost: localhost",
    ] {
        assert_eq!(send(&daemon, head).await.status, 400, "{head}");
    }
    assert_eq!(stage.api.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_list_judges_paths_too_and_the_asterisk_is_below_no_prefix() {
    let stage = Stage::new();
    let daemon = stage.ready("methods = [\"GET\", \"OPTIONS\"]").await;
    let at = async |method: &str, target: &str| {
        send(&daemon, &format!("{method} {target} HTTP/1.1\r\nHost: localhost")).await.status
    };
    for target in ["/a/../b", "/a/./b", "/%2e", "/a%2Fb", "/a%5cb", "/a\\b", "//", "/a;b", "/%00"] {
        assert_eq!(at("GET", target).await, 400, "{target}");
        assert_eq!(at("POST", target).await, 405, "{target}");
    }
    assert_eq!((at("GET", "/a.b").await, at("OPTIONS", "*").await), (200, 200));
    let below = stage.ready("path_prefix = \"/v1\"").await;
    let head = "OPTIONS * HTTP/1.1\r\nHost: localhost";
    assert_eq!(send(&below, head).await.header("bearerd-reason"), Some("no_route"));
    assert_eq!(stage.api.request_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_what_tells_where_a_request_comes_from_are_refused() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    for lines in [
        "Origin: http://localhost\r\nOrigin: http://localhost",
        "Origin: http://localhost\r\nOrigin: https://evil.test",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: none",
        "Sec-Fetch-Site: same-origin\r\nsec-fetch-site: cross-site",
    ] {
        let answer = send(&daemon, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}")).await;
        assert_eq!((answer.status, answer.header("bearerd-reason")), (400, Some("bad_request")));
    }
    for lines in ["Origin: http://localhost, https://evil.test", "Origin: ", "Sec-Fetch-Site: "] {
        let answer = send(&daemon, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}")).await;
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (403, Some("origin_not_allowed")), "{lines}");
    }
    assert_eq!(stage.api.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_is_given_leave_to_read_and_an_upstreams_leave_passes() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let cors = |answer: &Answer| {
        let leave =
            |(name, _): &&(String, String)| name.to_lowercase().starts_with("access-control");
        answer.head.iter().filter(leave).count()
    };
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\
                     Access-Control-Request-Method: POST";
    let answer = send(&daemon, preflight).await;
    assert_eq!((answer.status, cors(&answer)), (200, 0));
    let own = emulator::Reply::status(204).header("Access-Control-Allow-Origin", "*");
    stage.api.script([emulator::Step::from(own)]);
    let answer = send(&daemon, preflight).await;
    assert_eq!((answer.status, cors(&answer)), (204, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn framings_that_hide_from_one_parser_are_refused_and_closed() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for lines in [
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding:",
        "Content-Length: 1 1",
        "Content-Length: 1, 1",
        "Content-Length: 18446744073709551616",
        "Content-Length:",
        "X(y): 1",
        "X-\u{e9}: 1",
        ": 1",
    ] {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let head = format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n");
        caller.send(format!("{head}0\r\n\r\n{smuggled}").as_bytes()).await.expect("sent");
        let rest = timeout(DEADLINE, caller.rest()).await;
        let rest = rest.unwrap_or_else(|_| panic!("{lines:?}: not closed")).unwrap_or_default();
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(rest.starts_with("HTTP/1.1 400"), "{lines:?}: {rest}");
        assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{lines:?}: {rest}");
    }
    assert!(stage.api.requests().iter().all(|request| request.path() != "/smuggled"));
}

/// Sends `parts` one after the other, each in a read of its own.
async fn in_parts(daemon: &Daemon, parts: &[String]) -> String {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    for part in parts {
        let _closed = caller.send(part.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rest = timeout(DEADLINE, caller.rest()).await.expect("closed").unwrap_or_default();
    String::from_utf8_lossy(&rest).into_owned()
}

/// Whatever a first request does to hide where it ends.
#[tokio::test(flavor = "multi_thread")]
async fn both_framings_are_refused_also_behind_unusual_chunks() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let head = "POST /first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let both = "POST /both HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
                Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let long = "x".repeat(200);
    for chunks in [
        vec!["5\r\nhello\r\n0\r\n\r\n".to_owned()],
        vec!["00000000000000000005\r\nhello\r\n0\r\n\r\n".to_owned()],
        vec!["5 \r\nhello\r\n0\r\n\r\n".to_owned()],
        vec!["5\t;a=b\r\nhello\r\n0\r\n\r\n".to_owned()],
        vec![format!("5;{long}\r\nhello\r\n0\r\n\r\n")],
        vec![format!("5;{long}"), format!("{long}\r\nhello\r\n0\r\n\r\n")],
        vec!["5\r\nhello\r\n0;".to_owned() + &long, format!("{long}\r\n\r\n")],
        vec![format!("0\r\nX-Long: {long}"), format!("{long}\r\n\r\n")],
    ] {
        let parts = [vec![head.to_owned()], chunks, vec![both.to_owned()]].concat();
        let answers = in_parts(&daemon, &parts).await;
        let last = answers.rsplit("HTTP/1.1 ").next().unwrap_or_default();
        assert!(last.starts_with("400 "), "{parts:?}: {answers}");
    }
    assert!(stage.api.requests().iter().all(|request| request.path() != "/both"));
}
