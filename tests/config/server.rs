//! `[server]`.

use insta::assert_snapshot;

use crate::support::told;

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
      line 6: server.limits.body_bytes: unknown key; known here: connections, head_bytes, head_fields, head_seconds, http2_resets, http2_streams, idle_seconds, replay_bytes, target_bytes
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
