//! What is no TOML, unknown keys, wrong types; and several mistakes at once.

use insta::assert_snapshot;

use crate::support::{Home, VALID, chain, told, with_credential};

#[test]
fn a_text_that_is_no_toml() {
    assert_snapshot!(told(r#"grant = "client_credentials""#, "grant = client_credentials"), @"
    1 problem in HOME/bearerd.toml:
      line 7: string values must be quoted, expected literal string
    ");
}

#[test]
fn a_table_that_is_not_closed() {
    assert_snapshot!(told("[server]", "[server"), @"
    1 problem in HOME/bearerd.toml:
      line 1: unclosed table, expected `]`
    ");
}

#[test]
fn a_duplicate_key() {
    assert_snapshot!(told(r#"client_id = "orders-sidecar""#, r#"client_id = "orders-sidecar"
client_id = "again""#), @"
    1 problem in HOME/bearerd.toml:
      line 9: `client_id` stands here for the second time; write it once
    ");
}

#[test]
fn a_duplicate_table() {
    assert_snapshot!(told("[[routes]]", "[credentials.orders]

[[routes]]"), @"
    1 problem in HOME/bearerd.toml:
      line 11: `orders` stands here for the second time; write it once
    ");
}

#[test]
fn an_unknown_key_that_is_nearly_a_known_one() {
    assert_snapshot!(told("client_secret = {", "client_secrt = {"), @r#"
    2 problems in HOME/bearerd.toml:
      line 5: credentials.orders.client_secret: missing; write client_secret = { file = "/path/to/client_secret" }
      line 9: credentials.orders.client_secrt: unknown key; did you mean `client_secret`?
    "#);
}

#[test]
fn an_unknown_key_that_is_like_no_other() {
    assert_snapshot!(told("admin = ", "colour = "), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.colour: unknown key; known here: admin, allow_peer_uids, allow_remote, allowed_hosts, key, limits, listen, quit_endpoint, shutdown_grace_seconds, threads, tls, token_socket, token_socket_uids
    ");
}

#[test]
fn an_unknown_table() {
    assert_snapshot!(told("[server]", r#"[telemetry]
level = "debug"

[server]"#), @"
    1 problem in HOME/bearerd.toml:
      line 1: telemetry: unknown key; known here: credentials, routes, server
    ");
}

#[test]
fn a_string_instead_of_a_table() {
    assert_snapshot!(told(r#"[server]
listen = ["127.0.0.1:8080"]
admin = "127.0.0.1:9901""#, r#"server = "127.0.0.1:8080""#), @"
    1 problem in HOME/bearerd.toml:
      line 1: server: is a string; write a table, such as { key = value }
    ");
}

#[test]
fn a_number_instead_of_a_string() {
    assert_snapshot!(told(r#""orders-sidecar""#, "7"), @"
    1 problem in HOME/bearerd.toml:
      line 8: credentials.orders.client_id: is an integer; write a string in quotes
    ");
}

#[test]
fn a_string_instead_of_a_boolean() {
    assert_snapshot!(told(r#"credential = "orders""#, r#"credential = "orders"
strip_cookies = "yes""#), @"
    1 problem in HOME/bearerd.toml:
      line 15: routes[0].strip_cookies: is a string; write true or false
    ");
}

#[test]
fn a_string_instead_of_a_number() {
    assert_snapshot!(told("admin =", r#"threads = "2"
admin ="#), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.threads: is a string; write a whole number from 1 to 256
    ");
}

#[test]
fn a_table_instead_of_a_list_of_tables() {
    assert_snapshot!(told(r#"name = "orders""#, r#"name = "orders"
replay = 401"#), @"
    1 problem in HOME/bearerd.toml:
      line 13: routes[0].replay: is an integer; write a table, such as { key = value }
    ");
}

#[test]
fn no_credentials_at_all() {
    let home = Home::new();
    let text = "[[routes]]\nupstream = \"https://api.example.com\"\ncredential = \"orders\"\n";
    assert_snapshot!(home.told(text), @"
    1 problem in HOME/bearerd.toml:
      line 1: credentials: missing; write at least one [credentials.NAME] table
    ");
}

#[test]
fn no_routes_at_all() {
    assert_snapshot!(told(r#"[[routes]]
name = "orders"
upstream = "https://api.example.com"
credential = "orders"
"#, ""), @"
    1 problem in HOME/bearerd.toml:
      line 1: routes: missing; write at least one [[routes]] with upstream and credential
    ");
}

#[test]
fn an_empty_file() {
    assert_snapshot!(Home::new().told(""), @"
    2 problems in HOME/bearerd.toml:
      line 1: credentials: missing; write at least one [credentials.NAME] table
      line 1: routes: missing; write at least one [[routes]] with upstream and credential
    ");
}

#[test]
fn a_file_that_is_not_there() {
    let missing = std::path::Path::new("/no/such/bearerd.toml");
    let error = bearerd::config::load(missing).expect_err("no file");
    assert_snapshot!(chain(&error), @"cannot read /no/such/bearerd.toml: No such file or directory (os error 2)");
}

#[test]
fn several_mistakes_are_all_told_in_the_order_of_the_lines() {
    let text = VALID
        .replace("127.0.0.1:8080", "8080")
        .replace("token_url", "token_uri")
        .replace("client_credentials", "client_credential")
        .replace("https://api", "ftp://api");
    assert_snapshot!(Home::new().told(&text), @r#"
    5 problems in HOME/bearerd.toml:
      line 2: server.listen[0]: is "8080", not an IP address and a port; write "127.0.0.1:8080" or "[::1]:8080"
      line 5: credentials.orders.token_url: missing; write token_url = "https://idp.example/oauth2/token", or issuer = "https://idp.example"
      line 6: credentials.orders.token_uri: unknown key; did you mean `token_url`?
      line 7: credentials.orders.grant: is "client_credential" (did you mean "client_credentials"?); write "client_credentials" or "refresh_token" or "password" or "jwt_bearer" or "token_exchange"
      line 13: routes[0].upstream: does not begin with https:// or http://; write a URL such as "https://api.example.com"
    "#);
}

#[test]
fn a_route_is_read_to_its_end_although_the_credential_is_wrong() {
    let text = VALID.replace("orders-sidecar\"", "orders-sidecar\"\nclient_auth = \"Basic\"");
    assert_snapshot!(Home::new().told(&(text + "wait = 3\n")), @r#"
    2 problems in HOME/bearerd.toml:
      line 9: credentials.orders.client_auth: is "Basic" (did you mean "basic"?); write "basic" or "basic_raw" or "post" or "private_key_jwt" or "client_secret_jwt" or "tls" or "assertion_file" or "none"
      line 16: routes[0].wait: unknown key; did you mean `wait_ms`?
    "#);
}

#[test]
fn what_is_quoted_back_cannot_steer_a_terminal() {
    assert_snapshot!(told(r#"grant = "client_credentials""#, r#"grant = "\u001b[2J\ttwo\nlines""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 7: credentials.orders.grant: is "\u{1b}[2J\ttwo\nlines"; write "client_credentials" or "refresh_token" or "password" or "jwt_bearer" or "token_exchange"
    "#);
}

#[test]
fn every_wrong_entry_of_a_list_or_table_is_told_and_each_once() {
    let listen = "listen = [\"127.0.0.1\", \"0.0.0.0:80\", \"unix:x\"]";
    let text = VALID.replace("listen = [\"127.0.0.1:8080\"]", listen);
    let lines = "headers = { \"a b\" = \"x\", cookie = \"y\" }\n\
                 params = { one = 1, two = 2 }\nclient_auth = \"basic_raw\"\nclient_id = 7";
    let text = text.replace("client_id = \"orders-sidecar\"", lines);
    let route = "credential = \"orders\"\nmethods = [\"get\", \"TRACE\"]\n\
                 replay = { statuses = [200, 500] }\ntls = { pin_sha256 = [\"a\", \"b\"] }";
    let text = text.replace("credential = \"orders\"", route);
    assert_snapshot!(Home::new().told(&text), @r#"
    14 problems in HOME/bearerd.toml:
      line 2: server.listen[0]: is "127.0.0.1", not an IP address and a port; write "127.0.0.1:8080" or "[::1]:8080"
      line 2: server.listen[1]: would let other machines send requests with the token; write "127.0.0.1:PORT", or allow_remote = true if that is meant
      line 2: server.listen[2]: a unix socket needs an absolute path; write "unix:/run/bearerd/proxy.sock"
      line 8: credentials.orders.headers.a b: is no header that can be added; write one such as "x-tenant"
      line 8: credentials.orders.headers.cookie: is no header that can be added; write one such as "x-tenant"
      line 9: credentials.orders.params.one: is an integer; write a string in quotes
      line 9: credentials.orders.params.two: is an integer; write a string in quotes
      line 11: credentials.orders.client_id: is an integer; write a string in quotes
      line 18: routes[0].methods[0]: "get" is never forwarded; write methods such as "GET", in capitals
      line 18: routes[0].methods[1]: "TRACE" is never forwarded; write methods such as "GET", in capitals
      line 19: routes[0].replay.statuses[0]: is 200; write a whole number from 400 to 499
      line 19: routes[0].replay.statuses[1]: is 500; write a whole number from 400 to 499
      line 20: routes[0].tls.pin_sha256[0]: is no pin; write the base64 of the SHA-256 of the certificate's public key (44 characters)
      line 20: routes[0].tls.pin_sha256[1]: is no pin; write the base64 of the SHA-256 of the certificate's public key (44 characters)
    "#);
    assert_snapshot!(told("grant =", "scope = [1, \"read\", true]\ngrant ="), @"
    2 problems in HOME/bearerd.toml:
      line 7: credentials.orders.scope[0]: is an integer; write a string in quotes
      line 7: credentials.orders.scope[2]: is a boolean; write a string in quotes
    ");
    let vendor = with_credential("provider = \"vmware-csp\"\nhost = 7\nparams = { a = \"b\" }");
    assert_snapshot!(Home::new().told(&vendor), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.host: is an integer; write a string in quotes
    ");
}
