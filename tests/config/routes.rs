//! `[[routes]]`.

use insta::assert_snapshot;

use crate::support::{Home, VALID, told};

#[test]
fn no_upstream() {
    assert_snapshot!(told(r#"upstream = "https://api.example.com"
"#, ""), @r#"
    1 problem in HOME/bearerd.toml:
      line 11: routes[0].upstream: missing; write upstream = "https://api.example.com"
    "#);
}

#[test]
fn no_credential() {
    assert_snapshot!(told(r#"credential = "orders"
"#, ""), @r#"
    1 problem in HOME/bearerd.toml:
      line 11: routes[0].credential: missing; write credential = "NAME" of one of the [credentials.NAME] tables
    "#);
}

#[test]
fn a_credential_that_is_not_there() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "order""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 14: routes[0].credential: is "order" (did you mean "orders"?); write "orders"
    "#);
}

#[test]
fn the_name_of_an_earlier_route() {
    assert_snapshot!(told("[[routes]]", r#"[[routes]]
name = "orders"
upstream = "https://other.example.com"
credential = "orders"

[[routes]]"#), @r#"
    1 problem in HOME/bearerd.toml:
      line 17: routes[1].name: "orders" is the name of an earlier route; write another one
    "#);
}

#[test]
fn a_name_that_fits_no_label() {
    assert_snapshot!(told(r#"name = "orders""#, r#"name = "all orders""#), @"
    1 problem in HOME/bearerd.toml:
      line 12: routes[0].name: is no name for a metric label; write letters, digits, - _ . (at most 63)
    ");
}

#[test]
fn an_upstream_whose_path_looks_like_its_host() {
    assert_snapshot!(told("https://api.example.com", "https://api.example.com/api.example.com"), @"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: has a path; write scheme and host only: paths are passed on unchanged
    ");
}

#[test]
fn what_must_not_be_there_cannot_be_told_of_an_answer() {
    let lines = "credential = \"orders\"\n\
                 replay = { expired = [{ status = 403, at = \"/ok\", exists = false }] }";
    assert_snapshot!(told("credential = \"orders\"", lines), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].replay.expired[0].exists: is false; write true, or `is` or `has`: only what is there can be told
    ");
}

#[test]
fn an_upstream_without_a_scheme() {
    assert_snapshot!(told("https://api.example.com", "api.example.com"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: does not begin with https:// or http://; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn an_upstream_of_another_scheme() {
    assert_snapshot!(told("https://api.example.com", "ftp://api.example.com"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: does not begin with https:// or http://; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn an_upstream_that_is_no_url() {
    assert_snapshot!(told("https://api.example.com", "https://api example"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: is no URL; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn an_upstream_without_a_host() {
    assert_snapshot!(told("https://api.example.com", "https://:443"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: has no host; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn an_upstream_with_a_path() {
    assert_snapshot!(told("https://api.example.com", "https://api.example.com/v1"), @"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: has a path; write scheme and host only: paths are passed on unchanged
    ");
}

#[test]
fn an_upstream_with_a_fragment() {
    assert_snapshot!(told("https://api.example.com", "https://api.example.com/#top"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: has a fragment, which is never sent; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn an_upstream_with_a_password() {
    assert_snapshot!(told("https://api.example.com", "https://me:not-told-to-anybody@api.example.com"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: holds a user name or password; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn an_upstream_in_plaintext_over_a_network() {
    assert_snapshot!(told("https://api.example.com", "http://api.example.com"), @"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: would send credentials in plaintext over a network; write https://, or allow_plaintext = true if the network itself is trusted
    ");
}

#[test]
fn a_relative_unix_socket() {
    assert_snapshot!(told("https://api.example.com", "unix:api.sock"), @r#"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: a unix socket needs an absolute path; write "unix:/run/api.sock"
    "#);
}

#[test]
fn tls_for_an_upstream_in_plaintext() {
    assert_snapshot!(told(r#"https://api.example.com""#, r#"http://127.0.0.1:80"
tls = { server_name = "api" }"#), @"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: is plaintext although the route has a tls table; write https://
    ");
}

#[test]
fn a_header_name_with_a_space() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
header = "x token""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].header: "x token" is no header name; write one such as "authorization"
    "#);
}

#[test]
fn a_header_that_the_proxy_itself_sets() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
header = "Connection""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].header: "Connection" belongs to the connection or the proxy; write "authorization" or the API's own header
    "#);
}

#[test]
fn a_header_name_with_an_underscore() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
header = "x_token""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].header: "x_token" has a _, which many servers drop; write "authorization" or the API's own header
    "#);
}

#[test]
fn a_scheme_of_two_words() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
scheme = "Bearer token""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].scheme: is no scheme; write one word such as "Bearer", or "" for a bare token
    "#);
}

#[test]
fn a_word_that_client_authorization_does_not_know() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
client_authorization = "replaced""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].client_authorization: is "replaced" (did you mean "replace"?); write "replace" or "reject" or "keep"
    "#);
}

#[test]
fn a_method_in_lowercase() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
methods = ["get"]"#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].methods[0]: "get" is never forwarded; write methods such as "GET", in capitals
    "#);
}

#[test]
fn a_method_that_is_never_forwarded() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
methods = ["GET", "CONNECT"]"#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].methods[1]: "CONNECT" is never forwarded; write methods such as "GET", in capitals
    "#);
}

#[test]
fn a_path_prefix_without_a_slash() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
path_prefix = "v1""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].path_prefix: is no path as it is sent; write "/" or "/v1/orders", percent-encoded
    "#);
}

#[test]
fn a_host_with_a_port() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
host = "api.localhost:80""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].host: is no host name; write it without scheme, port and path, such as "api.localhost"
    "#);
}

#[test]
fn a_replay_for_a_status_that_is_no_refusal() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
replay = { statuses = [401, 200] }"#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].replay.statuses[1]: is 200; write a whole number from 400 to 499
    ");
}

#[test]
fn a_replay_body_beyond_the_bound() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
replay = { body_bytes = 100_000_000 }"#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].replay.body_bytes: is 100000000; write a whole number from 0 to 67108864
    ");
}

#[test]
fn a_timeout_of_zero() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
timeouts = { connect_ms = 0 }"#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].timeouts.connect_ms: is 0; write a whole number from 1 to 86400000
    ");
}

#[test]
fn an_unknown_timeout() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
timeouts = { read_ms = 10 }"#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].timeouts.read_ms: unknown key; known here: connect_ms, idle_ms, response_ms
    ");
}

#[test]
fn a_sign_that_compares_with_nothing() {
    let signs = "replay = { expired = [{ status = 403, at = \"/code\" }, { has = \"gone\" }] }";
    let text = format!("{VALID}{signs}\n");
    assert_snapshot!(Home::new().told(&text), @"
    2 problems in HOME/bearerd.toml:
      line 15: routes[0].replay.expired[0]: needs `at` together with one of `is`, `has` and `exists`
      line 15: routes[0].replay.expired[1].status: missing; write status = 403
    ");
}

#[test]
fn a_sign_without_words_is_a_status_like_the_others() {
    let signs =
        "replay = { expired = [{ status = [403, 419] }, { status = 200, has = \"gone\" }] }";
    let config = Home::new().load(&format!("{VALID}{signs}\n")).expect("valid");
    let replay = &config.routes[0].replay;
    assert_eq!((replay.statuses.as_slice(), replay.expired.len()), (&[401, 403, 419][..], 1));
    assert!([200, 401, 403, 419].iter().all(|status| replay.concerns(*status)));
    assert!(!replay.concerns(500));
}

#[test]
fn an_upstream_that_is_a_metadata_service() {
    assert_snapshot!(told("https://api.example.com", "http://169.254.169.254"), @"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].upstream: is where machines get their own identity, and every caller would get it too; write the API's host
    ");
}
