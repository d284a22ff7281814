//! `make demo`: the real program between an identity provider whose tokens live 15 seconds and an
//! API that refuses everything else. The argument is the path of `bearerd`.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use emulator::{Api, Oauth2, Tls, Tokens, client};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const PROXY: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";
const LIFETIME: Duration = Duration::from_secs(15);
/// For starting and for stopping.
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let program = std::env::args_os().nth(1).map(PathBuf::from);
    let program = program.ok_or("the argument is the path of bearerd; try `make demo`")?;
    for address in [PROXY, ADMIN] {
        TcpListener::bind(address).map_err(|error| {
            format!("{address} cannot be listened on ({error}); stop what uses it and try again")
        })?;
    }
    let tokens = Tokens::new();
    let idp = Oauth2::start(Tls::Off, &tokens);
    idp.set_lifetime(LIFETIME);
    let api = Api::start(Tls::Off, &tokens);
    let home = tempfile::tempdir()?;
    let config = write_configuration(&home, &idp, &api)?;

    let mut daemon = Command::new(&program)
        .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
        .env("RUST_LOG", "warn")
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    tokio::select! {
        ready = ready() => ready?,
        ended = daemon.wait() => return Err(format!("bearerd ended at once: {}", ended?).into()),
    }
    explain(&idp, &api, &config);
    tokio::select! {
        never = tell_refreshes(&idp) => never?,
        ended = daemon.wait() => return Err(format!("bearerd ended: {}", ended?).into()),
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let status = stop(&mut daemon).await?;
    println!(
        "\nbearerd ended ({status}). {} refresh tokens were spent, each of them once; the API \
         answered {} requests and refused {}.",
        idp.rotations(),
        api.ok(),
        api.unauthorized(),
    );
    Ok(())
}

fn write_configuration(home: &TempDir, idp: &Oauth2, api: &Api) -> Result<PathBuf> {
    let path = |name: &str| home.path().join(name);
    std::fs::write(path("client-secret"), "secret")?;
    std::fs::write(path("refresh-token"), idp.issue_refresh_token("client"))?;
    let directory = home.path().display();
    let text = format!(
        r#"[server]
listen = ["{PROXY}"]
admin = "{ADMIN}"

[credentials.demo]
token_url = "{}"
grant = "refresh_token"
client_id = "client"
client_secret = {{ file = "{directory}/client-secret" }}
refresh_token = {{ file = "{directory}/refresh-token" }}
store = "file:{directory}/store.json"

[[routes]]
name = "demo"
upstream = "{}"
credential = "demo"
"#,
        idp.token_url(),
        api.url(),
    );
    std::fs::write(path("bearerd.toml"), text)?;
    Ok(path("bearerd.toml"))
}

async fn ready() -> Result<()> {
    let admin: SocketAddr = ADMIN.parse()?;
    let asked = timeout(PATIENCE, async {
        loop {
            if let Ok(mut client) = client::Client::connect(admin).await
                && let Ok(answer) = client.request("GET", "/readyz", &[], b"").await
                && answer.status == 200
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    asked.await.map_err(|_| "bearerd does not become ready".into())
}

fn explain(idp: &Oauth2, api: &Api, config: &Path) {
    let (idp, api, config) = (idp.token_url(), api.url(), config.display());
    let life = LIFETIME.as_secs();
    println!(
        "\
Running:
  identity provider  {idp}
                     access tokens live {life} s; every refresh token is good once, and using
                     one again revokes everything
  API                {api}
                     answers only to a token that is alive
  bearerd            http://{PROXY} (admin http://{ADMIN})
                     configuration: {config}

Try, in another terminal:
  curl -i http://{PROXY}/orders       200: bearerd adds the token
  curl -i {api}/orders      401: nobody does
  curl http://{ADMIN}/status          the token's phase and when it is refreshed
  curl -s http://{ADMIN}/metrics | grep -E 'token_(generation|fetches)'

Ctrl-C ends all of it.
"
    );
}

/// One line for each refresh, for ever.
async fn tell_refreshes(idp: &Oauth2) -> Result<()> {
    for number in 1.. {
        while idp.rotations() < number {
            sleep(Duration::from_millis(50)).await;
        }
        let life = LIFETIME.as_secs();
        println!("token {number} obtained, lives {life} s; the old refresh token is spent");
    }
    Ok(())
}

/// A terminal has sent SIGINT to both already; a `kill` of this process only has not.
async fn stop(daemon: &mut Child) -> Result<std::process::ExitStatus> {
    let pid = daemon.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::INT)?;
    }
    match timeout(PATIENCE, daemon.wait()).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Err("bearerd does not end".into()),
    }
}
