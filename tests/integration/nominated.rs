//! What `Connection` may not take away, and what it does: in requests and in answers
//! (RFC 9110 §7.6.1).

use emulator::client::{Answer, Client};
use emulator::{Reply, Step};
use serde_json::Value;

use crate::stage::Stage;
use crate::support::Daemon;

/// POST with these lines, and the bytes that follow the head.
async fn post(daemon: &Daemon, lines: &str, body: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let request = format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}");
    caller.send(request.as_bytes()).await.expect("sent");
    caller.answer().await.expect("an answer")
}

/// The values of a field as the API got them.
fn fields(answer: &Answer, name: &str) -> Vec<String> {
    let json = answer.json();
    let pairs = json["headers"].as_array().cloned().unwrap_or_default();
    let named = |pair: &&Value| pair[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name));
    let value = |pair: &Value| pair[1].as_str().unwrap_or_default().to_owned();
    pairs.iter().filter(named).map(value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_cannot_nominate_framing_routing_or_the_token_away() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let ours = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    let authority = stage.api.server().address().to_string();
    for nominated in [
        "content-length",
        "Transfer-Encoding",
        "HOST",
        "authorization",
        "via",
        "connection",
        "cookie",
        "content-length, transfer-encoding, host, authorization, via, connection, trailer",
    ] {
        for (framing, body) in [
            ("Content-Length: 5", "order"),
            ("Transfer-Encoding: chunked", "5\r\norder\r\n0\r\n\r\n"),
        ] {
            let lines = format!("{framing}\r\nCookie: a=b\r\nConnection: {nominated}");
            let answer = post(&daemon, &lines, body).await;
            assert_eq!(answer.status, 200, "{lines}: {}", answer.text());
            assert_eq!(answer.json()["body_length"], 5, "{lines}");
            assert_eq!(fields(&answer, "host"), [authority.as_str()], "{lines}");
            assert_eq!(fields(&answer, "authorization"), [ours.as_str()], "{lines}");
            assert_eq!(fields(&answer, "cookie"), ["a=b"], "{lines}");
            assert_eq!(fields(&answer, "via").len(), 1, "{lines}");
            assert_eq!(fields(&answer, "connection"), [""; 0], "{lines}");
        }
    }
    assert!(stage.api.violations().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nominated_is_judged_before_it_goes() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let via = fields(&post(&daemon, "Content-Length: 0", "").await, "via").remove(0);
    for (line, name, status) in [
        (format!("Via: {via}"), "via", 508),
        ("Origin: https://evil.test".to_owned(), "origin", 403),
        ("Sec-Fetch-Site: cross-site".to_owned(), "sec-fetch-site", 403),
    ] {
        let lines = format!("{line}\r\nConnection: {name}\r\nContent-Length: 0");
        assert_eq!(post(&daemon, &lines, "").await.status, status, "{lines}");
    }
    assert_eq!(stage.api.request_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_cannot_nominate_away_that_its_own_copy_is_rejected() {
    let stage = Stage::new();
    let daemon = stage.ready("client_authorization = \"reject\"").await;
    let lines = "Authorization: Bearer own\r\nConnection: authorization\r\nContent-Length: 0";
    let answer = post(&daemon, lines, "").await;
    assert_eq!(answer.header("bearerd-reason"), Some("client_authorization"));
    assert_eq!(stage.api.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_cannot_nominate_the_framing_of_its_answer_away() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let ten = ["x-mine"; 10].join(", ");
    for nominated in ["content-length", "transfer-encoding", "Content-Length, x-mine", &ten] {
        let reply = Reply::bytes(200, "text/plain", "whole")
            .header("Connection", nominated)
            .header("X-Mine", "1");
        for reply in [reply.clone(), reply.chunked(2)] {
            stage.api.script([Step::from(reply)]);
            let answer = caller.request("GET", "/", &[], b"").await.expect("an answer");
            assert_eq!((answer.status, answer.text().as_str()), (200, "whole"), "{nominated}");
            assert_eq!(answer.header("connection"), None, "{nominated}");
            let mine = answer.header("x-mine").is_some();
            assert_eq!(mine, !nominated.contains("x-mine"), "{nominated}");
        }
    }
    // Without a body nothing but the field tells the length.
    let reply = Reply::pattern(1000).header("Connection", "content-length");
    stage.api.script([Step::from(reply)]);
    let answer = caller.request("HEAD", "/", &[], b"").await.expect("an answer");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")));
    assert_eq!(stage.api.server().connections(), 1, "a connection was not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nominates_more_than_ten_names_is_a_502() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let eleven = ["x-mine"; 11].join(", ");
    let spread =
        |reply: Reply| (0..11).fold(reply, |reply, _| reply.header("Connection", "x-mine"));
    let one_line = Reply::status(200).header("Connection", &eleven);
    for reply in [one_line, spread(Reply::status(200))] {
        stage.api.script([Step::from(reply)]);
        let answer = daemon.get("/").await;
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (502, Some("upstream_protocol")));
    }
}
