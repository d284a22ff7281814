//! What HTTP/2 forbids and what it wants put up with, section by section, as the well-known
//! conformance suite has it. Whatever a caller does, others are served.

mod rows;

use super::frames::{PREFACE, Raw, SETTINGS, Seen, WINDOW_UPDATE, frame, get};
use super::recorder::Recorder;
use crate::stage::{Stage, route_to};
use crate::support::Daemon;
use rows::{Want, rows};

#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_a_caller_is_told_as_http2_has_it_and_others_are_served() {
    let (stage, upstream) = (Stage::new(), Recorder::listen().await);
    let route = route_to(&format!("http://{}", upstream.address), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let rows = rows();
    assert!(rows.len() >= 100, "{} rows", rows.len());
    let mut honest = Raw::greet(daemon.proxy).await;
    let (mut wrong, mut next) = (Vec::new(), 1);
    for row in &rows {
        let mut raw = Raw::greet(daemon.proxy).await;
        raw.send(&row.bytes).await;
        let seen = match row.want {
            Want::Status(stream, _) => raw.answer(stream).await,
            Want::Stream(stream, _) | Want::Alive(stream) => raw.verdict(stream).await,
            Want::Connection(_) => raw.verdict(0).await,
        };
        let as_wanted = match (row.want, &seen) {
            (Want::Status(_, wanted), Seen::Status(status)) => wanted == *status,
            (Want::Alive(_), Seen::Alive) => true,
            // Who is told of a connection's error need not be told twice.
            (Want::Connection(codes) | Want::Stream(_, codes), Seen::GoAway(code)) => {
                codes.contains(code)
            }
            (Want::Stream(_, codes), Seen::Reset(code)) => codes.contains(code),
            _ => false,
        };
        if !as_wanted {
            wrong.push(format!("{} {}: {seen:?} instead of {:?}", row.section, row.name, row.want));
        }
        // A connection's error ends it.
        if matches!(seen, Seen::GoAway(1..)) {
            assert!(raw.ends().await);
        }
        honest.send(&get(next, "/honest")).await;
        assert_eq!(honest.answer(next).await, Seen::Status(200), "{} {}", row.section, row.name);
        next += 2;
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    for request in upstream.requests(("authorization", &token)) {
        assert!(!format!("{request:?}").contains("evil"), "{request:?}");
    }
    assert!(daemon.stop().success());
}

/// RFC 9113 §3.4: both sides begin with their settings, and what is no preface is no HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_begins_with_its_preface_on_both_sides() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut raw = Raw::connect(daemon.proxy).await;
    raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
    assert_eq!(raw.next().await.map(|first| first.kind), Some(SETTINGS));
    // What else comes before them is put up with: h2's leniency.
    let mut raw = Raw::connect(daemon.proxy).await;
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    raw.send(&[PREFACE, &window, &frame(SETTINGS, 0, 0, b""), &get(1, "/")].concat()).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    for bad in ["INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSMX\r\n\r\n"] {
        let mut raw = Raw::connect(daemon.proxy).await;
        raw.send(bad.as_bytes()).await;
        assert!(raw.ends().await, "{bad:?}");
    }
    assert_eq!(stage.api.request_count(), 1);
}
