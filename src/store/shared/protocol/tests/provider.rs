//! An identity provider of the model: who is strict about a spent refresh token, and all that was ever
//! sent to it.

use std::collections::BTreeMap;

/// How long a spent refresh token is good for, where it is.
pub(super) const GRACE: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A refresh token that comes back spent ends its family.
    Strict,
    /// The same, and answers take about as long as an intent stands.
    Slow,
    /// A spent one is good for a while.
    Grace,
    /// Refresh tokens are not replaced.
    Fixed,
    /// Strict, and there is another way in.
    Fallback,
}

/// One request with a refresh token.
pub(super) struct Send {
    pub(super) at: u64,
    /// Its sender gives up then.
    pub(super) until: u64,
    /// Something happened to its sender before what came of it was in the register.
    pub(super) faulted: bool,
    /// The sender told the register that no answer came, or that nothing was spent.
    pub(super) told: bool,
}

pub(super) struct Provider {
    pub(super) kind: Kind,
    /// Refresh tokens by number: each one that is given out has the next.
    pub(super) newest: u64,
    /// Which sign-in each of them goes back to.
    families: BTreeMap<u64, usize>,
    /// Of each family, whether it was revoked.
    revoked: Vec<bool>,
    pub(super) sends: BTreeMap<u64, Vec<Send>>,
    spent_at: BTreeMap<u64, u64>,
    /// Those that came back spent, and have not been judged yet.
    pub(super) reused: Vec<u64>,
}

impl Provider {
    /// With one family, of one refresh token.
    pub(super) fn new(kind: Kind) -> Self {
        let mut provider = Self {
            kind,
            newest: 0,
            families: BTreeMap::new(),
            revoked: Vec::new(),
            sends: BTreeMap::new(),
            spent_at: BTreeMap::new(),
            reused: Vec::new(),
        };
        provider.sign_in();
        provider
    }

    /// The first refresh token of another family.
    pub(super) fn sign_in(&mut self) -> u64 {
        self.revoked.push(false);
        self.give(self.revoked.len() - 1)
    }

    fn give(&mut self, family: usize) -> u64 {
        self.newest += 1;
        self.families.insert(self.newest, family);
        self.newest
    }

    /// The answer to a refresh.
    pub(super) fn refresh(&mut self, token: u64, now: u64) -> Result<u64, ()> {
        let family = self.families[&token];
        if self.kind == Kind::Fixed {
            return Ok(token);
        }
        let spent = self.spent_at.get(&token).copied();
        let graceful = self.kind == Kind::Grace && spent.is_some_and(|at| now < at + GRACE);
        if self.revoked[family] {
            return Err(());
        }
        if spent.is_some() && !graceful {
            self.reused.push(token);
            self.revoked[family] = true;
            return Err(());
        }
        self.spent_at.entry(token).or_insert(now);
        Ok(self.give(family))
    }

    /// What is newer is greater: of a later family, or later in the same one.
    pub(super) fn order(&self, token: u64) -> (usize, u64) {
        (self.families[&token], token)
    }

    /// Somebody ends all sessions.
    pub(super) fn revoke_all(&mut self) {
        self.revoked.fill(true);
    }

    pub(super) fn is_alive(&self, token: u64) -> bool {
        !self.revoked[self.families[&token]]
    }

    /// Requests with any refresh token.
    pub(super) fn requests(&self) -> usize {
        self.sends.values().map(Vec::len).sum()
    }

    /// Something happened to whoever made that request.
    pub(super) fn fault(&mut self, (token, index): (u64, usize)) {
        if let Some(send) = self.sends.get_mut(&token).and_then(|sends| sends.get_mut(index)) {
            send.faulted = true;
        }
    }
}
