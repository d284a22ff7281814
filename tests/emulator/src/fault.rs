//! A TCP proxy that makes the network bad: slow, cut, refused or reset, in front of any address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::http::{listen, reset_on_close};
use crate::locked;

/// The proxy; it and its connections end when this is dropped. Without a switch set it only passes
/// bytes.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    switches: Arc<Switches>,
    gate: mpsc::Sender<Gate>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Switches {
    target: SocketAddr,
    delay: Mutex<Duration>,
    cut_after: Mutex<Option<u64>>,
    reset: AtomicBool,
    reset_open: watch::Sender<()>,
    accepted: AtomicU64,
}

/// Open or close the listener, and say when it is done.
struct Gate {
    open: bool,
    done: oneshot::Sender<()>,
}

impl FaultProxy {
    /// Listens on a loopback port and connects each client to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = listen(any_port).expect("a loopback port can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let switches = Arc::new(Switches {
            target,
            delay: Mutex::default(),
            cut_after: Mutex::default(),
            reset: AtomicBool::new(false),
            reset_open: watch::channel(()).0,
            accepted: AtomicU64::new(0),
        });
        let (gate, gates) = mpsc::channel(1);
        let task = tokio::spawn(run(listener, address, gates, Arc::clone(&switches)));
        Self { address, switches, gate, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.switches.accepted.load(Relaxed)
    }

    /// Holds every piece back for so long, both ways.
    pub fn set_delay(&self, delay: Duration) {
        *locked(&self.switches.delay) = delay;
    }

    /// Closes a connection after so many bytes towards the client; `None` never.
    pub fn set_cut_after(&self, bytes: Option<u64>) {
        *locked(&self.switches.cut_after) = bytes;
    }

    /// Resets every new connection as soon as it is accepted.
    pub fn set_reset(&self, reset: bool) {
        self.switches.reset.store(reset, Relaxed);
    }

    /// Resets the connections that are open now, towards the client.
    pub fn reset_open(&self) {
        self.switches.reset_open.send_replace(());
    }

    /// True: stops listening, so that connecting is refused; open connections stay. False: listens
    /// again on the same port. Returns when it is so.
    pub async fn refuse(&self, refuse: bool) {
        let (done, is_done) = oneshot::channel();
        let gate = Gate { open: !refuse, done };
        self.gate.send(gate).await.expect("the proxy runs as long as its handle");
        is_done.await.expect("the proxy runs as long as its handle");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    listener: TcpListener,
    address: SocketAddr,
    mut gates: mpsc::Receiver<Gate>,
    switches: Arc<Switches>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Gate { open, done }) = gates.recv() => {
                if !open {
                    listener = None;
                } else if listener.is_none() {
                    listener = Some(listen(address).expect("the port was ours a moment ago"));
                }
                let _nobody_waits = done.send(());
            }
            Some(_ended) = connections.join_next() => {}
            Ok((client, _)) = accept => {
                switches.accepted.fetch_add(1, Relaxed);
                connections.spawn(connection(client, Arc::clone(&switches)));
            }
        }
    }
}

async fn connection(mut client: TcpStream, switches: Arc<Switches>) {
    if switches.reset.load(Relaxed) {
        return reset_on_close(&client);
    }
    let mut reset_open = switches.reset_open.subscribe();
    let Ok(mut target) = TcpStream::connect(switches.target).await else {
        return reset_on_close(&client);
    };
    let _unsupported = (client.set_nodelay(true), target.set_nodelay(true));
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_target, to_target) = target.split();
        tokio::select! {
            _ = reset_open.changed() => true,
            // The first error, which a cut is too, ends both directions.
            _ended = async {
                tokio::try_join!(
                    pump(from_client, to_target, &switches, false),
                    pump(from_target, to_client, &switches, true),
                )
            } => false,
        }
    };
    if reset {
        reset_on_close(&client);
    }
}

/// Passes bytes one way until the sender ends or, towards the client, the cut is reached.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    switches: &Switches,
    towards_client: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let delay = *locked(&switches.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let cut_after = locked(&switches.cut_after).filter(|_| towards_client);
        let left = cut_after.map_or(u64::MAX, |cut_after| cut_after.saturating_sub(passed));
        let passing = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        to.write_all(&buffer[..passing]).await?;
        passed += passing as u64;
        if cut_after.is_some_and(|cut_after| passed >= cut_after) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}
