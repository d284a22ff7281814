//! May this process call the identity provider, with what, and if not, why not.

use std::time::Duration;

use super::{Call, Claim, Effect, MAX_CALLED, Mine, Protocol, Rest, Sends, Verdict, What};
use crate::clock::Moment;
use crate::secret::Secret;
use crate::store::shared::Version;
use crate::store::shared::document::{Document, Doubt, Intent, Token, millis, whole};

/// A refresh token in doubt is put off until the access token has this share of its life left.
const NEARLY_SPENT: f64 = 0.05;
/// Between two attempts with a refresh token that was sent more than once without an answer.
const LONG_PAUSE: Duration = Duration::from_mins(5);
/// What another process may ask for after a failure.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);

impl Protocol {
    /// Writes an intent, if nothing speaks against it.
    pub(super) fn claim(
        &mut self,
        claim: &Claim,
        version: Version,
        document: &Document,
        now: Moment,
    ) -> Effect {
        let doubt = match self.standing(document, now) {
            Ok(doubt) => doubt,
            Err(until) => return Rest::Busy(until).into(),
        };
        // An intent that stands is nobody else's, and if it was used it is in doubt.
        let sent = |digest: &&String| {
            let about = |doubt: &Doubt| doubt.about == Token::Configured((*digest).clone());
            document.begun.contains(digest) || doubt.as_ref().is_some_and(about)
        };
        let put_in_place = claim.configured.as_ref().filter(|digest| !sent(digest));
        let token = match put_in_place {
            Some(digest) => Token::Configured(digest.clone()),
            None => match self.stored(claim, document, doubt.as_ref()) {
                Ok(token) => token,
                Err(rest) => return rest.into(),
            },
        };
        if let Some(rest) = self.waits(claim, document, &token, now) {
            return rest.into();
        }
        let doubted = doubt.as_ref().filter(|doubt| doubt.about == token && self.terms.rotates);
        let in_doubt = match doubted.map(|doubt| self.may_send_again(document, doubt, now)) {
            None => false,
            Some(Ok(in_doubt)) => in_doubt,
            Some(Err(until)) => return Rest::Doubtful(until).into(),
        };
        let spends = if in_doubt && self.terms.fallback { Token::Nothing } else { token };
        let mut next = document.next(self.nonce());
        (next.intent, next.doubt) = (Some(self.intent(document, spends, now)), doubt);
        self.swap(version, What::Claim { in_doubt, at: now }, next)
    }

    /// What is in doubt if nobody else is at it; else until when somebody is.
    pub(super) fn standing(
        &self,
        document: &Document,
        now: Moment,
    ) -> Result<Option<Doubt>, Moment> {
        let Some(intent) = &document.intent else {
            return Ok(document.doubt.clone());
        };
        if intent.holder == self.holder {
            // Who wrote it knows whether it was used.
            let used = self.called.contains(&intent.nonce);
            return Ok(if used { document.doubt_about_intent() } else { document.doubt.clone() });
        }
        let until = self.seen.intent.as_ref().map_or(now, |(_, at)| *at).plus(self.terms.lease);
        // By the monotonic clock alone: the other one may be stepped.
        if now.mono < until.mono {
            return Err(until);
        }
        Ok(document.doubt_about_intent())
    }

    /// What to send when nobody has put a refresh token in place.
    fn stored(
        &self,
        claim: &Claim,
        document: &Document,
        doubt: Option<&Doubt>,
    ) -> Result<Token, Rest> {
        // Put in place, and sent by somebody who never told what came of it. A register that went
        // back may have an intent of somebody who did.
        let open = claim.configured.as_ref().filter(|digest| !document.begun.contains(digest));
        let configured = open.cloned().map(Token::Configured);
        if let Some(doubt) = doubt.filter(|doubt| Some(&doubt.about) == configured.as_ref()) {
            return Ok(doubt.about.clone());
        }
        let stored = document.record.as_ref().filter(|record| record.refresh_token.is_some());
        match (document.dead, stored) {
            (Some(dead), _) if !self.terms.fallback => Err(Rest::Dead(dead)),
            (Some(_), _) | (None, None) => Ok(Token::Nothing),
            (None, Some(record)) => {
                let account = record.identity.as_ref().map(|identity| &identity.account);
                let own =
                    account.is_none_or(|account| Some(account) == self.terms.account.as_ref());
                if own { Ok(Token::Stored) } else { Err(Rest::Foreign) }
            }
        }
    }

    /// The reason to wait that has nothing to do with what became of somebody's attempt.
    fn waits(
        &self,
        claim: &Claim,
        document: &Document,
        token: &Token,
        now: Moment,
    ) -> Option<Rest> {
        // Those who know what an engine has lost, all of it or the last of it, can object until then.
        // Who has just come does not know, and what does not rotate cannot be spent.
        let empty = self.seen.empty.map(|(_, at)| at);
        let first = self.seen.first.filter(|_| self.terms.rotates);
        let new = [empty, first].into_iter().flatten().map(|at| at.plus(self.terms.settle));
        let new = new.filter(|until| *token != Token::Nothing && now.mono < until.mono);
        if let Some(until) = new.max_by_key(|until| until.mono) {
            return Some(Rest::New(until));
        }
        let pause = document.pause.as_ref().filter(|_| !claim.hasty)?;
        let (_, at) = self.seen.pause.as_ref()?;
        let until = at.plus(Duration::from_millis(pause.wait).min(LONGEST_PAUSE));
        (!until.reached(now)).then_some(Rest::Paused(until))
    }

    /// Whether a refresh token that may be spent is still in doubt if it is sent once more now; or
    /// else when it may be.
    fn may_send_again(
        &self,
        document: &Document,
        doubt: &Doubt,
        now: Moment,
    ) -> Result<bool, Moment> {
        let seen = self.first_seen(doubt, now);
        // By every clock there is: it is the provider's that counts.
        let in_grace = |grace: Duration| {
            let by_wall = millis(now) < doubt.since.saturating_add(whole(grace));
            by_wall && !seen.plus(grace).reached(now)
        };
        if doubt.sends == 1 && self.terms.grace.is_some_and(in_grace) {
            return Ok(false);
        }
        let nearly = self.nearly_spent(document, now);
        let rested = seen.plus(LONG_PAUSE);
        let again = doubt.sends > 1 && !self.terms.fallback && !rested.reached(now);
        match (nearly.filter(|at| !at.reached(now)), again.then_some(rested)) {
            (None, None) => Ok(true),
            (Some(nearly), Some(rested)) if nearly.mono > rested.mono => Err(nearly),
            (Some(until), None) | (_, Some(until)) => Err(until),
        }
    }

    /// When this process first saw that token in doubt, sent so often.
    fn first_seen(&self, doubt: &Doubt, now: Moment) -> Moment {
        let noted = self.seen.doubt.as_ref();
        let noted =
            noted.filter(|((about, sends), _)| (about, sends) == (&doubt.about, &doubt.sends));
        let noted = noted.map(|(_, at)| at).or(self.seen.intent.as_ref().map(|(_, at)| at));
        noted.copied().or(self.seen.age.map(|(_, at)| at)).unwrap_or(now)
    }

    /// When the access token is nearly used up, by either clock; `None` if there is none.
    fn nearly_spent(&self, document: &Document, now: Moment) -> Option<Moment> {
        let record = document.record.as_ref().filter(|record| record.access_token.is_some())?;
        let life = Duration::from_secs(record.expires_at.saturating_sub(record.obtained_at));
        let ends = Duration::from_secs(record.expires_at);
        let at = whole(ends.saturating_sub(life.mul_f64(NEARLY_SPENT)));
        let seen = self.seen.age.map_or(now, |(_, at)| at);
        // A clock that was stepped back must not lengthen it.
        let left = Duration::from_millis(at.saturating_sub(millis(seen))).min(life);
        Some(seen.plus(left))
    }

    fn intent(&mut self, document: &Document, spends: Token, now: Moment) -> Intent {
        let since = millis(now);
        Intent {
            generation: document.generation + 1,
            holder: self.holder.clone(),
            nonce: self.nonce(),
            since,
            deadline: since.saturating_add(whole(self.terms.lease)),
            spends,
        }
    }

    /// The intent of this process stands: it alone may call.
    pub(super) fn granted(&mut self, in_doubt: bool, claimed: Moment, now: Moment) -> Effect {
        let document = self.known.as_ref().map(|(_, document)| document);
        let Some((document, intent)) = document.and_then(|d| Some((d, d.intent.clone()?))) else {
            return Effect::Read;
        };
        // Writing took so long that there is no time left for an answer: another intent.
        if claimed.plus(self.terms.call() / 2).reached(now) {
            return self.decide(now);
        }
        let (age, failures) =
            (document.age(), document.pause.as_ref().map_or(0, |pause| pause.failures));
        let stored = document.record.as_ref().and_then(|record| record.refresh_token.as_ref());
        let sends = match (&intent.spends, stored) {
            (Token::Configured(digest), _) => Sends::Configured(digest.clone()),
            (Token::Stored, Some(stored)) => Sends::Stored(Secret::new(stored.to_string())),
            (Token::Stored, None) | (Token::Nothing, _) => Sends::Nothing,
        };
        let until = claimed.plus(self.terms.call());
        self.called.truncate(MAX_CALLED - 1);
        self.called.push_front(intent.nonce.clone());
        self.mine = Some(Mine { intent, age, outcome: None });
        Effect::Tell(Verdict::Call(Call { sends, in_doubt, until, failures }))
    }
}
