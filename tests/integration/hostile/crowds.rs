//! Many callers at once: memory stays under what `bearerd check` says that the limits come to.

use emulator::client::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::pressure::memory;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, bearerd, eventually};

/// Open files that this machine lets a process have.
fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// What `bearerd check` says that memory stays under, in KiB.
fn promised(config: &str) -> u64 {
    let (code, said, told) = bearerd(&["check", "--config", config]);
    assert_eq!(code, 0, "{told}");
    let line = said.lines().find(|line| line.starts_with("memory")).expect("the bound is told");
    let mib = line.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    mib.expect("a number of MiB") << 10
}

/// The default limit, as far as this machine has the files for it on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_held_and_one_more_is_told_so() {
    let files = rustix::process::Resource::Nofile;
    let most = open_files();
    let all = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(files, all).expect("its own limit");
    let limit = 10_000.min(usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(1000));
    let stage = Stage::new();
    let server = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         limits = {{ connections = {limit}, idle_seconds = 3600 }}\n"
    );
    let config = server + &stage.credential("") + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let mut crowd = Vec::with_capacity(limit);
    while crowd.len() < limit {
        let connecting = timeout(DEADLINE, TcpStream::connect(daemon.proxy)).await;
        crowd.push(connecting.expect("in time").expect("a connection"));
    }
    // The first of them works, and the last.
    for index in [0, limit - 1] {
        let head = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
        crowd[index].write_all(head).await.expect("open");
        let mut first = [0; 12];
        let reading = tokio::io::AsyncReadExt::read_exact(&mut crowd[index], &mut first);
        timeout(DEADLINE, reading).await.expect("in time").expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    let mut caller = Client::connect(daemon.proxy).await.expect("accepted, to be told");
    caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let answer = timeout(DEADLINE, caller.answer()).await.expect("in time").expect("told");
    assert_eq!((answer.status, answer.header("bearerd-reason")), (503, Some("overloaded")));
    assert_eq!(daemon.admin("/livez").await.status, 200);
    let config = stage.home.path("bearerd.toml").display().to_string();
    assert!(memory(&daemon, "VmHWM") < promised(&config));
    crowd.truncate(limit / 2);
    eventually("there is room again", async || daemon.get("/a").await.status == 200).await;
}

/// Uploads whose upstream takes nothing: copies, windows and buffers are as large as they get.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_takes_stay_within_what_is_promised() {
    const CALLERS: usize = 200;
    let stage = Stage::new();
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = upstream.local_addr().expect("bound");
    let server = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         limits = {{ connections = {CALLERS}, replay_bytes = 4194304 }}\n"
    );
    let route = route_to(&format!("http://{address}"), "replay = { body_bytes = 1048576 }");
    let config = server + &stage.credential("") + &route;
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let path = stage.home.path("bearerd.toml").display().to_string();
    let promised = promised(&path);
    let mut uploads = JoinSet::new();
    for _ in 0..CALLERS {
        let proxy = daemon.proxy;
        uploads.spawn(async move {
            let mut caller = TcpStream::connect(proxy).await.expect("a connection");
            let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
            caller.write_all(head.as_bytes()).await.expect("sent");
            let chunk = [&b"10000\r\n"[..], &vec![b'x'; 1 << 16], b"\r\n"].concat();
            // As long as somebody takes it.
            let pause = std::time::Duration::from_millis(500);
            let mut taken = 0;
            while let Ok(Ok(())) = timeout(pause, caller.write_all(&chunk)).await {
                taken += chunk.len();
                assert!(taken < 64 << 20, "nobody held this back");
            }
            caller
        });
    }
    let mut held = Vec::new();
    while held.len() < CALLERS {
        let accepted = timeout(DEADLINE, upstream.accept()).await.expect("in time");
        held.push(accepted.expect("a connection"));
    }
    let callers = uploads.join_all().await;
    let used = memory(&daemon, "VmHWM");
    assert!(used < promised, "{used} KiB of {promised}");
    drop((callers, held));
    let ended = async || daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0;
    eventually("all of them are over", ended).await;
}
