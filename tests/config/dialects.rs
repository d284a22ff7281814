//! A dialect file of the user's own.

use insta::assert_snapshot;

use crate::support::{Home, with_credential};

#[test]
fn a_dialect_file_that_is_not_there() {
    let home = Home::new();
    assert_snapshot!(home.told(&credential()), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: cannot read HOME/acme.toml: No such file or directory (os error 2)
    ");
}

#[test]
fn a_dialect_that_is_no_toml() {
    let broken = DIALECT.replace("format = 1", "format 1");
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 1: key with no value, expected `=`
    ");
}

#[test]
fn a_dialect_of_a_later_format() {
    let broken = DIALECT.replace("format = 1", "format = 2");
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 1: format: is 2; write 1
    ");
}

#[test]
fn a_secret_in_a_url() {
    let broken = DIALECT.replace("{host}/token", "{host}/token?key={api_key}");
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 9: exchange.fetch: puts the secret {api_key} into the url; write it into the form
    ");
}

#[test]
fn a_placeholder_that_is_no_key() {
    let broken = DIALECT.replace(r#""{api_key}""#, r#""{api_kee}""#);
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 9: exchange.fetch: uses {api_kee}, which is not among the [keys]; add it there, or write one of host, api_key
    ");
}

#[test]
fn an_unknown_exchange_in_the_flow() {
    let broken = DIALECT.replace(r#"obtain = ["fetch"]"#, r#"obtain = ["fech"]"#);
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 3: flow.obtain[0]: is "fech" (did you mean "fetch"?); write "fetch"
    "#);
}

#[test]
fn a_brace_that_is_not_closed() {
    let broken = DIALECT.replace(r#""{api_key}""#, r#""{api_key""#);
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 11: exchange.fetch.form[0][1]: has a `{` that begins no placeholder such as `{client_id}`; for a brace write `{{`
    ");
}

#[test]
fn a_brace_that_was_not_opened() {
    let broken = DIALECT.replace(r#""{api_key}""#, r#""api_key}""#);
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 11: exchange.fetch.form[0][1]: has a `}` without its `{`; for a brace write `}}`
    ");
}

#[test]
fn a_kind_that_is_not_known() {
    let broken = DIALECT.replace(r#"kind = "secret""#, r#"kind = "password""#);
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 7: keys.api_key.kind: is "password"; write "host" or "path" or "url" or "text" or "secret" or "file" or "signing_key" or "document" or "token" or "bool" or "choice"
    "#);
}

#[test]
fn an_exchange_without_a_url() {
    let broken = DIALECT.replace("url = \"{host}/token\"\n", "");
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 9: exchange.fetch: has no url, and [defaults] has none; write url = "{host}/token"
    "#);
}

#[test]
fn a_form_beside_json() {
    let broken = DIALECT.replace(
        "form = [",
        r#"json = { a = "b" }
form = ["#,
    );
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 11: exchange.fetch.json: stands beside a form; write only one of them
    ");
}

#[test]
fn a_form_field_that_is_no_pair() {
    let broken = DIALECT.replace(r#"["key", "{api_key}"]"#, r#"["key"]"#);
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 11: exchange.fetch.form[0]: is no pair; write ["name", "value or {key}"]
    "#);
}

#[test]
fn an_expiry_of_an_unknown_shape() {
    let broken = DIALECT.replace(r#"as = "seconds""#, r#"as = "minutes""#);
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 12: exchange.fetch.ok.expiry[0].as: is "minutes"; write "seconds" or "epoch_seconds" or "epoch_milliseconds" or "rfc3339" or "http_date" or "jwt_exp"
    "#);
}

#[test]
fn an_error_without_an_outcome() {
    let broken = DIALECT.replace(r#", outcome = "terminal""#, "");
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 13: exchange.fetch.error[0].outcome: missing; write "terminal" or "transient"
    "#);
}

#[test]
fn an_error_that_compares_with_nothing() {
    let broken = DIALECT.replace(r#"at = "/code", is = "E7""#, r#"at = "/code""#);
    assert_snapshot!(told(&broken), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 13: exchange.fetch.error[0]: needs `at` together with one of `is`, `has` and `exists`
    ");
}

#[test]
fn a_status_that_is_no_class() {
    let broken = DIALECT.replace("status = [400]", r#"status = ["4x"]"#);
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 13: exchange.fetch.error[0].status[0]: is no class of statuses; write a number or one such as "5xx"
    "#);
}

#[test]
fn a_key_of_the_credential_that_the_dialect_lacks() {
    let home = Home::new();
    home.write("acme.toml", DIALECT);
    let text = credential().replace("api_key", "apikey");
    assert_snapshot!(home.told(&text), @r#"
    2 problems in HOME/bearerd.toml:
      line 1: credentials.c.api_key: missing; write api_key = { file = "/path/to/api_key" }
      line 5: credentials.c.apikey: unknown key; did you mean `api_key`?
    "#);
}

#[test]
fn several_mistakes_in_a_dialect_are_all_told() {
    let broken = DIALECT.replace("format = 1", "format = 3").replace("terminal", "final");
    assert_snapshot!(told(&broken), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 2 problems in HOME/acme.toml:
        line 1: format: is 3; write 1
        line 13: exchange.fetch.error[0].outcome: is "final"; write "terminal" or "transient"
    "#);
}

#[test]
fn the_dialect_that_these_tests_break_is_valid() {
    let home = Home::new();
    home.write("acme.toml", DIALECT);
    home.load(&credential()).expect("valid");
}

#[test]
fn a_way_in_may_depend_on_a_bool() {
    let home = Home::new();
    let flag = "[keys]\nfast = { kind = \"bool\" }\n";
    let when = "[exchange.fetch]\nwhen = { fast = \"true\" }\n";
    let dialect = DIALECT.replace("[keys]\n", flag).replace("[exchange.fetch]\n", when);
    home.write("acme.toml", &dialect);
    home.load(&credential().replace("host = ", "fast = true\nhost = ")).expect("valid");
    let told = home.told(&credential().replace("host = ", "fast = false\nhost = "));
    assert!(told.contains("has no way to obtain a token"), "{told}");
}

pub(crate) const DIALECT: &str = r#"format = 1
name = "acme"
flow = { obtain = ["fetch"] }

[keys]
host = { kind = "host", required = true }
api_key = { kind = "secret", required = true }

[exchange.fetch]
url = "{host}/token"
form = [["key", "{api_key}"]]
ok = { access_token = "/token", expiry = [{ at = "/ttl", as = "seconds" }] }
error = [{ id = "A1", status = [400], at = "/code", is = "E7", outcome = "terminal" }]
"#;

fn credential() -> String {
    with_credential(
        r#"provider = "custom"
dialect = "HOME/acme.toml"
host = "idp.example"
api_key = { file = "HOME/secret" }"#,
    )
}

#[test]
fn an_assertion_in_a_url() {
    let url = DIALECT.replace("{host}/token", "{host}/token?key={proof}");
    assert_snapshot!(told(&(url + ASSERTION)), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 9: exchange.fetch: puts the secret {proof} into the url; write it into the form
    ");
}

#[test]
fn an_assertion_with_nothing_to_sign_with() {
    let broken = ASSERTION.replace("secret = \"{api_key}\"\n", "");
    assert_snapshot!(told(&format!("{DIALECT}{broken}")), @r#"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 15: assertion.proof: needs one key to sign with; write key = "{private_key}", or secret = "…"
    "#);
}

#[test]
fn an_assertion_of_what_is_no_key() {
    let broken = ASSERTION.replace("{host}", "{hots}");
    assert_snapshot!(told(&format!("{DIALECT}{broken}")), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 1 problem in HOME/acme.toml:
        line 15: assertion.proof: uses {hots}, which is not among the [keys]; add it there, or write one of host, api_key
    ");
}

#[test]
fn an_assertion_named_like_a_key() {
    let broken = ASSERTION.replace("assertion.proof", "assertion.host");
    assert_snapshot!(told(&format!("{DIALECT}{broken}")), @"
    1 problem in HOME/bearerd.toml:
      line 3: credentials.c.dialect: 2 problems in HOME/acme.toml:
        line 9: exchange.fetch: puts the secret {host} into the url; write it into the form
        line 15: assertion.host: is also the name of a key; write another one
    ");
}

/// A table for the end of [`DIALECT`].
const ASSERTION: &str = "
[assertion.proof]
secret = \"{api_key}\"
claims = { aud = \"{host}\" }
";

/// What is said about a credential that speaks `dialect`.
pub(crate) fn told(dialect: &str) -> String {
    let home = Home::new();
    home.write("acme.toml", dialect);
    home.told(&credential())
}
