//! What a dialect file can say about an answer, one credential for each row, all in one daemon: bodies,
//! pointers, the shapes of an expiry, errors.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use emulator::Reply;
use serde_json::{Value, json};

use super::{lives, seconds_until};
use crate::sources::Told;
use crate::support::{Daemon, Home, eventually};

/// What a row must lead to.
enum Wanted {
    /// The row's token, for so many seconds.
    Lives(i64),
    /// No token: class, and parts of what is told.
    Fails(&'static str, &'static [&'static str]),
}

use Wanted::{Fails, Lives};

struct Row {
    name: &'static str,
    /// Of `[exchange.x]`.
    lines: &'static str,
    reply: Reply,
    wanted: Wanted,
}

fn row(name: &'static str, lines: &'static str, reply: Reply, wanted: Wanted) -> Row {
    Row { name, lines, reply, wanted }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn rfc3339(seconds: u64, fraction: &str) -> String {
    let time = jiff::Timestamp::from_second(seconds.try_into().unwrap()).unwrap().to_string();
    time.replace('Z', &format!("{fraction}Z"))
}

fn http_date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn ok(body: Value) -> Reply {
    Reply::json(200, body)
}

/// Where the token is, and what the body is made of (Q4, Q6).
fn bodies() -> Vec<Row> {
    let form = "access_token=TOKEN&token_type=bearer&expires_in=600&scope=a%2Cb";
    let form = |kind: &str| Reply::bytes(200, kind, form);
    vec![
        row(
            "RFC 6749's own",
            "",
            ok(json!({ "access_token": "TOKEN", "expires_in": 600 })),
            Lives(600),
        ),
        row(
            "token",
            "ok = { access_token = \"/token\" }",
            ok(json!({ "token": "TOKEN" })),
            Lives(300),
        ),
        row(
            "nested, in a list, with an escape",
            "ok = { access_token = \"/a~1b/0/c~0d\" }",
            ok(json!({ "a/b": [{ "c~d": "TOKEN" }] })),
            Lives(300),
        ),
        row(
            "id_token",
            "ok = { access_token = \"/id_token\" }",
            ok(json!({ "access_token": "x", "id_token": "TOKEN" })),
            Lives(300),
        ),
        row(
            "a form",
            "ok = { body = \"form\" }",
            form("application/x-www-form-urlencoded"),
            Lives(600),
        ),
        row(
            "a form called text",
            "ok = { body = \"form\" }",
            form("text/plain; charset=utf-8"),
            Lives(600),
        ),
        row(
            "an error as a form",
            "ok = { body = \"form\" }",
            Reply::bytes(200, "application/x-www-form-urlencoded", "error=invalid_grant"),
            Fails("terminal", &["invalid_grant"]),
        ),
        row(
            "a text",
            "ok = { body = \"text\" }",
            Reply::bytes(200, "text/plain", "\u{feff}TOKEN\r\n"),
            Lives(300),
        ),
        row(
            "success by 201 only",
            "ok = { status = 201 }",
            Reply::json(201, json!({ "access_token": "TOKEN" })),
            Lives(300),
        ),
        row(
            "another success",
            "ok = { status = 201 }",
            ok(json!({ "access_token": "TOKEN" })),
            Fails("transient", &["200 (unusable)", "not in the form"]),
        ),
        row(
            "another type",
            "ok = { token_type = { at = \"/kind\", accept = [\"BearerToken\"] } }",
            ok(json!({ "access_token": "TOKEN", "kind": "bearertoken" })),
            Lives(300),
        ),
        row(
            "a field that a success must have",
            "ok = { headers = { x-issued-by = \"acme\" } }",
            ok(json!({ "access_token": "TOKEN" })).header("X-Issued-By", "acme"),
            Lives(300),
        ),
        row(
            "without that field",
            "ok = { headers = { x-issued-by = \"acme\" } }",
            ok(json!({ "access_token": "TOKEN" })),
            Fails("transient", &["(unusable)"]),
        ),
    ]
}

/// The shapes of an expiry (Q1, Q2).
fn expiries() -> Vec<Row> {
    let in_an_hour = now() + 3600;
    let claims = BASE64_URL_SAFE_NO_PAD.encode(json!({ "exp": in_an_hour }).to_string());
    let jwt = format!("eyJhbGciOiJub25lIn0.{claims}.TOKEN");
    let with = |field: &str, value: Value| ok(json!({ "access_token": "TOKEN", field: value }));
    vec![
        row(
            "seconds",
            "ok = { expiry = [{ at = \"/ttl\", as = \"seconds\" }] }",
            with("ttl", json!(3600)),
            Lives(3600),
        ),
        row(
            "seconds as text",
            "ok = { expiry = [{ at = \"/ttl\", as = \"seconds\" }] }",
            with("ttl", json!("3600")),
            Lives(3600),
        ),
        row(
            "seconds with a fraction",
            "ok = { expiry = [{ at = \"/ttl\", as = \"seconds\" }] }",
            with("ttl", json!(3600.9)),
            Lives(3601),
        ),
        row(
            "a zero that means never",
            "ok = { expiry = [{ at = \"/ttl\", as = \"seconds\", zero = \"never\" }] }",
            with("ttl", json!(0)),
            Lives(366 * 86_400),
        ),
        row(
            "a zero that means nothing",
            "ok = { expiry = [{ at = \"/ttl\", as = \"seconds\" }] }",
            with("ttl", json!(0)),
            Lives(300),
        ),
        row(
            "seconds since 1970",
            "ok = { expiry = [{ at = \"/until\", as = \"epoch_seconds\" }] }",
            with("until", json!(in_an_hour.to_string())),
            Lives(3600),
        ),
        row(
            "milliseconds since 1970",
            "ok = { expiry = [{ at = \"/until\", as = \"epoch_milliseconds\" }] }",
            with("until", json!(in_an_hour * 1000)),
            Lives(3600),
        ),
        row(
            "RFC 3339",
            "ok = { expiry = [{ at = \"/until\", as = \"rfc3339\" }] }",
            with("until", json!(rfc3339(in_an_hour, ".1234567"))),
            Lives(3601),
        ),
        row(
            "RFC 3339 of a clock that is a day behind",
            "ok = { expiry = [{ at = \"/expires_in\", as = \"seconds\" }, { at = \"/until\", as = \"rfc3339\", issued = \"/since\" }] }",
            ok(
                json!({ "access_token": "TOKEN", "expires_in": 3600, "since": rfc3339(now() - 86_400, ""), "until": rfc3339(now() - 86_400 + 1800, "") }),
            ),
            Lives(1800),
        ),
        row(
            "a date as in HTTP",
            "ok = { expiry = [{ at = \"/.expires\", as = \"http_date\" }] }",
            with(".expires", json!(http_date(in_an_hour))),
            Lives(3600),
        ),
        row(
            "a date as in HTTP of a clock that is a day behind",
            "ok = { expiry = [{ at = \"/expires_in\", as = \"seconds\" }, { at = \"/.expires\", as = \"http_date\", issued = \"/.issued\" }] }",
            ok(
                json!({ "access_token": "TOKEN", "expires_in": 3600, ".issued": http_date(now() - 86_400), ".expires": http_date(now() - 86_400 + 1800) }),
            ),
            Lives(1800),
        ),
        row(
            "exp of the token",
            "ok = { expiry = [{ as = \"jwt_exp\" }] }",
            ok(json!({ "access_token": jwt })),
            Lives(3600),
        ),
        row(
            "the earliest of all",
            "ok = { expiry = [{ at = \"/a\", as = \"seconds\" }, { at = \"/b\", as = \"epoch_seconds\" }, { as = \"jwt_exp\" }] }",
            ok(json!({ "access_token": "TOKEN", "a": 9000, "b": in_an_hour })),
            Lives(3600),
        ),
        row("none at all", "ok = { expiry = [] }", with("expires_in", json!(7)), Lives(300)),
    ]
}

/// Errors, also within a success (Q5, Q7, Q8).
fn errors() -> Vec<Row> {
    vec![
        row(
            "ok is false",
            "error = [{ id = \"E1\", at = \"/ok\", is = \"false\", outcome = \"terminal\", reason = \"bad_grant\", hint = \"say please\" }]",
            ok(json!({ "ok": false, "error": "no_auth", "access_token": "TOKEN" })),
            Fails("terminal", &["200 (bad_grant)", "rule E1", "say please"]),
        ),
        row(
            "part of a message",
            "error = [{ id = \"E2\", at = \"/errors/0/message\", has = \"try again\", outcome = \"transient\", reason = \"conflict\" }]",
            Reply::json(409, json!({ "errors": [{ "message": "busy: try again later" }] })),
            Fails("transient", &["409 (conflict)", "rule E2"]),
        ),
        row(
            "a code as number",
            "error = [{ id = \"E3\", status = \"4xx\", at = \"/code\", is = \"540\", outcome = \"transient\" }]",
            Reply::json(418, json!({ "code": 540 })),
            Fails("transient", &["418", "rule E3"]),
        ),
        row(
            "there, and something else missing",
            "error = [{ id = \"E4\", at = \"/mfa_token\", exists = true, missing = \"/access_token\", outcome = \"terminal\", reason = \"needs_operator\" }]",
            ok(json!({ "mfa_token": "x", "access_token": null })),
            Fails("terminal", &["200 (needs_operator)", "rule E4"]),
        ),
        row(
            "nothing at all",
            "error = [{ id = \"E5\", status = [401, 403], empty = true, outcome = \"transient\" }]",
            Reply::status(401),
            Fails("transient", &["401", "rule E5"]),
        ),
        row(
            "a page",
            "error = [{ id = \"E6\", type = \"text/html\", outcome = \"terminal\", reason = \"not_found\" }]",
            Reply::html(200),
            Fails("terminal", &["200 (not_found)", "rule E6"]),
        ),
        row(
            "the first one counts",
            "error = [{ id = \"E7\", status = 400, outcome = \"transient\" }, { id = \"E8\", status = 400, outcome = \"terminal\" }]",
            Reply::json(400, json!({ "error": "invalid_grant" })),
            Fails("transient", &["400", "rule E7"]),
        ),
        row(
            "what no rule fits",
            "error = [{ id = \"E9\", status = 403, outcome = \"transient\" }]",
            Reply::json(403, json!({ "error": "invalid_grant" })).header("X", "y"),
            Fails("transient", &["403", "rule E9"]),
        ),
        row(
            "RFC 6749's own",
            "",
            Reply::json(400, json!({ "error": "invalid_client" })),
            Fails("terminal", &["invalid_client"]),
        ),
    ]
}

/// The identity provider of all rows, each below a path of its own, with its own token.
fn provider(replies: Vec<Reply>) -> Told {
    Told::start(move |request| {
        let index: usize = request.path().trim_start_matches('/').parse().expect("a number");
        replies[index].clone()
    })
}

fn config(home: &Home, rows: &[Row], idp: &Told, api: &Told) -> String {
    let mut text = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n".to_owned();
    for (index, row) in rows.iter().enumerate() {
        let dialect = format!(
            "format = 1\nname = \"row\"\nflow = {{ obtain = [\"x\"] }}\n\
             [keys]\nhost = {{ kind = \"host\", required = true }}\n\
             [exchange.x]\nurl = \"{{host}}/{index}\"\n{}\n",
            row.lines
        );
        let path = home.write(&format!("{index}.toml"), &dialect);
        text += &format!(
            "[credentials.c{index}]\nprovider = \"custom\"\ndialect = \"{path}\"\nhost = \"{}\"\n\
             [[routes]]\npath_prefix = \"/r/{index}\"\nupstream = \"{}\"\ncredential = \"c{index}\"\n",
            idp.url(""),
            api.url("")
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn q2_q4_q5_q6_q7_q8_each_thing_that_a_dialect_can_say_about_an_answer_holds() {
    let rows: Vec<Row> = bodies().into_iter().chain(expiries()).chain(errors()).collect();
    let idp = provider(rows.iter().map(|row| row.reply.clone()).collect());
    // The token is as good as the answer it came in: what is sent must end with it.
    let api = Told::start(|request| {
        let sent = request.header("authorization").unwrap_or_default();
        let right = sent.starts_with("Bearer ") && sent.ends_with("TOKEN");
        Reply::status(if right { 200 } else { 403 })
    });
    let home = Home::new();
    let daemon = Daemon::start_with(&home, &config(&home, &rows, &idp, &api));
    eventually("each row has had its answer", async || {
        let status = daemon.status().await;
        let all = status["credentials"].as_array().expect("a list").clone();
        all.iter().all(|credential| credential["last"]["outcome"].is_string())
    })
    .await;
    let status = daemon.status().await;
    for (index, row) in rows.iter().enumerate() {
        let credential = &status["credentials"][index];
        let detail = credential["last"]["detail"].as_str().unwrap_or_default();
        match row.wanted {
            Lives(seconds) => {
                assert_eq!(credential["last"]["outcome"], "ok", "{}: {detail}", row.name);
                let left = seconds_until(&credential["expires_at"]);
                assert!((seconds - 20..=seconds).contains(&left), "{}: {left} s", row.name);
                let answer = daemon.get(&format!("/r/{index}")).await;
                assert_eq!(answer.status, 200, "{}", row.name);
            }
            Fails(class, parts) => {
                assert_eq!(credential["last"]["outcome"], class, "{}: {detail}", row.name);
                for part in parts {
                    assert!(detail.contains(part), "{}: no {part:?} in {detail:?}", row.name);
                }
            }
        }
    }
    for request in idp.asked() {
        assert_eq!((request.method.as_str(), request.body.len()), ("POST", 0));
    }
    assert!(daemon.stop().success());
}

/// Where a token goes: header and scheme of the route, and what must arrive (Q23).
const PLACES: [(&str, &str, &str, &str); 6] = [
    ("authorization", "Bearer", "authorization", "Bearer the-token"),
    ("authorization", "token", "authorization", "token the-token"),
    ("authorization", "OAuth", "authorization", "OAuth the-token"),
    ("x-vault-token", "", "x-vault-token", "the-token"),
    ("Private-Token", "", "private-token", "the-token"),
    ("csp-auth-token", "", "csp-auth-token", "the-token"),
];

#[tokio::test(flavor = "multi_thread")]
async fn q23_a_token_goes_where_the_route_says_and_the_callers_copy_goes_nowhere() {
    let idp = Told::start(|_| ok(json!({ "access_token": "the-token", "token_type": "bearer" })));
    let api = Told::start(|_| Reply::status(200));
    let home = Home::new();
    let secret = home.write("secret", "s");
    let mut config = format!(
        "[credentials.c]\ngrant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
         client_secret = {{ file = \"{secret}\" }}\n",
        idp.url("/token")
    );
    for (index, (header, scheme, ..)) in PLACES.iter().enumerate() {
        config += &format!(
            "[[routes]]\npath_prefix = \"/{index}\"\nupstream = \"{}\"\ncredential = \"c\"\n\
             header = \"{header}\"\nscheme = \"{scheme}\"\n",
            api.url("")
        );
    }
    let daemon = Daemon::start(&home, &config);
    daemon.ready().await;
    for (index, (header, _, name, value)) in PLACES.iter().enumerate() {
        let spellings = [header.to_uppercase(), header.replace('-', "_"), (*header).to_owned()];
        let own: Vec<(&str, &str)> = spellings.iter().map(|s| (s.as_str(), "mine")).collect();
        let target = format!("/{index}");
        let answer = crate::support::request(daemon.proxy, "GET", &target, &own, b"").await;
        assert_eq!(answer.status, 200, "{header}");
        let request = api.asked().pop().unwrap();
        let carried: Vec<_> = request
            .head
            .iter()
            .filter(|(n, _)| n.replace('_', "-").eq_ignore_ascii_case(name))
            .collect();
        assert_eq!(carried.len(), 1, "{header}: {carried:?}");
        assert_eq!(request.header(name).as_deref(), Some(*value));
        let all = String::from_utf8_lossy(
            &request.head.iter().flat_map(|(_, v)| v.clone()).collect::<Vec<u8>>(),
        )
        .into_owned();
        assert!(!all.contains("mine"), "{header}");
    }
    lives(&daemon.status().await["credentials"][0], 300);
    assert!(daemon.stop().success());
}
