//! Quirks of identity providers that no other file has: what real servers do that no standard says. At
//! the end the table of where each quirk and each vendor's row is tested.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use emulator::api::{insufficient_scope, user_not_found};
use emulator::{Challenge, Reply, Step};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::sources::{Told, token};
use crate::stage::{Stage, together};
use crate::support::{Daemon, bearerd, eventually, request};
use crate::vendors::{Rig, credential, failed, pauses, told};

#[tokio::test(flavor = "multi_thread")]
async fn q10_a_refused_client_is_not_tried_with_another_authentication() {
    for (auth, wanted) in [("basic", true), ("post", false)] {
        let rig = Rig::new();
        let idp = Told::start(|_| {
            Reply::json(401, json!({ "error": "invalid_client" }))
                .header("WWW-Authenticate", "Basic realm=\"x\"")
        });
        let daemon = rig.start(&format!(
            "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
             client_auth = \"{auth}\"\nclient_secret = {}\n",
            idp.url("/token"),
            rig.secret("secret", "s")
        ));
        let status = failed(&daemon, "terminal").await;
        told(&status, &["401 (bad_client)", "invalid_client"], false);
        pauses(&status);
        let asked = idp.asked();
        assert_eq!((asked.len(), asked[0].has("authorization")), (1, wanted));
        assert_eq!(asked[0].form().value("client_secret").is_some(), !wanted);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q13_q14_where_a_new_token_kills_the_one_before_a_burst_costs_one_refresh() {
    let stage = Stage::new();
    stage.idp.set_single_live(true);
    let daemon = stage.ready("").await;
    let first = stage.tokens.latest().expect("a token");
    stage.tokens.revoke(&first);
    let proxy = daemon.proxy;
    let answers =
        together(40, |_| async move { request(proxy, "GET", "/", &[], b"").await.status });
    assert!(answers.await.iter().all(|status| *status == 200));
    assert_eq!(stage.idp.token_requests(), 2, "one token more, or the cap would kill the oldest");
}

#[tokio::test(flavor = "multi_thread")]
async fn q18_the_same_token_with_less_of_its_life_left_is_a_success_and_no_reason_to_hurry() {
    let rig = Rig::new();
    rig.tokens.issue("same", None);
    let count = AtomicU32::new(0);
    let idp =
        Told::start(move |_| token("same", if count.fetch_add(1, Relaxed) == 0 { 4 } else { 600 }));
    let daemon = rig
        .started(&format!(
            "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
             client_secret = {}\n",
            idp.url("/token"),
            rig.secret("secret", "s")
        ))
        .await;
    eventually("a second answer", async || idp.asked().len() == 2).await;
    eventually("it is in force", async || credential(&daemon).await["generation"] == 2).await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(credential(&daemon).await["last"]["outcome"], "ok");
    assert_eq!(idp.asked().len(), 2, "nobody asks again");
    assert!(daemon.stop().success());
}

/// What a server says that speaks TLS 1.1 and nothing newer (RFC 4346 §7.4.1.3).
fn server_hello_of_1_1() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 0x2f, 0]); // no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression
    let mut message = vec![2, 0, 0, u8::try_from(hello.len()).unwrap()];
    message.extend(hello);
    let mut record = vec![22, 3, 2, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn q21_a_server_that_speaks_old_tls_only_is_told_and_gets_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 512];
            let _ = stream.read(&mut hello).await;
            let _ = stream.write_all(&server_hello_of_1_1()).await;
            let _ = stream.read(&mut hello).await;
        }
    });
    let rig = Rig::new();
    let daemon = rig.start(&format!(
        "grant = \"client_credentials\"\ntoken_url = \"https://127.0.0.1:{port}/token\"\n\
         client_id = \"c\"\nclient_secret = {}\n",
        rig.secret("secret", "s")
    ));
    told(&failed(&daemon, "transient").await, &["(tls)"], false);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn q22_a_metadata_server_is_asked_without_a_proxy_and_is_no_upstream() {
    let rig = Rig::new();
    rig.tokens.issue("google", None);
    let idp = Told::start(|_| token("google", 3599).header("Metadata-Flavor", "Google"));
    let lines = format!("provider = \"google-metadata\"\nhost = \"{}\"\n", idp.url(""));
    let proxy = [
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
    ];
    let daemon = Daemon::start_in(&rig.home, &rig.config(&lines), &proxy);
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert!(daemon.stop().success());
    for host in ["169.254.169.254", "metadata.google.internal", "[fe80::1]", "[fd00:ec2::254]"] {
        let config = rig.config(&lines).replace(&rig.api.url(), &format!("http://{host}"));
        let config = config.replace("wait_ms", "allow_plaintext = true\nwait_ms");
        let path = rig.home.write("bearerd.toml", &config);
        let (code, _, stderr) = bearerd(&["check", "--config", &path]);
        assert_eq!(code, 64, "{host}");
        assert!(stderr.contains("is where machines get their own identity"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q24_an_answer_does_not_move_the_upstream() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let elsewhere = Told::start(|_| Reply::status(200));
    let place = elsewhere.url("");
    let idp = Told::start(move |_| {
        Reply::json(
            200,
            json!({ "access_token": "granted", "token_type": "Bearer", "expires_in": 600,
                "instance_url": place, "api_domain": place, "api_server": place }),
        )
    });
    let daemon = rig
        .started(&format!(
            "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
             client_secret = {}\n",
            idp.url("/token"),
            rig.secret("secret", "s")
        ))
        .await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!((rig.api.request_count(), elsewhere.asked().len()), (1, 0));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_a_redirect_to_a_login_page_and_an_error_in_a_success_pass_unless_somebody_names_them() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let login = Reply::status(302).header("Location", "https://login.example/?next=%2F");
    stage.api.set_challenge(Challenge::answer(login));
    stage.tokens.revoke_all();
    let answer = daemon.get("/").await;
    let location = Some("https://login.example/?next=%2F");
    assert_eq!((answer.status, answer.header("location")), (302, location));
    let error = Reply::json(200, json!({ "error": "token expired" }));
    stage.api.set_challenge(Challenge::answer(error));
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "error": "token expired" })));
    assert_eq!(stage.idp.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t_e8_of_the_apis_refusals_only_the_401_nudges() {
    let stage = Stage::new();
    stage.api.set_challenge(Challenge::Tencent);
    let daemon = stage.ready("").await;
    let no_token = Step::Status(400).header("WWW-Authenticate", "Bearer error=\"invalid_request\"");
    for (step, status) in [(no_token, 400), (insufficient_scope(), 403), (user_not_found(), 404)] {
        stage.api.script([step]);
        assert_eq!(daemon.get("/").await.status, status);
    }
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (1, 3));
    stage.tokens.revoke_all();
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!((stage.idp.token_requests(), stage.api.request_count()), (2, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn s_e7_a_write_without_the_applications_csrf_header_is_the_applications_affair() {
    let stage = Stage::new();
    stage.api.set_csrf_header(Some("X-Csrf"));
    let daemon = stage.ready("").await;
    assert_eq!(daemon.post("/", b"1").await.status, 403);
    assert_eq!(stage.idp.token_requests(), 1, "bearerd neither refreshes nor looks for one");
    let own = [("X-Csrf", "the application's")];
    assert_eq!(request(daemon.proxy, "POST", "/", &own, b"1").await.status, 200);
    let sent = stage.api.last_request().expect("one").header("x-csrf");
    assert_eq!(sent.as_deref(), Some("the application's"));
}

#[tokio::test(flavor = "multi_thread")]
async fn q12_the_refresh_token_that_was_spent_may_come_back_as_the_new_one() {
    let rig = Rig::new();
    let count = AtomicU32::new(0);
    let tokens = rig.tokens.clone();
    // A server's mistake: the spent one is returned, and is refused when it comes again.
    let idp = Told::start(move |_| match count.fetch_add(1, Relaxed) {
        0 => {
            tokens.issue("granted", None);
            Reply::json(
                200,
                json!({ "access_token": "granted", "token_type": "Bearer", "expires_in": 600,
                    "refresh_token": "first" }),
            )
        }
        _ => Reply::json(400, json!({ "error": "invalid_grant" })),
    });
    let daemon = rig
        .started(&format!(
            "grant = \"refresh_token\"\ntoken_url = \"{}\"\nclient_id = \"c\"\n\
             client_auth = \"none\"\nrefresh_token = {}\n{}",
            idp.url("/token"),
            rig.secret("refresh", "first"),
            rig.store()
        ))
        .await;
    let status = rig.keeps_the_token(&daemon, "terminal").await;
    told(&status, &["invalid_grant", "sign in again"], true);
    assert_eq!(idp.asked().len(), 2, "it is sent no third time");
    assert!(daemon.stop().success());
}

/// Where each row of the specification of providers is tested.
const WHERE: [(&str, &[&str]); 97] = include!("quirks/rows.in");

#[test]
fn every_row_of_the_specification_names_tests_that_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for directory in ["src", "tests"] {
        collect(&top.join(directory), &mut text);
    }
    for (row, tests) in WHERE {
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            assert!(text.contains(&format!("fn {test}(")), "{row}: there is no {test}");
        }
    }
}

fn collect(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with(".venv") {
            collect(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("readable"));
        }
    }
}
