//! The usual stage: one identity provider, one API, and what a test needs to start a daemon between
//! them and to send it many requests at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use emulator::{Api, Oauth2, Tls, Tokens};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Daemon, Home};

/// What stands around a daemon.
pub struct Stage {
    pub home: Home,
    pub tokens: Tokens,
    pub idp: Oauth2,
    pub api: Api,
}

impl Stage {
    pub fn new() -> Self {
        let tokens = Tokens::new();
        let idp = Oauth2::start(Tls::Off, &tokens);
        let api = Api::start(Tls::Off, &tokens);
        let home = Home::new();
        home.write("secret", "secret");
        Self { home, tokens, idp, api }
    }

    /// `[credentials.c]` by `client_credentials`, with more lines.
    pub fn credential(&self, more: &str) -> String {
        self.credential_from(&self.idp.token_url(), more)
    }

    /// The same with another token endpoint.
    pub fn credential_from(&self, token_url: &str, more: &str) -> String {
        let secret = self.home.path("secret").display().to_string();
        format!(
            "[credentials.c]\ngrant = \"client_credentials\"\ntoken_url = \"{token_url}\"\n\
             client_id = \"client\"\nclient_secret = {{ file = \"{secret}\" }}\n{more}\n"
        )
    }

    /// A route to the API, with more lines.
    pub fn route(&self, more: &str) -> String {
        route_to(&self.api.url(), more)
    }

    /// Starts a daemon whose route has more lines, and waits for its first token.
    pub async fn ready(&self, route: &str) -> Daemon {
        let daemon = Daemon::start(&self.home, &(self.credential("") + &self.route(route)));
        daemon.ready().await;
        daemon
    }
}

/// A route to `upstream` with the credential `c`, with more lines.
pub fn route_to(upstream: &str, more: &str) -> String {
    format!("[[routes]]\nupstream = \"{upstream}\"\ncredential = \"c\"\n{more}\n")
}

/// Stands before a server and holds every connection back until it is opened.
pub struct Gate {
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    accepted: Arc<AtomicU64>,
    /// Ends with the gate.
    _held: JoinSet<()>,
}

impl Gate {
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let open = watch::Sender::new(false);
        let opened = open.subscribe();
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        let mut held = JoinSet::new();
        held.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let mut opened = opened.clone();
                passing.spawn(async move {
                    let open = opened.wait_for(|open| *open).await.is_ok();
                    if let (true, Ok(mut server)) = (open, TcpStream::connect(target).await) {
                        let _ended = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address, open, accepted, _held: held }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections so far, held back or not.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Lets through who waits, and who comes.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Holds back who comes from now on.
    pub fn close(&self) {
        self.open.send_replace(false);
    }
}

/// Runs `count` futures at once; their results in order of completion.
pub async fn together<T, F>(count: usize, make: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    for index in 0..count {
        running.spawn(make(index));
    }
    running.join_all().await
}
