//! Families of refresh tokens: each refresh may replace the token, and a replaced one that comes
//! back gives a theft away (RFC 9700 §4.14.2).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::settings::{Reuse, Rotation};
use crate::mint;
use crate::tokens::Tokens;

#[derive(Debug, Default)]
pub(super) struct Families {
    all: Vec<Family>,
    by_refresh_token: HashMap<String, usize>,
    rotations: u64,
}

#[derive(Debug)]
struct Family {
    client: String,
    alive: bool,
    current: String,
    /// The token before `current`, and when it was replaced.
    previous: Option<(String, Instant)>,
    access_tokens: Vec<String>,
}

/// What may be done with a refresh token that was presented.
pub(super) struct Rules {
    pub(super) rotation: Rotation,
    pub(super) reuse: Reuse,
    pub(super) grace: Duration,
}

/// A refresh that is allowed: its family, and the refresh token to send back.
pub(super) struct Refreshed {
    pub(super) family: usize,
    pub(super) refresh_token: Option<String>,
}

impl Families {
    pub(super) fn start(&mut self, client: &str) -> String {
        let token = mint::opaque(48);
        self.by_refresh_token.insert(token.clone(), self.all.len());
        self.all.push(Family {
            client: client.to_owned(),
            alive: true,
            current: token.clone(),
            previous: None,
            access_tokens: Vec::new(),
        });
        token
    }

    /// Judges a presented token and replaces it as the rules say. `None` is `invalid_grant`.
    pub(super) fn refresh(
        &mut self,
        token: &str,
        client: &str,
        rules: &Rules,
        access: &Tokens,
    ) -> Option<Refreshed> {
        let index = *self.by_refresh_token.get(token)?;
        let family = &mut self.all[index];
        if !family.alive || family.client != client {
            return None;
        }
        let is_current = family.current == token;
        if !is_current && rules.reuse != Reuse::Allowed {
            let within_grace = family
                .previous
                .as_ref()
                .is_some_and(|(previous, at)| previous == token && at.elapsed() < rules.grace);
            if within_grace {
                let refresh_token = Some(family.current.clone());
                return Some(Refreshed { family: index, refresh_token });
            }
            if rules.reuse == Reuse::RevokesFamily {
                family.revoke(access);
            }
            return None;
        }
        let refresh_token = match rules.rotation {
            Rotation::Absent => None,
            Rotation::Same => Some(token.to_owned()),
            Rotation::New => {
                let next = mint::opaque(48);
                let replaced = std::mem::replace(&mut family.current, next.clone());
                family.previous = Some((replaced, Instant::now()));
                self.by_refresh_token.insert(next.clone(), index);
                self.rotations += 1;
                Some(next)
            }
        };
        Some(Refreshed { family: index, refresh_token })
    }

    /// The index of the newest family.
    pub(super) fn newest(&self) -> usize {
        self.all.len() - 1
    }

    /// Notes that an access token came out of a family and dies with it.
    pub(super) fn adopt(&mut self, family: usize, access_token: &str) {
        self.all[family].access_tokens.push(access_token.to_owned());
    }

    /// Revokes the family of a refresh token (RFC 7009 §2.1).
    pub(super) fn revoke(&mut self, refresh_token: &str, client: &str, access: &Tokens) {
        if let Some(index) = self.by_refresh_token.get(refresh_token) {
            let family = &mut self.all[*index];
            if family.client == client {
                family.revoke(access);
            }
        }
    }

    pub(super) fn revoke_all(&mut self, access: &Tokens) {
        self.all.iter_mut().for_each(|family| family.revoke(access));
    }

    pub(super) fn all_alive(&self) -> bool {
        self.all.iter().all(|family| family.alive)
    }

    pub(super) fn rotations(&self) -> u64 {
        self.rotations
    }

    pub(super) fn current(&self) -> Option<String> {
        self.all.last().map(|family| family.current.clone())
    }
}

impl Family {
    fn revoke(&mut self, access: &Tokens) {
        self.alive = false;
        for token in self.access_tokens.drain(..) {
            access.revoke(&token);
        }
    }
}
