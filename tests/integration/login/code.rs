//! Authorization code with PKCE, and the port that the browser comes back to.

use std::os::unix::fs::PermissionsExt;

use emulator::Step;
use emulator::oauth2::Decision;
use serde_json::json;

use super::{Browser, Login, assert_silent, left_there, signed_in_for, stored};
use crate::stage::{Gate, Stage};
use crate::support::{bearerd, eventually, read, request};

fn stage(more: &str) -> Stage {
    let stage = Stage::new();
    stage.home.write("bearerd.toml", &signed_in_for(&stage, more));
    stage
}

/// Name and value of the query of `url`.
fn query(url: &str) -> Vec<(String, String)> {
    let query = url.split_once('?').expect("a query").1;
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn one(url: &str, name: &str) -> String {
    let all: Vec<_> = query(url).into_iter().filter(|(n, _)| n == name).collect();
    assert_eq!(all.len(), 1, "{name} in {url}");
    all[0].1.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_in_a_browser_and_the_refresh_token_is_in_the_store() {
    let stage =
        stage("scope = [\"a\", \"b c\"]\nauthorization_params = { prompt = \"consent\" }\n");
    let login = Login::start(&stage.home, &["--code", "--no-browser"]);
    assert_eq!(
        login.line("To sign in"),
        "To sign in for the credential c, open this page in a browser on this machine:"
    );
    let url = login.url();
    assert!(url.starts_with(&stage.idp.authorization_url()), "{url}");
    assert_eq!((one(&url, "scope"), one(&url, "prompt")), ("a b c".into(), "consent".into()));
    assert_eq!(one(&url, "code_challenge_method"), "S256");
    let redirect = one(&url, "redirect_uri");
    assert!(redirect.starts_with("http://127.0.0.1:") && redirect.ends_with("/callback"));
    let page = Browser::default().open(&url).await;
    assert_eq!(page.status, 200, "{}", page.text());
    let (code, out, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    let store = stage.home.path("store.json");
    assert!(
        out.ends_with(&format!("Signed in.\nThe refresh token of c is in {}.\n", store.display())),
        "{out}"
    );
    assert_eq!(Some(stored(&stage.home)), stage.idp.current_refresh_token());
    assert_eq!(std::fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(left_there(&stage.home), ["store.json", "store.json.lock"]);
    assert!(errors.contains("the browser has come back"), "it logs everything: {errors}");
    assert_silent(&stage.idp, &stage.tokens.issued(), &[&out, &errors, &page.text()]);
    assert_eq!(stage.idp.violations(), Vec::<String>::new());
    // Once only, with a client that says who it is, and never in a URL.
    assert_eq!(stage.idp.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_at_the_end_is_plain_and_asks_for_nothing_from_anywhere() {
    let stage = stage("");
    let login = Login::start(&stage.home, &["--code"]);
    let page = Browser::default().open(&login.url()).await;
    let text = page.text();
    assert!(text.contains("<h1>Signed in</h1>") && text.contains("<strong>c</strong>"), "{text}");
    for part in ["src=", "href=", "http://", "https://", "<script", "@import", "url("] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("content-type", "text/html; charset=utf-8"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert_eq!(login.end().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_this_logins_answer_is_turned_away_and_changes_nothing() {
    let stage = stage("");
    let login = Login::start(&stage.home, &["--code"]);
    let url = login.url();
    let redirect = one(&url, "redirect_uri");
    let place: Vec<&str> = redirect.splitn(4, '/').collect();
    let address = place[2].parse().unwrap();
    let get = async |target: &str, headers: &[(&str, &str)]| {
        request(address, "GET", target, headers, b"").await.status
    };
    assert_eq!(get("/callback?code=stolen&state=guessed", &[]).await, 400);
    assert_eq!(get("/callback?code=stolen", &[]).await, 400);
    assert_eq!(get("/callback?error=access_denied&state=guessed", &[]).await, 400);
    assert_eq!(get("/favicon.ico", &[]).await, 404);
    let answer = format!("/callback?code=x&state={}", one(&url, "state"));
    assert_eq!(request(address, "POST", &answer, &[], b"").await.status, 404);
    let rebound = request_with_host(address, &answer, "evil.example").await;
    assert_eq!(rebound, 404, "a page of another name that leads here");
    assert_eq!(stage.idp.token_requests(), 0);
    assert_eq!(Browser::default().open(&url).await.status, 200, "it waits on");
    assert_eq!(login.end().0, 0);
}

async fn request_with_host(address: std::net::SocketAddr, target: &str, host: &str) -> u16 {
    let mut client = emulator::client::Client::connect(address).await.expect("a connection");
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.send(bytes.as_bytes()).await.expect("sent");
    client.answer().await.expect("an answer").status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_tab_is_told_that_it_is_over_and_the_port_is_closed_behind_the_first() {
    let stage = Stage::new();
    // The first tab's page comes when the token has: until then a second tab may come.
    let gate = Gate::before(stage.idp.server().address()).await;
    let urls = format!(
        "token_url = \"{}\"\nauthorization_url = \"{}\"\n",
        gate.url("/token"),
        stage.idp.authorization_url()
    );
    stage.home.write("bearerd.toml", &signed_in_for(&stage, &urls));
    let login = Login::start(&stage.home, &["--code"]);
    let url = login.url();
    let redirect = one(&url, "redirect_uri");
    let first = tokio::spawn({
        let url = url.clone();
        async move { Browser::default().open(&url).await }
    });
    eventually("the code is on its way", async || gate.connections() == 1).await;
    let second = Browser::default().open(&url).await;
    assert_eq!(second.status, 409);
    assert!(second.text().contains("<h1>Already done</h1>"), "{}", second.text());
    gate.open();
    assert_eq!(first.await.expect("it ran").status, 200);
    assert_eq!(login.end().0, 0);
    assert_eq!(stage.idp.token_requests(), 1, "the second code was not used");
    let address: std::net::SocketAddr =
        redirect.split('/').nth(2).expect("an authority").parse().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    // The next login is another one: port, state and challenge are its own.
    let login = Login::start(&stage.home, &["--code"]);
    let next = login.url();
    for name in ["state", "code_challenge"] {
        assert_ne!(one(&url, name), one(&next, name), "{name}");
    }
    login.interrupt();
    assert_eq!(login.end().0, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_issuer_ends_the_login_and_its_code_is_not_sent() {
    for iss in [Some("https://evil.example"), None] {
        let stage = stage("");
        stage.idp.set_iss(iss);
        let login = Login::start(&stage.home, &["--code"]);
        let page = Browser::default().open(&login.url()).await;
        assert_eq!(page.status, 502);
        let (code, out, errors) = login.end();
        assert_eq!(code, 1);
        assert!(errors.contains("another issuer than it was sent to"), "{errors}");
        assert!(!format!("{out}{errors}").contains("evil.example"));
        assert_eq!(stage.idp.token_requests(), 0);
        assert_eq!(left_there(&stage.home), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_says_no_is_heard() {
    let stage = stage("");
    stage.idp.set_decision(Decision::Denies);
    let login = Login::start(&stage.home, &["--code"]);
    let page = Browser::default().open(&login.url()).await;
    assert!(page.text().contains("<h1>Not signed in</h1>"), "{}", page.text());
    let (code, _, errors) = login.end();
    assert_eq!(code, 1);
    assert!(errors.contains("bearerd: the sign-in was refused: access_denied\n"), "{errors}");
    assert_eq!(left_there(&stage.home), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_token_endpoint_says_reaches_page_and_terminal_without_its_own_words() {
    for (step, told) in [
        (
            Step::Json(
                400,
                json!({ "error": "invalid_grant", "error_description": "canary-text" }),
            ),
            "identity provider answered 400 (bad_grant), error invalid_grant",
        ),
        (Step::Html(500), "identity provider answered 500 (server)"),
        (Step::Without("refresh_token".to_owned()), "but no refresh token came"),
    ] {
        let stage = stage("");
        stage.idp.script([step]);
        let login = Login::start(&stage.home, &["--code"]);
        let page = Browser::default().open(&login.url()).await;
        assert_eq!(page.status, 502);
        let (code, out, errors) = login.end();
        assert!(code == 1 && errors.contains(told), "{told}: {errors}");
        assert!(!format!("{out}{errors}{}", page.text()).contains("canary-text"));
        assert_eq!(left_there(&stage.home), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_nothing_behind() {
    for way in ["--code", "--device"] {
        let stage = stage("");
        let login = Login::start(&stage.home, &[way]);
        let url = login.url();
        login.line("Waiting");
        login.interrupt();
        let (code, out, errors) = login.end();
        assert_eq!(code, 130);
        assert!(errors.ends_with("bearerd: interrupted; nothing was kept\n"), "{errors}");
        assert!(out.contains(&url));
        assert_eq!(left_there(&stage.home), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_that_the_environment_names_is_opened_with_the_address_alone() {
    let stage = stage("");
    let seen = stage.home.path("seen");
    let program = stage.home.write(
        "browser",
        &format!(
            "#!/bin/sh\nprintf '%s\\n' \"$#\" \"$1\" > {0}.new\nmv {0}.new {0}\n",
            seen.display()
        ),
    );
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let login = Login::start_in(&stage.home, &[], &[("BROWSER", &program)]);
    assert!(login.line("To sign in").contains("sign in in the browser"));
    let url = login.url();
    eventually("opened", async || seen.exists()).await;
    assert_eq!(read(&seen), format!("1\n{url}\n"));
    Browser::default().open(&url).await;
    assert_eq!(login.end().0, 0);
    std::fs::remove_file(&seen).unwrap();
    let login = Login::start_in(&stage.home, &["--no-browser"], &[("BROWSER", &program)]);
    login.line("Waiting");
    login.interrupt();
    login.end();
    assert!(!seen.exists(), "it was not to be opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_clients_and_redirects_as_configured() {
    let stage = Stage::new();
    stage.idp.add_client("public", None);
    for (client, redirect, host) in [
        ("client_auth = \"post\"", "http://localhost/back", "http://localhost:"),
        ("client_auth = \"basic\"", "http://[::1]/", "http://[::1]:"),
        ("client_id = \"public\"\nclient_auth = \"none\"", "http://127.0.0.1", "http://127.0.0.1:"),
    ] {
        let more = format!(
            "token_url = \"{}\"\nauthorization_url = \"{}?tenant=x\"\nredirect_url = \"{redirect}\"\n\
             audience = \"https://api\"\nresource = [\"https://a\", \"https://b\"]\n{client}\n",
            stage.idp.token_url(),
            stage.idp.authorization_url(),
        );
        stage.home.write("bearerd.toml", &signed_in_for(&stage, &more));
        stage.idp.clear_requests();
        let login = Login::start(&stage.home, &[]);
        let url = login.url();
        assert!(one(&url, "redirect_uri").starts_with(host), "{url}");
        let named = |name: &str| query(&url).into_iter().filter(|(n, _)| n == name).count();
        assert_eq!((named("tenant"), named("audience"), named("resource")), (1, 1, 2));
        // Several values of a parameter are RFC 8707's; the emulator is of before.
        let once = url.replace("&resource=https%3A%2F%2Fb", "");
        stage.idp.script([Step::Json(400, json!({ "error": "invalid_target" }))]);
        Browser::default().open(&once).await;
        let (code, _, errors) = login.end();
        assert!(code == 1 && errors.contains("error invalid_target"), "{errors}");
        let form = stage.idp.last_request().expect("the code").form();
        assert_eq!(form.names().iter().filter(|name| **name == "resource").count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told_before_anybody_signs_in() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let stage = stage(&format!("redirect_url = \"http://127.0.0.1:{port}/callback\"\n"));
    let (code, out, errors) = Login::start(&stage.home, &["--code"]).end();
    let told = format!("cannot listen on 127.0.0.1:{port} for the browser to come back: ");
    assert!(code == 1 && out.is_empty() && errors.contains(&told), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_person_from_signing_in_is_told_at_once() {
    let stage = Stage::new();
    let urls = format!("token_url = \"{}\"\n", stage.idp.token_url());
    let whole = signed_in_for(&stage, "");
    let store = format!("store = \"file:{}\"\n", stage.home.path("store.json").display());
    let first = stage.home.write("first", "first");
    let refresh_token = format!("refresh_token = {{ file = \"{first}\" }}\n");
    for (config, arguments, code, told) in [
        (
            whole.replace(&store, &refresh_token),
            "c",
            64,
            "write store = \"file:/var/lib/bearerd/c.json\"",
        ),
        (signed_in_for(&stage, &urls), "c", 64, "nobody can sign in for c"),
        (
            whole.replace("refresh_token\"", "client_credentials\"").replace(&store, ""),
            "c",
            64,
            "nobody can sign in for c",
        ),
        (whole.clone(), "d", 64, "there is no [credentials.d]; there is c"),
        (
            signed_in_for(
                &stage,
                &format!("{urls}authorization_url = \"{}\"\n", stage.idp.authorization_url()),
            ),
            "c --device",
            1,
            "offers no device flow that bearerd knows of; write device_authorization_url",
        ),
    ] {
        let path = stage.home.write("bearerd.toml", &config);
        let mut all = vec!["login", "--config", &path];
        all.extend(arguments.split(' '));
        let (exit, out, errors) = bearerd(&all);
        assert_eq!((exit, out.as_str()), (code, ""), "{told}: {errors}");
        assert!(errors.contains(told), "{told}: {errors}");
    }
    stage.home.write("bearerd.toml", &whole);
    for (metadata, told) in [
        (json!({ "code_challenge_methods_supported": ["plain"] }), "knows PKCE without S256 only"),
        (json!({ "authorization_endpoint": "ftp://x/" }), "offers no authorization endpoint"),
        (json!({ "issuer": "https://another.example" }), "is not that of the configured issuer"),
    ] {
        stage.idp.set_metadata(metadata);
        let (code, out, errors) = Login::start(&stage.home, &["--code"]).end();
        assert!(code == 1 && out.is_empty() && errors.contains(told), "{told}: {errors}");
    }
    assert_eq!(stage.idp.token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_terminal_would_act_on_is_not_shown() {
    let stage = stage("");
    stage.idp.set_metadata(
        json!({ "authorization_endpoint": format!("{}/caf\u{e9}?x", stage.idp.url()) }),
    );
    let (code, out, errors) = Login::start(&stage.home, &["--code"]).end();
    assert_eq!((code, out.as_str()), (1, ""), "{errors}");
    assert!(errors.contains("none that a terminal could show as it is"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_and_cannot_be_stored_is_told_to_page_and_person() {
    let stage = stage("");
    let login = Login::start(&stage.home, &["--code"]);
    let url = login.url();
    // A directory in the way cannot be replaced by a file.
    std::fs::create_dir(stage.home.path("store.json.login")).unwrap();
    assert_eq!(Browser::default().open(&url).await.status, 502);
    let (code, _, errors) = login.end();
    assert_eq!(code, 1);
    let told =
        "bearerd: the refresh token that came could not be stored; sign in again: cannot replace ";
    assert!(errors.contains(told), "{errors}");
    assert_eq!(errors.matches("sign in again").count(), 1, "{errors}");
}
