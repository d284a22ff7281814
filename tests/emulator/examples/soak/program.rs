//! `bearerd` under the soak: started, looked at, stopped.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use emulator::{Oauth2, client};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Result;

/// For starting and for stopping.
const PATIENCE: Duration = Duration::from_secs(40);

/// The running process.
pub struct Program {
    child: Child,
    pid: u32,
    proxy: SocketAddr,
    home: TempDir,
}

impl Program {
    /// Starts it between `idp` and `upstream`, and waits until it has a token.
    pub async fn start(program: &Path, idp: &Oauth2, upstream: SocketAddr) -> Result<Self> {
        let (proxy, admin) = (free_port()?, free_port()?);
        let home = tempfile::tempdir()?;
        let config = write_configuration(&home, idp, upstream, proxy, admin)?;
        let log = fs::File::create(home.path().join("log"))?;
        let child = Command::new(program)
            .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
            .env("RUST_LOG", "warn")
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("ended at once")?;
        let started = timeout(PATIENCE, async {
            while !is_ready(admin).await {
                sleep(Duration::from_millis(50)).await;
            }
        });
        started.await.map_err(|_| "bearerd does not become ready")?;
        Ok(Self { child, pid, proxy, home })
    }

    /// Where callers connect to.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Open file descriptors; only root and the process's own user may count them.
    pub fn descriptors(&self) -> Option<usize> {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).ok().map(Iterator::count)
    }

    /// Asks it to end, waits until it has, and looks through what it said for a panic.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or("no process")?;
        kill_process(pid, Signal::TERM)?;
        let ended = timeout(PATIENCE, self.child.wait()).await.map_err(|_| "does not end")??;
        let log = fs::read_to_string(self.home.path().join("log"))?;
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            return Err(line.to_owned().into());
        }
        Ok(ended)
    }
}

/// A port that nobody has, for a program that is to be told which.
fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut client) = client::Client::connect(admin).await else { return false };
    client.request("GET", "/readyz", &[], b"").await.is_ok_and(|answer| answer.status == 200)
}

fn write_configuration(
    home: &TempDir,
    idp: &Oauth2,
    upstream: SocketAddr,
    proxy: SocketAddr,
    admin: SocketAddr,
) -> Result<std::path::PathBuf> {
    let directory = home.path().display();
    fs::write(home.path().join("client-secret"), "secret")?;
    fs::write(home.path().join("refresh-token"), idp.issue_refresh_token("client"))?;
    let text = format!(
        r#"[server]
listen = ["{proxy}"]
admin = "{admin}"

[credentials.soak]
token_url = "{}"
grant = "refresh_token"
client_id = "client"
client_secret = {{ file = "{directory}/client-secret" }}
refresh_token = {{ file = "{directory}/refresh-token" }}
store = "file:{directory}/store.json"

[[routes]]
name = "soak"
upstream = "http://{upstream}"
credential = "soak"
"#,
        idp.token_url(),
    );
    let path = home.path().join("bearerd.toml");
    fs::write(&path, text)?;
    Ok(path)
}
