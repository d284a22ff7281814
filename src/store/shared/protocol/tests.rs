//! Many replicas, one register, one identity provider, and everything that can go wrong between
//! them, in random order from a seed: what must never happen is checked at every step.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use zeroize::Zeroizing;

use super::*;
use crate::secret::Fingerprint;
use crate::store::Record;
use crate::store::shared::document::Token;

/// How long an intent stands, in milliseconds as everything here.
const LEASE: u64 = 3_000;
const SETTLE: u64 = 2_000;
/// Life of an access token.
const LIFE: u64 = 8_000;
/// Of the providers that have one.
const GRACE: u64 = 60_000;
/// As in `claim`.
const LONG_PAUSE: u64 = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A refresh token that comes back spent ends the family.
    Strict,
    /// The same, and answers take about as long as an intent stands.
    Slow,
    /// A spent one is good for a while.
    Grace,
    /// Refresh tokens are not replaced.
    Fixed,
}

/// What may go wrong, each with how often in a thousand steps.
#[derive(Clone, Copy, Debug)]
struct Faults {
    pause: u32,
    crash: u32,
    lost_reply: u32,
    lost_ack: u32,
    down: u32,
}

const NONE: Faults = Faults { pause: 0, crash: 0, lost_reply: 0, lost_ack: 0, down: 0 };

/// The identity provider, and all that was ever sent to it.
struct Provider {
    kind: Kind,
    /// Tokens by number: the newest is the one in force.
    newest: u64,
    alive: bool,
    sends: BTreeMap<u64, Vec<Send>>,
    spent_at: BTreeMap<u64, u64>,
    reused: Vec<u64>,
}

/// One request with a refresh token.
struct Send {
    at: u64,
    /// Something happened to its sender before what came of it was in the register.
    faulted: bool,
    /// The sender told the register that no answer came, or that nothing was spent.
    told: bool,
}

impl Provider {
    fn take(&mut self, number: u64, now: u64) -> Result<u64, ()> {
        if self.kind == Kind::Fixed {
            return Ok(number);
        }
        let spent = self.spent_at.get(&number).copied();
        let graceful = self.kind == Kind::Grace && spent.is_some_and(|at| now < at + GRACE);
        if !self.alive {
            return Err(());
        }
        if spent.is_some() && !graceful {
            self.reused.push(number);
            self.alive = false;
            return Err(());
        }
        self.spent_at.entry(number).or_insert(now);
        self.newest += 1;
        Ok(self.newest)
    }
}

enum Doing {
    Idle,
    Effect(Effect),
    /// Waits for what comes of a call; `None` = nothing will.
    Calling {
        token: u64,
        until: u64,
        answer_at: u64,
        answer: Option<Result<u64, ()>>,
    },
}

struct Replica {
    protocol: Protocol,
    doing: Doing,
    wakes_at: u64,
    paused_until: u64,
    /// Of the access token at hand.
    usable_until: u64,
    refresh_at: u64,
    /// The token that it knows as the newest.
    held: Option<u64>,
    dead: bool,
    /// Its last call, for the books: which token, which send of it.
    sent: Option<(u64, usize)>,
}

struct World {
    rng: Rng,
    faults: Faults,
    began: Moment,
    now: u64,
    register: Option<Document>,
    version: u64,
    /// Writes whose sender has given up, and which may still arrive.
    late: Vec<(String, Document)>,
    provider: Provider,
    replicas: Vec<Replica>,
    processes: u32,
    /// Configured everywhere.
    bootstrap: u64,
    /// Calls for each age of the register.
    calls: BTreeMap<(u64, u64), u32>,
    oldest_allowed: (u64, u64),
    newest_seen: u64,
    losses: u32,
}

fn number(text: &str) -> u64 {
    text.trim_start_matches("rt-").parse().unwrap()
}

fn digest(number: u64) -> String {
    Fingerprint::of(format!("rt-{number}").as_bytes()).to_hex()
}

fn terms(kind: Kind) -> Terms {
    Terms {
        lease: Duration::from_millis(LEASE),
        settle: Duration::from_millis(SETTLE),
        grace: (kind == Kind::Grace).then_some(Duration::from_millis(GRACE)),
        rotates: kind != Kind::Fixed,
        fallback: false,
        account: None,
    }
}

impl World {
    fn new(seed: u64, kind: Kind, faults: Faults, replicas: usize) -> Self {
        let provider = Provider {
            kind,
            newest: 1,
            alive: true,
            sends: BTreeMap::new(),
            spent_at: BTreeMap::new(),
            reused: Vec::new(),
        };
        let mut world = Self {
            rng: Rng::with_seed(seed),
            faults,
            // The same in each run, so that a seed tells all.
            began: Moment { wall: UNIX_EPOCH + Duration::from_secs(1 << 31), ..Moment::now() },
            now: 0,
            register: None,
            version: 0,
            late: Vec::new(),
            provider,
            replicas: Vec::new(),
            processes: 0,
            bootstrap: 1,
            calls: BTreeMap::new(),
            oldest_allowed: (0, 0),
            newest_seen: 0,
            losses: 0,
        };
        for _ in 0..replicas {
            let replica = world.process();
            world.replicas.push(replica);
        }
        world
    }

    fn process(&mut self) -> Replica {
        self.processes += 1;
        Replica {
            protocol: Protocol::new(format!("p{}", self.processes), terms(self.provider.kind)),
            doing: Doing::Idle,
            wakes_at: self.now,
            paused_until: 0,
            usable_until: 0,
            refresh_at: 0,
            held: None,
            dead: false,
            sent: None,
        }
    }

    fn moment(&self) -> Moment {
        self.began.plus(Duration::from_millis(self.now))
    }

    fn since_beginning(&self, moment: Moment) -> u64 {
        u64::try_from((moment.mono - self.began.mono).as_millis()).unwrap()
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        self.rng.u32(..1000) < per_mille
    }

    /// Lets one replica do one thing.
    fn step(&mut self) {
        // As many replicas do as many things at once.
        self.now += self.rng.u64(1..=120 / u64::try_from(self.replicas.len()).unwrap());
        if !self.late.is_empty() && self.happens(200) {
            let (expected, document) = self.late.swap_remove(self.rng.usize(..self.late.len()));
            self.write(&expected, document);
        }
        let index = self.rng.usize(..self.replicas.len());
        if self.happens(self.faults.crash) {
            self.fault(index);
            self.replicas[index] = self.process();
        }
        if self.happens(self.faults.pause) {
            self.fault(index);
            self.replicas[index].paused_until = self.now + self.rng.u64(1..4 * LEASE);
        }
        if self.now >= self.replicas[index].paused_until {
            self.act(index);
        }
    }

    /// What its last call brought may not get where it belongs.
    fn fault(&mut self, index: usize) {
        if let Some((token, send)) = self.replicas[index].sent {
            self.provider.sends.get_mut(&token).unwrap()[send].faulted = true;
        }
    }

    fn act(&mut self, index: usize) {
        let now = self.moment();
        let event = match std::mem::replace(&mut self.replicas[index].doing, Doing::Idle) {
            Doing::Idle => self.idle(index),
            Doing::Effect(effect) => self.perform(index, effect),
            Doing::Calling { token, until, answer_at, answer } => {
                self.await_answer(index, token, until, answer_at, answer)
            }
        };
        if let Some(event) = event {
            let effect = self.replicas[index].protocol.step(event, now);
            self.replicas[index].doing = Doing::Effect(effect);
        }
    }

    fn idle(&mut self, index: usize) -> Option<Event> {
        let unsettled = self.replicas[index].protocol.unsettled();
        let replica = &self.replicas[index];
        let due = self.now >= replica.refresh_at;
        if self.now < replica.wakes_at && !unsettled {
            return None;
        }
        if !due || unsettled {
            return self.happens(300).then_some(Event::Begin(Goal::Look));
        }
        let claim = Claim { configured: Some(digest(self.bootstrap)), ..Claim::default() };
        Some(Event::Begin(Goal::Claim(claim)))
    }

    fn perform(&mut self, index: usize, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Read if self.happens(self.faults.down) => {
                self.fault(index);
                Some(Event::Read(None))
            }
            Effect::Read => {
                let document = self.register.clone().map(Box::new);
                Some(Event::Read(Some((Version(self.version.to_string()), document))))
            }
            Effect::Swap(expected, document) => Some(self.swap(index, expected.0, *document)),
            Effect::Tell(verdict) => self.told(index, verdict),
        }
    }

    fn swap(&mut self, index: usize, expected: String, document: Document) -> Event {
        if self.happens(self.faults.down) {
            self.fault(index);
            return Event::Swapped(None);
        }
        let fate = if self.happens(self.faults.lost_ack) {
            self.fault(index);
            match self.rng.u32(..3) {
                0 => {
                    self.write(&expected, document);
                }
                1 => self.late.push((expected, document)),
                _ => {}
            }
            Fate::Unknown
        } else if self.write(&expected, document) {
            Fate::Done(Version(self.version.to_string()))
        } else {
            Fate::Conflict
        };
        Event::Swapped(Some(fate))
    }

    fn write(&mut self, expected: &str, document: Document) -> bool {
        if expected != self.version.to_string() {
            return false;
        }
        // A generation never decreases, and is one thing only.
        assert!(document.age() >= self.oldest_allowed, "went back to {:?}", document.age());
        let number_of = |document: &Document| {
            let record = document.record.as_ref()?;
            Some(number(record.refresh_token.as_ref()?))
        };
        if let Some(held) = self.register.as_ref().filter(|held| held.age() == document.age()) {
            assert!(held.record == document.record, "two records of {:?}", document.age());
            assert!(document.revision > held.revision);
        }
        if let Some(newest) = number_of(&document) {
            assert!(newest >= self.newest_seen, "{newest} was written over {}", self.newest_seen);
            self.newest_seen = newest;
        }
        self.oldest_allowed = document.age();
        self.register = Some(document);
        self.version += 1;
        true
    }

    fn told(&mut self, index: usize, verdict: Verdict) -> Option<Event> {
        let now = self.now;
        match verdict {
            Verdict::Call(call) => return self.call(index, &call),
            Verdict::Adopt(document) => {
                let record = document.record.unwrap();
                let ends = Duration::from_secs(record.expires_at);
                let wall = self.began.wall.duration_since(UNIX_EPOCH).unwrap();
                let ends = u64::try_from(ends.saturating_sub(wall).as_millis()).unwrap();
                self.hold(index, number(&record.refresh_token.unwrap()), ends);
            }
            Verdict::Rest(rest) => {
                let replica = &mut self.replicas[index];
                replica.dead = matches!(rest, Rest::Dead(_));
                let until = match rest {
                    Rest::Busy(until)
                    | Rest::New(until)
                    | Rest::Doubtful(until)
                    | Rest::Paused(until) => until,
                    _ => self.began.plus(Duration::from_millis(now + 200)),
                };
                // Those who wait for others hear of what they do.
                self.replicas[index].wakes_at = self.since_beginning(until).min(now + 300);
            }
        }
        None
    }

    fn hold(&mut self, index: usize, token: u64, usable_until: u64) {
        let jitter = self.rng.u64(..LIFE / 10);
        let now = self.now;
        let replica = &mut self.replicas[index];
        replica.held = Some(token);
        replica.dead = false;
        replica.usable_until = usable_until;
        replica.refresh_at = now + (usable_until.saturating_sub(now)) * 7 / 10 + jitter;
        replica.wakes_at = now;
    }

    fn call(&mut self, index: usize, call: &Call) -> Option<Event> {
        let until = self.since_beginning(call.until);
        if self.now >= until {
            return Some(Event::Answered(Outcome::Failed(None)));
        }
        let token = match &call.token {
            Token::Nothing => return Some(Event::Answered(Outcome::Failed(None))),
            Token::Configured(_) => self.bootstrap,
            Token::Stored => self.replicas[index].held.expect("adopted before"),
        };
        self.may_be_sent(token);
        let sends = self.provider.sends.entry(token).or_default();
        sends.push(Send { at: self.now, faulted: false, told: false });
        self.replicas[index].sent = Some((token, sends.len() - 1));
        let age = self.register.as_ref().map_or((0, 0), Document::age);
        *self.calls.entry(age).or_default() += 1;
        let answer = Some(self.provider.take(token, self.now));
        let latency = match self.provider.kind {
            Kind::Slow => self.rng.u64(..LEASE),
            _ => self.rng.u64(..LEASE / 4),
        };
        let lost = self.happens(self.faults.lost_reply);
        if lost || self.now + latency >= until {
            self.fault(index);
        }
        let answer = answer.filter(|_| !lost);
        let answer_at = self.now + latency;
        self.replicas[index].doing = Doing::Calling { token, until, answer_at, answer };
        None
    }

    /// No refresh token goes out twice but by the rule.
    fn may_be_sent(&self, token: u64) {
        let (Some(sends), false) =
            (self.provider.sends.get(&token), self.provider.kind == Kind::Fixed)
        else {
            return;
        };
        let Some(last) = sends.last() else { return };
        assert!(last.faulted, "sent again although nothing had happened to {token}");
        assert!(
            last.told || self.now >= last.at + LEASE * 2 / 3,
            "sent again while it may be on its way: {token}"
        );
        let first = sends.iter().map(|send| send.at).min().unwrap();
        let in_grace = self.provider.kind == Kind::Grace && self.now < first + GRACE;
        let held = self.register.as_ref().and_then(|document| document.record.as_ref());
        let wall = self.moment().wall.duration_since(UNIX_EPOCH).unwrap();
        let nearly = held.is_none_or(|record| {
            Duration::from_secs(record.expires_at) <= wall + Duration::from_millis(LIFE / 10)
        });
        assert!(in_grace || nearly, "sent again before the access token was used up: {token}");
        assert!(
            in_grace || sends.len() < 2 || self.now >= last.at + LONG_PAUSE,
            "sent a third time: {token}"
        );
    }

    fn await_answer(
        &mut self,
        index: usize,
        token: u64,
        until: u64,
        answer_at: u64,
        answer: Option<Result<u64, ()>>,
    ) -> Option<Event> {
        // An answer that came while the process was stopped is still there.
        let here = answer.filter(|_| self.now >= answer_at && answer_at < until);
        let outcome = match here {
            Some(Ok(newest)) => {
                let usable_until = self.now + LIFE;
                self.hold(index, newest, usable_until);
                Outcome::Renewed(Box::new(self.record(newest)))
            }
            Some(Err(())) => Outcome::Refused,
            None if self.now >= until => {
                self.provider.sends.get_mut(&token).unwrap().iter_mut().for_each(|s| s.told = true);
                Outcome::Lost
            }
            None => {
                let doing = Doing::Calling { token, until, answer_at, answer };
                self.replicas[index].doing = doing;
                return None;
            }
        };
        Some(Event::Answered(outcome))
    }

    fn record(&self, newest: u64) -> Record {
        let wall = self.moment().wall.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let text = |text: String| Some(Zeroizing::new(text));
        Record {
            refresh_token: text(format!("rt-{newest}")),
            bootstrap_sha256: None,
            access_token: text(format!("at-{newest}-{}", self.now)),
            obtained_at: wall,
            expires_at: wall + LIFE / 1000,
            identity: None,
        }
    }

    /// A family may only be lost where something happened between the provider's commit and the
    /// register; a person signs in then.
    fn mend(&mut self) {
        if self.provider.alive {
            return;
        }
        let reused = *self.provider.reused.last().unwrap();
        let sends = &self.provider.sends[&reused];
        let excused = sends.iter().take(sends.len() - 1).any(|send| send.faulted);
        assert!(excused, "lost without a reason: {reused}");
        if self.replicas.iter().all(|replica| replica.dead) {
            self.losses += 1;
            self.provider.newest += 1;
            self.bootstrap = self.provider.newest;
            self.provider.alive = true;
        }
    }

    /// Without faults from now on everybody gets going again, within a bounded time.
    fn recovers(&mut self) {
        self.faults = NONE;
        if self.provider.kind == Kind::Slow {
            self.provider.kind = Kind::Strict;
        }
        let end = self.now + 2 * LONG_PAUSE + 30 * LEASE;
        loop {
            self.step();
            self.mend();
            let well = |replica: &Replica| replica.usable_until > self.now + 100;
            if self.replicas.iter().all(well) {
                return;
            }
            assert!(self.now < end, "stuck: {}", self.told_by_all());
        }
    }
}

impl World {
    fn told_by_all(&self) -> String {
        let register = self.register.as_ref().map(|d| (d.age(), &d.intent, &d.doubt, d.dead));
        let replicas = self.replicas.iter().map(|replica| {
            let left = (replica.usable_until, replica.refresh_at, replica.wakes_at);
            format!("{left:?} dead {} unsettled {}", replica.dead, replica.protocol.unsettled())
        });
        let replicas: Vec<String> = replicas.collect();
        let alive = self.provider.alive;
        format!("{} {register:?} alive {alive} {replicas:#?}", self.now)
    }
}

fn rounds(usual: u64) -> u64 {
    let times = std::env::var("BEARERD_TORTURE").ok().and_then(|times| times.parse().ok());
    usual * times.unwrap_or(1)
}

/// Runs one kind of world from many seeds and says what became of it.
fn explore(what: &str, kind: Kind, faults: Faults) {
    let (mut sends, mut losses) = (0, 0);
    let worlds = rounds(12);
    for seed in 0..worlds {
        // Told only if the test fails.
        println!("{what} {kind:?}: seed {seed}");
        let replicas = 2 + usize::try_from(seed % 5).unwrap();
        let mut world = World::new(seed, kind, faults, replicas);
        for _ in 0..3_000 {
            world.step();
            world.mend();
        }
        world.recovers();
        sends += world.provider.sends.values().map(Vec::len).sum::<usize>();
        losses += world.losses;
    }
    println!("| {what} | {kind:?} | {worlds} | {sends} | {losses} |");
    let harmless = matches!(what, "nothing" | "lost acks") && kind != Kind::Slow;
    if kind == Kind::Fixed || harmless {
        assert_eq!(losses, 0, "{what}, {kind:?}");
    }
    assert!(sends > usize::try_from(worlds).unwrap() * 3, "hardly anything happened");
}

#[test]
fn no_fault_makes_a_spent_token_come_back_but_by_the_rule() {
    for kind in [Kind::Strict, Kind::Slow, Kind::Grace, Kind::Fixed] {
        for (what, faults) in [
            ("nothing", NONE),
            ("pauses", Faults { pause: 10, ..NONE }),
            ("crashes", Faults { crash: 10, ..NONE }),
            ("lost replies", Faults { lost_reply: 100, ..NONE }),
            ("lost acks", Faults { lost_ack: 150, ..NONE }),
            ("store down", Faults { down: 200, ..NONE }),
            ("all", Faults { pause: 5, crash: 5, lost_reply: 50, lost_ack: 80, down: 80 }),
        ] {
            explore(what, kind, faults);
        }
    }
}

#[test]
fn a_thousand_refusals_at_many_replicas_cost_one_call_a_generation() {
    for seed in 0..rounds(40) {
        let mut world = World::new(seed, Kind::Strict, NONE, 20);
        for _ in 0..20 {
            // Fifty at each of twenty replicas: a replica asks once for all of them.
            world.replicas.iter_mut().for_each(|replica| replica.refresh_at = 0);
            for _ in 0..1_200 {
                world.step();
            }
        }
        let most = world.calls.values().max().copied();
        assert_eq!(most, Some(1), "seed {seed}: {:?}", world.calls);
        assert!(world.calls.len() >= 5, "hardly anything happened: {:?}", world.calls);
    }
}

#[test]
fn a_register_that_lost_everything_makes_nobody_send_an_old_token() {
    for seed in 0..rounds(60) {
        println!("seed {seed}");
        let mut world = World::new(seed, Kind::Strict, NONE, 4);
        for _ in 0..2_000 {
            world.step();
        }
        let spent = world.provider.newest;
        assert!(spent > 3);
        // An empty copy, or one that lags behind by a few generations.
        world.register = None;
        world.version += 1;
        world.oldest_allowed = (0, 0);
        world.newest_seen = 0;
        let newcomer = world.process();
        world.replicas.push(newcomer);
        for _ in 0..3_000 {
            world.step();
        }
        // The newest one may have been on its way; an old one must not be.
        assert!(world.provider.alive && world.provider.newest <= spent + 1, "an old one was sent");
        assert!(world.replicas.iter().all(|replica| replica.dead), "nobody says so");
        // A person signs in.
        world.provider.newest += 1;
        world.bootstrap = world.provider.newest;
        for _ in 0..4_000 {
            world.step();
        }
        assert!(world.provider.alive);
        let now = world.now;
        assert!(world.replicas.iter().all(|replica| replica.usable_until > now));
    }
}
