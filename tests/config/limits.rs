//! Bounds: each has a range, and the message says it.

use insta::assert_snapshot;

use crate::support::{Home, VALID, changed, told};

/// A limit of the server, its least and its most.
const SERVER: [(&str, i64, i64); 10] = [
    ("connections", 1, 1_000_000),
    ("head_bytes", 8192, 1_048_576),
    ("head_fields", 1, 1000),
    ("target_bytes", 16, 65_000),
    ("head_seconds", 1, 86_400),
    ("idle_seconds", 1, 86_400),
    ("replay_bytes", 0, 1_099_511_627_776),
    ("http2_streams", 1, 10_000),
    ("http2_requests", 1, 1_000_000),
    ("http2_resets", 1, 10_000),
];

/// [`SERVER`] with a value for each, from its least and its most, before the first credential.
fn with(value: impl Fn(i64, i64) -> i64) -> String {
    let line = |(key, least, most): &(&str, _, _)| format!("{key} = {}", value(*least, *most));
    let lines = SERVER.iter().map(line).collect::<Vec<_>>().join("\n");
    changed("[credentials.orders]", &format!("[server.limits]\n{lines}\n\n[credentials.orders]"))
}

#[test]
fn every_limit_of_the_server_below_its_least_and_beyond_its_most() {
    for wrong in [|least: i64, _: i64| least - 1, |_: i64, most: i64| most + 1] {
        let lines = (6..).zip(SERVER).map(|(line, (key, least, most))| {
            let value = wrong(least, most);
            let range = format!("write a whole number from {least} to {most}");
            format!("\n  line {line}: server.limits.{key}: is {value}; {range}")
        });
        let told = Home::new().told(&with(wrong));
        let lines = lines.collect::<Vec<_>>().concat();
        assert_eq!(told, format!("10 problems in HOME/bearerd.toml:{lines}"));
    }
}

#[test]
fn every_limit_of_the_server_may_be_its_least_and_its_most() {
    for right in [|least: i64, _: i64| least, |_: i64, most: i64| most] {
        let text = with(right);
        assert!(Home::new().load(&text).is_ok(), "{text}");
    }
}

#[test]
fn limits_of_other_kinds_than_numbers() {
    assert_snapshot!(told("[credentials.orders]", "[server.limits]
connections = \"many\"
head_seconds = 1.5
http2_streams = true

[credentials.orders]"), @"
    3 problems in HOME/bearerd.toml:
      line 6: server.limits.connections: is a string; write a whole number from 1 to 1000000
      line 7: server.limits.head_seconds: is a float; write a whole number from 1 to 86400
      line 8: server.limits.http2_streams: is a boolean; write a whole number from 1 to 10000
    ");
}

#[test]
fn every_limit_of_a_credential_out_of_its_range() {
    assert_snapshot!(told("[[routes]]", "[credentials.orders.limits]
waiters = 1_000_001
answer_bytes = 1023
answer_seconds = 601
token_bytes = 15

[credentials.orders.refresh]
min_interval_seconds = 0
default_lifetime_seconds = 0
idle_after_seconds = -1

[[routes]]"), @"
    7 problems in HOME/bearerd.toml:
      line 12: credentials.orders.limits.waiters: is 1000001; write a whole number from 0 to 1000000
      line 13: credentials.orders.limits.answer_bytes: is 1023; write a whole number from 1024 to 67108864
      line 14: credentials.orders.limits.answer_seconds: is 601; write a whole number from 1 to 600
      line 15: credentials.orders.limits.token_bytes: is 15; write a whole number from 16 to 65536
      line 18: credentials.orders.refresh.min_interval_seconds: is 0; write a whole number from 1 to 86400
      line 19: credentials.orders.refresh.default_lifetime_seconds: is 0; write a whole number from 1 to 31536000
      line 20: credentials.orders.refresh.idle_after_seconds: is -1; write a whole number from 0 to 31536000
    ");
}

#[test]
fn an_unknown_limit_of_a_credential() {
    assert_snapshot!(told("[[routes]]", "[credentials.orders.limits]
answer_byte = 1024
connections = 1

[[routes]]"), @"
    2 problems in HOME/bearerd.toml:
      line 12: credentials.orders.limits.answer_byte: unknown key; did you mean `answer_bytes`?
      line 13: credentials.orders.limits.connections: unknown key; known here: answer_bytes, answer_seconds, token_bytes, waiters
    ");
}

#[test]
fn every_bound_of_a_route_out_of_its_range() {
    let bounds = "pool = { max_age_seconds = 0 }
replay = { body_bytes = -1 }
timeouts = { connect_ms = 0, response_ms = 86_400_001, idle_ms = \"1m\" }
wait_ms = -1
";
    assert_snapshot!(Home::new().told(&format!("{VALID}{bounds}")), @"
    6 problems in HOME/bearerd.toml:
      line 15: routes[0].pool.max_age_seconds: is 0; write a whole number from 1 to 86400
      line 16: routes[0].replay.body_bytes: is -1; write a whole number from 0 to 67108864
      line 17: routes[0].timeouts.connect_ms: is 0; write a whole number from 1 to 86400000
      line 17: routes[0].timeouts.response_ms: is 86400001; write a whole number from 1 to 86400000
      line 17: routes[0].timeouts.idle_ms: is a string; write a whole number from 1 to 86400000
      line 18: routes[0].wait_ms: is -1; write a whole number from 0 to 600000
    ");
}

#[test]
fn an_unknown_bound_of_a_pool() {
    assert_snapshot!(Home::new().told(&format!("{VALID}pool = {{ size = 10 }}\n")), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].pool.size: unknown key; known here: max_age_seconds
    ");
}
