//! `provider = "exec"`.

use insta::assert_snapshot;

use crate::support::{Home, with_credential};

fn told(lines: &str) -> String {
    Home::new().told(&with_credential(&format!("provider = \"exec\"\n{lines}")))
}

#[test]
fn no_command() {
    assert_snapshot!(told(""), @r#"
    1 problem in HOME/bearerd.toml:
      line 1: credentials.c.command: missing; write command = ["/usr/bin/program", "argument"]
    "#);
}

#[test]
fn an_empty_command() {
    assert_snapshot!(told("command = []"), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.command: is empty; write ["/usr/bin/program", "argument"]
    "#);
}

#[test]
fn a_command_for_a_shell() {
    assert_snapshot!(told("command = \"gcloud auth print-access-token\""), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.command: is run without a shell; write program and arguments one by one
    ");
}

#[test]
fn a_program_that_is_not_there() {
    assert_snapshot!(told("command = [\"bearerd-test-no-such-program\"]"), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.command: "bearerd-test-no-such-program" is no program that can be run; write its whole path
    "#);
}

#[test]
fn a_program_that_cannot_be_run() {
    assert_snapshot!(told("command = [\"HOME/secret\"]"), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.command: "HOME/secret" is no program that can be run; write its whole path
    "#);
}

#[test]
fn an_output_that_is_not_known() {
    assert_snapshot!(told("command = [\"/bin/true\"]\noutput = \"yaml\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.output: is "yaml"; write "exec_credential" or "text" or "json" or "git_credential"
    "#);
}

#[test]
fn a_pointer_where_there_is_no_json() {
    assert_snapshot!(told("command = [\"/bin/true\"]\noutput = \"text\"\ntoken = \"/t\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.c.token: is for JSON; write output = "json" too
    "#);
}

#[test]
fn a_pointer_that_is_none() {
    assert_snapshot!(told("command = [\"/bin/true\"]\noutput = \"json\"\ntoken = \"t\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.c.token: is no JSON pointer; write one such as "/credential/access_token"
    "#);
}

#[test]
fn an_expiry_of_no_known_shape() {
    let lines =
        "command = [\"/bin/true\"]\noutput = \"json\"\nexpiry = { at = \"/e\", as = \"iso\" }";
    assert_snapshot!(told(lines), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.c.expiry.as: is "iso"; write "seconds" or "epoch_seconds" or "epoch_milliseconds" or "rfc3339" or "http_date" or "jwt_exp"
    "#);
}

#[test]
fn a_program_with_a_space_in_its_name() {
    let home = Home::new();
    home.write("a program", "#!/bin/sh");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(home.path("a program"), mode).expect("its own");
    let lines = "provider = \"exec\"\ncommand = [\"HOME/a program\"]";
    home.load(&with_credential(lines)).expect("valid");
}

#[test]
fn a_variable_that_is_no_text() {
    assert_snapshot!(told("command = [\"/bin/true\"]\nenvironment = { A = 1, \"B=C\" = \"x\" }"), @"
    2 problems in HOME/bearerd.toml:
      line 4: credentials.c.environment.A: is an integer; write a string in quotes
      line 4: credentials.c.environment.B=C: is no name of an environment variable
    ");
}

#[test]
fn a_key_that_belongs_to_token_endpoints() {
    assert_snapshot!(told("command = [\"/bin/true\"]\nscope = \"x\""), @"
    1 problem in HOME/bearerd.toml:
      line 4: credentials.c.scope: unknown key; known here: command, environment, expiry, input, limits, output, provider, refresh, timeout_seconds, token
    ");
}
