//! What lies in a register that several processes share, plain or sealed, and what the protocol makes
//! of it: anybody who can write to the engine may have put it there.

use std::time::Duration;

use bearerd::clock::Moment;
use bearerd::secret::{Secret, SecretRef};
use bearerd::store::shared::Version;
use bearerd::store::shared::document::Document;
use bearerd::store::shared::protocol::{
    Call, Claim, Effect, Event, Fate, Goal, Outcome, Protocol, Sends, Terms, Verdict,
};
use bearerd::store::shared::seal::Seal;
use bearerd::store::{Record, Rotation};

use super::{CANARY, assert_tellable};

/// Of the sealed inputs of the corpus.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// More steps than this would be a loop.
const STEPS: usize = 100;

fn seal(key: Option<&str>) -> Seal {
    let key = key.map(|key| SecretRef::Value(Secret::new(key.to_owned())));
    Seal::new("register".to_owned(), key)
}

/// It is opened as it was sealed, with the key or without, or a word says why not; and whatever it
/// says, everybody goes on from there.
pub fn check(data: &[u8]) -> bool {
    let mut opened = false;
    for key in [None, Some(KEY)] {
        match seal(key).open(data) {
            Ok(document) => {
                opened = true;
                assert!(key.is_none() || !shows(data), "sealed, and to be read all the same");
                sealed_and_opened(&document);
                goes_on(&document);
            }
            Err(error) => assert_tellable(&error.to_string()),
        }
    }
    opened
}

fn shows(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

fn sealed_and_opened(document: &Document) {
    for key in [None, Some(KEY)] {
        let Ok(content) = seal(key).seal(document) else { continue };
        assert!(seal(key).open(&content).is_ok_and(|again| again == *document));
        assert!(key.is_none() || !shows(&content));
        assert!(seal(key.xor(Some(KEY))).open(&content).is_err(), "neither with nor without");
    }
}

/// What a process does that finds `document`, whatever it wants and whatever comes of it.
fn goes_on(document: &Document) {
    let now = Moment::now();
    if let Some(record) = document.record.clone() {
        let mut rotation = Rotation::new(None, None);
        rotation.adopt(record, &document.begun);
        assert!(rotation.restored(now).is_none_or(|token| token.usable(now)));
    }
    let configured = document.begun.first().cloned().or(Some("another".to_owned()));
    for (fallback, grace) in [(false, None), (true, Some(Duration::from_mins(1)))] {
        for outcome in 0..4 {
            for configured in [None, configured.clone()] {
                let account = document.record.as_ref().and_then(|record| record.identity.as_ref());
                let account = account.map(|identity| identity.account.clone());
                let terms = Terms {
                    lease: Duration::from_secs(15),
                    settle: Duration::from_secs(2),
                    grace,
                    rotates: true,
                    fallback,
                    account,
                };
                let claim = Claim { configured, hasty: false };
                Process::new(terms, document).runs(&claim, outcome, now);
            }
        }
    }
}

struct Process {
    protocol: Protocol,
    held: Document,
    version: u64,
}

impl Process {
    fn new(terms: Terms, found: &Document) -> Self {
        let protocol = Protocol::new("process".to_owned(), terms);
        Self { protocol, held: found.clone(), version: 0 }
    }

    /// A claim now, and once more when all that was waited for is over.
    fn runs(&mut self, claim: &Claim, outcome: usize, now: Moment) {
        for later in [0, 3600] {
            let now = now.plus(Duration::from_secs(later));
            let mut event = Event::Begin(Goal::Claim(claim.clone()));
            for step in 0.. {
                assert!(step < STEPS, "never comes to an end");
                event = match self.protocol.step(event, now) {
                    Effect::Read => Event::Read(self.version(), Some(self.held())),
                    Effect::Swap(version, next) => {
                        assert!(version == self.version(), "written over what was not read");
                        Event::Swapped(self.written(*next))
                    }
                    Effect::Tell(Verdict::Call(call)) => {
                        self.may(&call, claim);
                        Event::Answered(self.outcome(outcome))
                    }
                    Effect::Tell(Verdict::Adopt(document)) => {
                        assert!(*document == self.held, "something else than what is there");
                        Event::Begin(Goal::Claim(claim.clone()))
                    }
                    Effect::Tell(Verdict::Rest(_)) => break,
                    Effect::GiveUp => panic!("every write got through"),
                };
            }
        }
    }

    fn version(&self) -> Version {
        Version(self.version.to_string())
    }

    fn held(&self) -> Box<Document> {
        Box::new(self.held.clone())
    }

    fn written(&mut self, next: Document) -> Fate {
        assert!(next.age() >= self.held.age(), "went back");
        assert!(next.revision > self.held.revision, "written twice");
        self.held = next;
        self.version += 1;
        Fate::Done(self.version())
    }

    /// Only what may be sent is sent.
    fn may(&self, call: &Call, claim: &Claim) {
        match &call.sends {
            Sends::Nothing => {}
            Sends::Stored(secret) => {
                assert!(self.held.dead.is_none(), "it is over");
                let held =
                    self.held.record.as_ref().and_then(|record| record.refresh_token.as_ref());
                assert_eq!(Some(secret.expose()), held.map(|held| held.as_str()));
            }
            Sends::Configured(digest) => {
                assert_eq!(Some(digest), claim.configured.as_ref(), "nobody configured it");
            }
        }
    }

    fn outcome(&self, which: usize) -> Outcome {
        let fresh = Record {
            refresh_token: None,
            bootstrap_sha256: None,
            access_token: None,
            obtained_at: 1,
            expires_at: 2,
            identity: None,
        };
        match which {
            0 => Outcome::Renewed(Box::new(self.held.record.clone().unwrap_or(fresh))),
            1 => Outcome::Refused(Some((Duration::from_secs(1), 1))),
            2 => Outcome::Lost,
            _ => Outcome::Failed(Some((Duration::from_secs(1), 1))),
        }
    }
}
