//! One replica of the model: it carries out what the protocol says, as well as the faults let it.

use super::provider::{GRACE, Send};
use super::register::number;
use super::world::{World, digest};
use super::*;

pub(super) enum Doing {
    Idle,
    Effect(Effect),
    Calling(Calling),
}

/// A call whose outcome is awaited.
pub(super) struct Calling {
    /// The refresh token that was sent; `None` if another way in was taken.
    token: Option<u64>,
    until: u64,
    answer_at: u64,
    /// `None` = nothing will come.
    answer: Option<Result<u64, ()>>,
}

pub(super) struct Replica {
    pub(super) protocol: Protocol,
    doing: Doing,
    pub(super) wakes_at: u64,
    pub(super) paused_until: u64,
    /// Of the access token at hand.
    pub(super) usable_until: u64,
    pub(super) refresh_at: u64,
    pub(super) dead: bool,
    /// Its last call, for the books: which token, which send of it.
    pub(super) sent: Option<(u64, usize)>,
}

fn terms(kind: Kind) -> Terms {
    Terms {
        lease: Duration::from_millis(LEASE),
        settle: Duration::from_millis(SETTLE),
        grace: (kind == Kind::Grace).then_some(Duration::from_millis(GRACE)),
        rotates: kind != Kind::Fixed,
        fallback: kind == Kind::Fallback,
        account: None,
    }
}

impl Replica {
    pub(super) fn new(holder: String, kind: Kind, now: u64) -> Self {
        Self {
            protocol: Protocol::new(holder, terms(kind)),
            doing: Doing::Idle,
            wakes_at: now,
            paused_until: 0,
            usable_until: 0,
            refresh_at: 0,
            dead: false,
            sent: None,
        }
    }
}

impl World {
    pub(super) fn act(&mut self, index: usize) {
        let now = self.moment();
        let event = match std::mem::replace(&mut self.replicas[index].doing, Doing::Idle) {
            Doing::Idle => self.idle(index),
            Doing::Effect(effect) => self.perform(index, effect),
            Doing::Calling(calling) => self.await_answer(index, calling),
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
                self.rests(index, 200);
                None
            }
            Effect::Read => {
                let document = self.register.held().cloned().map(Box::new);
                Some(Event::Read(self.register.version(), document))
            }
            Effect::Swap(expected, document) => {
                let (fate, faulted) = self.swap(expected, *document);
                if faulted {
                    self.fault(index);
                }
                if fate.is_none() {
                    self.rests(index, 200);
                }
                fate.map(Event::Swapped)
            }
            Effect::Tell(verdict) => self.told(index, verdict),
            Effect::GiveUp => {
                self.rests(index, LEASE / 8);
                None
            }
        }
    }

    fn rests(&mut self, index: usize, time: u64) {
        self.replicas[index].wakes_at = self.now + time;
    }

    fn told(&mut self, index: usize, verdict: Verdict) -> Option<Event> {
        match verdict {
            Verdict::Call(call) => return self.call(index, &call),
            Verdict::Adopt(document) => {
                let ends = self.ends(&document.record.unwrap());
                self.hold(index, ends);
            }
            Verdict::Rest(rest) => {
                self.replicas[index].dead = matches!(rest, Rest::Dead(_));
                let soon = self.now + 200;
                let until = match rest {
                    Rest::Busy(until)
                    | Rest::New(until)
                    | Rest::Doubtful(until)
                    | Rest::Paused(until) => self.since_beginning(until),
                    Rest::Settled | Rest::Dead(_) | Rest::Foreign => soon,
                };
                // Those who wait for others hear of what they do.
                self.replicas[index].wakes_at = until.min(self.now + 300);
            }
        }
        None
    }

    fn hold(&mut self, index: usize, usable_until: u64) {
        let jitter = self.rng.u64(..LIFE / 10);
        let now = self.now;
        let replica = &mut self.replicas[index];
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
        let token = match &call.sends {
            Sends::Nothing => None,
            Sends::Configured(wanted) if *wanted == digest(self.bootstrap) => Some(self.bootstrap),
            // Replaced between two looks at it.
            Sends::Configured(_) => return Some(Event::Answered(Outcome::Failed(None))),
            Sends::Stored(secret) => Some(number(secret.expose())),
        };
        let answer = match token {
            Some(token) => self.send(index, token, until),
            None if self.provider.kind == Kind::Fallback => Ok(self.provider.sign_in()),
            None => return Some(Event::Answered(Outcome::Failed(None))),
        };
        let latency = match self.provider.kind {
            Kind::Slow => self.rng.u64(..LEASE),
            _ => self.rng.u64(..LEASE / 4),
        };
        let lost = self.happens(self.faults.lost_reply);
        if lost || self.now + latency >= until {
            self.fault(index);
        }
        let answer = Some(answer).filter(|_| !lost);
        let answer_at = self.now + latency;
        let calling = Calling { token, until, answer_at, answer };
        self.replicas[index].doing = Doing::Calling(calling);
        None
    }

    fn send(&mut self, index: usize, token: u64, until: u64) -> Result<u64, ()> {
        self.may_be_sent(token);
        let sends = self.provider.sends.entry(token).or_default();
        sends.push(Send { at: self.now, until, faulted: false, told: false });
        self.replicas[index].sent = Some((token, sends.len() - 1));
        *self.calls.entry(self.register.age()).or_default() += 1;
        self.provider.refresh(token, self.now)
    }

    /// No refresh token goes out twice but by the rule.
    fn may_be_sent(&self, token: u64) {
        let kind = self.provider.kind;
        let (Some(sends), false) = (self.provider.sends.get(&token), kind == Kind::Fixed) else {
            return;
        };
        let Some(last) = sends.last() else { return };
        assert!(kind != Kind::Fallback, "sent again although there is another way in: {token}");
        assert!(last.faulted, "sent again although nothing had happened to {token}");
        let over = last.told || self.now >= last.until;
        assert!(over, "sent again while it may be on its way: {token}");
        let first = sends.iter().map(|send| send.at).min().unwrap();
        let in_grace = kind == Kind::Grace && self.now < first + GRACE;
        // A login that has come meanwhile has an access token of its own.
        let held = self.register.held().and_then(|document| document.record.as_ref());
        let held = held.filter(|record| {
            let newest = record.refresh_token.as_ref().map(|text| number(text));
            newest
                .is_some_and(|newest| self.provider.order(newest).0 == self.provider.order(token).0)
        });
        let nearly = held.is_none_or(|record| self.ends(record) <= self.now + LIFE / 10);
        assert!(in_grace || nearly, "sent again before the access token was used up: {token}");
        assert!(
            in_grace || sends.len() < 2 || self.now >= last.at + LONG_PAUSE,
            "sent a third time: {token}"
        );
    }

    fn await_answer(&mut self, index: usize, calling: Calling) -> Option<Event> {
        let Calling { token, until, answer_at, answer } = calling;
        // An answer that came while the process was stopped is still there.
        let here = answer.filter(|_| self.now >= answer_at && answer_at < until);
        let outcome = match here {
            Some(Ok(newest)) => {
                self.hold(index, self.now + LIFE);
                Outcome::Renewed(Box::new(self.record(newest, None)))
            }
            // Where there is another way in, it may fail as well.
            Some(Err(())) => {
                let fallback = self.provider.kind == Kind::Fallback;
                Outcome::Refused(fallback.then_some((Duration::from_millis(200), 1)))
            }
            None if self.now >= until => {
                let sends = token.and_then(|token| self.provider.sends.get_mut(&token));
                sends.into_iter().flatten().for_each(|send| send.told = true);
                Outcome::Lost
            }
            None => {
                self.replicas[index].doing = Doing::Calling(calling);
                return None;
            }
        };
        Some(Event::Answered(outcome))
    }
}
