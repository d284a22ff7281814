//! Which requests are let in at all: hosts, origins, methods, paths and framing. Whatever is turned
//! away here is turned away before anything goes upstream.

use emulator::client::{Answer, Client};

use crate::stage::{Stage, route_to};
use crate::support::Daemon;

#[tokio::test(flavor = "multi_thread")]
async fn only_known_hosts_are_answered() {
    let stage = Stage::new();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  allowed_hosts = [\"allowed.test\"]\n";
    let second = route_to(&stage.api.url(), "host = \"routed.test\"\nname = \"routed\"");
    let config =
        format!("{server}{}{second}{}", stage.credential(""), stage.route("name = \"rest\""));
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    for host in
        ["localhost", "LocalHost:1234", "127.0.0.1", "[::1]:80", "allowed.test", "Routed.Test:80"]
    {
        assert_eq!(get(&daemon, host).await.status, 200, "{host}");
    }
    assert_eq!(daemon.metric("bearerd_requests_total", &["route=\"routed\""]).await as u64, 1);
    let forwarded = stage.api.request_count();
    for host in ["evil.test", "localhost.evil.test", "allowed.test.", "10.0.0.1", "xlocalhost"] {
        let answer = get(&daemon, host).await;
        assert_refused(&answer, 421, "host_not_allowed", host);
    }
    for host in ["", "user@localhost", "localhost:port", "local host", "localhost/x", "a,localhost"]
    {
        assert_eq!(get(&daemon, host).await.status, 400, "{host:?}");
    }
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nhost: evil.test\r\n\r\n",
        "GET http://evil.test/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http://user@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(send(&daemon, request).await.status, 400, "{request}");
    }
    assert_eq!(stage.api.request_count(), forwarded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_nothing_about_the_token() {
    let stage = Stage::new();
    stage.idp.set_down(true);
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &stage.route("")));
    let answer = get(&daemon, "evil.test").await;
    assert_refused(&answer, 421, "host_not_allowed", "before a token is looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_turned_away() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let with = async |line: &str| {
        send(&daemon, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n")).await
    };
    for line in [
        "Origin: http://localhost:3000",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Site: none",
        "Origin: http://127.0.0.1",
    ] {
        assert_eq!(with(line).await.status, 200, "{line}");
    }
    for line in [
        "Origin: https://evil.test",
        "Origin: null",
        "Origin: localhost",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: http://localhost.evil.test",
    ] {
        let answer = with(line).await;
        assert_refused(&answer, 403, "origin_not_allowed", line);
        let cors =
            answer.head.iter().any(|(name, _)| name.to_lowercase().starts_with("access-control"));
        assert!(!cors, "{:?}", answer.head);
    }
    assert_eq!(stage.api.request_count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_not_forwarded() {
    let stage = Stage::new();
    let daemon = stage.ready("methods = [\"GET\", \"PURGE\"]").await;
    for request in
        ["TRACE / HTTP/1.1", "CONNECT localhost:443 HTTP/1.1", "POST / HTTP/1.1", "get / HTTP/1.1"]
    {
        let answer = send(&daemon, &format!("{request}\r\nHost: localhost\r\n\r\n")).await;
        assert_refused(&answer, 405, "method_not_allowed", request);
    }
    for method in ["GET", "PURGE"] {
        let answer =
            send(&daemon, &format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!((answer.status, answer.json()["method"].as_str()), (200, Some(method)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_an_allow_list_judges_must_be_unambiguous() {
    let stage = Stage::new();
    let daemon = stage.ready("path_prefix = \"/v1\"").await;
    let at = async |target: &str| {
        send(&daemon, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    };
    for target in ["/v1", "/v1/", "/v1/a.b/..c?x=/../;%2f", "/v1?/../", "/v1/%20"] {
        let answer = at(target).await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.json()["target"], target);
    }
    for target in [
        "/v1/../admin",
        "/v1/./x",
        "/v1/%2e%2E/admin",
        "/v1/a%2fb",
        "/v1/a%5Cb",
        "/v1/a\\b",
        "/v1//x",
        "/v1/a;b",
        "/v1/%00",
        "/v1/..",
    ] {
        assert_refused(&at(target).await, 400, "bad_request", target);
    }
    for target in ["/", "/v10", "/V1", "/admin/v1", "/%761"] {
        assert_refused(&at(target).await, 404, "no_route", target);
    }
    assert_eq!(stage.api.request_count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_two_parsers_could_read_differently_are_refused_and_closed() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: -1",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "transfer-encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: 0",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Content-Length : 3",
        "X-Folded: a\r\n b",
        "X-Null: a\0b",
        "X-Bare: a\rb",
        " X-Space: a",
        "No colon",
        "Transfer-Encoding: chunked\r\n\r\nzz",
        "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc",
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nabc",
    ] {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let request =
            format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}");
        caller.send(request.as_bytes()).await.expect("sent");
        let rest = String::from_utf8_lossy(&caller.rest().await.unwrap_or_default()).into_owned();
        assert!(rest.matches("HTTP/1.1 ").count() <= 1, "{lines:?}: {rest}");
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{lines:?}: {rest}");
    }
    let old = "POST /in HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(send(&daemon, old).await.status, 400);
    assert!(stage.api.requests().iter().all(|request| request.path() != "/smuggled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let long = "a".repeat(16 << 10);
    let target = send(&daemon, &format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    assert_refused(&target, 414, "too_large", "target");
    let many: String = (0..101).map(|n| format!("X-{n}: a\r\n")).collect();
    let fields = send(&daemon, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")).await;
    assert_eq!(fields.status, 431);
    let block = format!("X-Long: {}\r\n", "a".repeat(256 << 10));
    let block = send(&daemon, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{block}\r\n")).await;
    assert_eq!(block.status, 431);
    assert_eq!(stage.api.request_count(), 0);
}

fn assert_refused(answer: &Answer, status: u16, reason: &str, what: &str) {
    assert_eq!((answer.status, answer.header("bearerd-reason")), (status, Some(reason)), "{what}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
}

async fn get(daemon: &Daemon, host: &str) -> Answer {
    send(daemon, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

async fn send(daemon: &Daemon, request: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(request.as_bytes()).await.expect("sent");
    caller.answer().await.unwrap_or_else(|error| panic!("{error} after {request:.200}"))
}
