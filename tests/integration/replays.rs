//! What a replay sends, what becomes of the first answer, and what passes when there can be none.

use emulator::client::{Answer, Client};
use emulator::{Challenge, Reply, Step};
use tokio::task::JoinSet;

use crate::bodies::unauthorized;
use crate::by_hand::{ByHand, REFUSED};
use crate::stage::Stage;
use crate::support::{Daemon, eventually, request};

async fn counted(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_replays_total", &[&label]).await as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_any_method_is_replayed() {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        let stage = Stage::new();
        let daemon = stage.ready("").await;
        stage.tokens.revoke_all();
        for body in [&b""[..], b"order"] {
            let answer = request(daemon.proxy, method, "/a?b=%20", &[("X-Mine", "1")], body).await;
            assert_eq!(answer.status, 200, "{method}");
            assert_eq!(answer.json()["body_length"], body.len(), "{method}");
        }
        let requests = stage.api.requests();
        let [first, second, _] = requests.as_slice() else { panic!("{} sent", requests.len()) };
        // The same, but for the token.
        assert_eq!((&first.method, &first.target), (&second.method, &second.target));
        let others = |request: &emulator::Recorded| {
            let mut fields = request.head.clone();
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
            fields
        };
        assert_eq!(others(first), others(second), "{method}");
        assert_ne!(first.header("authorization"), second.header("authorization"));
    }
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    stage.tokens.revoke_all();
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = caller.request("HEAD", "/", &[], b"").await.expect("an answer");
    assert_eq!((head.status, stage.api.request_count()), (200, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_first_answer_is_seen_after_a_good_replay() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let first = unauthorized()
        .header("Set-Cookie", "first=1")
        .header("X-First", "first")
        .interim("HTTP/1.1 102 Processing\r\nX-First: first\r\n\r\n");
    stage.api.script([Step::from(first)]);
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let answer = caller.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/")));
    let shown = format!("{:?}", answer.head).to_lowercase();
    assert!(!shown.contains("first") && !shown.contains("www-authenticate"), "{shown}");
    // One answer, and nothing behind it.
    let answer = caller.request("GET", "/next", &[], b"").await.expect("an answer");
    assert_eq!(answer.json()["target"], "/next");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_401_that_was_read_to_its_end_takes_the_replay() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    for refusal in [
        unauthorized(),
        Reply::bytes(401, "text/plain", vec![b'x'; 3000]),
        Reply::bytes(401, "text/plain", vec![b'x'; 3000]).chunked(100),
    ] {
        stage.api.script([Step::from(refusal)]);
        assert_eq!(daemon.get("/").await.status, 200);
    }
    assert_eq!(stage.api.server().connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_401_that_does_not_end_is_closed() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let proxy = daemon.proxy;
    for framing in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf"]
    {
        let asked: JoinSet<Answer> =
            JoinSet::from_iter([async move { request(proxy, "GET", "/", &[], b"").await }]);
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send(format!("HTTP/1.1 401 Unauthorized\r\n{framing}").as_bytes()).await;
        let mut second = upstream.accept().await;
        second.head().await;
        assert_eq!(peer.rest().await, "", "{framing}: used again");
        second.ok("replayed").await;
        assert_eq!(asked.join_all().await[0].text(), "replayed", "{framing}");
        second.reset();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_passes_unchanged_when_no_newer_token_comes_in_time() {
    let stage = Stage::new();
    let daemon = stage.ready("wait_ms = 300").await;
    let refusal = Reply::bytes(401, "text/plain", "the upstream's own")
        .header("WWW-Authenticate", "Bearer realm=\"x\"")
        .header("X-Trace", "1");
    for step in [Step::Hang, Step::Status(503)] {
        stage.idp.set_always(Some(step.clone()));
        stage.api.script([Step::from(refusal.clone())]);
        let answer = daemon.get("/").await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (401, "the upstream's own"),
            "{step:?}"
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"x\""));
        assert_eq!((answer.header("x-trace"), answer.header("bearerd-reason")), (Some("1"), None));
    }
    assert_eq!((counted(&daemon, "token_unavailable").await, stage.api.request_count()), (2, 2));
    // A 401 takes no usable token away.
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_passes_unchanged_when_there_is_no_connection_for_the_replay() {
    let long = "x".repeat(50_000);
    for (framing, first, rest) in [
        ("Content-Length: 8\r\nConnection: close", "not mine", ""),
        ("Content-Length: 8", "not ", "mine"),
        ("Content-Length: 50008", long.as_str(), "not mine"),
        ("Transfer-Encoding: chunked", "4\r\nnot \r\n", "4\r\nmine\r\n0\r\n\r\n"),
    ] {
        let (stage, upstream) = (Stage::new(), ByHand::listen().await);
        let daemon = upstream.ready(&stage, "").await;
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        let mut peer = upstream.accept().await;
        peer.head().await;
        drop(upstream);
        let told = "WWW-Authenticate: Bearer realm=\"x\"\r\nX-Trace: 1";
        let head = format!("HTTP/1.1 401 Unauthorized\r\n{told}\r\n{framing}\r\n\r\n");
        peer.send(format!("{head}{first}").as_bytes()).await;
        let head = caller.until("\r\n\r\n").await.expect("a head").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 401 "), "{framing}: {head}");
        assert!(head.contains("www-authenticate: bearer realm=\"x\"\r\n"), "{framing}: {head}");
        assert!(head.contains("x-trace: 1\r\n") && !head.contains("bearerd-reason"), "{head}");
        let _closed = peer.try_send(rest.as_bytes()).await;
        let body = caller.until("mine").await.expect("all of it");
        assert!(body.ends_with("mine"), "{framing}");
        assert_eq!((stage.idp.token_requests(), counted(&daemon, "not_replayable").await), (2, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_in_the_middle_of_a_replay_is_counted_by_what_was_waited_for() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "wait_ms = 600_000").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let get = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    caller.send(get).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(REFUSED).await;
    peer.head().await;
    drop(caller);
    let answer = async || counted(&daemon, "not_replayable").await == 1;
    eventually("who waited for an answer is counted", answer).await;
    let daemon = upstream.ready(&stage, "wait_ms = 600_000").await;
    stage.idp.set_always(Some(Step::Hang));
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(get).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(REFUSED).await;
    eventually("the refresh", async || stage.idp.token_requests() == 4).await;
    drop(caller);
    let token = async || counted(&daemon, "token_unavailable").await == 1;
    eventually("who waited for a token is counted", token).await;
    assert_eq!(daemon.metric("bearerd_replays_total", &[]).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_keeps_no_bodies_replays_what_has_none() {
    let stage = Stage::new();
    let daemon = stage.ready("replay = { body_bytes = 0 }").await;
    stage.api.script([Step::from(unauthorized())]);
    assert_eq!(daemon.post("/", b"1").await.status, 401);
    assert_eq!(counted(&daemon, "not_replayable").await, 1);
    let daemon = stage.ready("replay = { body_bytes = 0 }").await;
    stage.api.script([Step::from(unauthorized())]);
    assert_eq!(daemon.post("/", b"").await.status, 200);
    assert_eq!(counted(&daemon, "succeeded").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_statuses_that_the_route_names_cause_anything() {
    let stage = Stage::new();
    let daemon = stage.ready("replay = { statuses = [419] }").await;
    for status in [401, 403, 440] {
        stage.api.script([Step::Status(status)]);
        assert_eq!(daemon.get("/").await.status, status);
    }
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (1, 3));
    stage.api.script([Step::Status(419), Step::Status(419)]);
    assert_eq!(daemon.get("/").await.status, 419, "again after the replay: passed on");
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 5));
    assert_eq!(counted(&daemon, "unauthorized").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_status_with_a_challenge_that_no_token_answers_passes() {
    let stage = Stage::new();
    let scope = "Bearer error=\"insufficient_scope\"";
    let refusal = Reply::status(403).header("WWW-Authenticate", scope);
    stage.api.set_challenge(Challenge::answer(refusal));
    let daemon = stage.ready("replay = { statuses = [401, 403] }").await;
    stage.tokens.revoke_all();
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (403, Some(scope)));
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (1, 1));
}
