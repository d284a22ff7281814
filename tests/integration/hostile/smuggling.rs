//! HTTP/2 callers that would smuggle: what of their fields reaches an upstream of HTTP/1.1.

use super::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Raw, Seen, WHOLE, block, frame, post, request,
};
use super::recorder::Recorder;
use crate::stage::{Stage, route_to};
use crate::support::Daemon;

async fn stage() -> (Stage, Recorder, Daemon) {
    let (stage, upstream) = (Stage::new(), Recorder::listen().await);
    let route = route_to(&format!("http://{}", upstream.address), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    (stage, upstream, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_up_once_whatever_an_http2_caller_sends_and_others_fields_do_not() {
    let (stage, upstream, daemon) = stage().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    let mut stream = 1;
    for fields in [
        &[("authorization", "evil")][..],
        &[("authorization", "evil"), ("authorization", "evil")],
        &[("author_ization", "evil"), ("x_y", "evil")],
        &[("proxy-authorization", "evil")],
        &[("x-forwarded-host", "evil"), ("forwarded", "host=evil")],
        &[("te", "trailers")],
        &[("expect", "100-continue")],
    ] {
        raw.send(&frame(HEADERS, WHOLE, stream, &request("GET", "/a", fields))).await;
        assert_eq!(raw.answer(stream).await, Seen::Status(200), "{fields:?}");
        stream += 2;
    }
    for trailers in [
        &[("authorization", "evil")][..],
        &[("author_ization", "evil"), ("host", "evil"), ("cookie", "evil")],
        &[("content-length", "9"), ("x-sum", "1")],
    ] {
        let body = frame(DATA, 0, stream, b"abc");
        let trailers = frame(HEADERS, WHOLE, stream, &block(trailers));
        raw.send(&[post(stream, "/in", &[]), body, trailers].concat()).await;
        assert_eq!(raw.answer(stream).await, Seen::Status(200), "{stream}");
        stream += 2;
    }
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    let seen = upstream.requests(("authorization", &token));
    assert_eq!(seen.len(), 10);
    for request in &seen {
        let text = format!("{request:?}");
        assert!(!text.contains("evil") && request.values("x-y").is_empty(), "{text}");
        assert!(request.method == "GET" || request.body == b"abc", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crumbs_of_a_cookie_are_one_line_and_no_field_becomes_another() {
    let (stage, upstream, daemon) = stage().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
    raw.send(&frame(HEADERS, WHOLE, 1, &request("GET", "/a", &crumbs))).await;
    assert_eq!(raw.answer(1).await, Seen::Status(200));
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    let seen = upstream.requests(("authorization", &token));
    assert_eq!(seen[0].values("cookie"), ["a=1; b=2; c=3; d=4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_for_is_judged_in_http2_as_in_http1() {
    let (stage, upstream, daemon) = stage().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    let mut stream = 1;
    let asked = |method: &'static str, scheme: &'static str, authority: &'static str| {
        vec![(":method", method), (":scheme", scheme), (":path", "/a"), (":authority", authority)]
    };
    let base = |authority| asked("GET", "http", authority);
    let with = |authority, field| [base(authority), vec![field]].concat();
    for (fields, status) in [
        (base("evil.test"), 421),
        (base("localhost@evil.test"), 400),
        (base("evil@localhost"), 400),
        (base("localhost,evil"), 400),
        (with("localhost", ("host", "evil.test")), 400),
        (with("evil.test", ("host", "localhost")), 400),
        (with("localhost", ("origin", "https://evil.test")), 403),
        (with("localhost", ("sec-fetch-site", "cross-site")), 403),
        (with("localhost", ("host", "localhost")), 200),
        (base("LOCALHOST:1"), 200),
        (base("localhost")[..3].to_vec(), 400),
        (asked("TRACE", "http", "localhost"), 405),
        (vec![(":method", "CONNECT"), (":authority", "localhost:443")], 405),
        (asked("GET", "evil", "localhost"), 200),
    ] {
        raw.send(&frame(HEADERS, WHOLE, stream, &block(&fields))).await;
        let seen = raw.answer(stream).await;
        // What h2 knows to be no authority it resets by itself.
        let fits = seen == Seen::Status(status) || (status == 400 && seen == Seen::Reset(1));
        assert!(fits, "{fields:?}: {seen:?}");
        stream += 2;
    }
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    let seen = upstream.requests(("authorization", &token));
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// A body shorter or longer than it says is nobody's whole request.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_lies_reaches_no_upstream_as_a_whole_request() {
    let (stage, upstream, daemon) = stage().await;
    for (said, parts) in [("9", &["abc"][..]), ("2", &["abc"]), ("5", &["abc", "abc"])] {
        let mut raw = Raw::greet(daemon.proxy).await;
        raw.send(&post(1, "/lies", &[("content-length", said)])).await;
        for (index, part) in parts.iter().enumerate() {
            let end = if index + 1 == parts.len() { END_STREAM } else { 0 };
            raw.send(&frame(DATA, end, 1, part.as_bytes())).await;
        }
        let seen = raw.answer(1).await;
        assert!(matches!(seen, Seen::Reset(1) | Seen::Status(400 | 502)), "{said}: {seen:?}");
    }
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    assert_eq!(upstream.requests(("authorization", &token)).len(), 0);
}

/// The same name over and over costs as much as different ones.
#[tokio::test(flavor = "multi_thread")]
async fn more_fields_than_are_allowed_are_refused_in_http2_too() {
    let (stage, upstream, daemon) = stage().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    let many = vec![("x", "y"); 101];
    raw.send(&frame(HEADERS, WHOLE, 1, &request("GET", "/a", &many))).await;
    assert_eq!(raw.answer(1).await, Seen::Status(431));
    let long = "a".repeat(15 << 10);
    let head = request("GET", "/a", &[("x", &long), ("y", &long)]);
    let (first, rest) = head.split_at(16 << 10);
    let open = frame(HEADERS, END_STREAM, 3, first);
    let rest = frame(super::frames::CONTINUATION, END_HEADERS, 3, rest);
    raw.send(&[open, rest].concat()).await;
    assert_eq!(raw.answer(3).await, Seen::Status(200), "30 KiB of 64");
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    assert_eq!(upstream.requests(("authorization", &token)).len(), 1);
}
