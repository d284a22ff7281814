//! One canary for each kind of secret, planted once and looked for everywhere, after runs in which
//! much goes wrong: no token, secret, or part of one leaves but in the requests that it is for.

use std::os::unix::fs::MetadataExt;

use emulator::client::{Answer, Client};
use emulator::{Csp, Reply, Step, Tls};
use serde_json::json;

use crate::canary::found;
use crate::stage::Stage;
use crate::support::{Daemon, bearerd, eventually, read, request};

/// With characters that percent-encoding and base64 change; the ends are like nothing else.
const CLIENT_SECRET: &str = "canary/Client+Secret=Q7w9ZkX2mB4s?Zq8Wn3Lk5Vt0";
const PASSWORD: &str = "canary/Pass word+R5t8YhN3vC6d&Hx4Gd7Fs2Jp9";
const API_TOKEN: &str = "canary-Api.Token_L2k5JgF8pS1a+Bv6Cx1Mz8Nq3";
const CALLERS_OWN: &str = "canary.Callers.own_V9b3NmK6xH0e/Ty5Ru7Ei2Wo4";
/// Replaced on disk by the right ones, after they were refused.
const WRONG: &str = "canary-Wrong+Secret/P3o6IuY1tR8e=Kj5Hg2Fd9Sa7";

#[tokio::test(flavor = "multi_thread")]
async fn client_secrets_and_access_tokens_stay_inside() {
    let stage = Stage::new();
    stage.home.write("secret", WRONG);
    stage.idp.add_client("client", Some(CLIENT_SECRET));
    stage.idp.script(quoting(WRONG));
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &stage.route("")));
    let mut seen = refused(&daemon).await;
    stage.home.write("secret", CLIENT_SECRET);
    seen.extend(misuse(&stage, &daemon).await);
    assert_silent(&seen, &stage, &[CLIENT_SECRET, WRONG]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_stay_inside() {
    let stage = Stage::new();
    let first = stage.idp.issue_refresh_token("client");
    let file = stage.home.write("refresh", &first);
    let store = stage.home.path("store.json").display().to_string();
    let more = format!("refresh_token = {{ file = \"{file}\" }}\nstore = \"file:{store}\"");
    let credential = stage.credential(&more).replace("client_credentials", "refresh_token");
    let quoted = json!({ "error": first, "refresh_token": first });
    stage.idp.script([Step::Json(503, quoted.clone())]);
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("")));
    let mut seen = misuse(&stage, &daemon).await;
    assert!(stage.idp.rotations() >= 2);
    let current = stage.idp.current_refresh_token().expect("a family");
    let quoted = json!({ "error": "invalid_grant", "error_description": current });
    stage.idp.set_always(Some(Step::Json(400, quoted)));
    stage.tokens.revoke_all();
    eventually("a refresh was refused", async || {
        assert_eq!(daemon.get("/").await.status, 401);
        daemon.status().await["credentials"][0]["activity"] == "refused"
    })
    .await;
    seen.extend(look_around(&daemon).await);
    assert_silent(&seen, &stage, &[&first, &current]);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_stay_inside() {
    let stage = Stage::new();
    stage.idp.add_user("user", PASSWORD);
    let file = stage.home.write("word", WRONG);
    let more = format!("username = \"user\"\npassword = {{ file = \"{file}\" }}");
    let credential = stage.credential(&more).replace("client_credentials", "password");
    stage.idp.script(quoting(WRONG));
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("")));
    let mut seen = refused(&daemon).await;
    stage.home.write("word", PASSWORD);
    seen.extend(misuse(&stage, &daemon).await);
    assert_silent(&seen, &stage, &[PASSWORD, WRONG]);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_tokens_stay_inside() {
    let stage = Stage::new();
    let csp = Csp::start(Tls::self_signed(), &stage.tokens);
    csp.add_api_token(API_TOKEN);
    let ca = csp.server().certificate().expect("it speaks TLS").pem().to_owned();
    let (ca, file) = (stage.home.write("ca.pem", &ca), stage.home.write("key", WRONG));
    let config = format!(
        "[credentials.c]\nprovider = \"vmware-csp\"\nhost = \"{}\"\n\
         api_token = {{ file = \"{file}\" }}\ntls = {{ ca_file = \"{ca}\" }}\n{}",
        csp.host(),
        stage.route("")
    );
    csp.script(quoting(WRONG));
    let daemon = Daemon::start(&stage.home, &config);
    let mut seen = refused(&daemon).await;
    stage.home.write("key", API_TOKEN);
    seen.extend(misuse(&stage, &daemon).await);
    assert_silent(&seen, &stage, &[API_TOKEN, WRONG]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_configuration_file_stays_inside_when_the_file_is_wrong() {
    let stage = Stage::new();
    for line in [
        "client_secret = { valve = \"SECRET\" }",
        "client_secret = \"SECRET\"",
        "client_secret = { value = \"SECRET\", file = \"x\" }",
        "client_secret = { value = \"SECRET",
        "client_secret = { value = \"SECRET\" }\nclient_secret = { value = \"SECRET\" }",
    ] {
        let secret = line.replace("SECRET", CLIENT_SECRET);
        let config = format!(
            "[credentials.c]\ngrant = \"client_credentials\"\ntoken_url = \"{}\"\n\
             client_id = \"client\"\n{secret}\n{}",
            stage.idp.token_url(),
            stage.route("")
        );
        let path = stage.home.write("wrong.toml", &config);
        for command in ["run", "check"] {
            let (code, stdout, stderr) = bearerd(&[command, "--config", &path]);
            assert_eq!(code, 64, "{line}");
            let output = stdout + &stderr;
            assert_eq!(found(&output, CLIENT_SECRET), None, "{line}: {output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_leaves_no_core_and_lets_nobody_trace_it() {
    let daemon = Stage::new().ready("").await;
    let limits = read(format!("/proc/{}/limits", daemon.pid()));
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    // What is not dumpable belongs to root; only run by another user this tells anything.
    let owner = |process: &str| {
        std::fs::metadata(format!("/proc/{process}/environ")).expect("it runs").uid()
    };
    assert!(owner("self") == 0 || owner(&daemon.pid().to_string()) != owner("self"));
}

/// Answers that quote a secret, and answers that are none.
fn quoting(secret: &str) -> Vec<Step> {
    vec![
        Step::Json(500, json!({ "error": secret, "error_description": secret })),
        Step::from(Reply::bytes(200, "application/json", secret)).header("X-Echo", secret),
        Step::Garbage,
        Step::Json(400, json!({ "error": "invalid_client", "error_description": secret })),
    ]
}

/// What was seen, by where.
type Seen = Vec<(String, String)>;

/// Waits until the identity provider has said no, asks for a token then, and looks around.
async fn refused(daemon: &Daemon) -> Seen {
    eventually("refused", async || {
        daemon.status().await["credentials"][0]["activity"] == "refused"
    })
    .await;
    let mut seen = vec![("a request".to_owned(), shown(&daemon.get("/").await))];
    seen.extend(look_around(daemon).await);
    seen
}

/// Waits for a token, lets it be refused, makes everything fail that a request can fail with, and
/// looks around.
async fn misuse(stage: &Stage, daemon: &Daemon) -> Seen {
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    stage.tokens.revoke_all();
    eventually("a new token", async || daemon.get("/").await.status == 200).await;
    assert!(stage.tokens.issued().len() >= 2);
    let mut seen = Seen::new();
    stage.api.script([Step::Garbage, Step::Close, Step::Cut]);
    for _ in 0..2 {
        seen.push(("a broken upstream".to_owned(), shown(&daemon.post("/", b"x").await)));
    }
    let own = format!("Bearer {CALLERS_OWN}");
    for (name, value) in [("Origin", "https://evil.example"), ("Via", CALLERS_OWN)] {
        let headers = [("Authorization", own.as_str()), (name, value)];
        let answer = request(daemon.proxy, "TRACE", "/", &headers, b"").await;
        seen.push((name.to_owned(), shown(&answer)));
    }
    for bytes in ["GET / HTTP/1.1\r\nAuthorization : ", "GET /", "\0"] {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let line = format!("{bytes}{CALLERS_OWN}\r\nHost: {CALLERS_OWN}\r\n\r\n");
        caller.send(line.as_bytes()).await.expect("sent");
        if let Ok(answer) = caller.answer().await {
            seen.push(("a malformed request".to_owned(), shown(&answer)));
        }
    }
    seen.extend(look_around(daemon).await);
    seen
}

fn shown(answer: &Answer) -> String {
    assert_ne!(answer.status, 200, "the API echoes what it got");
    format!("{:?} {}", answer.head, answer.text())
}

/// Everything that anybody can look at.
async fn look_around(daemon: &Daemon) -> Seen {
    let mut seen = Seen::new();
    for path in ["/metrics", "/status", "/", "/readyz", "/startupz", "/none"] {
        seen.push((path.to_owned(), daemon.admin(path).await.text()));
    }
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{}/{file}", daemon.pid())).expect("it runs");
        assert!(!bytes.is_empty());
        seen.push((file.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    let logs = daemon.logs();
    assert!(logs.contains("TRACE") && logs.contains("token refreshed") || logs.contains("refused"));
    seen.push(("logs".to_owned(), logs));
    seen
}

fn assert_silent(seen: &Seen, stage: &Stage, secrets: &[&str]) {
    let issued = stage.tokens.issued();
    let secrets = secrets.iter().copied().chain(issued.iter().map(String::as_str));
    for secret in secrets.chain([CALLERS_OWN]) {
        for (place, text) in seen {
            assert_eq!(found(text, secret), None, "{secret} in {place}: {text}");
        }
    }
}
