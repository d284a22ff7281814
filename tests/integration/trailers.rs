//! Trailers: passed on in both directions, stripped of what is no trailer's business, and never
//! fields (RFC 9110 §6.5).

use emulator::Reply;
use emulator::client::{Answer, Client};
use serde_json::json;

use crate::by_hand::ByHand;
use crate::stage::Stage;
use crate::support::{Daemon, request};

/// A chunked POST with these trailers, all of them declared.
async fn post(daemon: &Daemon, body: &str, trailers: &[(&str, &str)]) -> Answer {
    let names: Vec<&str> = trailers.iter().map(|(name, _)| *name).collect();
    let lines: String =
        trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "POST /in HTTP/1.1\r\nHost: localhost\r\nTrailer: {}\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n{lines}\r\n",
        names.join(", "),
        body.len()
    );
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(request.as_bytes()).await.expect("sent");
    caller.answer().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_trailers_gives_its_connection_back() {
    let stage = Stage::new();
    let reply = Reply::pattern(50_000).header("Trailer", "X-Sum").trailer("X-Sum", "1");
    stage.api.serve("/trailers", reply);
    let daemon = stage.ready("").await;
    let asks = [("TE", "trailers"), ("Connection", "TE")];
    // RFC 9110 §6.5.1: who does not ask for them may leave them; not we for it.
    for headers in [&asks[..], &[][..], &asks[..]] {
        let answer = request(daemon.proxy, "GET", "/trailers", headers, b"").await;
        assert_eq!((answer.body.len(), answer.trailers.len()), (50_000, 1));
    }
    assert_eq!(stage.api.server().connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_request_carry_no_credential_framing_or_routing() {
    for (route, header, scheme) in [
        ("", "authorization", Some("Bearer")),
        ("header = \"x-api-key\"", "x-api-key", Some("Bearer")),
    ] {
        let stage = Stage::new();
        stage.api.set_credential_header(header, scheme);
        // With and without a copy for a replay.
        for more in ["", "replay = { body_bytes = 0 }"] {
            let daemon = stage.ready(&format!("{route}\n{more}")).await;
            let trailers = [
                ("X-Sum", "1"),
                (header, "Bearer evil"),
                ("Authorization", "Bearer evil"),
                ("Host", "evil.test"),
                ("Content-Length", "5"),
                ("Transfer-Encoding", "gzip"),
                ("Connection", "close"),
                ("Cookie", "evil=1"),
                ("Proxy-Authorization", "evil"),
                ("Author_ization", "evil"),
            ];
            let answer = post(&daemon, "order", &trailers).await;
            assert_eq!(answer.status, 200, "{route} {more}: {}", answer.text());
            assert_eq!(answer.json()["trailers"], json!([["x-sum", "1"]]), "{route} {more}");
            assert!(!answer.text().contains("evil"), "{route} {more}: {}", answer.text());
        }
        assert!(stage.api.violations().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_carry_no_credential_framing_or_cookie() {
    let stage = Stage::new();
    let names = [
        "Authorization",
        "Set-Cookie",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Upgrade",
        "X_Sum",
    ];
    let reply = Reply::pattern(100).header("Trailer", format!("X-Sum, {}", names.join(", ")));
    let reply = names.iter().fold(reply, |reply, name| reply.trailer(name, "evil"));
    stage.api.serve("/trailers", reply.trailer("X-Sum", "1"));
    let daemon = stage.ready("").await;
    let headers = [("TE", "trailers"), ("Connection", "TE")];
    let answer = request(daemon.proxy, "GET", "/trailers", &headers, b"").await;
    assert_eq!(answer.body.len(), 100);
    let passed: Vec<_> = answer.trailers.iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(passed, ["x-sum"]);
    assert!(names.iter().all(|name| answer.header(name) != Some("evil")), "{:?}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_request_pass_although_nobody_announced_them() {
    let stage = Stage::new();
    let upstream = ByHand::listen().await;
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: evil\r\n\r\n";
    caller.send(request.as_bytes()).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    assert_eq!(peer.until("\r\n\r\n").await, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.answer().await.expect("an answer").status, 200);
}
