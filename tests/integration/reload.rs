//! Changed files while the daemon runs: taken over whole, or not at all.

use std::os::unix::fs::symlink;

use emulator::client::Client;
use emulator::{Oauth2, Tls};

use crate::by_hand::{ByHand, REFUSED};
use crate::hostile::frames::{Raw, Seen, get, post};
use crate::stage::{Stage, route_to};
use crate::support::{Daemon, eventually, request};

const SERVER: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_route_is_served_on_an_open_connection() {
    let stage = Stage::new();
    let narrow = stage.route("name = \"narrow\"\npath_prefix = \"/narrow\"");
    let daemon = start(&stage, &narrow);
    daemon.ready().await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    for (target, status) in [("/narrow", 200), ("/wide", 404)] {
        let answer = caller.request("GET", target, &[], b"").await.expect("an answer");
        assert_eq!(answer.status, status, "{target}");
    }
    let token = stage.tokens.latest();
    // Noticed without a signal.
    rewrite(&stage, &(narrow + &stage.route("name = \"wide\"")));
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    let answer = caller.request("GET", "/wide", &[], b"").await.expect("the same connection");
    assert_eq!(answer.status, 200);
    assert_eq!((stage.tokens.latest(), stage.idp.token_requests()), (token, 1));
    assert_eq!(daemon.metric("bearerd_token_generation", &[]).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reloads_even_if_nothing_changed() {
    let stage = Stage::new();
    let daemon = start(&stage, &stage.route(""));
    daemon.ready().await;
    daemon.signal("HUP");
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(stage.idp.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_keeps_the_former_configuration() {
    let stage = Stage::new();
    let daemon = start(&stage, &stage.route(""));
    daemon.ready().await;
    let bad = format!("{SERVER}{}{}", stage.credential(""), stage.route("pathprefix = \"/x\""));
    let line = 1 + bad.lines().position(|line| line.starts_with("pathprefix")).expect("a line");
    replace(&stage, &bad);
    let log = daemon.wait_for_log("configuration not reloaded");
    assert!(log.contains("pathprefix") && log.contains(&format!("line {line}: ")), "{log}");
    eventually("counted", async || reloads(&daemon, "failed").await == 1).await;
    assert_eq!(daemon.get("/").await.status, 200);
    // A file that is good again is taken over.
    rewrite(&stage, &stage.route("path_prefix = \"/x\""));
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    assert_eq!((daemon.get("/x").await.status, daemon.get("/").await.status), (200, 404));
    assert_eq!(stage.idp.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_refused_and_nothing_of_the_file_taken_over() {
    let stage = Stage::new();
    let daemon = start(&stage, &stage.route(""));
    daemon.ready().await;
    let server = SERVER.replacen("127.0.0.1:0", "127.0.0.1:1", 1);
    let route = stage.route("path_prefix = \"/x\"");
    replace(&stage, &format!("{server}{}{route}", stage.credential("")));
    daemon.wait_for_log("server.listen cannot change while bearerd runs");
    eventually("counted", async || reloads(&daemon, "failed").await == 1).await;
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_credential_that_changed_starts_anew() {
    let stage = Stage::new();
    let other = Oauth2::start(Tls::Off, &stage.tokens);
    let second = |scope: &str| {
        stage
            .credential_from(&other.token_url(), scope)
            .replace("[credentials.c]", "[credentials.d]")
    };
    let routes = route_to(&stage.api.url(), "path_prefix = \"/d\"").replace("\"c\"", "\"d\"")
        + &stage.route("");
    let daemon = start(&stage, &(second("") + &routes));
    daemon.ready().await;
    rewrite(&stage, &(second("scope = [\"more\"]") + &routes));
    eventually("the second one fetched again", async || other.token_requests() == 2).await;
    daemon.ready().await;
    for target in ["/", "/d"] {
        assert_eq!(daemon.get(target).await.status, 200, "{target}");
    }
    let scope = other.last_request().expect("a request").form().value("scope").map(str::to_owned);
    assert_eq!(scope.as_deref(), Some("more"));
    assert_eq!(stage.idp.token_requests(), 1);
    assert_eq!(daemon.metric("bearerd_token_generation", &["\"c\""]).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_is_followed_through_a_swap_of_symlinks() {
    let stage = Stage::new();
    for (version, token) in [("..1", "the-first-token"), ("..2", "the-second-token")] {
        stage.tokens.issue(token, None);
        std::fs::create_dir(stage.home.path(version)).expect("a directory");
        stage.home.write(&format!("{version}/token"), token);
    }
    // As a Kubernetes volume is: token -> ..data/token, ..data -> ..1
    symlink("..1", stage.home.path("..data")).expect("a link");
    symlink("..data/token", stage.home.path("token")).expect("a link");
    let path = stage.home.path("token").display().to_string();
    let credential = format!("[credentials.c]\nprovider = \"file\"\npath = \"{path}\"\n");
    let daemon = Daemon::start(&stage.home, &(credential + &stage.route("")));
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    symlink("..2", stage.home.path("..data_tmp")).expect("a link");
    std::fs::rename(stage.home.path("..data_tmp"), stage.home.path("..data")).expect("swapped");
    eventually("the second token", async || {
        assert_eq!(daemon.get("/").await.status, 200);
        stage.api.tally("the-second-token").ok > 0
    })
    .await;
    stage.tokens.revoke("the-first-token");
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(daemon.metric("bearerd_token_fetches_total", &["changed", "ok"]).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_dialect_file_is_taken_over() {
    let stage = Stage::new();
    let dialect = |scope: &str| {
        format!(
            "format = 1\nname = \"ours\"\nflow = {{ obtain = [\"login\"] }}\n\
             [keys]\nhost = {{ kind = \"host\", required = true }}\n\
             secret = {{ kind = \"secret\", required = true }}\n\
             [exchange.login]\nurl = \"{{host}}/token\"\nform = [[\"client_id\", \"client\"], \
             [\"grant_type\", \"client_credentials\"], [\"client_secret\", \"{{secret}}\"], \
             [\"scope\", \"{scope}\"]]\n"
        )
    };
    let path = stage.home.write("dialect.toml", &dialect("first"));
    let address = stage.idp.server().address();
    let secret = stage.home.path("secret").display().to_string();
    let config = format!(
        "{SERVER}[credentials.c]\nprovider = \"custom\"\ndialect = \"{path}\"\n\
         host = \"http://{address}\"\nsecret = {{ file = \"{secret}\" }}\n{}",
        stage.route("")
    );
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    // A bad one changes nothing.
    std::fs::write(&path, "name = 1").expect("written");
    let log = daemon.wait_for_log("configuration not reloaded");
    assert!(log.contains("dialect.toml"), "{log}");
    assert_eq!((daemon.get("/").await.status, stage.idp.token_requests()), (200, 1));
    stage.home.write("new-dialect", &dialect("second"));
    std::fs::rename(stage.home.path("new-dialect"), &path).expect("renamed");
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    eventually("asked anew", async || stage.idp.token_requests() == 2).await;
    let scope =
        stage.idp.last_request().expect("a request").form().value("scope").map(str::to_owned);
    assert_eq!(scope.as_deref(), Some("second"));
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_configuration_lacked_may_come_later() {
    let stage = Stage::new();
    let daemon = start(&stage, &stage.route(""));
    daemon.ready().await;
    let wide = stage.route("name = \"wide\"\npath_prefix = \"/wide\"");
    // In a directory that nobody watches.
    std::fs::create_dir(stage.home.path("elsewhere")).expect("a directory");
    let secret = stage.home.path("elsewhere/secret").display().to_string();
    let another = format!("client_secret = {{ file = \"{secret}\" }}");
    let former = stage.home.path("secret").display().to_string();
    let former = format!("client_secret = {{ file = \"{former}\" }}");
    let config = format!("{SERVER}{}{wide}", stage.credential("").replace(&former, &another));
    assert!(config.contains(&another));
    replace(&stage, &config);
    daemon.wait_for_log("put the secret there first");
    assert_eq!((daemon.get("/").await.status, reloads(&daemon, "failed").await), (200, 1));
    stage.home.write("elsewhere/secret", "secret");
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    assert_eq!((daemon.get("/").await.status, daemon.get("/wide").await.status), (404, 200));
    assert_eq!(reloads(&daemon, "failed").await, 1, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_wrong_leaves_credentials_and_connections_as_they_are() {
    let stage = Stage::new();
    let daemon = start(&stage, &stage.route(""));
    daemon.ready().await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    let token = stage.tokens.latest();
    // The credential would start anew, another one would come, and the first route cannot be.
    let nonsense = stage.home.write("nonsense.pem", "not a certificate");
    let more = stage.credential("").replace("[credentials.c]", "[credentials.d]");
    let unreadable = format!("name = \"s\"\ntls = {{ ca_file = \"{nonsense}\" }}");
    for (failures, bad, told) in [
        (1, route_to("https://localhost:1", &unreadable), "nonsense.pem"),
        (2, route_to("https://a..b", "name = \"s\""), "no certificate could be for"),
    ] {
        let changed = stage.credential("scope = [\"more\"]");
        replace(
            &stage,
            &format!("{SERVER}{changed}{more}{bad}{}", stage.route("path_prefix = \"/x\"")),
        );
        eventually("counted", async || reloads(&daemon, "failed").await == failures).await;
        eventually(told, async || daemon.logs().contains(told)).await;
    }
    let answer = caller.request("GET", "/", &[], b"").await.expect("the same connection");
    assert_eq!(answer.status, 200);
    let status = daemon.status().await;
    let names: Vec<_> =
        status["credentials"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!((names, &status["credentials"][0]["generation"]), (vec!["c".into()], &1.into()));
    assert_eq!((stage.tokens.latest(), stage.idp.token_requests()), (token, 1));
    assert_eq!(stage.api.server().connections(), 1, "the pool went on, too");
    assert_eq!(daemon.metric("bearerd_token_fetches_total", &[]).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_kept_count_on_after_a_reload() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let limited = |bytes: usize| {
        let route = route_to(&format!("http://{}", upstream.address), "");
        let limits = format!("limits = {{ replay_bytes = {bytes} }}");
        format!("{SERVER}{limits}\n{}{route}", stage.credential(""))
    };
    let daemon = Daemon::start_with(&stage.home, &limited(10_000));
    daemon.ready().await;
    let proxy = daemon.proxy;
    let post = || {
        let body = [&[b'x'; 8000][..], b"end"].concat();
        tokio::spawn(async move { request(proxy, "POST", "/", &[], &body).await })
    };
    let first = post();
    let mut held = upstream.accept().await;
    held.until("end").await;
    daemon.signal("HUP");
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    // There is no room for another copy.
    let second = post();
    let mut peer = upstream.accept().await;
    peer.until("end").await;
    peer.send(REFUSED).await;
    assert_eq!(second.await.expect("no panic").status, 401);
    assert_eq!(daemon.metric("bearerd_replays_total", &["body_too_large"]).await as u64, 1);
    // There is, once there may be more.
    replace(&stage, &limited(20_000));
    eventually("reloaded", async || reloads(&daemon, "ok").await == 2).await;
    let third = post();
    peer.until("end").await;
    peer.send(REFUSED).await;
    peer.until("end").await;
    peer.ok("third").await;
    assert_eq!(third.await.expect("no panic").text(), "third");
    held.ok("first").await;
    assert_eq!(first.await.expect("no panic").text(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http2_count_on_after_a_reload_on_connections_that_are_open() {
    let stage = Stage::new();
    let limited = |requests: usize| {
        let limits = format!("limits = {{ http2_requests = {requests} }}");
        format!("{SERVER}{limits}\n{}{}", stage.credential(""), stage.route(""))
    };
    let daemon = Daemon::start_with(&stage.home, &limited(1));
    daemon.ready().await;
    let mut raw = Raw::greet(daemon.proxy).await;
    raw.send(&post(1, "/in", &[])).await;
    eventually("under way", async || {
        daemon.metric("bearerd_requests_in_flight", &[]).await as u64 == 1
    })
    .await;
    daemon.signal("HUP");
    eventually("reloaded", async || reloads(&daemon, "ok").await == 1).await;
    raw.send(&get(3, "/")).await;
    assert_eq!(raw.answer(3).await, Seen::Status(503));
    replace(&stage, &limited(2));
    eventually("reloaded", async || reloads(&daemon, "ok").await == 2).await;
    raw.send(&get(5, "/")).await;
    assert_eq!(raw.answer(5).await, Seen::Status(200));
}

/// Starts with the credential `c` and `rest`.
fn start(stage: &Stage, rest: &str) -> Daemon {
    Daemon::start_with(&stage.home, &format!("{SERVER}{}{rest}", stage.credential("")))
}

/// Replaces the configuration by one with the credential `c` and `rest`.
fn rewrite(stage: &Stage, rest: &str) {
    replace(stage, &format!("{SERVER}{}{rest}", stage.credential("")));
}

/// Replaces the configuration in one step, so that nobody reads half of it.
fn replace(stage: &Stage, config: &str) {
    stage.home.write("new.toml", config);
    std::fs::rename(stage.home.path("new.toml"), stage.home.path("bearerd.toml")).expect("renamed");
}

async fn reloads(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    daemon.metric("bearerd_config_reloads_total", &[&label]).await as u64
}
