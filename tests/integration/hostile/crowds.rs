//! Many callers at once: memory stays under what `bearerd check` says that the limits come to.

use std::net::SocketAddr;
use std::time::Duration;

use emulator::client::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::by_hand::REFUSED;
use crate::pressure::memory;
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, bearerd, eventually, read};

/// Open files that this machine lets a process have.
fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// As many as this process may have.
pub(super) fn allow_all_files() {
    let most = open_files();
    let all = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).expect("its own limit");
}

/// What `bearerd check` says that memory stays under, in KiB.
pub(super) struct Promised {
    all: u64,
    /// One HTTP/1 connection.
    each: u64,
    /// One HTTP/2 connection, and one request on it.
    pub(super) http2: (u64, u64),
}

pub(super) fn promised(stage: &Stage) -> Promised {
    let config = stage.home.path("bearerd.toml").display().to_string();
    let (code, said, told) = bearerd(&["check", "--config", &config]);
    assert_eq!(code, 0, "{told}");
    let numbers = |begins: &str| -> Vec<u64> {
        let line = said.lines().find(|line| line.starts_with(begins)).expect("the bound is told");
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let [all, .., each] = numbers("memory")[..] else { panic!("{said}") };
    let [.., http2, _, request] = numbers("if all of those")[..] else { panic!("{said}") };
    Promised { all: all << 10, each, http2: (http2, request) }
}

/// The default limit, as far as this machine has the files for it on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_held_and_one_more_is_told_so() {
    allow_all_files();
    let most = open_files();
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
    assert!(memory(&daemon, "VmHWM") < promised(&stage).all);
    crowd.truncate(limit / 2);
    eventually("there is room again", async || daemon.get("/a").await.status == 200).await;
}

/// A burst is not told to come again later, which is what a short queue would do to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_find_a_place_in_the_queue_while_nobody_accepts() {
    allow_all_files();
    let allowed = read("/proc/sys/net/core/somaxconn").trim().parse().expect("a number");
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    daemon.signal("STOP");
    let mut crowd = Vec::new();
    while crowd.len() < 1000.min(allowed) {
        let connecting = timeout(DEADLINE, Client::connect(daemon.proxy)).await;
        crowd.push(connecting.expect("there is a place").expect("a connection"));
    }
    daemon.signal("CONT");
    for caller in &mut crowd {
        let answer = caller.request("GET", "/a", &[], b"").await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
}

/// A connection with small buffers of the kernel's own: what is held is to be held by bearerd.
pub(super) async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(8192).expect("settable");
    socket.set_recv_buffer_size(8192).expect("settable");
    socket.connect(address).await.expect("a connection")
}

/// The same for whoever connects here.
pub(super) fn narrow_listener() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8192).expect("settable");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    socket.listen(1024).expect("a listener")
}

/// Writes pieces of this as long as somebody takes them, up to `most` bytes.
async fn stuff(to: &mut TcpStream, piece: &[u8], most: usize) {
    let (pause, mut taken) = (Duration::from_millis(500), 0);
    while taken < most
        && let Ok(Ok(())) =
            timeout(pause, to.write_all(&piece[..piece.len().min(most - taken)])).await
    {
        taken += piece.len();
    }
}

/// Uploads with copies for replays, at first to an upstream that takes nothing of them, and then to
/// one that refuses the token before it has: copies, windows and buffers are as large as they get.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_uploads_of_10_mib_with_copies_stay_within_what_is_promised() {
    const CALLERS: usize = 1000;
    const LENGTH: usize = 10 << 20;
    allow_all_files();
    let (stage, upstream) = (Stage::new(), narrow_listener());
    let address = upstream.local_addr().expect("bound");
    let server = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         limits = {{ connections = {CALLERS} }}\n"
    );
    let more = format!("replay = {{ body_bytes = {LENGTH} }}\nwait_ms = 60000");
    let route = route_to(&format!("http://{address}"), &more);
    let daemon = Daemon::start_with(&stage.home, &(server + &stage.credential("") + &route));
    daemon.ready().await;
    let promised = promised(&stage).all;
    let mut uploads = JoinSet::new();
    for _ in 0..CALLERS {
        let proxy = daemon.proxy;
        uploads.spawn(async move {
            let mut caller = narrow(proxy).await;
            let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ";
            let head = format!("{head}{LENGTH}\r\n\r\n");
            caller.write_all(head.as_bytes()).await.expect("sent");
            stuff(&mut caller, &vec![b'x'; 1 << 16], LENGTH).await;
            caller
        });
    }
    let mut held = Vec::new();
    while held.len() < CALLERS {
        let accepted = timeout(DEADLINE, upstream.accept()).await.expect("in time");
        held.push(accepted.expect("a connection").0);
    }
    let callers = uploads.join_all().await;
    let used = memory(&daemon, "VmHWM");
    assert!(used < promised, "{used} KiB of {promised}");
    for peer in &mut held {
        let _closed = peer.write_all(REFUSED).await;
    }
    let mut replays = Vec::new();
    let too_large =
        async || daemon.metric("bearerd_replays_total", &["body_too_large"]).await as usize;
    while replays.len() + too_large().await < CALLERS {
        if let Ok(accepted) = timeout(Duration::from_millis(100), upstream.accept()).await {
            replays.push(accepted.expect("a connection").0);
        }
    }
    assert!(!replays.is_empty(), "some of the copies were whole so far");
    let used = memory(&daemon, "VmHWM");
    assert!(used < promised, "{used} KiB of {promised} with {} replays", replays.len());
    drop((callers, held, replays));
    let ended = async || daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0;
    eventually("all of them are over", ended).await;
}

/// Almost as many fields as a head may have.
pub(super) fn fields() -> String {
    (0..60).map(|n| format!("x-{n}: {}\r\n", "a".repeat(1000))).collect()
}

/// 64 KiB of a body.
fn chunk() -> Vec<u8> {
    [&b"10000\r\n"[..], &vec![b'x'; 1 << 16], b"\r\n"].concat()
}

/// Who connects next is answered as long as it takes something, and nothing is read.
pub(super) async fn answers_without_end(
    upstream: &TcpListener,
) -> impl Future<Output = TcpStream> + use<> {
    let accepted = timeout(DEADLINE, upstream.accept()).await.expect("in time");
    let (mut peer, _) = accepted.expect("a connection");
    let head = format!("HTTP/1.1 200 OK\r\n{}Transfer-Encoding: chunked\r\n\r\n", fields());
    async move {
        peer.write_all(head.as_bytes()).await.expect("sent");
        stuff(&mut peer, &chunk(), 64 << 20).await;
        peer
    }
}

/// Neither side reads, and both have said as much as they may.
#[tokio::test(flavor = "multi_thread")]
async fn both_sides_at_their_worst_stay_within_what_is_promised_for_a_connection() {
    const CALLERS: usize = 100;
    let (stage, upstream) = (Stage::new(), narrow_listener());
    let route = route_to(&format!("http://{}", upstream.local_addr().expect("bound")), "");
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let before = memory(&daemon, "VmRSS");
    let (fields, chunk) = (fields(), chunk());
    let mut sides = JoinSet::new();
    for _ in 0..CALLERS {
        let (proxy, fields, chunk) = (daemon.proxy, fields.clone(), chunk.clone());
        sides.spawn(async move {
            let mut caller = narrow(proxy).await;
            let head = format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"
            );
            caller.write_all(head.as_bytes()).await.expect("sent");
            stuff(&mut caller, &chunk, 64 << 20).await;
            caller
        });
    }
    for _ in 0..CALLERS {
        sides.spawn(answers_without_end(&upstream).await);
    }
    let sides = sides.join_all().await;
    let each = memory(&daemon, "VmHWM").saturating_sub(before) / CALLERS as u64;
    let promised = promised(&stage).each;
    assert!(each < promised, "{each} KiB of {promised}");
    // Of so much they did get hold: the bound is not one that nobody comes near.
    assert!(each > promised / 4, "{each} KiB of {promised}");
    drop(sides);
    let ended = async || daemon.metric("bearerd_requests_in_flight", &[]).await == 0.0;
    eventually("all of them are over", ended).await;
}
