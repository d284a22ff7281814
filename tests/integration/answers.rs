//! Answers on their way down: passed on untouched but for what belongs to the connection.

use emulator::client::{Answer, Client};
use emulator::{Reply, Step};

use crate::stage::Stage;
use crate::support::request;

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_of_an_answer_end_here_and_the_rest_passes() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let reply = Reply::bytes(302, "text/plain", "moved")
        .header("Connection", "X-Mine")
        .header("X-Mine", "hop")
        .header("Keep-Alive", "timeout=hop")
        .header("Proxy-Connection", "hop")
        .header("Proxy-Authenticate", "hop")
        .header("Upgrade", "hop")
        .header("Location", "https://elsewhere.test/")
        .header("WWW-Authenticate", "Bearer realm=\"a\"")
        .header("Set-Cookie", "a=b")
        .header("set-cookie", "c=d")
        .header("X_Under", "1");
    stage.api.script([Step::from(reply)]);
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (302, "moved"));
    assert!(!answer.head.iter().any(|(_, value)| value.contains("hop")), "{:?}", answer.head);
    assert_eq!(answer.header("location"), Some("https://elsewhere.test/"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"a\""));
    assert_eq!(answer.header("x_under"), Some("1"));
    let cookies = answer.head.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.count(), 2);
    assert_eq!(stage.api.request_count(), 1, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_leave_the_connection_usable() {
    let stage = Stage::new();
    stage.api.serve("/large", Reply::pattern(100_000));
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = caller.request("HEAD", "/large", &[], b"").await.expect("an answer");
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    let not_modified = Reply::status(304).header("ETag", "\"x\"").header("Content-Length", "100");
    let steps = [(204, Reply::status(204)), (304, not_modified), (200, Reply::status(200))];
    for (status, reply) in steps {
        stage.api.script([Step::from(reply)]);
        let answer = caller.request("GET", "/", &[], b"").await.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    let whole = caller.request("GET", "/large", &[], b"").await.expect("an answer");
    assert_eq!(whole.body, emulator::http::pattern(100_000));
    assert_eq!(stage.api.server().connections(), 1, "the upstream connection was not reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_framing_of_an_answer_comes_out_whole() {
    let stage = Stage::new();
    stage.api.serve("/length", Reply::pattern(300_000));
    stage.api.serve("/chunked", Reply::pattern(300_000).chunked(1000));
    stage.api.serve("/close", Reply::pattern(300_000).close_delimited());
    let daemon = stage.ready("").await;
    let whole = emulator::http::pattern(300_000);
    for path in ["/length", "/chunked", "/close", "/length"] {
        assert!(daemon.get(path).await.body == whole, "{path}");
    }
    let mut old = Client::connect(daemon.proxy).await.expect("a connection");
    old.send(b"GET /chunked HTTP/1.0\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let answer = old.answer().await.expect("an answer");
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    assert!(answer.body == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_down_and_never_become_fields() {
    let stage = Stage::new();
    let reply = Reply::pattern(1000)
        .header("Trailer", "X-Sum, Authorization")
        .trailer("X-Sum", "1")
        .trailer("Authorization", "Bearer evil");
    stage.api.serve("/trailers", reply);
    let daemon = stage.ready("").await;
    let headers = [("TE", "trailers"), ("Connection", "TE")];
    let answer = request(daemon.proxy, "GET", "/trailers", &headers, b"").await;
    assert_eq!(answer.body.len(), 1000);
    assert_eq!(names(&answer.trailers), ["x-sum"]);
    assert!(answer.header("x-sum").is_none() && answer.header("authorization").is_none());
    let unasked = daemon.get("/trailers").await;
    assert_eq!((unasked.body.len(), unasked.header("x-sum")), (1000, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_switch_that_nobody_asked_for_is_a_502() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    stage.api.script([Step::from(Reply::upgrade("evil"))]);
    let answer = daemon.get("/").await;
    assert_upstream_protocol(&answer);
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_do_not_take_the_place_of_the_final_one() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let reply = Reply::bytes(200, "text/plain", "final").interim(hints).interim(hints);
    stage.api.script([Step::from(reply)]);
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let mut answer = caller.request("GET", "/", &[], b"").await.expect("an answer");
    while answer.status == 103 {
        answer = caller.answer().await.expect("an answer");
    }
    assert_eq!((answer.status, answer.text().as_str()), (200, "final"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_two_parsers_could_read_differently_are_a_502() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    for head in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: x",
        "X-Folded: a\r\n b\r\nContent-Length: 2",
        "X-Space : a\r\nContent-Length: 2",
        "X-Null: a\0b\r\nContent-Length: 2",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
        stage.api.script([Step::Raw(raw.into_bytes())]);
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let answer = caller.request("GET", "/", &[], b"").await;
        let answer = answer.unwrap_or_else(|error| panic!("{head:?}: {error}"));
        assert_eq!(answer.status, 502, "{head:?}: {:?} {}", answer.head, answer.text());
        assert_upstream_protocol(&answer);
        // That connection is not used again.
        assert_eq!(daemon.get("/").await.json()["target"], "/", "{head:?}");
    }
}

fn assert_upstream_protocol(answer: &Answer) {
    let reason = answer.header("bearerd-reason");
    assert_eq!((answer.status, reason), (502, Some("upstream_protocol")));
}

fn names(fields: &[(String, String)]) -> Vec<String> {
    fields.iter().map(|(name, _)| name.to_lowercase()).collect()
}
