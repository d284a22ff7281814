//! Five processes, a Redis server and a certified authorization server that detects reuse, with
//! tokens of two seconds, under load: replicas are killed, replicas are stopped beyond the deadline,
//! Redis is killed and comes back. `make torture` takes longer.
//!
//! A family may be lost only if what was killed or stopped held the only copy: the provider had
//! committed and the store did not have it yet. While any replica has a usable token every caller
//! gets 200.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use emulator::client::Client;
use emulator::http::{Exchange, Handler, Reply, Server, Work};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::oidc::Provider;
use crate::support::request;

const REPLICAS: usize = 5;
/// As configured, in seconds.
const DEADLINE_SECONDS: u64 = 3;
/// So long the provider takes after it has committed, in milliseconds.
const DELAY: u64 = 100;
/// A caller waits so long for a token, in milliseconds.
const WAIT: u64 = 5_000;
/// So long may it take until a replica has what another one has.
const ADOPTION: Duration = Duration::from_millis(1_500);

/// An API that has every token judged by the server that issued it, with a second of leeway.
struct Api {
    control: SocketAddr,
}

impl Handler for Api {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let recorded = exchange.body().await?;
            let fields = recorded.headers("authorization");
            let token = fields.first().and_then(|field| field.strip_prefix(b"Bearer "));
            let token: String =
                form_urlencoded::byte_serialize(token.unwrap_or_default()).collect();
            let question = format!("/active?leeway=1&token={token}");
            let verdict = request(self.control, "GET", &question, &[], b"").await.json();
            Ok(Reply::status(if verdict["active"] == true { 200 } else { 401 }))
        })
    }
}

/// One place for a replica: which process is there now, and what was done to it.
struct Slot {
    home: Home,
    config: String,
    daemon: Option<Daemon>,
    /// Where it is reached; `None` while there is no process.
    address: watch::Sender<Option<(SocketAddr, SocketAddr)>>,
    stopped: Arc<AtomicBool>,
}

impl Slot {
    fn start(&mut self) {
        let daemon =
            Daemon::start_in(&self.home, &self.config, &[("RUST_LOG", "bearerd=debug,info")]);
        self.address.send_replace(Some((daemon.proxy, daemon.admin)));
        self.daemon = Some(daemon);
    }
}

/// What callers and an observer saw.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// When a request other than by 200 was answered: its beginning, its end, what was said.
    failed: Mutex<Vec<(Instant, Instant, String)>>,
    /// When some replica held a usable token.
    usable: Mutex<Vec<Instant>>,
}

/// One caller of one replica, again and again.
async fn call(
    slot: usize,
    at: watch::Receiver<Option<(SocketAddr, SocketAddr)>>,
    stopped: Arc<AtomicBool>,
    seen: Arc<Seen>,
) {
    loop {
        sleep(Duration::from_millis(20)).await;
        let Some((proxy, _)) = *at.borrow() else { continue };
        let begun = Instant::now();
        let was_stopped = stopped.load(Relaxed);
        let exchange = async {
            let mut client = Client::connect(proxy).await?;
            client.request("GET", "/", &[], b"").await
        };
        // Who is killed or stopped answers nobody.
        let Ok(Ok(answer)) = timeout(DEADLINE, exchange).await else { continue };
        if answer.status == 200 {
            seen.answered.fetch_add(1, Relaxed);
        } else if !was_stopped && !stopped.load(Relaxed) {
            let said = format!("replica {slot}: {} {}", answer.status, answer.text());
            seen.failed.lock().unwrap().push((begun, Instant::now(), said));
        }
    }
}

/// Notes when any replica has a usable token.
async fn observe(slots: Vec<watch::Receiver<Option<(SocketAddr, SocketAddr)>>>, seen: Arc<Seen>) {
    loop {
        sleep(Duration::from_millis(100)).await;
        for slot in &slots {
            let Some((_, admin)) = *slot.borrow() else { continue };
            let exchange = async {
                let mut client = Client::connect(admin).await?;
                client.request("GET", "/readyz", &[], b"").await
            };
            let answer = timeout(Duration::from_millis(200), exchange).await;
            if matches!(answer, Ok(Ok(answer)) if answer.status == 200) {
                seen.usable.lock().unwrap().push(Instant::now());
                break;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillReplica,
    KillHolder,
    StopReplica,
    StopHolder,
    KillRedis,
}

/// What came of the rounds with one fault.
#[derive(Default)]
struct Row {
    rounds: u32,
    /// The only copy of the newest refresh token was where the fault was.
    windows: u32,
    lost: u32,
}

struct Storm {
    /// First, since it asks the provider.
    _api: Server,
    provider: Provider,
    redis: Redis,
    slots: Vec<Slot>,
    seen: Arc<Seen>,
    token: std::path::PathBuf,
    _home: Home,
}

impl Storm {
    fn new() -> Self {
        let provider = Provider::start_with(&["--life", "2", "--delay", &DELAY.to_string()]);
        let (redis, home) = (Redis::start(), Home::new());
        let api = Server::start(Arc::new(Api { control: provider.control() }), Tls::Off);
        let token = home.write("refresh-token", provider.text("/refresh_token"));
        let secret = home.write("secret", provider.text("/clients/orders/client_secret"));
        let config = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             [credentials.c]\ngrant = \"refresh_token\"\ntoken_url = \"{}\"\n\
             client_id = \"orders\"\nclient_secret = {{ file = \"{secret}\" }}\n\
             refresh_token = {{ file = \"{token}\" }}\nstore = \"{}\"\n\
             store_options = {{ deadline_seconds = {DEADLINE_SECONDS} }}\n\
             [[routes]]\nname = \"r\"\nupstream = \"{}\"\ncredential = \"c\"\nwait_ms = {WAIT}\n",
            provider.text("/token_url"),
            redis.url(),
            api.url()
        );
        let slot = |_| {
            let (address, stopped) = (watch::Sender::new(None), Arc::default());
            let mut slot =
                Slot { home: Home::new(), config: config.clone(), daemon: None, address, stopped };
            slot.start();
            slot
        };
        let slots = (0..REPLICAS).map(slot).collect();
        let (seen, token) = (Arc::default(), token.into());
        Self { _api: api, provider, redis, slots, seen, token, _home: home }
    }

    fn crowd(&self) -> JoinSet<()> {
        let mut crowd = JoinSet::new();
        for (index, slot) in self.slots.iter().enumerate() {
            for _ in 0..2 {
                let (at, stopped) = (slot.address.subscribe(), Arc::clone(&slot.stopped));
                crowd.spawn(call(index, at, stopped, Arc::clone(&self.seen)));
            }
        }
        let slots = self.slots.iter().map(|slot| slot.address.subscribe()).collect();
        crowd.spawn(observe(slots, Arc::clone(&self.seen)));
        crowd
    }

    /// True if the provider has given out a refresh token that the store does not have, and that does
    /// not change: nobody is about to write it.
    async fn is_in_one_place_only(&self) -> bool {
        for _ in 0..10 {
            let newest = self.provider.stats().await["newest"].clone();
            if self.redis.document()["record"]["refresh_token"] == newest {
                return false;
            }
            sleep(Duration::from_millis(50)).await;
        }
        true
    }

    async fn family_alive(&self) -> bool {
        self.provider.stats().await["family_alive"] == true
    }

    async fn suffer(&mut self, fault: Fault) -> bool {
        let slot = match fault {
            Fault::KillHolder | Fault::StopHolder => self.holder().await,
            _ => {
                sleep(Duration::from_millis(fastrand::u64(..1_200))).await;
                fastrand::usize(..REPLICAS)
            }
        };
        match fault {
            Fault::KillReplica | Fault::KillHolder => {
                self.slots[slot].address.send_replace(None);
                self.slots[slot].daemon.take().expect("runs").kill();
                let window = self.is_in_one_place_only().await;
                self.slots[slot].start();
                window
            }
            Fault::StopReplica | Fault::StopHolder => {
                self.slots[slot].stopped.store(true, Relaxed);
                self.slots[slot].daemon.as_ref().expect("runs").signal("STOP");
                let window = self.is_in_one_place_only().await;
                sleep(Duration::from_secs(DEADLINE_SECONDS).mul_f64(1.5)).await;
                self.slots[slot].daemon.as_ref().expect("runs").signal("CONT");
                sleep(Duration::from_millis(300)).await;
                self.slots[slot].stopped.store(false, Relaxed);
                window
            }
            Fault::KillRedis => {
                self.redis.kill();
                sleep(Duration::from_millis(fastrand::u64(..800))).await;
                self.redis.resume();
                false
            }
        }
    }

    /// Waits until one of them is about to refresh, and for some part of the time that this takes.
    async fn holder(&self) -> usize {
        let end = Instant::now() + DEADLINE;
        loop {
            let intent = self.redis.document()["intent"]["holder"].clone();
            let holds = |slot: &Slot| {
                let name = intent.as_str().filter(|name| !name.is_empty());
                let sharing = "sharing the refresh token";
                let line = slot.daemon.as_ref().expect("runs").wait_for_log(sharing);
                name.is_some_and(|name| line.contains(name))
            };
            if let Some(slot) = self.slots.iter().position(holds) {
                sleep(Duration::from_millis(fastrand::u64(..DELAY))).await;
                return slot;
            }
            assert!(Instant::now() < end, "nobody refreshes");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// All replicas serve, and the store has what the provider gave last; or the family is lost.
    async fn settle(&self) {
        eventually("settled", async || {
            if !self.family_alive().await {
                return true;
            }
            for slot in &self.slots {
                let (_, admin) = slot.address.borrow().expect("runs");
                if request(admin, "GET", "/readyz", &[], b"").await.status != 200 {
                    return false;
                }
            }
            !self.is_in_one_place_only().await
        })
        .await;
    }

    /// What a person does.
    async fn sign_in(&self) {
        let told = request(self.provider.control(), "GET", "/sign-in", &[], b"").await.json();
        let next = self.token.with_extension("next");
        std::fs::write(&next, told["refresh_token"].as_str().unwrap()).unwrap();
        std::fs::rename(&next, &self.token).unwrap();
    }
}

/// How long the storm lasts.
fn lasts() -> Duration {
    let times: Option<u32> = std::env::var("BEARERD_TORTURE").ok().and_then(|t| t.parse().ok());
    times.map_or(Duration::from_secs(15), |times| Duration::from_secs(60) * times.div_ceil(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_in_a_storm_lose_only_what_was_in_one_place() {
    let mut storm = Storm::new();
    storm.settle().await;
    let crowd = storm.crowd();
    let end = Instant::now() + lasts();
    let mut rows = std::collections::BTreeMap::<Fault, Row>::new();
    let mut lost: Vec<(Instant, Instant)> = Vec::new();
    let faults = [
        Fault::KillHolder,
        Fault::KillRedis,
        Fault::StopReplica,
        Fault::KillReplica,
        Fault::StopHolder,
    ];
    let mut turn = fastrand::usize(..faults.len());
    while Instant::now() < end {
        turn += 1;
        let fault = faults[turn % faults.len()];
        let begun = Instant::now();
        let window = storm.suffer(fault).await;
        storm.settle().await;
        let row = rows.entry(fault).or_default();
        row.rounds += 1;
        row.windows += u32::from(window);
        if !storm.family_alive().await {
            assert!(
                window,
                "a family was lost by {fault:?} although the store had its newest token"
            );
            row.lost += 1;
            storm.sign_in().await;
            eventually("signed in", async || storm.family_alive().await).await;
            storm.settle().await;
            lost.push((begun, Instant::now() + ADOPTION));
        }
    }
    drop(crowd);
    let stats = storm.provider.stats().await;
    let answered = storm.seen.answered.load(Relaxed);
    for (fault, Row { rounds, windows, lost }) in &rows {
        println!("| {fault:?} | {rounds} | {windows} | {lost} |");
    }
    println!("{answered} requests answered by 200, {} refreshes", stats["rotations"]);
    assert!(answered > 500 && stats["rotations"].as_u64() > Some(4), "hardly any load: {stats}");
    storm.judge(&lost);
}

impl Storm {
    /// Nobody was told anything but 200 while a usable token was to be had.
    fn judge(&self, lost: &[(Instant, Instant)]) {
        let usable = self.seen.usable.lock().unwrap();
        let mut excused = 0;
        for (begun, ended, said) in self.seen.failed.lock().unwrap().iter() {
            if lost.iter().any(|(from, to)| begun < to && ended > from) {
                excused += 1;
                continue;
            }
            // A token that was there for long enough to be taken over.
            let there = usable.windows(2).any(|pair| {
                let whole = pair[1] - pair[0] < Duration::from_millis(500);
                whole && pair[0] > *begun && pair[0] + ADOPTION < *ended
            });
            let no_token = said.contains("token");
            assert!(no_token && !there, "{said} after {:?}", *ended - *begun);
            excused += 1;
        }
        println!("{excused} requests answered otherwise, when no replica had a usable token");
    }
}
