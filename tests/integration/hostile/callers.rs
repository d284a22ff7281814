//! Who may use the token: pages of other origins and rebound names may not, nor other users, nor
//! who does not know the key where there is one.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use emulator::client::{Answer, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::stage::Stage;
use crate::support::{Daemon, asked_by_nobody, bearerd, eventually, request};

const PREFLIGHT: &str =
    "Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Private-Network: true";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket";

async fn send(daemon: &Daemon, head: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(format!("{head}\r\n\r\n").as_bytes()).await.expect("sent");
    caller.answer().await.expect("an answer")
}

fn configuration(stage: &Stage, server: &str) -> String {
    let usual = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    format!("{usual}{server}\n{}{}", stage.credential(""), stage.route(""))
}

/// What a browser sends for a page of another site, by the way in which the page tries it.
#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_another_site_makes_a_browser_use_the_token() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let port = daemon.proxy.port();
    let (site, evil) = ("Sec-Fetch-Site: cross-site", "Origin: https://evil.test");
    let local = "localhost";
    for (way, method, host, lines, status) in [
        ("an image", "GET", local, format!("{site}\r\nSec-Fetch-Dest: image"), 403),
        ("a link", "GET", local, format!("{site}\r\nSec-Fetch-Mode: navigate"), 403),
        ("a form", "POST", local, format!("{site}\r\n{evil}\r\nContent-Length: 0"), 403),
        ("a form of an old browser", "POST", local, format!("{evil}\r\nContent-Length: 0"), 403),
        ("a page without an origin", "POST", local, "Origin: null".to_owned(), 403),
        ("fetch, asking first", "OPTIONS", local, format!("{evil}\r\n{PREFLIGHT}"), 403),
        ("a WebSocket", "GET", local, format!("{evil}\r\n{WEBSOCKET}"), 403),
        ("a sibling's name", "GET", local, "Sec-Fetch-Site: same-site".to_owned(), 403),
        ("a rebound name", "GET", "evil.test", "Sec-Fetch-Site: same-origin".to_owned(), 421),
        ("a rebound name with our port", "GET", "evil.test", format!("X-Port: {port}"), 421),
    ] {
        let host = if way.ends_with("port") { format!("{host}:{port}") } else { host.to_owned() };
        let head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{lines}");
        let answer = send(&daemon, &head).await;
        assert_eq!(answer.status, status, "{way}: {:?}", answer.head);
        let leave = answer.head.iter().any(|(name, _)| name.to_lowercase().starts_with("access-"));
        assert!(!leave, "{way}: {:?}", answer.head);
    }
    assert_eq!(stage.api.request_count(), 0);
    assert_eq!(daemon.metric("bearerd_refused_total", &["origin_not_allowed"]).await as u64, 8);
    assert_eq!(daemon.metric("bearerd_refused_total", &["host_not_allowed"]).await as u64, 2);
}

/// Another pod or machine reaches no listener unless the configuration says that this is meant.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_others_can_reach_has_to_be_meant() {
    let stage = Stage::new();
    for (address, refused) in [
        ("0.0.0.0:0", true),
        ("[::]:0", true),
        ("10.0.0.1:0", true),
        ("[::ffff:10.0.0.1]:0", true),
        ("169.254.1.1:0", true),
        ("127.0.0.1:0", false),
        ("127.8.8.8:0", false),
        ("[::1]:0", false),
    ] {
        for prefix in ["", "tls:"] {
            let server = format!("[server]\nlisten = [\"{prefix}{address}\"]\n");
            let config = server + &stage.credential("") + &stage.route("");
            let path = stage.home.write("listen.toml", &config);
            let (_, _, told) = bearerd(&["check", "--config", &path]);
            assert_eq!(told.contains("allow_remote"), refused, "{prefix}{address}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_for_its_owner_alone_from_its_first_moment() {
    let stage = Stage::new();
    let path = stage.home.path("proxy.sock");
    let listen =
        format!("[server]\nlisten = [\"unix:{}\"]\nadmin = \"127.0.0.1:0\"\n", path.display());
    let config = listen + &stage.credential("") + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    let metadata = std::fs::metadata(&path).expect("a socket");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    daemon.ready().await;
    let mut caller = UnixStream::connect(&path).await.expect("its owner connects");
    caller.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Who is nobody may not even connect, where this test may become nobody.
    stage.home.open_to_all();
    let told = asked_by_nobody(&path, "/");
    assert!(told.is_none_or(|told| told == "PermissionError"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_listed_is_turned_away_from_a_unix_socket() {
    let stage = Stage::new();
    stage.home.open_to_all();
    let own = std::fs::metadata(stage.home.path("secret")).expect("a file").uid();
    for (uids, served) in [(own.to_string(), true), ((own + 1).to_string(), false)] {
        let path = stage.home.path(&format!("{uids}.sock"));
        let server = format!(
            "[server]\nlisten = [\"unix:{}\"]\nadmin = \"127.0.0.1:0\"\n\
             allow_peer_uids = [{uids}]\n",
            path.display()
        );
        let config = server + &stage.credential("") + &stage.route("");
        let daemon = Daemon::start_with(&stage.home, &config);
        daemon.ready().await;
        let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "who may is told by SO_PEERCRED then");
        let mut caller = UnixStream::connect(&path).await.expect("connects");
        let _closed = caller.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut first = [0; 12];
        let came = caller.read_exact(&mut first).await.is_ok();
        assert_eq!(came, served, "{}", String::from_utf8_lossy(&first));
        assert!(!served || first == *b"HTTP/1.1 200");
        let told = asked_by_nobody(&path, "/");
        assert!(told.is_none_or(|told| !told.contains("HTTP") && told != "PermissionError"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_to_be_shown_where_there_is_one_and_goes_no_further() {
    let stage = Stage::new();
    let (first, second) =
        (stage.home.write("key", "k3y-0ne\n"), stage.home.write("key2", "k3y-tw0"));
    let key = format!("key = {{ any_of = [{{ file = \"{first}\" }}, {{ file = \"{second}\" }}] }}");
    let daemon = Daemon::start_with(&stage.home, &configuration(&stage, &key));
    daemon.ready().await;
    for fields in [
        &[][..],
        &[("bearerd-key", "")],
        &[("bearerd-key", "k3y-0n")],
        &[("bearerd-key", "k3y-0nee")],
        &[("bearerd-key", "K3Y-0NE")],
        &[("bearerd-key", "k3y-0ne"), ("bearerd-key", "k3y-0ne")],
        &[("bearerd_key", "k3y-0ne")],
        &[("authorization", "k3y-0ne")],
    ] {
        let answer = request(daemon.proxy, "GET", "/", fields, b"").await;
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (403, Some("client_authorization")), "{fields:?}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(stage.api.request_count(), 0);
    for key in ["k3y-0ne", "k3y-tw0"] {
        let fields = [("Bearerd-Key", key), ("Connection", "bearerd-key")];
        assert_eq!(request(daemon.proxy, "GET", "/", &fields, b"").await.status, 200, "{key}");
        let seen = stage.api.last_request().expect("a request");
        assert!(!String::from_utf8_lossy(&seen.raw_head).contains("k3y"), "it went further");
    }
    assert!(!daemon.logs().contains("k3y"), "it was logged");
    // The first one is replaced while callers still show the second.
    stage.home.write("key", "k3y-thr33");
    let with = async |key: &str| {
        request(daemon.proxy, "GET", "/", &[("bearerd-key", key)], b"").await.status
    };
    eventually("the new key is good", async || with("k3y-thr33").await == 200).await;
    assert_eq!((with("k3y-0ne").await, with("k3y-tw0").await), (403, 200));
    // A key that cannot be read changes nothing.
    std::fs::remove_file(&second).expect("it was there");
    daemon.wait_for_log("configuration not reloaded");
    assert_eq!((with("k3y-thr33").await, with("k3y-tw0").await, with("").await), (200, 200, 403));
}

/// A key may come in the very header that the token goes into.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_injected_header_is_replaced_by_the_token() {
    let stage = Stage::new();
    let key = stage.home.write("key", "Bearer k3y");
    let key = format!("key = {{ header = \"authorization\", any_of = [{{ file = \"{key}\" }}] }}");
    let daemon = Daemon::start_with(&stage.home, &configuration(&stage, &key));
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 403);
    let own = [("authorization", "Bearer k3y")];
    assert_eq!(request(daemon.proxy, "GET", "/", &own, b"").await.status, 200);
    assert!(stage.api.violations().is_empty());
}
