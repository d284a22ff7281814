//! The table: a name, the answer, what it must lead to, and a part of what is told about it. A `#` in
//! an answer becomes the number of its row, so that an accepted token is known to be that row's.

use std::time::Duration;

use emulator::{Fault, Reply};
use serde_json::json;

use super::{CANARY, Outcome};
use Outcome::{Ok, Terminal, Transient};

/// One answer.
pub struct Row {
    pub name: String,
    pub reply: Reply,
    pub outcome: Outcome,
    pub told: &'static str,
}

/// All of them.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    statuses(&mut rows);
    oauth_errors(&mut rows);
    no_token(&mut rows);
    odd_tokens(&mut rows);
    odd_but_good(&mut rows);
    broken_http(&mut rows);
    rows
}

fn add(rows: &mut Vec<Row>, name: &str, reply: Reply, outcome: Outcome, told: &'static str) {
    rows.push(Row { name: name.to_owned(), reply, outcome, told });
}

/// A JSON text in which `T` is the canary and `NEW` the token that this row's credential may get.
fn text(rows: &[Row], body: &str) -> Vec<u8> {
    let new = format!("{CANARY}-new-{}", rows.len());
    body.replace("NEW", &new).replace("\"T", &format!("\"{CANARY}")).into_bytes()
}

fn json_text(rows: &[Row], status: u16, body: &str) -> Reply {
    Reply::bytes(status, "application/json", text(rows, body))
}

/// Statuses with nothing that could be read.
fn statuses(rows: &mut Vec<Row>) {
    let terminal = [300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 409, 410];
    let more = [411, 413, 415, 417, 418, 422, 423, 428, 431, 451];
    for status in terminal.into_iter().chain(more) {
        let reply = Reply::bytes(status, "text/html", format!("<p>{CANARY}</p>"))
            .header("Location", format!("http://127.0.0.1:1/{CANARY}"));
        add(rows, &format!("status {status}"), reply, Terminal, "identity provider answered");
    }
    for status in [408, 425, 429, 500, 501, 502, 503, 504, 507, 511, 599] {
        let reply = Reply::bytes(status, "text/plain", CANARY);
        add(rows, &format!("status {status}"), reply, Transient, "identity provider answered");
    }
    for after in ["-1", "soon", "99999999999999999999", "", "1e9"] {
        let reply = Reply::status(503).header("Retry-After", after);
        add(rows, &format!("Retry-After {after:?}"), reply, Transient, "503 (server)");
    }
}

/// Errors in OAuth's words, in all places where they were seen.
fn oauth_errors(rows: &mut Vec<Row>) {
    for (error, outcome) in [
        ("invalid_request", Terminal),
        ("invalid_client", Terminal),
        ("invalid_grant", Terminal),
        ("unauthorized_client", Terminal),
        ("unsupported_grant_type", Terminal),
        ("invalid_scope", Terminal),
        ("invalid_target", Terminal),
        ("access_denied", Terminal),
        ("temporarily_unavailable", Transient),
        ("server_error", Transient),
        ("slow_down", Transient),
    ] {
        for status in [200, 400] {
            let body =
                json!({ "error": error, "error_description": CANARY, "access_token": CANARY });
            let reply = Reply::json(status, body);
            add(rows, &format!("{error} by {status}"), reply, outcome, error);
        }
    }
    for (name, status, body, outcome, told) in [
        ("an unknown word", 400, json!({ "error": CANARY }), Terminal, "(not a known word)"),
        (
            "an error as object",
            400,
            json!({ "error": { "code": CANARY } }),
            Terminal,
            "bad_request",
        ),
        ("an error as list", 401, json!({ "error": [CANARY] }), Terminal, "bad_client"),
        (
            "an error of wrong status",
            403,
            json!({ "error": "invalid_grant" }),
            Terminal,
            "invalid_grant",
        ),
        ("a word under a 5xx", 503, json!({ "error": "invalid_grant" }), Transient, "503 (server)"),
        ("a word under a 429", 429, json!({ "error": "invalid_grant" }), Transient, "rate_limited"),
        (
            "problem+json",
            401,
            json!({ "type": "x", "title": CANARY, "status": 401 }),
            Terminal,
            "bad_client",
        ),
        ("an empty word", 400, json!({ "error": "" }), Terminal, "bad_request"),
    ] {
        add(rows, name, Reply::json(status, body), outcome, told);
    }
}

/// Successes without a token in them.
fn no_token(rows: &mut Vec<Row>) {
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "true",
        "12",
        "\"T\"",
        "{\"access_token\"",
        "{\"access_token\":\"T\"",
        "{\"access_token\":\"T\",}",
        "{'access_token':'T'}",
        "{access_token:\"T\"}",
        "{\"access_token\":\"T\"}{\"access_token\":\"T\"}",
        "{\"access_token\":\"T\"} trailing",
        "<html>T</html>",
        "access_token=T&token_type=bearer",
        "T",
        "\u{feff}",
        "\0\0\0\0",
        "{\"access_token\":null,\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"\"}",
        "{\"access_token\":1234567890}",
        "{\"access_token\":true}",
        "{\"access_token\":[\"T\"]}",
        "{\"access_token\":{\"value\":\"T\"}}",
        "{\"Access_Token\":\"T\"}",
        "{\"token\":\"T\"}",
        "{\"data\":{\"access_token\":\"T\"}}",
        "[{\"access_token\":\"T\"}]",
        "{\"access_token\":\"T1\",\"access_token\":\"T2\",\"token_type\":\"Bearer\"}",
        "{\"ok\":false,\"message\":\"T\"}",
        "{\"mfa_token\":\"T\"}",
        "{\"access_token\":\"\\ud800\"}",
        "{\"access_token\":\"T\\\"}",
    ] {
        let reply = json_text(rows, 200, body);
        add(rows, &format!("200 with {body:?}"), reply, Transient, "200 (unusable)");
    }
    let utf16: Vec<u8> =
        "{\"access_token\":\"T\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let nested = format!("{}\"{CANARY}\"{}", "[".repeat(5000), "]".repeat(5000));
    for (name, body) in [
        ("UTF-16", utf16),
        ("bytes that are no UTF-8", b"{\"access_token\":\"\xff\xfe\"}".to_vec()),
        ("gzip that nobody asked for", b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec()),
        ("deep nesting", nested.into_bytes()),
        ("a number beyond all", format!("{{\"access_token\":1{}}}", "0".repeat(5000)).into_bytes()),
        ("two megabytes of space", vec![b' '; 2 << 20]),
    ] {
        let reply = Reply::bytes(200, "application/json", body);
        add(rows, name, reply, Transient, "(unusable)");
    }
    let spaces = Reply::bytes(200, "application/json", vec![b' '; 4 << 20]).chunked(1000);
    add(rows, "space without end", spaces, Transient, "larger than limits.answer_bytes");
    for coding in ["gzip", "deflate", "br", "zstd"] {
        // A megabyte of nothing in a few bytes; nobody unpacks it.
        let packed =
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xed\xc1\x01\x01\x00\x00\x00\x80\x90\xfe";
        let reply = Reply::bytes(200, "application/json", packed.to_vec())
            .header("Content-Encoding", coding);
        add(rows, &format!("something in {coding}"), reply, Transient, "(unusable)");
    }
    add(rows, "204", Reply::status(204), Transient, "204 (unusable)");
    add(rows, "205", Reply::status(205), Transient, "205 (unusable)");
}

/// Tokens that cannot be injected.
fn odd_tokens(rows: &mut Vec<Row>) {
    for (name, value) in [
        ("a space", "T and more"),
        ("a line break", "T\\r\\nX-Evil: 1"),
        ("a NUL", "T\\u0000"),
        ("a tab", "T\\t"),
        ("an umlaut", "Tä"),
        ("DEL", "T\\u007f"),
        ("a lone LF", "T\\nX-Evil: 1"),
        ("a lone CR", "T\\rX-Evil: 1"),
        ("a vertical tab", "T\\u000b"),
        ("a next line", "T\\u0085"),
        ("a line separator", "T\\u2028X-Evil: 1"),
        ("a space that does not break", "T\\u00a0"),
        ("a soft hyphen", "T\\u00ad"),
        ("a space without width", "T\\u200b"),
        ("a joiner without width", "T\\u200d"),
        ("a turn to the left", "T\\u202e"),
        ("a byte order mark", "T\\ufeff"),
        ("a fullwidth letter", "T\\uff21"),
        ("a Cyrillic letter", "T\\u0430"),
        ("a letter beyond 16 bits", "T\\ud835\\udc00"),
        ("a tag character", "T\\udb40\\udc41"),
    ] {
        let body = format!("{{\"access_token\":\"{value}\",\"token_type\":\"Bearer\"}}");
        let reply = json_text(rows, 200, &body);
        add(rows, &format!("{name} in the token"), reply, Transient, "other than visible ASCII");
    }
    let megabyte = format!("{{\"access_token\":\"{}\"}}", CANARY.repeat(50_000));
    let reply = Reply::bytes(200, "application/json", megabyte);
    add(rows, "nearly 1 MiB", reply, Transient, "longer than limits.token_bytes");
    let megabyte = format!("{{\"access_token\":\"{}\"}}", CANARY.repeat(60_000));
    let reply = Reply::bytes(200, "application/json", megabyte);
    add(rows, "more than 1 MiB", reply, Transient, "larger than limits.answer_bytes");
    let long = json!({ "access_token": CANARY.repeat(1000), "token_type": "Bearer" });
    add(rows, "19 KiB", Reply::json(200, long), Transient, "longer than limits.token_bytes");
    for kind in
        ["\"mac\"", "\"N_A\"", "\"DPoP\"", "\"Bearer \"", "1", "{}", "[\"Bearer\"]", "\"T\""]
    {
        let reply =
            json_text(rows, 200, &format!("{{\"access_token\":\"T\",\"token_type\":{kind}}}"));
        add(rows, &format!("token_type {kind}"), reply, Transient, "token_type");
    }
    // {"exp":1}, and nothing else says how long it lives.
    let dead = json!({ "access_token": "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln" });
    add(
        rows,
        "a JWT that is long dead",
        Reply::json(200, dead),
        Transient,
        "had expired when it came",
    );
}

/// What looks odd and is a token all the same.
fn odd_but_good(rows: &mut Vec<Row>) {
    for expiry in [
        "3600",
        "\"3600\"",
        "\" 3600 \"",
        "3600.5",
        "3.6e3",
        "0",
        "-1",
        "null",
        "\"\"",
        "\"soon\"",
        "true",
        "{}",
        "[3600]",
        "1000000000000000000",
        "1e308",
        "\"1e400\"",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551616",
        "\"-1\"",
        "\"+3600\"",
        "\"0x10\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"-Infinity\"",
        "\"an hour\"",
        "\"2999-01-01T00:00:00Z\"",
        "\"\\uff13\\uff16\"",
        "\"1\\r\\n2\"",
        "false",
        "[]",
    ] {
        let body = format!(
            "{{\"access_token\":\"NEW\",\"token_type\":\"Bearer\",\"expires_in\":{expiry}}}"
        );
        let reply = json_text(rows, 200, &body);
        add(rows, &format!("expires_in {expiry}"), reply, Ok, "");
    }
    for kind in ["\"bearer\"", "\"BEARER\"", "null"] {
        let body = format!("{{\"access_token\":\"NEW\",\"token_type\":{kind}}}");
        let reply = json_text(rows, 200, &body);
        add(rows, &format!("token_type {kind}"), reply, Ok, "");
    }
    for (name, body) in [
        ("no token_type", "{\"access_token\":\"NEW\"}"),
        ("a byte order mark", "\u{feff}{\"access_token\":\"NEW\"}"),
        ("space around", " \r\n\t{ \"access_token\" : \"NEW\" } \n"),
        ("an escape", "{\"access_token\":\"\\u004eEW\"}"),
        ("a null error", "{\"error\":null,\"access_token\":\"NEW\"}"),
        (
            "a refresh token that nobody asked for",
            "{\"access_token\":\"NEW\",\"refresh_token\":\"T\"}",
        ),
        ("a scope as list", "{\"access_token\":\"NEW\",\"scope\":[\"a\"],\"id_token\":\"T\"}"),
        ("another key twice", "{\"x\":\"T\",\"x\":2,\"access_token\":\"NEW\"}"),
        ("expires_in twice", "{\"expires_in\":1,\"expires_in\":2,\"access_token\":\"NEW\"}"),
    ] {
        let body = body.replace("\\u004eEW", "\\u0063anary-Zq8Wn3Lk5Vt0-new-#");
        let body = body.replace('#', &rows.len().to_string());
        let reply = json_text(rows, 200, &body);
        add(rows, name, reply, Ok, "");
    }
    let good = "{\"access_token\":\"NEW\"}";
    for status in [201, 202, 203] {
        let reply = json_text(rows, status, good);
        add(rows, &format!("success by {status}"), reply, Ok, "");
    }
    for kind in ["text/html", "application/json; charset=\"utf-8\"", "application/x-unknown", ";;"]
    {
        let reply = Reply::bytes(200, kind, text(rows, good));
        add(rows, &format!("content type {kind}"), reply, Ok, "");
    }
    let reply = json_text(rows, 200, good).chunked(3).trailer("X-After", CANARY);
    add(rows, "small chunks and a trailer", reply, Ok, "");
    let reply = json_text(rows, 200, good).close_delimited();
    add(rows, "ended by the connection's end", reply, Ok, "");
    let reply = json_text(rows, 200, good).drip(5, Duration::from_millis(5));
    add(rows, "drop by drop", reply, Ok, "");
    let cookies = (0..30).fold(json_text(rows, 200, good), |reply, index| {
        reply.header("Set-Cookie", format!("c{index}={CANARY}"))
    });
    add(rows, "cookies", cookies, Ok, "");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n".repeat(3);
    let reply = json_text(rows, 200, good).interim(&hints);
    add(rows, "interim answers before it", reply, Ok, "");
}

/// What is no answer at all.
fn broken_http(rows: &mut Vec<Row>) {
    let raw =
        |text: &str| Reply::fault(Fault::Garbage(text.replace("CANARY", CANARY).into_bytes()));
    let body = "{\"access_token\":\"CANARY\"}";
    for (name, text) in [
        ("not HTTP", "CANARY\r\n\r\n".to_owned()),
        ("TLS in plaintext", "\x16\x03\x01\x02\x00".to_owned()),
        ("HTTP/2", "\0\0\x12\x04\0\0\0\0\0".to_owned()),
        ("half a head", "HTTP/1.1 200 OK\r\nX-Secret: CANARY".to_owned()),
        ("no status", format!("HTTP/1.1\r\n\r\n{body}")),
        ("a status of five digits", format!("HTTP/1.1 20000 OK\r\n\r\n{body}")),
        (
            "two lengths",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{body}"),
        ),
        (
            "a length that is no number",
            format!("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{body}"),
        ),
        (
            "a length beyond all",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{body}"),
        ),
        ("less than its length", format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{body}")),
        (
            "a chunk size that is none",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nCANARY\r\n".to_owned(),
        ),
        (
            "chunks without an end",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\n{body}"),
        ),
        ("a NUL in a field", format!("HTTP/1.1 200 OK\r\nX: CANARY\0\r\n\r\n{body}")),
        (
            "a huge field",
            format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n{body}", "CANARY".repeat(100_000)),
        ),
        (
            "a thousand fields",
            format!("HTTP/1.1 200 OK\r\n{}\r\n{body}", "X: CANARY\r\n".repeat(1000)),
        ),
    ] {
        add(rows, name, raw(&text), Transient, "no token answer");
    }
    add(rows, "nothing at all", Reply::fault(Fault::Lost), Transient, "(network)");
    add(rows, "a reset", Reply::fault(Fault::Reset), Transient, "(network)");
    add(rows, "silence", Reply::fault(Fault::Hang), Transient, "(timeout)");
    let slow =
        Reply::bytes(200, "application/json", " ".repeat(4000)).drip(1, Duration::from_millis(100));
    add(rows, "a body without end", slow, Transient, "(timeout)");
    let half = Reply::json(200, json!({ "access_token": CANARY })).with_fault(Fault::CutHalf);
    add(rows, "half a body", half, Transient, "(network)");
}
