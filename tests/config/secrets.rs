//! Secrets, and the places that they are read from.

use insta::assert_snapshot;

use crate::support::{Home, VALID, changed, told};

#[test]
fn a_secret_as_a_plain_string() {
    assert_snapshot!(told(r#"{ file = "HOME/secret" }"#, r#""not-told-to-anybody""#), @r#"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret: a secret is not written as plain text; write { file = "/path" }, { env = "NAME" } or { value = "…" }
    "#);
}

#[test]
fn a_secret_in_two_places() {
    assert_snapshot!(told(r#"{ file = "HOME/secret" }"#, r#"{ file = "HOME/secret", env = "SECRET" }"#), @r#"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret: names 2 places; write exactly one of { file = "/path" }, { env = "NAME" } or { value = "…" }
    "#);
}

#[test]
fn a_secret_in_no_place() {
    assert_snapshot!(told(r#"{ file = "HOME/secret" }"#, "{}"), @r#"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret: names 0 places; write exactly one of { file = "/path" }, { env = "NAME" } or { value = "…" }
    "#);
}

#[test]
fn a_secret_in_an_unknown_place() {
    assert_snapshot!(told(r#"{ file = "HOME/secret" }"#, r#"{ path = "HOME/secret" }"#), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.path: unknown key; known here: env, file, value
    ");
}

#[test]
fn a_secret_file_that_is_not_there() {
    assert_snapshot!(told("HOME/secret", "HOME/missing"), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: cannot read HOME/missing: No such file or directory (os error 2); put the secret there first
    ");
}

#[test]
fn a_secret_file_without_a_name() {
    assert_snapshot!(told("HOME/secret", ""), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: is empty; write a path
    ");
}

#[test]
fn a_directory_as_a_secret_file() {
    assert_snapshot!(told("HOME/secret", "HOME"), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: HOME is not a regular file; put the secret there first
    ");
}

#[test]
fn an_empty_secret_file() {
    let home = Home::new();
    home.write("secret", "\n");
    assert_snapshot!(home.told(VALID), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: HOME/secret is empty; put the secret there first
    ");
}

#[test]
fn a_secret_file_of_two_lines() {
    let home = Home::new();
    home.write("secret", "not-told-to-anybody\nnot-told-to-anybody\n");
    assert_snapshot!(home.told(VALID), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: HOME/secret contains more than one line; put the secret there first
    ");
}

#[test]
fn an_environment_variable_that_is_not_set() {
    assert_snapshot!(told(r#"file = "HOME/secret""#, r#"env = "BEARERD_TEST_NOT_SET""#), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.env: environment variable BEARERD_TEST_NOT_SET is not set to UTF-8 text; put the secret there first
    ");
}

#[test]
fn an_empty_secret_in_the_configuration_itself() {
    assert_snapshot!(told(r#"file = "HOME/secret""#, r#"value = """#), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.value: is empty; write the secret, or better name a file
    ");
}

#[test]
fn a_secret_in_the_environment_is_allowed_with_a_warning() {
    let text = changed(r#"file = "HOME/secret""#, r#"env = "PATH""#);
    let config = Home::new().load(&text).expect("valid");
    assert_snapshot!(config.warnings.join("\n"), @"credentials.orders.client_secret: environment variable PATH can be read by others who run as this user; a file is better");
}

#[test]
fn secrets_of_stores_and_callers_in_the_environment_are_warned_of_as_well() {
    let home = Home::new();
    let variable = "{ env = \"PATH\" }";
    let text = changed(
        "[server]",
        &format!("[server]\nkey = {{ any_of = [{variable}, {{ file = \"HOME/secret\" }}] }}"),
    );
    let options = format!("store_options = {{ password = {variable} }}");
    let text =
        text.replace("grant =", &format!("store = \"redis://127.0.0.1\"\n{options}\ngrant ="));
    let config = home.load(&text).expect("valid");
    assert_snapshot!(config.warnings.join("\n"), @"
    credentials.orders.store_options.password: environment variable PATH can be read by others who run as this user; a file is better
    server.key.any_of: environment variable PATH can be read by others who run as this user; a file is better
    ");
}

#[test]
fn a_secret_file_with_a_nul() {
    let home = Home::new();
    home.write("secret", "not-told-to-anybody\0");
    assert_snapshot!(home.told(VALID), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: HOME/secret contains a NUL byte; put the secret there first
    ");
}

#[test]
fn a_secret_file_that_is_too_large() {
    let home = Home::new();
    home.write("secret", &"a".repeat((1 << 20) + 1));
    assert_snapshot!(home.told(VALID), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: HOME/secret is larger than 1 MiB; put the secret there first
    ");
}

#[test]
fn a_fifo_as_a_secret_file() {
    let home = Home::new();
    let made = std::process::Command::new("mkfifo").arg(home.path("fifo")).status();
    assert!(made.expect("mkfifo runs").success());
    assert_snapshot!(home.told(&changed("HOME/secret", "HOME/fifo")), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: HOME/fifo is not a regular file; put the secret there first
    ");
}

#[test]
fn a_device_as_a_secret_file() {
    assert_snapshot!(told("HOME/secret", "/dev/zero"), @"
    1 problem in HOME/bearerd.toml:
      line 9: credentials.orders.client_secret.file: /dev/zero is not a regular file; put the secret there first
    ");
}

#[test]
fn what_editors_add_to_a_secret_file_is_no_mistake() {
    let home = Home::new();
    home.write("secret", "\u{feff}not-told-to-anybody\r\n\r\n");
    home.load(VALID).expect("valid");
}
