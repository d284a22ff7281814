//! A person who signs in while replicas run, as `bearerd login` does it.

use super::super::login::{Login, Next, trial};
use super::world::World;
use super::*;

/// How far it is.
pub(super) enum Person {
    /// Whether the register takes writes is to be seen first.
    Tries { holder: String },
    /// At the provider, until then.
    Away { holder: String, until: u64 },
    /// What came is to be written: over what was read, if something was.
    Has(Box<Login>, Option<(Version, Box<Document>)>),
}

impl World {
    pub(super) fn begin_to_sign_in(&mut self) {
        let holder = self.holder();
        self.person = Some(Person::Tries { holder });
    }

    /// One step. Whoever is killed in between begins again some time.
    pub(super) fn go_on_signing_in(&mut self) {
        if self.happens(self.faults.crash) {
            self.person = None;
        }
        // As slowly as a replica.
        if self.happens(300)
            && let Some(person) = self.person.take()
        {
            self.person = match person {
                Person::Tries { holder } => Some(self.try_to_write(holder)),
                Person::Away { holder, until } => Some(self.come_back(holder, until)),
                Person::Has(login, None) => self.look(login),
                Person::Has(login, Some((version, document))) => {
                    self.leave(login, version, &document)
                }
            };
        }
    }

    fn try_to_write(&mut self, holder: String) -> Person {
        let same = trial(self.register.held(), format!("{holder}-before"), self.moment());
        let (fate, _) = self.swap(self.register.version(), same);
        if matches!(fate, Some(Fate::Done(_))) {
            let until = self.now + self.rng.u64(200..2 * LEASE);
            return Person::Away { holder, until };
        }
        Person::Tries { holder }
    }

    fn come_back(&mut self, holder: String, until: u64) -> Person {
        if self.now < until {
            return Person::Away { holder, until };
        }
        let token = self.provider.sign_in();
        let record = self.record(token, Some(self.bootstrap));
        self.logins += 1;
        Person::Has(Box::new(Login::new(format!("{holder}-login"), record, None)), None)
    }

    fn look(&mut self, login: Box<Login>) -> Option<Person> {
        if self.happens(self.faults.down) {
            return Some(Person::Has(login, None));
        }
        match login.next(self.register.held(), self.moment()) {
            Next::Done | Next::Overtaken => None,
            Next::Anothers => panic!("there is one account only"),
            Next::Write(next) => Some(Person::Has(login, Some((self.register.version(), next)))),
        }
    }

    fn leave(&mut self, mut login: Box<Login>, over: Version, next: &Document) -> Option<Person> {
        match self.swap(over, next.clone()).0 {
            Some(Fate::Done(_)) => return None,
            Some(Fate::Unknown) => login.unknown(next),
            Some(Fate::Conflict) | None => {}
        }
        Some(Person::Has(login, None))
    }
}
