//! SIGTERM: prompt when idle, patient with requests that are under way, closed to new ones.

use std::time::{Duration, Instant};

use emulator::client::Client;
use emulator::{EventSource, Reply, Step};
use tokio::net::TcpStream;

use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, bearerd, eventually, request};

/// Far below the grace (30 s) and the deadline of a token request (10 s).
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_during_a_fetch_is_prompt() {
    let stage = Stage::new();
    stage.idp.set_always(Some(Step::Hang));
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &stage.route("")));
    stage.idp.wait_for_token_requests(1, DEADLINE).await.expect("a fetch");
    let signalled = Instant::now();
    assert!(daemon.stop().success());
    assert!(signalled.elapsed() < PROMPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_as_well() {
    let stage = Stage::new();
    let mut daemon = stage.ready("").await;
    daemon.signal("INT");
    assert!(daemon.exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_before_anything_is_fetched() {
    let stage = Stage::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = taken.local_addr().expect("bound").to_string();
    for key in ["listen", "admin"] {
        let mut addresses = [("listen", "127.0.0.1:0"), ("admin", "127.0.0.1:0")];
        addresses.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, a)| *a = &address);
        let [(_, listen), (_, admin)] = addresses;
        let server = format!("[server]\nlisten = [\"{listen}\"]\nadmin = \"{admin}\"\n");
        let config = server + &stage.credential("") + &stage.route("");
        let path = stage.home.write("bearerd.toml", &config);
        let (code, _, told) = bearerd(&["run", "--config", &path]);
        assert_eq!(code, 70, "{told}");
        assert!(told.contains(&format!("cannot listen on {address}")), "{told}");
    }
    assert_eq!(stage.idp.token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_the_exit() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut idle = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(idle.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    let _silent = Client::connect(daemon.proxy).await.expect("a connection");
    let signalled = Instant::now();
    assert!(daemon.stop().success());
    assert!(signalled.elapsed() < PROMPT);
    assert_eq!(idle.rest().await.expect("a clean end"), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_finished_and_new_connections_refused() {
    let stage = Stage::new();
    let source = EventSource::new();
    stage.api.serve("/events", Reply::events(&source));
    let mut daemon = stage.ready("").await;
    stage.api.script([Step::Normal, Step::Delay(Duration::from_millis(500))]);
    let proxy = daemon.proxy;
    let mut streaming = Client::connect(proxy).await.expect("a connection");
    streaming.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    assert!(source.wait_for_subscribers(1, DEADLINE).await);
    let waiting = tokio::task::JoinSet::from_iter([request(proxy, "GET", "/slow", &[], b"")]);
    stage.api.wait_for_requests(2, DEADLINE).await.expect("both under way");
    daemon.signal("TERM");
    daemon.wait_for_log("\"stopping\"");
    eventually("new connections are refused", async || TcpStream::connect(proxy).await.is_err())
        .await;
    assert_eq!(waiting.join_all().await[0].status, 200);
    assert_eq!(source.send("data: last\n\n"), 1, "the stream was cut");
    source.end();
    let answer = streaming.answer().await.expect("the whole stream");
    assert_eq!((answer.status, answer.text().as_str()), (200, "data: last\n\n"));
    assert!(daemon.exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end_at_once_while_streams_go_on_to_their_end() {
    let stage = Stage::new();
    let source = EventSource::new();
    stage.api.serve("/events", Reply::events(&source));
    let mut daemon = stage.ready("").await;
    let (mut idle, mut streaming) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
        idle.push(caller);
    }
    for _ in 0..20 {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        caller.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        streaming.push(caller);
    }
    assert!(source.wait_for_subscribers(20, DEADLINE).await);
    daemon.signal("TERM");
    for caller in &mut idle {
        let rest = tokio::time::timeout(DEADLINE, caller.rest()).await.expect("ended at once");
        assert_eq!(rest.expect("a clean end"), b"");
    }
    for number in 0..10 {
        let event = format!("data: {number}\n\n");
        assert_eq!(source.send(event.clone()), 20, "a stream was cut");
        for caller in &mut streaming {
            caller.until(&event).await.expect("the stream goes on");
        }
    }
    let ended = Instant::now();
    source.end();
    for caller in &mut streaming {
        // Its last chunk and the end, though the caller would have kept the connection.
        assert!(caller.rest().await.expect("a clean end").ends_with(b"0\r\n\r\n"));
    }
    assert!(daemon.exit().success());
    assert!(ended.elapsed() < PROMPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_bounds_what_is_waited_for() {
    let stage = Stage::new();
    let source = EventSource::new();
    stage.api.serve("/events", Reply::events(&source));
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  shutdown_grace_seconds = 1\n";
    let config = format!("{server}{}{}", stage.credential(""), stage.route(""));
    let daemon = Daemon::start_with(&stage.home, &config);
    let mut streaming = Client::connect(daemon.proxy).await.expect("a connection");
    streaming.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    assert!(source.wait_for_subscribers(1, DEADLINE).await);
    assert!(daemon.stop().success());
    assert!(streaming.answer().await.is_err(), "a stream that was cut looks whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_goes_with_its_daemon() {
    let stage = Stage::new();
    let socket = stage.home.path("proxy.sock");
    let server =
        format!("[server]\nlisten = [\"unix:{}\"]\nadmin = \"127.0.0.1:0\"\n", socket.display());
    let config = server + &stage.credential("") + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    assert!(socket.exists());
    assert!(daemon.stop().success());
    assert!(!socket.exists());
}
