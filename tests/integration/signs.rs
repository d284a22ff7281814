//! Upstreams that say by words, not by 401, that a token has expired (Q9): the answer is looked into,
//! bounded, where the route or the dialect names its status; what is no such answer passes untouched.

use std::io::{Read, Write};

use emulator::client::Client;
use emulator::http::Body;
use emulator::{Challenge, Reply, Step};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::pressure::memory;
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, request};
use crate::vendors::Rig;

/// A route that knows one sign by pointer, one by text, one in a success, and one status without words.
const SIGNS: &str = "replay = { expired = [\
    { status = 403, at = \"/0/errorCode\", is = \"SESSION_GONE\" }, \
    { status = [400, 500], has = \"token expired\" }, \
    { status = 200, at = \"/error/code\", exists = true }, \
    { status = 419 }] }";

fn gzipped(reply: Reply, body: &str) -> Reply {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    reply.header("Content-Encoding", "gzip").body(Body::Bytes(encoder.finish().unwrap()))
}

fn json_answer(status: u16, body: &str) -> Reply {
    Reply::bytes(status, "application/json;charset=UTF-8", body)
}

async fn replays(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_replays_total", &[&label]).await as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_each_sign_that_a_route_names_leads_to_one_refresh_and_one_replay() {
    let gone = r#"[{"message":"gone","errorCode":"SESSION_GONE"}]"#;
    for (name, refusal) in [
        ("a pointer", json_answer(403, gone)),
        ("without a length", json_answer(403, gone).chunked(7)),
        ("compressed", gzipped(json_answer(403, ""), gone)),
        ("a text", Reply::bytes(500, "text/xml", "<f>the token expired</f>")),
        ("no media type", Reply::status(400).body(Body::Bytes(b"token expired".to_vec()))),
        ("an error in a success", json_answer(200, r#"{"error":{"code":190}}"#)),
        ("a status without words", Reply::status(419)),
    ] {
        let stage = Stage::new();
        stage.api.set_challenge(Challenge::answer(refusal));
        let daemon = stage.ready(SIGNS).await;
        stage.tokens.revoke_all();
        let answer = daemon.post("/", b"body").await;
        assert_eq!(
            (answer.status, answer.json()["body_length"].as_u64()),
            (200, Some(4)),
            "{name}"
        );
        assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 2), "{name}");
        assert_eq!(replays(&daemon, "succeeded").await, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_what_says_nothing_of_the_token_passes_untouched() {
    let stage = Stage::new();
    let daemon = stage.ready(SIGNS).await;
    let long = format!("{}token expired", "x".repeat(9000));
    let other = r#"[{"errorCode":"NO_SUCH_THING"}]"#;
    for (name, reply, body) in [
        ("other words", json_answer(403, other), other),
        ("other words in chunks", json_answer(403, other).chunked(3), other),
        ("no JSON", json_answer(403, "{\"0"), "{\"0"),
        ("another status", json_answer(404, "token expired"), "token expired"),
        ("long", Reply::bytes(400, "text/plain", long.clone()), long.as_str()),
        (
            "long and without a length",
            Reply::bytes(400, "text/plain", long.clone()).chunked(100),
            &long,
        ),
        (
            "no text",
            Reply::bytes(400, "application/octet-stream", "token expired"),
            "token expired",
        ),
        (
            "a stream of events",
            Reply::bytes(400, "text/event-stream", "token expired"),
            "token expired",
        ),
        (
            "a success of no told length",
            json_answer(200, r#"{"error":{"code":1}}"#).chunked(4),
            r#"{"error":{"code":1}}"#,
        ),
        ("another success", json_answer(200, r#"{"fine":true}"#), r#"{"fine":true}"#),
        ("nothing", json_answer(403, ""), ""),
    ] {
        stage.api.script([Step::from(reply.header("X-Trace", "1"))]);
        let answer = daemon.get("/").await;
        assert_eq!(answer.text(), body, "{name}");
        assert_eq!((answer.header("x-trace"), answer.header("bearerd-reason")), (Some("1"), None));
    }
    assert_eq!((stage.idp.token_requests(), replays(&daemon, "succeeded").await), (1, 0));
    // The connection that they came on is as good as before.
    assert_eq!(daemon.get("/").await.status, 200);
    let connections: std::collections::HashSet<_> =
        stage.api.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_a_sign_in_the_second_answer_too_is_passed_on_and_counted() {
    let stage = Stage::new();
    let daemon = stage.ready(SIGNS).await;
    let said = r#"[{"errorCode":"SESSION_GONE","n":2}]"#;
    stage.api.set_always(Some(Step::from(json_answer(403, said))));
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (403, said));
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 2));
    assert_eq!(replays(&daemon, "unauthorized").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_without_a_newer_token_the_answer_that_was_looked_into_passes_whole() {
    let stage = Stage::new();
    let daemon = stage.ready(&format!("wait_ms = 300\n{SIGNS}")).await;
    stage.idp.set_always(Some(Step::Status(503)));
    let said = r#"[{"errorCode":"SESSION_GONE"}]"#;
    for reply in [json_answer(403, said), json_answer(403, said).chunked(5)] {
        stage.api.script([Step::from(reply)]);
        let answer = daemon.get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (403, said));
    }
    assert_eq!(replays(&daemon, "token_unavailable").await, 2);
    assert_eq!(daemon.get("/").await.status, 200, "a usable token is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_an_answer_that_breaks_off_under_the_look_is_not_passed_as_whole() {
    let stage = Stage::new();
    let daemon = stage.ready(SIGNS).await;
    let half = json_answer(403, r#"[{"errorCode":"NO_SUCH_THING"}]"#);
    stage.api.script([Step::from(half.with_fault(emulator::Fault::CutHalf))]);
    let answer = daemon.get("/").await;
    let reason = answer.header("bearerd-reason");
    assert_eq!((answer.status, reason), (502, Some("upstream_protocol")));
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_a_stream_at_a_named_status_is_not_held_back() {
    let stage = Stage::new();
    let daemon = stage.ready(SIGNS).await;
    // Only the head and the first event come for now.
    let begun = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n";
    stage.api.script([Step::Raw(begun.to_vec())]);
    let first = async {
        let mut client = Client::connect(daemon.proxy).await.expect("connected");
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        client.until("{\"a\":1}").await.expect("the first part")
    };
    let first = tokio::time::timeout(DEADLINE, first).await.expect("in time");
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_a_dialect_knows_the_signs_of_its_apis() {
    let rig = Rig::new();
    let gone =
        json!({ "errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"] });
    rig.api.set_challenge(Challenge::answer(Reply::json(403, gone)));
    rig.api.set_credential_header("x-vault-token", None);
    let tokens = rig.tokens.clone();
    let count = std::sync::atomic::AtomicU32::new(0);
    let idp = crate::sources::Told::start(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let token = format!("hvs.{number}");
        tokens.issue(&token, None);
        Reply::json(200, json!({ "auth": { "client_token": token, "lease_duration": 3600 } }))
    });
    let credential = format!(
        "provider = \"vault\"\nhost = \"{}\"\nmethod = \"approle\"\nrole_id = \"r\"\nsecret_id = {}",
        idp.url(""),
        rig.secret("secret-id", "s")
    );
    let route = "header = \"x-vault-token\"\nscheme = \"\"";
    let daemon = Daemon::start_with(&rig.home, &rig.config_with_route(&credential, route));
    daemon.ready().await;
    assert_eq!(daemon.get("/v1/secret").await.status, 200);
    // A policy that says no is no reason to log in again.
    let denied = json!({ "errors": ["1 error occurred:\n\t* permission denied\n\n"] });
    rig.api.script([Step::Json(403, denied.clone())]);
    let answer = request(daemon.proxy, "GET", "/v1/secret", &[], b"").await;
    assert_eq!((answer.status, answer.json()), (403, denied));
    assert_eq!(idp.asked().len(), 1);
    rig.tokens.revoke("hvs.0");
    assert_eq!(daemon.get("/v1/secret").await.status, 200);
    assert_eq!(idp.asked().len(), 2);
    assert!(daemon.stop().success());
}

/// Eight kilobytes that unpack to eight megabytes are looked into so far, and passed on as they are.
#[tokio::test(flavor = "multi_thread")]
async fn q9_a_bomb_is_unpacked_a_little_and_passed_on_whole() {
    let stage = Stage::new();
    let body = format!("{{\"error\":\"{}\",\"code\":\"SESSION_GONE\"}}", " ".repeat(7 << 20));
    let reply = gzipped(json_answer(403, ""), &body);
    stage.api.serve("/bomb", reply);
    let daemon = stage.ready(SIGNS).await;
    let before = memory(&daemon, "VmRSS");
    for _ in 0..20 {
        let answer = daemon.get("/bomb").await;
        assert_eq!((answer.status, answer.header("content-encoding")), (403, Some("gzip")));
        let mut unpacked = String::new();
        GzDecoder::new(&answer.body[..]).read_to_string(&mut unpacked).expect("as it was sent");
        assert_eq!(unpacked.len(), body.len());
    }
    let grown = memory(&daemon, "VmHWM").saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    assert_eq!(stage.idp.token_requests(), 1, "what lies so deep tells nothing");
}
