//! Logins: what a dialect's `[login]` and a credential's keys for it can get wrong, and all that is said
//! about it.

use crate::support::{Home, with_credential};

/// Valid, with every way to sign in.
const DIALECT: &str = r#"format = 1
name = "acme"
flow = { obtain = ["refresh"] }
[keys]
host = { kind = "host", required = true }
app = { kind = "text" }
refresh_token = { kind = "secret", rotating = true }
[login]
issuer = "{host}"
code = { url = "{host}/signin", query = [["app", "{app}"]], exchange = ["code"] }
device = { start = ["begin"], exchange = ["poll"] }
second_step = { first = ["refresh"], token = "/mfa", exchange = ["typed"] }
[defaults]
url = "{host}/token"
[exchange.refresh]
form = [["refresh", "{refresh_token}"]]
[exchange.code]
form = [["code", "{code}"], ["proof", "{code_verifier}"]]
[exchange.begin]
form = [["app", "{app}"]]
[exchange.poll]
form = [["device", "{device_code}"]]
[exchange.typed]
form = [["typed", "{mfa_code}"]]
"#;

/// What is replaced by what, and the problem that is told.
type Row = (&'static str, &'static str, &'static str);

const ADDRESSES: [Row; 11] = [
    (
        "\"{host}/signin\"",
        "\"{host}/signin?t={refresh_token}\"",
        "line 10: login.code.url: puts the secret {refresh_token} into an address that a browser keeps; \
         leave it out",
    ),
    (
        "\"{host}/signin\"",
        "\"{hots}/signin\"",
        "line 10: login.code.url: uses {hots}, which is not among the [keys]; add it there, or write one \
         of host, app, refresh_token",
    ),
    (
        "\"{host}/signin\"",
        "\"{host}/signin/{code}\"",
        "line 10: login.code.url: uses {code}, which is there only after the browser has come back; leave \
         it out",
    ),
    (
        "\"{host}/signin\"",
        "\"http://idp.example/signin\"",
        "line 10: login.code.url: is a url in plaintext; write https://",
    ),
    (
        "\"{host}/signin\"",
        "\"idp.example/signin\"",
        "line 10: login.code.url: is a url that does not begin with https:// or a host; write \
         \"{host}/authorize\"",
    ),
    (
        "\"{host}/signin\"",
        "\"{host}/#/signin\"",
        "line 10: login.code.url: is no URL without a fragment; write \"{host}/authorize\"",
    ),
    (
        "\"{host}/signin\"",
        "\"{host}/sign in\"",
        "line 10: login.code.url: is no URL without a fragment; write \"{host}/authorize\"",
    ),
    (
        "issuer = \"{host}\"",
        "issuer = \"{app}\"",
        "line 9: login.issuer: is a url that does not begin with https:// or a host; write \"{host}\"",
    ),
    (
        "issuer = \"{host}\"",
        "issuer = \"http://idp.example\"",
        "line 9: login.issuer: is a url in plaintext; write https://",
    ),
    (
        "issuer = \"{host}\"",
        "issuer = \"{host}/{refresh_token}\"",
        "line 9: login.issuer: puts the secret {refresh_token} into an address that a browser keeps; \
         leave it out",
    ),
    (
        "issuer = \"{host}\"",
        "issuer = \"{host\"",
        "line 9: login.issuer: has a `{` that begins no placeholder such as `{client_id}`; for a brace \
         write `{{`",
    ),
];

const PARAMETERS: [Row; 6] = [
    (
        "[\"app\", \"{app}\"]",
        "[\"app\", \"{refresh_token}\"]",
        "line 10: login.code.query[0][1]: puts the secret {refresh_token} into an address that a browser \
         keeps; leave it out",
    ),
    (
        "[\"app\", \"{app}\"]",
        "[\"app\", \"{ap}\"]",
        "line 10: login.code.query[0][1]: uses {ap}, which is not among the [keys]; add it there, or \
         write one of host, app, refresh_token",
    ),
    (
        "[\"app\", \"{app}\"]",
        "[\"app\", \"{code_verifier}\"]",
        "line 10: login.code.query[0][1]: uses {code_verifier}, which is there only after the browser has \
         come back; leave it out",
    ),
    (
        "[\"app\", \"{app}\"]",
        "[\"app\", \"{app}\"], [\"app\", \"x\"]",
        "line 10: login.code.query[1][0]: is \"app\" for the second time; write it once",
    ),
    (
        "[\"app\", \"{app}\"]",
        "[\"response_mode\", \"form_post\"]",
        "line 10: login.code.query[0][0]: is \"response_mode\", which is for the login itself to say; \
         leave it out",
    ),
    (
        "[\"app\", \"{app}\"]",
        "[\"app\"]",
        "line 10: login.code.query[0]: is no pair; write [\"name\", \"value or {key}\"]",
    ),
];

const EXCHANGES: [Row; 8] = [
    (
        "[\"proof\", \"{code_verifier}\"]",
        "[\"proof\", \"none\"]",
        "line 10: login.code.exchange[0]: is \"code\", which does not send {code_verifier}; write it into \
         exchange.code",
    ),
    (
        "[\"typed\", \"{mfa_code}\"]",
        "[\"typed\", \"{device_code}\"]",
        "line 12: login.second_step.exchange[0]: is \"typed\", which uses {device_code}: nothing fills that \
         here; leave it out",
    ),
    (
        "[\"device\", \"{device_code}\"]",
        "[\"device\", \"x\"]",
        "line 11: login.device.exchange[0]: is \"poll\", which does not send {device_code}; write it into \
         exchange.poll",
    ),
    (
        "form = [[\"app\", \"{app}\"]]",
        "form = [[\"app\", \"{device_code}\"]]",
        "line 11: login.device.start[0]: is \"begin\", which uses {device_code}: nothing fills that here; \
         leave it out",
    ),
    (
        "form = [[\"app\", \"{app}\"]]",
        "form = [[\"app\", \"{access_token}\"]]",
        "line 19: exchange.begin: obtains a token and uses {access_token}, which is there only after that",
    ),
    (
        "token = \"/mfa\"",
        "token = \"mfa\"",
        "line 12: login.second_step.token: is no JSON pointer; write \"/mfa\"",
    ),
    (
        "exchange = [\"poll\"]",
        "exchange = [\"pole\"]",
        "line 11: login.device.exchange[0]: is \"pole\" (did you mean \"poll\"?); write \"refresh\" \
         or \"code\" or \"begin\" or \"poll\" or \"typed\"",
    ),
    ("start = [\"begin\"], ", "", "line 11: login.device.start: missing; write start = [\"NAME\"]"),
];

/// What is said about a credential of a dialect, with more lines.
fn told(dialect: &str, more: &str) -> Result<(), String> {
    let home = Home::new();
    home.write("acme.toml", dialect);
    let credential = format!(
        "provider = \"custom\"\ndialect = \"HOME/acme.toml\"\nhost = \"idp.example\"\n\
         refresh_token = {{ file = \"HOME/secret\" }}\n{more}"
    );
    home.load(&with_credential(&credential)).map(drop)
}

#[test]
fn each_mistake_in_a_login_is_told_with_its_line_its_key_and_what_instead() {
    assert_eq!(told(DIALECT, ""), Ok(()));
    let tables: [&[Row]; 3] = [&ADDRESSES, &PARAMETERS, &EXCHANGES];
    for (from, to, problem) in tables.into_iter().flatten() {
        assert!(DIALECT.contains(from), "there is no {from:?} to change");
        let told = told(&DIALECT.replacen(from, to, 1), "").expect_err(to);
        let lines: Vec<&str> = told.lines().skip(2).map(str::trim).collect();
        assert_eq!(lines, [*problem], "{to}");
    }
}

#[test]
fn several_mistakes_in_a_login_are_all_told() {
    let broken = DIALECT
        .replace(
            "query = [[\"app\", \"{app}\"]]",
            "query = [[\"state\", \"x\"], [\"a\", \"{b}\"], [\"c\"]]",
        )
        .replace("issuer = \"{host}\"", "issuer = \"{app}\"");
    let more = "authorization_params = { state = \"x\", request = \"y\", scope = \"z\" }";
    let told_of_dialect = told(&broken, "").expect_err("mistakes");
    for place in ["issuer", "code.query[0][0]", "code.query[1][1]", "code.query[2]"] {
        assert!(told_of_dialect.contains(&format!("login.{place}: ")), "{told_of_dialect}");
    }
    let told = told(DIALECT, more).expect_err("mistakes");
    for name in ["state", "request", "scope"] {
        assert!(told.contains(&format!("authorization_params.{name}: ")), "{told}");
    }
}

#[test]
fn what_a_login_says_itself_is_not_for_a_credential_to_say() {
    for (name, problem) in [
        ("state", "is for the login itself to say; leave it out"),
        ("code_challenge", "is for the login itself to say; leave it out"),
        ("response_type", "is for the login itself to say; leave it out"),
        ("response_mode", "is for the login itself to say; leave it out"),
        ("request", "is for the login itself to say; leave it out"),
        ("request_uri", "is for the login itself to say; leave it out"),
        ("client_secret", "is for the login itself to say; leave it out"),
        ("client_assertion", "is for the login itself to say; leave it out"),
        // The dialect's own.
        ("app", "is for the login itself to say; leave it out"),
        ("client_id", "has a key of its own; write it there"),
        ("scope", "has a key of its own; write it there"),
        ("audience", "goes along with the sign-in already; leave it out"),
        ("resource", "goes along with the sign-in already; leave it out"),
    ] {
        let more = "params = { audience = \"a\", resource = \"r\" }\n";
        let more = format!("{more}authorization_params = {{ {name} = \"x\" }}");
        let told = told(DIALECT, &more).expect_err(name);
        let problem = format!("credentials.c.authorization_params.{name}: {problem}");
        assert!(told.contains(&problem), "{told}");
    }
    let more = "authorization_params = { prompt = \"consent\", nonce = \"n\", audience = \"a\" }";
    assert_eq!(told(DIALECT, more), Ok(()));
}

#[test]
fn a_redirect_leads_to_this_machine_as_a_browser_writes_it() {
    for good in ["http://127.0.0.1:80/cb", "http://localhost/a/b", "http://[::1]"] {
        assert_eq!(told(DIALECT, &format!("redirect_url = \"{good}\"")), Ok(()), "{good}");
    }
    for bad in [
        "https://127.0.0.1/cb",
        "http://example.com/cb",
        "http://localhost:0/cb",
        "http://localhost/../cb",
        "http://localhost/{x}",
        "http://localhost/cb?x=y",
    ] {
        let told = told(DIALECT, &format!("redirect_url = \"{bad}\"")).expect_err(bad);
        assert!(
            told.contains(
                "credentials.c.redirect_url: is no plain address on this machine; write \
                 \"http://127.0.0.1/callback\""
            ),
            "{told}"
        );
    }
}
