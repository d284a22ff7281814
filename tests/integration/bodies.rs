//! Request bodies and replays: kept up to a bound, sent again whole, wherever the first sending
//! stood.

use emulator::client::{Answer, Client};
use emulator::http::pattern;
use emulator::{EventSource, Reply, Step};
use serde_json::json;

use crate::by_hand::ByHand;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually};

const HEAD: &str = "POST /in HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_refused_half_way_is_replayed_as_copy_and_rest() {
    let body = pattern(40_000);
    let (first, rest) = body.split_at(15_000);
    let end = [chunk(rest), b"0\r\n\r\n".to_vec()].concat();
    for (framing, first, rest) in [
        ("Content-Length: 40000", first.to_vec(), rest.to_vec()),
        ("Transfer-Encoding: chunked", chunk(first), end),
    ] {
        let stage = Stage::new();
        let daemon = stage.ready("").await;
        let whole = daemon.post("/in", &body).await.json()["body_sha256"].clone();
        stage.api.script([Step::early(unauthorized())]);
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let head = format!("{HEAD}{framing}\r\n\r\n");
        caller.send(&[head.as_bytes(), &first].concat()).await.expect("sent");
        // The replay begins on a connection of its own while the body is still incomplete.
        eventually("the replay", async || stage.api.server().connections() == 2).await;
        caller.send(&rest).await.expect("sent");
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{framing}: {}", answer.text());
        assert_eq!(answer.json()["body_length"], 40_000, "{framing}");
        assert_eq!(answer.json()["body_sha256"], whole, "{framing}");
        assert_eq!((stage.idp.token_requests(), replays(&daemon, "succeeded").await), (2, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_and_trailers_are_replayed() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let body = pattern(10_000);
    let whole = daemon.post("/in", &body).await.json()["body_sha256"].clone();
    stage.tokens.revoke_all();
    let chunks: Vec<u8> = body.chunks(999).flat_map(chunk).collect();
    let answer = post_chunks(&daemon, &chunks, "X-Sum: 1\r\nAuthorization: Bearer evil\r\n").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["body_sha256"], whole);
    assert_eq!(answer.json()["trailers"], json!([["x-sum", "1"]]));
    assert_eq!(replays(&daemon, "succeeded").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_kept_up_to_exactly_its_bound() {
    for (length, fits) in [(1000, true), (1001, false)] {
        for chunked in [false, true] {
            let stage = Stage::new();
            let daemon = stage.ready("replay = { body_bytes = 1000 }").await;
            stage.tokens.revoke_all();
            let body = pattern(length);
            let answer = match chunked {
                true => post_chunks(&daemon, &chunk(&body), "").await,
                false => daemon.post("/in", &body).await,
            };
            let status = if fits { 200 } else { 401 };
            assert_eq!(answer.status, status, "{length} bytes, chunked: {chunked}");
            let outcome = if fits { "succeeded" } else { "body_too_large" };
            assert_eq!(replays(&daemon, outcome).await, 1);
            let refreshed = stage.idp.wait_for_token_requests(2, DEADLINE).await;
            refreshed.expect("a refusal that cannot be replayed still causes a refresh");
            eventually("the next request works", async || daemon.get("/").await.status == 200)
                .await;
            assert_eq!(stage.idp.token_requests(), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_share_a_budget() {
    for (length, status) in [(1000, 200), (1001, 401)] {
        let stage = Stage::new();
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                      limits = { replay_bytes = 1000 }\n";
        let config = format!("{server}{}{}", stage.credential(""), stage.route(""));
        let daemon = Daemon::start_with(&stage.home, &config);
        // What is kept for a while is given back.
        assert_eq!(daemon.post("/in", &pattern(900)).await.status, 200);
        stage.tokens.revoke_all();
        assert_eq!(daemon.post("/in", &pattern(length)).await.status, status, "{length} bytes");
    }
}

/// No copy outlasts the head of an answer, however long that answer goes on, and the upload with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_given_up_when_there_is_an_answer() {
    for whole in [true, false] {
        let (stage, source, by_hand) = (Stage::new(), EventSource::new(), ByHand::listen().await);
        stage.api.serve("/events", Reply::events(&source));
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                      limits = { replay_bytes = 1000 }\n";
        let early = route_to(&format!("http://{}", by_hand.address), "path_prefix = \"/early\"");
        let config = format!("{server}{}{early}{}", stage.credential(""), stage.route(""));
        let daemon = Daemon::start_with(&stage.home, &config);
        daemon.ready().await;
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let path = if whole { "/events" } else { "/early" };
        let chunked = "Transfer-Encoding: chunked\r\n\r\n";
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{chunked}");
        caller.send(&[head.as_bytes(), &chunk(&[b'c'; 900])].concat()).await.expect("sent");
        let mut peer = None;
        if whole {
            caller.send(b"0\r\n\r\n").await.expect("sent");
            assert!(source.wait_for_subscribers(1, DEADLINE).await);
        } else {
            let peer = peer.insert(by_hand.accept().await);
            peer.until("ccc\r\n").await;
            peer.send(format!("HTTP/1.1 200 OK\r\n{chunked}").as_bytes()).await;
        }
        caller.until("\r\n\r\n").await.expect("the answer's head");
        if let Some(peer) = &mut peer {
            // From its next piece on nothing is kept.
            caller.send(&chunk(b"next")).await.expect("sent");
            peer.until("next").await;
        }
        stage.tokens.revoke_all();
        assert_eq!(daemon.post("/in", &pattern(900)).await.status, 200, "whole: {whole}");
        assert_eq!(replays(&daemon, "succeeded").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_in_the_middle_leaves_nothing_behind() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = format!("{HEAD}Content-Length: 1000\r\n\r\n");
    caller.send(&[head.as_bytes(), b"begun"].concat()).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.until("begun").await;
    drop(caller);
    assert_eq!(peer.rest().await, "", "its connection ends with it");
    eventually("nothing in flight", async || {
        daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0
    })
    .await;
    let (answer, ()) = tokio::join!(daemon.get("/"), async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.ok("another").await;
    });
    assert_eq!(answer.text(), "another");
}

pub fn unauthorized() -> Reply {
    Reply::status(401).header("WWW-Authenticate", "Bearer error=\"invalid_token\"")
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

async fn post_chunks(daemon: &Daemon, chunks: &[u8], trailers: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = format!("{HEAD}Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n");
    let end = format!("0\r\n{trailers}\r\n");
    let bytes = [head.as_bytes(), chunks, end.as_bytes()].concat();
    caller.send(&bytes).await.expect("sent");
    caller.answer().await.expect("an answer")
}

async fn replays(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_replays_total", &[&label]).await as u64
}
