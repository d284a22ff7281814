//! Starts the real program and looks at it from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use emulator::client::{Answer, Client};
use emulator::mint::leaked;
use serde_json::Value;
use tempfile::TempDir;

/// Every wait ends here; a test that gets so far has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A directory for one test's configuration, secrets and stores.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Lets all users in: what keeps them out is to be what lies there.
    pub fn open_to_all(&self) {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.0.path(), mode).expect("its owner's");
    }

    /// Writes a file and returns its path, for `{ file = … }`.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a writable directory");
        path.display().to_string()
    }
}

/// A running `bearerd run`.
pub struct Daemon {
    child: Child,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    logs: Arc<Logs>,
    /// Ends when the process has.
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Logs {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
    /// Nobody wants to read any more.
    given_up: AtomicBool,
}

impl Daemon {
    /// Starts with `credentials_and_routes` under a `[server]` that listens on ephemeral ports, and
    /// logs at TRACE. Returns once it listens.
    pub fn start(home: &Home, credentials_and_routes: &str) -> Self {
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
        Self::start_with(home, &format!("{server}{credentials_and_routes}"))
    }

    /// Starts with a whole configuration.
    pub fn start_with(home: &Home, config: &str) -> Self {
        Self::start_in(home, config, &[])
    }

    /// Starts with a whole configuration and extra environment variables.
    pub fn start_in(home: &Home, config: &str, environment: &[(&str, &str)]) -> Self {
        let path = home.write("bearerd.toml", config);
        let mut child = Command::new(env!("CARGO_BIN_EXE_bearerd"))
            .args(["run", "--config", &path])
            .env("RUST_LOG", "trace")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bearerd starts");
        let logs = Arc::new(Logs::default());
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let sink = Arc::clone(&logs);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lines.lock().expect("not poisoned").push(line);
                sink.grown.notify_all();
                if sink.given_up.load(Relaxed) {
                    break;
                }
            }
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let reader = Some(reader);
        let mut daemon = Self { child, proxy: unknown, admin: unknown, logs, reader };
        let line = daemon.wait_for_log("bearerd is listening");
        let line: Value = serde_json::from_str(&line).expect("a JSON log line");
        let address = |key: &str| {
            let text = line[key].as_str().unwrap_or_default().split(' ').next().unwrap_or_default();
            text.parse().unwrap_or(unknown)
        };
        (daemon.proxy, daemon.admin) = (address("listen"), address("admin"));
        daemon
    }

    /// The first log line that contains `text`, waiting for it.
    pub fn wait_for_log(&self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.logs.lines.lock().expect("not poisoned");
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no log line with {text:?} in time; logs: {lines:#?}");
            lines = self.logs.grown.wait_timeout(lines, left).expect("not poisoned").0;
        }
    }

    /// Everything logged so far.
    pub fn logs(&self) -> String {
        self.logs.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }

    /// Reads no more of the log, as a collector that has died: what is written there fails from now on.
    pub async fn give_up_reading(&self) {
        self.logs.given_up.store(true, Relaxed);
        eventually("closed", async || {
            self.get("/something-to-log").await;
            self.reader.as_ref().is_none_or(JoinHandle::is_finished)
        })
        .await;
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&self) {
        eventually("ready", async || self.admin("/readyz").await.status == 200).await;
    }

    /// GET on the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        request(self.admin, "GET", path, &[], b"").await
    }

    /// `/status`.
    pub async fn status(&self) -> Value {
        self.admin("/status").await.json()
    }

    /// The sum of the series of `metric` whose line contains every one of `labels`.
    pub async fn metric(&self, metric: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").await.text();
        text.lines()
            .filter(|line| line.starts_with(metric))
            .filter(|line| line[metric.len()..].starts_with(['{', ' ']))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// GET through the proxy.
    pub async fn get(&self, target: &str) -> Answer {
        request(self.proxy, "GET", target, &[], b"").await
    }

    /// POST through the proxy.
    pub async fn post(&self, target: &str, body: &[u8]) -> Answer {
        request(self.proxy, "POST", target, &[], body).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// What everybody can look at while it runs.
    fn shown(&self) -> String {
        let mut shown = String::new();
        for path in ["/metrics", "/status", "/"] {
            let Ok(mut admin) = TcpStream::connect(self.admin) else { break };
            // It may be stopped, or have an admin listener that does not answer any more.
            let _ = admin.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = write!(admin, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
            let _ = admin.read_to_string(&mut shown);
        }
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{file}", self.pid());
            shown += &String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default());
        }
        shown
    }

    /// Of nothing that an identity provider gave out in any test a part is logged or shown.
    fn assert_silent(&mut self, shown: &str) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        for text in [shown, &self.logs()] {
            let piece = leaked(text);
            let line = piece.and_then(|piece| text.lines().find(|line| line.contains(piece)));
            assert!(piece.is_none() || std::thread::panicking(), "leaked {piece:?}: {line:?}");
        }
    }

    /// SIGTERM, and the exit status.
    pub fn stop(mut self) -> ExitStatus {
        let shown = self.shown();
        self.signal("TERM");
        let status = self.exit();
        self.assert_silent(&shown);
        status
    }

    /// Waits for the process to end.
    pub fn exit(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "bearerd did not end; logs: {}", self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let runs = matches!(self.child.try_wait(), Ok(None));
        let shown = if runs { self.shown() } else { String::new() };
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.assert_silent(&shown);
        if std::thread::panicking() {
            eprintln!("logs of bearerd:\n{}", self.logs());
        }
    }
}

/// One request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let exchange = async {
        let mut client = Client::connect(address).await?;
        client.request(method, target, headers, body).await
    };
    let answer = tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time");
    answer.expect("an answer")
}

/// Waits until `holds`.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs `bearerd` with `arguments` to its end: exit code, stdout, stderr.
pub fn bearerd(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("bearerd runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (said, told) = (text(output.stdout), text(output.stderr));
    assert_eq!(leaked(&told), None, "{told}");
    // Telling a token is what `bearerd token` is for.
    assert!(arguments.first() == Some(&"token") || leaked(&said).is_none(), "{said}");
    (output.status.code().unwrap_or(-1), said, told)
}

/// Asks for `target` at a unix socket, as a user who is nobody: the beginning of the answer, or the
/// error's name. `None` where this process may not become one.
pub fn asked_by_nobody(socket: &Path, target: &str) -> Option<String> {
    let program = "\
import socket, sys
caller = socket.socket(socket.AF_UNIX)
try:
    caller.connect(sys.argv[1])
    caller.sendall(f'GET {sys.argv[2]} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'.encode())
    print('told', caller.recv(1000))
except OSError as error:
    print(type(error).__name__)
";
    let privileged = rustix::process::geteuid().is_root();
    let mut others = Command::new("python3");
    others.args(["-c", program]).arg(socket).arg(target);
    std::os::unix::process::CommandExt::uid(&mut others, 65534);
    let output = privileged.then(|| others.output().expect("python3 runs"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The text of `path`, for assertions.
pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).expect("a readable file")
}
