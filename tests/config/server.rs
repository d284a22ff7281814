//! `[server]`.

use insta::assert_snapshot;

use crate::support::{Home, changed, told};

#[test]
fn an_address_without_a_port() {
    assert_snapshot!(told(r#""127.0.0.1:8080""#, r#""127.0.0.1""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 2: server.listen[0]: is "127.0.0.1", not an IP address and a port; write "127.0.0.1:8080" or "[::1]:8080"
    "#);
}

#[test]
fn a_host_name_in_place_of_an_address() {
    assert_snapshot!(told(r#""127.0.0.1:8080""#, r#""localhost:8080""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 2: server.listen[0]: is "localhost:8080", not an IP address and a port; write "127.0.0.1:8080" or "[::1]:8080"
    "#);
}

#[test]
fn a_listener_that_others_can_reach() {
    assert_snapshot!(told(r#""127.0.0.1:8080""#, r#""0.0.0.0:8080""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 2: server.listen[0]: would let other machines send requests with the token; write "127.0.0.1:PORT", or allow_remote = true if that is meant
    "#);
}

#[test]
fn no_listener() {
    assert_snapshot!(told(r#"["127.0.0.1:8080"]"#, "[]"), @r#"
    1 problem in HOME/bearerd.toml:
      line 2: server.listen: is empty; write at least one address, such as ["127.0.0.1:8080"]
    "#);
}

#[test]
fn a_relative_path_of_a_unix_socket() {
    assert_snapshot!(told(r#""127.0.0.1:8080""#, r#""unix:run/proxy.sock""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 2: server.listen[0]: a unix socket needs an absolute path; write "unix:/run/bearerd/proxy.sock"
    "#);
}

#[test]
fn an_admin_address_without_a_port() {
    assert_snapshot!(told(r#"admin = "127.0.0.1:9901""#, r#"admin = "9901""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.admin: is "9901", not an IP address and a port; write "127.0.0.1:8080" or "[::1]:8080"
    "#);
}

#[test]
fn a_quit_endpoint_that_is_neither_on_nor_off() {
    assert_snapshot!(told("admin =", r#"quit_endpoint = "on"
admin ="#), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.quit_endpoint: is a string; write true or false
    ");
}

#[test]
fn no_threads() {
    assert_snapshot!(told("admin =", "threads = 0
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.threads: is 0; write a whole number from 1 to 256
    ");
}

#[test]
fn a_negative_number() {
    assert_snapshot!(told("admin =", "shutdown_grace_seconds = -1
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.shutdown_grace_seconds: is -1; write a whole number from 0 to 3600
    ");
}

#[test]
fn an_allowed_host_with_a_scheme() {
    assert_snapshot!(told("admin =", r#"allowed_hosts = ["https://api.example"]
admin ="#), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.allowed_hosts[0]: is no host name; write it without scheme, port and path, such as "api.localhost"
    "#);
}

#[test]
fn a_limit_out_of_range() {
    assert_snapshot!(told("[credentials.orders]", "[server.limits]
head_bytes = 100

[credentials.orders]"), @"
    1 problem in HOME/bearerd.toml:
      line 6: server.limits.head_bytes: is 100; write a whole number from 8192 to 1048576
    ");
}

#[test]
fn an_unknown_limit() {
    assert_snapshot!(told("[credentials.orders]", "[server.limits]
body_bytes = 100

[credentials.orders]"), @"
    1 problem in HOME/bearerd.toml:
      line 6: server.limits.body_bytes: unknown key; known here: connections, head_bytes, head_fields, head_seconds, http2_requests, http2_resets, http2_streams, idle_seconds, replay_bytes, target_bytes
    ");
}

#[test]
fn users_of_a_token_socket_that_is_not_there() {
    assert_snapshot!(told("admin =", "token_socket_uids = [1000]
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.token_socket_uids: says who may use a unix socket, and there is none; write token_socket = "unix:/run/bearerd/token.sock"
    "#);
}

#[test]
fn users_of_a_listener_that_is_no_unix_socket() {
    assert_snapshot!(told("admin =", "allow_peer_uids = [1000]
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.allow_peer_uids: says who may use a unix socket, and there is none; write listen = ["unix:/run/bearerd/proxy.sock"]
    "#);
}

#[test]
fn a_key_without_secrets() {
    assert_snapshot!(told("admin =", "key = { header = \"x-key\" }
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.key.any_of: missing; write any_of = [{ file = "/var/run/secrets/caller-key" }]
    "#);
}

#[test]
fn a_key_that_nobody_could_show() {
    assert_snapshot!(told("admin =", "key = { any_of = [] }
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.key.any_of: is empty, so that nobody could send anything; write at least one secret
    ");
}

#[test]
fn a_key_in_the_configuration_itself() {
    assert_snapshot!(told("admin =", "key = { any_of = [\"not-told-to-anybody\"] }
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.key.any_of[0]: a secret is not written as plain text; write { file = "/path" }, { env = "NAME" } or { value = "…" }
    "#);
}

#[test]
fn a_key_in_a_file_that_is_not_there() {
    assert_snapshot!(told("admin =", "key = { any_of = [{ file = \"HOME/secret\" }, { file = \"HOME/missing\" }] }
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.key.any_of[1].file: cannot read HOME/missing: No such file or directory (os error 2); put the secret there first
    ");
}

#[test]
fn a_key_in_place_of_a_table() {
    assert_snapshot!(told("admin =", "key = \"not-told-to-anybody\"
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.key: is a string; write a table, such as { key = value }
    ");
}

#[test]
fn a_key_in_a_header_of_the_connection() {
    assert_snapshot!(told("admin =", "key = { header = \"host\", any_of = [{ file = \"HOME/secret\" }] }
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.key.header: "host" belongs to the connection or the proxy; write "authorization" or the API's own header
    "#);
}

#[test]
fn an_unknown_word_for_a_key() {
    assert_snapshot!(told("admin =", "key = { file = \"HOME/secret\" }
admin ="), @r#"
    2 problems in HOME/bearerd.toml:
      line 3: server.key.any_of: missing; write any_of = [{ file = "/var/run/secrets/caller-key" }]
      line 3: server.key.file: unknown key; known here: any_of, header
    "#);
}

#[test]
fn a_user_by_name() {
    assert_snapshot!(told("admin =", "allow_peer_uids = [\"www-data\"]
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.allow_peer_uids[0]: is a string; write a whole number from 0 to 4294967295
    ");
}

#[test]
fn a_user_that_there_cannot_be() {
    assert_snapshot!(told("admin =", "token_socket_uids = [0, 4294967296]
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.token_socket_uids[1]: is 4294967296; write a whole number from 0 to 4294967295
    ");
}

#[test]
fn tokens_for_others_on_the_network() {
    assert_snapshot!(told("admin =", "token_socket = \"127.0.0.1:9000\"
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.token_socket: is no unix socket; write "unix:/run/bearerd/token.sock"
    "#);
}

#[test]
fn a_tls_listener_without_a_certificate() {
    assert_snapshot!(told(r#""127.0.0.1:8080""#, r#""tls:127.0.0.1:8443""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: server: listens with tls: but shows no certificate; write tls = { cert = "…", key = "…" }
    "#);
}

#[test]
fn a_tls_listener_that_others_can_reach() {
    assert_snapshot!(told(r#""127.0.0.1:8080""#, r#""tls:0.0.0.0:8443""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 2: server.listen[0]: would let other machines send requests with the token; write "127.0.0.1:PORT", or allow_remote = true if that is meant
    "#);
}

#[test]
fn a_certificate_that_is_none() {
    assert_snapshot!(told("admin =", "tls = { cert = \"HOME/secret\", key = \"HOME/secret\" }
admin ="), @"
    1 problem in HOME/bearerd.toml:
      line 3: server.tls: HOME/secret holds no certificate; write the path of a PEM file
    ");
}

#[test]
fn a_certificate_of_a_listener_without_its_key() {
    assert_snapshot!(told("admin =", "tls = { cert = \"HOME/secret\" }
admin ="), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: server.tls.key: missing; write key = "/etc/bearerd/tls.key"
    "#);
}

#[test]
fn a_place_that_is_listened_on_twice() {
    let server = "listen = [\"127.0.0.1:8080\", \"tls:127.0.0.1:8080\", \"unix:/run/s\", \"unix:/run/s\"]\n\
                  token_socket = \"unix:/run/s\"";
    let text = changed("listen = [\"127.0.0.1:8080\"]", server);
    let text = text.replace("127.0.0.1:9901", "127.0.0.1:8080");
    assert_snapshot!(Home::new().told(&text), @"
    4 problems in HOME/bearerd.toml:
      line 2: server.listen[1]: is where the configuration listens already; write another one
      line 2: server.listen[3]: is where the configuration listens already; write another one
      line 3: server.token_socket: is where the configuration listens already; write another one
      line 4: server.admin: is where the configuration listens already; write another one
    ");
    assert_snapshot!(told("listen = [\"127.0.0.1:8080\"]\nadmin = \"127.0.0.1:9901\"", "admin = \"127.0.0.1:8080\""), @"
    1 problem in HOME/bearerd.toml:
      line 2: server.admin: is where the configuration listens already; write another one
    ");
    assert_snapshot!(told("listen = [\"127.0.0.1:8080\"]\nadmin = \"127.0.0.1:9901\"", "listen = \"127.0.0.1:9901\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: server: listens where admin does by default; write admin = "127.0.0.1:PORT"
    "#);
    // The system chooses another port for each.
    let any = changed("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9901", "127.0.0.1:0");
    Home::new().load(&any).expect("valid");
}
