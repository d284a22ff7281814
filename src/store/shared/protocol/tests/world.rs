//! Replicas, a register, an identity provider and a person, one step at a time in random order.

use super::provider::Provider;
use super::register::{Register, token_of};
use super::replica::Replica;
use super::signing::Person;
use super::*;

/// What may go wrong, each with how often in a thousand steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) pause: u32,
    pub(super) crash: u32,
    pub(super) lost_reply: u32,
    pub(super) lost_ack: u32,
    /// Another writer was faster.
    pub(super) conflict: u32,
    pub(super) down: u32,
    /// The engine loses its last write, if that is no intent.
    pub(super) lag: u32,
    /// A person signs in although nothing is wrong.
    pub(super) login: u32,
}

pub(super) const NONE: Faults = Faults {
    pause: 0,
    crash: 0,
    lost_reply: 0,
    lost_ack: 0,
    conflict: 0,
    down: 0,
    lag: 0,
    login: 0,
};

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    began: Moment,
    pub(super) now: u64,
    pub(super) register: Register,
    pub(super) provider: Provider,
    pub(super) replicas: Vec<Replica>,
    pub(super) person: Option<Person>,
    processes: u32,
    /// Configured everywhere.
    pub(super) bootstrap: u64,
    /// Calls for each age of the register.
    pub(super) calls: BTreeMap<(u64, u64), u32>,
    pub(super) losses: u32,
    pub(super) logins: u32,
}

impl World {
    pub(super) fn new(seed: u64, kind: Kind, faults: Faults, replicas: usize) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            faults,
            // The same in each run, so that a seed tells all.
            began: Moment { wall: UNIX_EPOCH + Duration::from_secs(1 << 31), ..Moment::now() },
            now: 0,
            register: Register::default(),
            provider: Provider::new(kind),
            replicas: Vec::new(),
            person: None,
            processes: 0,
            bootstrap: 1,
            calls: BTreeMap::new(),
            losses: 0,
            logins: 0,
        };
        for _ in 0..replicas {
            world.join();
        }
        world
    }

    /// One more replica.
    pub(super) fn join(&mut self) {
        let replica = Replica::new(self.holder(), self.provider.kind, self.now);
        self.replicas.push(replica);
    }

    /// A name that no other process has.
    pub(super) fn holder(&mut self) -> String {
        self.processes += 1;
        format!("p{}", self.processes)
    }

    pub(super) fn moment(&self) -> Moment {
        self.began.plus(Duration::from_millis(self.now))
    }

    pub(super) fn since_beginning(&self, moment: Moment) -> u64 {
        u64::try_from((moment.mono - self.began.mono).as_millis()).unwrap()
    }

    /// Until when a record's access token is good.
    pub(super) fn ends(&self, record: &Record) -> u64 {
        let wall = self.began.wall.duration_since(UNIX_EPOCH).unwrap();
        let left = Duration::from_secs(record.expires_at).saturating_sub(wall);
        u64::try_from(left.as_millis()).unwrap()
    }

    pub(super) fn happens(&mut self, per_mille: u32) -> bool {
        self.rng.u32(..1000) < per_mille
    }

    pub(super) fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Lets one process do one thing.
    pub(super) fn step(&mut self) {
        // As many replicas do as many things at once.
        self.now += self.rng.u64(1..=120 / u64::try_from(self.replicas.len()).unwrap());
        if self.happens(200) {
            self.register.arrive(&mut self.rng, &self.provider);
        }
        if self.happens(self.faults.conflict) {
            self.register.meddle();
        }
        if self.register.held().is_some_and(|held| held.intent.is_none())
            && self.happens(self.faults.lag)
        {
            self.register.go_back(Some(1));
        }
        if self.person.is_some() {
            self.go_on_signing_in();
        } else if self.happens(self.faults.login) {
            self.begin_to_sign_in();
        }
        let index = self.rng.usize(..self.replicas.len());
        if self.happens(self.faults.crash) {
            self.fault(index);
            self.replicas[index] = Replica::new(self.holder(), self.provider.kind, self.now);
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
    pub(super) fn fault(&mut self, index: usize) {
        if let Some(sent) = self.replicas[index].sent {
            self.provider.fault(sent);
        }
    }

    /// A write, by whoever it is; `None` if it surely did not happen, and true in the second place if
    /// its sender was hindered.
    pub(super) fn swap(&mut self, expected: Version, document: Document) -> (Option<Fate>, bool) {
        if self.happens(self.faults.down) {
            return (None, true);
        }
        if self.happens(self.faults.lost_ack) {
            match self.rng.u32(..3) {
                0 => drop(self.register.write(&expected, document, &self.provider)),
                1 => self.register.later(expected, document),
                _ => {}
            }
            return (Some(Fate::Unknown), true);
        }
        if self.register.write(&expected, document, &self.provider) {
            return (Some(Fate::Done(self.register.version())), false);
        }
        (Some(Fate::Conflict), false)
    }

    pub(super) fn record(&self, newest: u64, began_with: Option<u64>) -> Record {
        let wall = self.moment().wall.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let text = |text: String| Some(Zeroizing::new(text));
        Record {
            refresh_token: text(format!("rt-{newest}")),
            bootstrap_sha256: began_with.map(digest),
            access_token: text(format!("at-{newest}-{}", self.now)),
            obtained_at: wall,
            expires_at: wall + LIFE / 1000,
            identity: None,
        }
    }

    /// A family may only be lost where something happened between the provider's commit and the
    /// register; a person signs in then.
    pub(super) fn mend(&mut self) {
        for token in std::mem::take(&mut self.provider.reused) {
            let sends = &self.provider.sends[&token];
            let excused = sends.iter().take(sends.len() - 1).any(|send| send.faulted);
            assert!(excused, "lost without a reason: {token}");
        }
        let Some(held) = self.register.held().filter(|held| held.dead.is_some()) else { return };
        if let (Some(Dead::Refused), Some(token)) = (held.dead, token_of(held)) {
            assert!(!self.provider.is_alive(token), "given up although it was good: {token}");
        }
        let dead = self.replicas.iter().all(|replica| replica.dead);
        // What is configured is still to be used, or nobody knows yet what came of that.
        let open = !held.begun.contains(&digest(self.bootstrap));
        if !dead || open || self.person.is_some() {
            return;
        }
        self.losses += 1;
        if self.faults.login > 0 && self.happens(500) {
            self.begin_to_sign_in();
        } else {
            self.bootstrap = self.provider.sign_in();
        }
    }

    /// Without faults from now on everybody gets going again, within a bounded time.
    pub(super) fn recovers(&mut self) {
        self.faults = NONE;
        if self.provider.kind == Kind::Slow {
            self.provider.kind = Kind::Strict;
        }
        self.run_until(|world| {
            world.mend();
            world.all_serve()
        });
    }

    pub(super) fn run_until(&mut self, done: impl Fn(&mut Self) -> bool) {
        let end = self.now + 2 * LONG_PAUSE + 30 * LEASE;
        while !done(self) {
            self.step();
            assert!(self.now < end, "stuck: {}", self.told_by_all());
        }
    }

    /// Nobody is at anything, and all have what is there.
    pub(super) fn all_know(&mut self) -> bool {
        let held = self.register.held().filter(|held| held.intent.is_none()).map(Document::age);
        self.replicas.iter().all(|replica| Some(replica.protocol.taken) == held)
    }

    pub(super) fn all_serve(&mut self) -> bool {
        self.replicas.iter().all(|replica| replica.usable_until > self.now + 100)
    }

    fn told_by_all(&self) -> String {
        let held = self.register.held().map(|d| (d.age(), &d.intent, &d.doubt, d.dead));
        let replicas = self.replicas.iter().map(|replica| {
            let left = (replica.usable_until, replica.refresh_at, replica.wakes_at);
            format!("{left:?} dead {} unsettled {}", replica.dead, replica.protocol.unsettled())
        });
        let replicas: Vec<String> = replicas.collect();
        format!("{} {held:?} {replicas:#?}", self.now)
    }
}

pub(super) fn digest(number: u64) -> String {
    Fingerprint::of(format!("rt-{number}").as_bytes()).to_hex()
}
