//! A person's login on its way into the register: the next generation, in a life of its own, which
//! settles every doubt; an attempt under way finds itself overtaken. Pure, as the rest.

use super::Document;
use crate::clock::Moment;
use crate::store::Record;
use crate::store::shared::document::millis;

/// What a login brought, and whether it may be in the register already.
pub struct Login {
    nonce: String,
    record: Record,
    account: Option<String>,
    /// The first life of the register that a write of unknown fate would have begun.
    unknown: Option<u64>,
}

/// What to do about what was read.
pub enum Next {
    /// It is there.
    Done,
    /// Write this over it.
    Write(Box<Document>),
    /// It may have been there, and been used since: written once more, it would be spent twice.
    Overtaken,
    /// Tokens of another account are there, and alive: whoever uses them would be left without.
    Anothers,
}

impl Login {
    /// Of `account`, written under `nonce`, which no other write has.
    #[must_use]
    pub fn new(nonce: String, record: Record, account: Option<String>) -> Self {
        Self { nonce, record, account, unknown: None }
    }

    /// Looks at what the register holds.
    #[must_use]
    pub fn next(&self, held: Option<&Document>, now: Moment) -> Next {
        let there = |held: &Document| {
            held.nonce == self.nonce || held.record.as_ref() == Some(&self.record)
        };
        let life = held.map_or(0, |held| held.epoch);
        if held.is_some_and(there) {
            return Next::Done;
        }
        if self.unknown.is_some_and(|unknown| life >= unknown) {
            return Next::Overtaken;
        }
        if held.is_some_and(|held| is_anothers(held, self.account.as_deref())) {
            return Next::Anothers;
        }
        let epoch = (life + 1).max(millis(now) / 1000);
        let (nonce, record) = (self.nonce.clone(), self.record.clone());
        Next::Write(Box::new(match held {
            Some(held) => held.signed_in(nonce, epoch, record),
            None => Document::new(epoch, nonce, Some(record)),
        }))
    }

    /// It is not known what became of writing `document`.
    pub fn unknown(&mut self, document: &Document) {
        self.unknown.get_or_insert(document.epoch);
    }
}

/// What is written before anybody signs in: nothing but its number changes.
#[must_use]
pub fn trial(held: Option<&Document>, nonce: String, now: Moment) -> Document {
    match held {
        Some(held) => held.next(nonce),
        None => Document::new(millis(now) / 1000, nonce, None),
    }
}

/// True if tokens lie there that are alive, and not those of `account`.
#[must_use]
pub fn is_anothers(held: &Document, account: Option<&str>) -> bool {
    let record = held.record.as_ref().filter(|_| held.dead.is_none());
    let holder = record.and_then(|record| record.identity.as_ref());
    holder.is_some_and(|holder| account != Some(holder.account.as_str()))
}
