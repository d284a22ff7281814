//! `allow_peer_uids`, `token_socket_uids`: who may use a unix socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::stage::Stage;
use crate::support::Daemon;

const NOBODY: u32 = 65534;

/// What a GET by the socket at `path` is answered, as the user `uid`; `None` if nothing is.
fn ask(path: &Path, uid: Option<u32>) -> Option<String> {
    ask_for(path, "/", "%{http_code}", "/dev/null", uid)
}

/// The token that the socket at `path` hands to the user `uid`; `None` if he is turned away.
fn lent(path: &Path, uid: Option<u32>) -> Option<String> {
    ask_for(path, "/token/c", "", "-", uid)
}

fn ask_for(path: &Path, target: &str, told: &str, body: &str, uid: Option<u32>) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "20", "--write-out", told, "--output", body]);
    curl.arg("--unix-socket").arg(path).arg(format!("http://localhost{target}"));
    if let Some(uid) = uid {
        curl.uid(uid).gid(uid);
    }
    let output = curl.output().expect("curl runs");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("a status"))
}

/// What stands around a daemon whose sockets others may reach.
struct Street {
    stage: Stage,
    own: u32,
}

impl Street {
    fn new() -> Self {
        let stage = Stage::new();
        stage.home.open_to_all();
        Self { stage, own: std::fs::metadata("/proc/self").expect("on Linux").uid() }
    }

    /// Neither our own user nor nobody.
    fn other(&self) -> u32 {
        self.own.wrapping_add(12_345)
    }

    /// A daemon whose `[server]` says `lines`, and whose socket at `path` has the mode that goes with
    /// such a list.
    async fn ready(&self, lines: &str, path: &Path, listed: &[u32]) -> Daemon {
        let (credential, route) = (self.stage.credential(""), self.stage.route(""));
        let config = format!("[server]\nadmin = \"127.0.0.1:0\"\n{lines}\n{credential}{route}");
        let daemon = Daemon::start_with(&self.stage.home, &config);
        daemon.ready().await;
        let mode = std::fs::metadata(path).expect("bound").permissions().mode() & 0o777;
        assert_eq!(mode, if listed.is_empty() { 0o600 } else { 0o666 }, "{listed:?}");
        daemon
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_users_who_are_listed_may_use_a_unix_socket() {
    let street = Street::new();
    let (stage, own, other) = (&street.stage, street.own, street.other());
    let path = stage.home.path("bearerd.sock");
    for (listed, own_may, nobody_may) in [
        (vec![], true, false),
        (vec![own], true, false),
        (vec![other], false, false),
        (vec![other, own], true, false),
        (vec![NOBODY], own == NOBODY, true),
        (vec![own, NOBODY], true, true),
    ] {
        let listen = format!("listen = [\"unix:{}\"]", path.display());
        let lines = format!("{listen}\nallow_peer_uids = {listed:?}");
        let daemon = street.ready(&lines, &path, &listed).await;
        let before = stage.api.request_count();
        let mut asked = 0;
        let mut check = |uid: Option<u32>, may: bool| {
            assert_eq!(ask(&path, uid).as_deref(), may.then_some("200"), "{uid:?} of {listed:?}");
            asked += u64::from(may);
        };
        check(None, own_may);
        // Only root can be somebody else.
        if own == 0 {
            check(Some(NOBODY), nobody_may);
        }
        assert_eq!(stage.api.request_count() - before, asked, "{listed:?}");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_bearerds_own_user_and_those_who_are_listed_get_a_token() {
    let street = Street::new();
    let (stage, own, other) = (&street.stage, street.own, street.other());
    let path = stage.home.path("token.sock");
    for (listed, nobody_may) in [
        (vec![], own == NOBODY),
        (vec![other], own == NOBODY),
        (vec![NOBODY], true),
        (vec![other, NOBODY], true),
    ] {
        let socket = format!("token_socket = \"unix:{}\"", path.display());
        let lines = format!("listen = [\"127.0.0.1:0\"]\n{socket}\ntoken_socket_uids = {listed:?}");
        let daemon = street.ready(&lines, &path, &listed).await;
        let held = stage.tokens.latest();
        assert_eq!(lent(&path, None), held, "{listed:?}");
        // Only root can be somebody else.
        if own == 0 {
            let expected = held.filter(|_| nobody_may);
            assert_eq!(lent(&path, Some(NOBODY)), expected, "{listed:?}");
        }
        if own == 0 && !nobody_may && !listed.is_empty() {
            let line = daemon.wait_for_log("is not in token_socket_uids was turned away");
            assert!(line.contains(&format!("\"uid\":{NOBODY}")), "{line}");
        }
        assert!(daemon.stop().success());
    }
}
