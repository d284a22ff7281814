//! `bearerd token`: a token for scripts, from a running daemon or by itself, and never a refresh token
//! spent behind a daemon's back.

use std::os::unix::fs::PermissionsExt;

use emulator::Step;
use serde_json::json;

use crate::login::{signed_in_for, stored};
use crate::stage::Stage;
use crate::support::{Daemon, bearerd, eventually};

/// Runs it for the credential `name` of `bearerd.toml`: exit code, standard output and error.
fn token(stage: &Stage, name: &str) -> (i32, String, String) {
    let path = stage.home.path("bearerd.toml").display().to_string();
    bearerd(&["token", "--config", &path, name])
}

/// `[server]` with a token socket, and more lines.
fn server(stage: &Stage, more: &str) -> String {
    let socket = stage.home.path("token.sock").display().to_string();
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         token_socket = \"unix:{socket}\"\n{more}\n"
    )
}

/// A daemon whose refresh token rotates, with its first token, and its configuration.
async fn rotating(stage: &Stage, with_socket: bool) -> Daemon {
    let first = stage.home.write("first", &stage.idp.issue_refresh_token("client"));
    let config = signed_in_for(stage, &format!("refresh_token = {{ file = \"{first}\" }}\n"));
    let config = match with_socket {
        true => {
            let credentials = config.split_once("[credentials").expect("a table").1;
            server(stage, "") + "[credentials" + credentials
        }
        false => config,
    };
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_is_asked_and_fetches_nothing_for_it() {
    let stage = Stage::new();
    let daemon = rotating(&stage, true).await;
    let held = stage.tokens.latest().expect("issued");
    for _ in 0..3 {
        assert_eq!(token(&stage, "c"), (0, format!("{held}\n"), String::new()));
    }
    assert_eq!(stage.idp.token_requests(), 1);
    let socket = stage.home.path("token.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(daemon.stop().success());
    assert!(!socket.exists(), "it goes with the daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_usable_token_says_so_in_bounded_time() {
    let stage = Stage::new();
    stage.idp.set_always(Some(Step::Json(400, json!({ "error": "invalid_client" }))));
    let config = server(&stage, "") + &stage.credential("") + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.wait_for_log("refresh failed");
    let (code, out, errors) = token(&stage, "c");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(errors.contains("the running bearerd says: no usable token"), "{errors}");
    // What comes while it waits is given.
    stage.idp.set_always(Some(Step::Hang));
    stage.home.write("secret", "another");
    eventually("a fetch", async || {
        daemon.status().await["credentials"][0]["activity"] == "fetching"
    })
    .await;
    let (code, _, errors) = token(&stage, "c");
    assert!(code == 1 && errors.contains("no usable token"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refresh_token_of_a_running_daemon_is_not_spent() {
    let stage = Stage::new();
    let daemon = rotating(&stage, false).await;
    let before = stored(&stage.home);
    let (code, out, errors) = token(&stage, "c");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(errors.contains("a running bearerd has the refresh token of c"), "{errors}");
    assert!(errors.contains("server.token_socket"), "{errors}");
    assert!(errors.contains(&format!("held by process {}", daemon.pid())), "{errors}");
    assert_eq!((stage.idp.token_requests(), stored(&stage.home)), (1, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_stored_token_is_used_up_first_and_what_rotates_is_stored() {
    let stage = Stage::new();
    let daemon = rotating(&stage, true).await;
    let held = stage.tokens.latest().expect("issued");
    assert!(daemon.stop().success());
    // A socket that nobody listens on any more is as good as none.
    drop(std::os::unix::net::UnixListener::bind(stage.home.path("token.sock")).unwrap());
    assert_eq!(token(&stage, "c").1, format!("{held}\n"));
    assert_eq!(stage.idp.token_requests(), 1);
    // No access token in the store: one is asked for, and the refresh token that comes is kept.
    let first = stage.home.write("first", &stage.idp.issue_refresh_token("client"));
    let config = signed_in_for(&stage, &format!("refresh_token = {{ file = \"{first}\" }}\n"));
    stage.home.write("bearerd.toml", &config);
    let (code, out, errors) = token(&stage, "c");
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(Some(out.trim().to_owned()), stage.tokens.latest());
    assert_eq!(Some(stored(&stage.home)), stage.idp.current_refresh_token());
    assert_eq!(stage.idp.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotating_refresh_token_without_a_store_is_not_spent() {
    let stage = Stage::new();
    let first = stage.home.write("first", &stage.idp.issue_refresh_token("client"));
    let more = format!("refresh_token = {{ file = \"{first}\" }}\n");
    let config = signed_in_for(&stage, &more);
    let lines = config.lines().filter(|line| !line.starts_with("store"));
    stage.home.write("bearerd.toml", &lines.collect::<Vec<_>>().join("\n"));
    let (code, out, errors) = token(&stage, "c");
    assert_eq!((code, out.as_str(), stage.idp.token_requests()), (1, "", 0));
    assert!(errors.contains("there is no store to keep the next one"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chained_credential_asks_with_the_others_token_and_leaves_the_rest_alone() {
    let stage = Stage::new();
    let url = stage.idp.token_url();
    let config = format!(
        "{}{}[credentials.unused]\nprovider = \"file\"\npath = \"/nonexistent\"\n\
         [credentials.chained]\ngrant = \"token_exchange\"\ntoken_url = \"{url}\"\n\
         subject = {{ credential = \"c\" }}\n",
        stage.credential(""),
        stage.route("")
    );
    // The order of the file does not matter, but tables of a kind stand together in it.
    stage.home.write("bearerd.toml", &config);
    stage.idp.script([
        Step::Normal,
        Step::Json(200, json!({ "access_token": "exchanged", "token_type": "Bearer" })),
    ]);
    assert_eq!(token(&stage, "chained"), (0, "exchanged\n".to_owned(), String::new()));
    let subject = stage.idp.last_request().expect("sent").form();
    assert_eq!(subject.value("subject_token").map(str::to_owned), stage.tokens.latest());
    assert_eq!(stage.idp.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_printed_is_refused_with_the_reason() {
    let stage = Stage::new();
    let plain = stage.credential("") + &stage.route("");
    stage.home.write("bearerd.toml", &plain);
    let (code, out, errors) = token(&stage, "d");
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(errors.contains("there is no [credentials.d]; there is c"), "{errors}");
    stage.home.write("bearerd.toml", &(stage.credential("dpop = true") + &stage.route("")));
    let (code, out, errors) = token(&stage, "c");
    assert_eq!((code, out.as_str(), stage.idp.token_requests()), (64, "", 0));
    assert!(errors.contains("bound to a key (dpop)"), "{errors}");
    stage.home.write("bearerd.toml", &plain);
    stage.idp.script([Step::Json(401, json!({ "error": "invalid_client" }))]);
    let (code, out, errors) = token(&stage, "c");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(errors.contains("no token for c: identity provider answered 401"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_speaks_http_to_those_who_may_and_to_nobody_else() {
    let stage = Stage::new();
    // Nobody's user id: with a list the socket is open, and users are told apart by theirs.
    let config = server(&stage, "token_socket_uids = [4294967294]")
        + &stage.credential("")
        + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let socket = stage.home.path("token.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
    let curl = |path: &str, method: &str| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let held = stage.tokens.latest().expect("issued");
    let answer = curl("/token/c", "GET");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&held), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    assert!(curl("/token/d", "GET").starts_with("HTTP/1.1 404 "));
    assert!(curl("/", "GET").starts_with("HTTP/1.1 404 "));
    assert!(curl("/token/c", "POST").starts_with("HTTP/1.1 405 "));
    assert!(!daemon.logs().contains(&held));
}
