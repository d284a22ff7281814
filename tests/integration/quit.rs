//! `POST /quitquitquit`: the same end as by SIGTERM, for who may ask for it.

use emulator::client::Client;
use emulator::{EventSource, Reply};
use tokio::net::TcpStream;

use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, eventually, request};

fn start(stage: &Stage, server: &str) -> Daemon {
    let server =
        format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}\n");
    Daemon::start_with(&stage.home, &(server + &stage.credential("") + &stage.route("")))
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_quit_it_answers_finishes_what_is_under_way_and_exits_0() {
    let stage = Stage::new();
    let source = EventSource::new();
    stage.api.serve("/events", Reply::events(&source));
    let mut daemon = start(&stage, "quit_endpoint = true");
    daemon.ready().await;
    let mut streaming = Client::connect(daemon.proxy).await.expect("a connection");
    streaming.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    assert!(source.wait_for_subscribers(1, DEADLINE).await);
    let answer = request(daemon.admin, "POST", "/quitquitquit", &[], b"").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "stopping\n"));
    let proxy = daemon.proxy;
    eventually("new connections are refused", async || TcpStream::connect(proxy).await.is_err())
        .await;
    assert_eq!(source.send("data: last\n\n"), 1, "the stream was cut");
    source.end();
    let answer = streaming.answer().await.expect("the whole stream");
    assert_eq!((answer.status, answer.text().as_str()), (200, "data: last\n\n"));
    assert!(daemon.exit().success());
    let line = daemon.wait_for_log("\"stopping\"");
    assert!(line.contains("\"signal\":\"quitquitquit\""), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unless_it_is_configured_nobody_can_ask_it_to_quit() {
    let stage = Stage::new();
    let daemon = start(&stage, "");
    daemon.ready().await;
    let answer = request(daemon.admin, "POST", "/quitquitquit", &[], b"").await;
    assert_eq!(answer.status, 405);
    assert_eq!(daemon.admin("/quitquitquit").await.status, 404);
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_may_allow_it() {
    let stage = Stage::new();
    let mut daemon = start(&stage, "");
    daemon.ready().await;
    let config = crate::support::read(stage.home.path("bearerd.toml"));
    let allowed = config.replace("[server]", "[server]\nquit_endpoint = true");
    stage.home.write("bearerd.toml", &allowed);
    daemon.wait_for_log("configuration reloaded");
    let refused =
        request(daemon.admin, "POST", "/quitquitquit", &[("Origin", "https://page.example")], b"");
    assert_eq!(refused.await.status, 403);
    let answer = request(daemon.admin, "POST", "/quitquitquit", &[], b"").await;
    assert_eq!(answer.status, 200);
    assert!(daemon.exit().success());
}
