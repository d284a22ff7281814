//! Upstreams that are down, hang, break off or close idle connections: what the caller is told.

use std::time::{Duration, Instant};

use emulator::client::Client;
use emulator::{Fault, FaultProxy, Reply, Step};

use crate::stage::{Stage, route_to};
use crate::support::{Daemon, eventually, read};

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_a_502_until_it_is_back() {
    let stage = Stage::new();
    let network = FaultProxy::start(stage.api.server().address());
    network.refuse(true).await;
    let route = route_to(&format!("http://{}", network.address()), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.header("bearerd-reason")), unreachable());
    network.refuse(false).await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(refused(&daemon, "upstream_unreachable").await, 1);
}

fn unreachable() -> (u16, Option<&'static str>) {
    (502, Some("upstream_unreachable"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_a_504() {
    let stage = Stage::new();
    let daemon = stage.ready("timeouts = { response_ms = 200 }").await;
    for step in [Step::Hang, Step::Stall] {
        stage.api.script([step]);
        let begun = Instant::now();
        let answer = daemon.post("/", b"body").await;
        let reason = answer.header("bearerd-reason");
        assert_eq!((answer.status, reason), (504, Some("upstream_timeout")));
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "connecting has a bound of its own, of 5 s"
        );
    }
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(stage.api.request_count(), 3, "a request in doubt was sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_speaks_no_http_is_a_502() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    for step in [
        Step::Garbage,
        Step::Reset,
        Step::Raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\
        Content-Length: 2\r\n\r\nab"
                .to_vec(),
        ),
    ] {
        stage.api.script([step.clone()]);
        let answer = daemon.post("/", b"body").await;
        let reason = answer.header("bearerd-reason");
        assert_eq!((answer.status, reason), (502, Some("upstream_protocol")), "{step:?}");
    }
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_cut_short_upstream_is_cut_short_downstream() {
    let stage = Stage::new();
    let cut = Fault::Cut { after_bytes: 50_000 };
    let whole = Reply::pattern(100_000);
    stage.api.serve("/length", whole.clone().with_fault(cut.clone()));
    stage.api.serve("/chunked", whole.clone().chunked(8192).with_fault(cut));
    stage.api.serve("/whole", whole.chunked(8192));
    let daemon = stage.ready("").await;
    for path in ["/length", "/chunked"] {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let answer = caller.request("GET", path, &[], b"").await;
        let error = answer.expect_err("a message that did not end came out whole");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{path}");
    }
    assert_eq!(daemon.get("/whole").await.body.len(), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_the_upstream_closes_costs_a_get_nothing() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    assert_eq!(daemon.get("/").await.status, 200);
    // The request goes out on the pooled connection, which ends without a byte.
    stage.api.script([Step::Close]);
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!((stage.api.request_count(), stage.api.server().connections()), (3, 2));
    // A request with a body may have had its effect: it is not sent again.
    stage.api.script([Step::Close]);
    let answer = daemon.post("/", b"order").await;
    let reason = answer.header("bearerd-reason");
    assert_eq!((answer.status, reason), (502, Some("upstream_protocol")));
    assert_eq!(stage.api.request_count(), 4);
    // Nor is one that failed on a new connection.
    stage.api.script([Step::Close]);
    assert_eq!(daemon.get("/").await.status, 502);
    assert_eq!(stage.api.request_count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_closed_while_idle_is_not_used() {
    let stage = Stage::new();
    let network = FaultProxy::start(stage.api.server().address());
    let route = route_to(&format!("http://{}", network.address()), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    assert_eq!(daemon.post("/", b"1").await.status, 200);
    network.reset_open();
    eventually("the reset has arrived", async || !connected_to(network.address().port())).await;
    assert_eq!(daemon.post("/", b"2").await.status, 200);
    assert_eq!(network.connections(), 2);
}

/// Whether this machine has a connection open whose other end is `port`.
fn connected_to(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    read("/proc/net/tcp").lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        let remote = columns.next().is_some_and(|remote| remote.ends_with(&format!(":{port:04X}")));
        remote && columns.next() == Some(ESTABLISHED)
    })
}

async fn refused(daemon: &Daemon, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    daemon.metric("bearerd_refused_total", &[&label]).await as u64
}
