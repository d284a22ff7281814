//! Malformed and ambiguous requests, one connection each: every one is refused, or goes on as what
//! all readers understand alike.

mod rows;

use emulator::client::Client;
use tokio::time::timeout;

use super::recorder::Recorder;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon};
use rows::{Want, rows};

/// What follows each request: an honest one, which must be answered as such or not at all.
const NEXT: &str =
    "GET /next HTTP/1.1\r\nHost: localhost\r\nAuthorization: evil\r\nConnection: close\r\n\r\n";

/// Every answer on a connection that is sent `bytes`, until it closes.
async fn answers(daemon: &Daemon, bytes: &[u8]) -> Vec<(u16, Option<String>, String)> {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    // It may be closed before all of it has been written.
    let _closed = caller.send(bytes).await;
    let mut answers = Vec::new();
    while let Ok(answer) = caller.answer().await {
        let reason = answer.header("bearerd-reason").map(str::to_owned);
        let text = if reason.is_some() { String::new() } else { answer.text() };
        answers.push((answer.status, reason, text));
    }
    let rest = caller.rest().await.unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&rest), "", "behind the last answer");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_refused_means_the_same_to_every_upstream() {
    let (stage, upstream) = (Stage::new(), Recorder::listen().await);
    let more = "path_prefix = \"/judged\"\nname = \"judged\"";
    let url = format!("http://{}", upstream.address);
    let routes = route_to(&url, more) + &route_to(&url, "name = \"rest\"");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &routes));
    daemon.ready().await;
    let rows = rows();
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let (mut expected, mut wrong) = (Vec::new(), Vec::new());
    for row in &rows {
        let bytes = [&row.bytes[..], NEXT.as_bytes()].concat();
        let came = timeout(DEADLINE, answers(&daemon, &bytes)).await;
        let came = came.unwrap_or_else(|_| panic!("{}: not closed in time", row.name));
        let passed = |text: &str| (200, None, text.to_owned());
        let refused = |status, reason: &str| (status, Some(reason.to_owned()), String::new());
        let (mut wanted, goes_on) = match &row.want {
            Want::Closed(status, reason) => (vec![refused(*status, reason)], false),
            Want::Refused(status, reason) => (vec![refused(*status, reason)], true),
            Want::Passed(told) => (told.iter().map(|told| passed(told)).collect(), true),
        };
        if goes_on {
            wanted.push(passed("GET /next"));
        }
        expected.extend(wanted.iter().filter(|(status, ..)| *status == 200).cloned());
        if came != wanted {
            wrong.push(format!("{}: {came:?} instead of {wanted:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    let token = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    let seen = upstream.requests(("authorization", &token));
    assert_eq!(seen.len(), expected.len(), "more or fewer requests than were answered");
    for request in &seen {
        let text = format!("{request:?}");
        assert!(!text.contains("evil"), "{text}");
        assert!(!request.fields.iter().any(|(name, _)| name == "x-y"), "{text}");
    }
}
