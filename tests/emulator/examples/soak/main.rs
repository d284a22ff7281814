//! `make soak`: the real program for a long time at 70 % of what it can carry here, while its token is
//! replaced every second, the identity provider fails, the upstream restarts, tokens are revoked and
//! callers go away in the middle. Ends with an error if an answer broke a promise, or if memory or
//! file descriptors grew.
//!
//! Arguments: the path of `bearerd`, and for how many seconds.

mod callers;
mod program;
mod trouble;
mod upstream;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use emulator::{Oauth2, Tls, Tokens};

use callers::Callers;
use program::Program;
use upstream::Upstream;
use verdict::Observed;

/// Connections of callers.
const CONNECTIONS: usize = 64;
/// The part of the highest rate that the soak runs at.
const LOAD: f64 = 0.7;
/// How long the highest rate is measured for, and how long the process may settle after that.
const MEASURED: Duration = Duration::from_secs(8);
const SETTLED: Duration = Duration::from_secs(5);
/// Between two looks at the process.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long tokens live, and how long bearerd is told that they do: it refreshes every second.
const LIFE: Duration = Duration::from_secs(4);
const TOLD_LIFE: f64 = 1.35;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool> {
    let mut arguments = std::env::args_os().skip(1);
    let program = PathBuf::from(arguments.next().ok_or("the first argument is bearerd's path")?);
    let seconds = arguments.next().and_then(|text| text.to_str().and_then(|t| t.parse().ok()));
    let time = Duration::from_secs(seconds.ok_or("the second argument is a number of seconds")?);

    let tokens = Tokens::new();
    let idp = Oauth2::start(Tls::Off, &tokens);
    idp.set_lifetime(LIFE);
    let normally = emulator::Step::With(serde_json::json!({ "expires_in": TOLD_LIFE }));
    idp.set_always(Some(normally));
    let upstream = Upstream::start(&tokens).await?;
    let mut daemon = Program::start(&program, &idp, upstream.address()).await?;

    let callers = Callers::to(daemon.proxy(), &upstream);
    let highest = callers.measure(CONNECTIONS, MEASURED).await;
    let rate = highest * LOAD;
    println!("{highest:.0} requests a second at most, {rate:.0} from here on, for {time:?}\n");
    tokio::time::sleep(SETTLED).await;

    let mut observed = Observed::begin();
    let trouble = trouble::make(&idp, &upstream);
    let load = callers.keep_up(CONNECTIONS, rate, time);
    let watch = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            observed.look(&daemon, &callers, &tokens);
        }
    };
    tokio::select! {
        () = load => {}
        never = trouble => match never {},
        () = watch => {}
    }
    let ended = daemon.stop().await?;
    let refused = Arc::clone(&upstream).wrong_tokens();
    Ok(observed.verdict(&callers, &idp, &refused, ended))
}
