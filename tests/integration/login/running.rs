//! A login beside a daemon that runs: it says which command mends it, and goes on at once.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Browser, Login, left_there, signed_in_for, stored};
use crate::stage::Stage;
use crate::support::{Daemon, bearerd, eventually, request};

/// A stage whose credential has a first refresh token that is dead.
fn dead() -> (Stage, String) {
    let stage = Stage::new();
    let first = stage.home.write("first", &stage.idp.issue_refresh_token("client"));
    stage.idp.revoke_families();
    let config = signed_in_for(&stage, &format!("refresh_token = {{ file = \"{first}\" }}\n"));
    (stage, config)
}

async fn needs_operator(daemon: &Daemon) -> bool {
    daemon.metric("bearerd_needs_operator", &["credential=\"c\""]).await > 0.0
}

/// Signs in in a browser, and returns what the terminal said.
async fn sign_in(stage: &Stage) -> String {
    let login = Login::start(&stage.home, &["--code"]);
    assert_eq!(Browser::default().open(&login.url()).await.status, 200);
    let (code, out, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_refresh_token_is_mended_by_the_command_that_is_told_while_requests_come() {
    let (stage, config) = dead();
    let daemon = Daemon::start_with(&stage.home, &config);
    eventually("a person is needed", async || needs_operator(&daemon).await).await;
    let command = format!("bearerd login --config {} c", stage.home.path("bearerd.toml").display());
    let last = daemon.status().await["credentials"][0]["last"].clone();
    assert_eq!(
        (&last["needs_operator"], &last["remedy"]),
        (&true.into(), &command.as_str().into())
    );
    assert!(daemon.admin("/").await.text().contains(&command));
    let line = daemon.wait_for_log("refresh failed");
    assert!(line.contains(&format!("\"remedy\":\"{command}\"")), "{line}");
    let help = daemon.admin("/metrics").await.text();
    assert!(help.contains("bearerd login --config FILE CREDENTIAL"), "{help}");
    let series = format!("bearerd_login_info{{command=\"{command}\",credential=\"c\"}} 1");
    assert!(help.contains(&series), "{help}");
    // Requests all the while.
    let (over, served, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let load = Arc::new((over, served, refused));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (load, proxy) = (Arc::clone(&load), daemon.proxy);
            tokio::spawn(async move {
                while !load.0.load(Relaxed) {
                    match request(proxy, "GET", "/", &[], b"").await.status {
                        200 => load.1.fetch_add(1, Relaxed),
                        503 => load.2.fetch_add(1, Relaxed),
                        other => panic!("{other}"),
                    };
                }
            })
        })
        .collect();
    eventually("refused", async || load.2.load(Relaxed) > 100).await;
    let (fetches, attempts) = (stage.idp.token_requests(), stage.idp.audit_failures());
    let out = sign_in(&stage).await;
    let store = stage.home.path("store.json");
    let holder = format!("process {}", daemon.pid());
    assert!(
        out.ends_with(&format!("is in {}: {holder} goes on with it.\n", store.display())),
        "{out}"
    );
    eventually("served", async || load.1.load(Relaxed) > 100).await;
    load.0.store(true, Relaxed);
    for caller in callers {
        caller.await.expect("200 or 503");
    }
    // With the access token of the login: nobody had to ask for another one.
    assert_eq!(stage.idp.token_requests(), fetches + 1, "the code, and nothing else");
    assert_eq!(stage.idp.audit_failures(), attempts);
    assert!(!needs_operator(&daemon).await);
    let status = daemon.status().await["credentials"][0].clone();
    assert_eq!((&status["phase"], &status["last"]["outcome"]), (&"fresh".into(), &"ok".into()));
    assert_eq!(left_there(&stage.home), ["store.json", "store.json.lock"]);
    assert_eq!(Some(stored(&stage.home)), stage.idp.current_refresh_token());
    // And the refresh token is the one that is used from now on, here and after a restart.
    let before = stage.idp.rotations();
    stage.tokens.revoke_all();
    eventually("a refresh", async || daemon.get("/").await.status == 200).await;
    assert_eq!((stage.idp.rotations(), stage.idp.family_alive()), (before + 1, false));
    assert!(daemon.stop().success());
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    stage.tokens.revoke_all();
    eventually("a refresh", async || daemon.get("/").await.status == 200).await;
    assert_eq!(stage.idp.rotations(), before + 2);
    assert_eq!(stage.idp.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_before_the_first_start_is_what_the_daemon_begins_with() {
    let stage = Stage::new();
    let config = signed_in_for(&stage, "");
    stage.home.write("bearerd.toml", &config);
    sign_in(&stage).await;
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(stage.idp.token_requests(), 1, "the code: its access token is still good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_replaces_a_chain_that_works() {
    let stage = Stage::new();
    let config = signed_in_for(&stage, "");
    stage.home.write("bearerd.toml", &config);
    sign_in(&stage).await;
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let first = stored(&stage.home);
    sign_in(&stage).await;
    assert_ne!(stored(&stage.home), first);
    eventually("the next generation", async || {
        daemon.status().await["credentials"][0]["generation"] == 2
    })
    .await;
    let before = stage.idp.rotations();
    stage.tokens.revoke_all();
    eventually("a refresh", async || daemon.get("/").await.status == 200).await;
    assert!(stage.idp.rotations() == before + 1 && stage.idp.family_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_user_could_have_put_there_is_not_taken_up() {
    let stage = Stage::new();
    let config = signed_in_for(&stage, "");
    stage.home.write("bearerd.toml", &config);
    sign_in(&stage).await;
    let record = std::fs::read(stage.home.path("store.json")).unwrap();
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let left = stage.home.path("store.json.login");
    for (content, mode) in [(record.as_slice(), 0o644), (b"{}", 0o600)] {
        let beside = stage.home.path("store.json.new-login");
        std::fs::write(&beside, content).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(&beside, &left).unwrap();
        let told = if mode == 0o600 { "is torn" } else { "may be read by others" };
        daemon.wait_for_log(told);
    }
    assert!(left.exists(), "it is left for a person to look at");
    assert_eq!(daemon.status().await["credentials"][0]["generation"], 1);
    // A login that is one replaces it.
    sign_in(&stage).await;
    assert!(!left.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_another_account_is_left_alone() {
    let stage = Stage::new();
    stage.idp.add_client("another", None);
    let config = signed_in_for(&stage, "");
    stage.home.write("bearerd.toml", &config);
    sign_in(&stage).await;
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let another = signed_in_for(&stage, "client_id = \"another\"\nclient_auth = \"none\"\n");
    let path = stage.home.write("another.toml", &another);
    let mut login = std::process::Command::new(env!("CARGO_BIN_EXE_bearerd"));
    login.args(["login", "--config", &path, "c", "--code"]).stdout(std::process::Stdio::piped());
    let mut login = login.spawn().expect("bearerd starts");
    let mut url = String::new();
    let mut lines = std::io::BufReader::new(login.stdout.take().expect("piped"));
    while !url.trim().starts_with("http") {
        url.clear();
        std::io::BufRead::read_line(&mut lines, &mut url).expect("a line");
    }
    assert_eq!(Browser::default().open(url.trim()).await.status, 200);
    daemon.wait_for_log("the store holds a login of another account");
    assert_eq!(daemon.status().await["credentials"][0]["generation"], 1);
    assert!(stage.home.path("store.json.login").exists());
    let _ = login.kill();
    let _ = login.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_sign_in_no_command_is_promised() {
    let stage = Stage::new();
    let first = stage.home.write("first", "never issued");
    let urls = format!("token_url = \"{}\"\n", stage.idp.token_url());
    let config =
        signed_in_for(&stage, &format!("{urls}refresh_token = {{ file = \"{first}\" }}\n"));
    let daemon = Daemon::start_with(&stage.home, &config);
    eventually("a person is needed", async || needs_operator(&daemon).await).await;
    let last = daemon.status().await["credentials"][0]["last"].clone();
    assert_eq!((&last["needs_operator"], &last["remedy"]), (&true.into(), &().into()));
    assert!(!daemon.logs().contains("bearerd login"));
    assert!(!daemon.admin("/metrics").await.text().contains("bearerd_login_info{"));
    let (code, _, errors) = bearerd(&[
        "login",
        "--config",
        &stage.home.path("bearerd.toml").display().to_string(),
        "c",
    ]);
    assert!(code == 64 && errors.contains("nobody can sign in for c"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_command_too() {
    let (stage, config) = dead();
    let path = stage.home.write("bearerd.toml", &config);
    let (code, out, _) = bearerd(&["check", "--config", &path, "--fetch"]);
    assert!(code == 1 && out.contains(&format!("; run bearerd login --config {path} c")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_wait_for_a_daemon_that_is_slow_to_take_a_login_up() {
    let (stage, config) = dead();
    let daemon = Daemon::start_with(&stage.home, &config);
    eventually("a person is needed", async || needs_operator(&daemon).await).await;
    for signal in ["INT", "TERM"] {
        daemon.signal("STOP");
        let login = Login::start(&stage.home, &["--code"]);
        assert_eq!(Browser::default().open(&login.url()).await.status, 200);
        login.line("Signed in.");
        login.signal(signal);
        let (code, out, errors) = login.end();
        assert_eq!(code, 0, "{errors}");
        assert!(out.ends_with(&format!(", for process {} to take up.\n", daemon.pid())), "{out}");
        // It is durable: nothing was lost.
        assert!(stage.home.path("store.json.login").exists());
        daemon.signal("CONT");
        eventually("taken up", async || !stage.home.path("store.json.login").exists()).await;
    }
    eventually("well", async || !needs_operator(&daemon).await).await;
    assert_eq!(Some(stored(&stage.home)), stage.idp.current_refresh_token());
}
