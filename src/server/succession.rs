//! Who goes on for whom when a reload changes credentials: what was rotated must neither be lost nor
//! go to another account.

use std::fmt::Write;

use crate::config::{CredentialConfig, SourceConfig};
use crate::secret::{Fingerprint, read_bytes};
use crate::source::template::Value;
use crate::store::Identity;

/// What tells accounts apart, beside where they are asked for tokens.
const NAMES: [&str; 4] = ["host", "issuer", "client_id", "username"];

/// Whose tokens `source` obtains, and which; `None` if there is no account to speak of.
#[must_use]
pub(super) fn identity(source: &SourceConfig) -> Option<Identity> {
    let SourceConfig::Dialect { dialect, values, params, tls } = source else {
        return None;
    };
    let said = |name: &str| values.get(name).and_then(Value::said).unwrap_or_default();
    let mut account = Digest::default();
    account.add(&dialect.name);
    // The origin only: a path may get a new version without the account being another.
    for exchange in &dialect.obtain {
        account.add(&exchange.url.origin(values));
    }
    for name in NAMES {
        account.add(said(name));
    }
    let mut request = account.clone();
    // As this version sees it: after an upgrade that sees it otherwise, a token is asked for anew.
    request.add(&format!("{:?}", dialect.obtain));
    let spoken = values.iter().map(|(name, value)| match value {
        Value::Credential(other) => (name.as_str(), other.as_str()),
        // Nothing of a secret.
        other => (name.as_str(), other.said().unwrap_or_default()),
    });
    // RFC 8705 §3: a token may be bound to it.
    if let Some(certificate) = tls.identity.as_ref().and_then(|(path, _)| read_bytes(path).ok()) {
        request.add(&Fingerprint::of(&certificate).to_hex());
    }
    let params = params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in spoken.chain(params) {
        request.add(name);
        request.add(value);
    }
    Some(Identity { account: account.finish(), request: request.finish() })
}

/// The digest of a list of texts.
#[derive(Clone, Default)]
struct Digest(String);

impl Digest {
    fn add(&mut self, text: &str) {
        let _ = write!(self.0, "{}:{text}", text.len());
    }

    fn finish(self) -> String {
        Fingerprint::of(self.0.as_bytes()).to_hex()
    }
}

/// For each of `wanted` the index of the one in `former` that it goes on for. The stronger claim
/// wins: nothing changed; the same refresh token in the same store, under whichever name; the name;
/// the store; at last the account, if no other pair has the same.
#[must_use]
pub(super) fn heirs(
    wanted: &[CredentialConfig],
    former: &[&CredentialConfig],
) -> Vec<Option<usize>> {
    let account = |config: &CredentialConfig| identity(&config.source).map(|i| i.account);
    let same_account = |one: &CredentialConfig, other: &CredentialConfig| {
        account(one).is_some_and(|account_of_one| Some(account_of_one) == account(other))
    };
    let same_name = |one: &CredentialConfig, other: &CredentialConfig| one.name == other.name;
    let same_store = |one: &CredentialConfig, other: &CredentialConfig| {
        one.store.is_some() && one.store == other.store
    };
    let mut matched = Matched { heirs: vec![None; wanted.len()], taken: vec![false; former.len()] };
    matched.by(wanted, former, |one, other| one == other);
    matched.by(wanted, former, |one, other| same_store(one, other) && same_account(one, other));
    matched.by(wanted, former, same_name);
    matched.by(wanted, former, same_store);
    // Renamed, if it is clear which.
    let open: Vec<_> = (0..wanted.len()).filter(|index| matched.heirs[*index].is_none()).collect();
    let free: Vec<_> = (0..former.len()).filter(|index| !matched.taken[*index]).collect();
    for heir in &open {
        let alike = |index: &&usize| same_account(&wanted[*heir], former[**index]);
        let rivals = open.iter().filter(|index| same_account(&wanted[*heir], &wanted[**index]));
        let mut left = free.iter().filter(alike);
        if let (1, Some(only), None) = (rivals.count(), left.next(), left.next()) {
            matched.heirs[*heir] = Some(*only);
        }
    }
    matched.heirs
}

struct Matched {
    heirs: Vec<Option<usize>>,
    taken: Vec<bool>,
}

impl Matched {
    fn by(
        &mut self,
        wanted: &[CredentialConfig],
        former: &[&CredentialConfig],
        claim: impl Fn(&CredentialConfig, &CredentialConfig) -> bool,
    ) {
        for (heir, wanted) in self.heirs.iter_mut().zip(wanted).filter(|(heir, _)| heir.is_none()) {
            let free = (0..former.len()).filter(|index| !self.taken[*index]);
            *heir = free.into_iter().find(|index| claim(wanted, former[*index]));
            if let Some(index) = *heir {
                self.taken[index] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Credentials `NAME ACCOUNT STORE`; `-` is no store.
    fn configured(lines: &[&str]) -> Vec<CredentialConfig> {
        let credential = |line: &&str| {
            let [name, account, store]: [&str; 3] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let store = match store {
                "-" => String::new(),
                name => format!("store = \"file:/tmp/{name}\"\n"),
            };
            format!(
                "[credentials.{name}]\ntoken_url = \"https://idp.example/{name}\"\n\
                 grant = \"refresh_token\"\nclient_auth = \"none\"\nclient_id = \"{account}\"\n\
                 refresh_token = {{ value = \"{name}\" }}\n{store}"
            )
        };
        let first = lines[0].split(' ').next().unwrap();
        let route =
            format!("[[routes]]\nupstream = \"https://a.example\"\ncredential = \"{first}\"");
        let text = lines.iter().map(credential).collect::<String>() + &route;
        config::parse(&text).unwrap().credentials
    }

    #[test]
    fn the_stronger_claim_goes_on_with_the_refresh_token() {
        for (former, wanted, expected) in [
            // The same; changed; gone and new.
            (&["a 1 -", "b 2 -"][..], &["a 1 -", "b 2 s"][..], &[Some(0), Some(1)][..]),
            (&["a 1 -"], &["a 2 -"], &[Some(0)]),
            (&["a 1 -"], &["b 2 -"], &[None]),
            // Renamed with its store, beside a newcomer of its name.
            (&["a 1 s"], &["b 1 s"], &[Some(0)]),
            (&["a 1 s"], &["a 2 -", "b 1 s"], &[None, Some(0)]),
            (&["a 1 s", "b 1 t"], &["a 1 t", "b 1 s"], &[Some(1), Some(0)]),
            // The store went to another account: waited for, though nothing is handed on.
            (&["a 1 s"], &["b 2 s"], &[Some(0)]),
            // Renamed without a store, or into one.
            (&["a 1 -"], &["b 1 -"], &[Some(0)]),
            (&["a 1 -"], &["b 1 s"], &[Some(0)]),
            // Not clear which.
            (&["a 1 -", "b 1 -"], &["c 1 -"], &[None]),
            (&["a 1 -"], &["b 1 -", "c 1 -"], &[None, None]),
            (&["a 1 -", "b 1 -"], &["a 1 -", "c 1 -"], &[Some(0), Some(1)]),
        ] {
            let (former_ones, wanted_ones) = (configured(former), configured(wanted));
            let former_ones: Vec<_> = former_ones.iter().collect();
            assert_eq!(heirs(&wanted_ones, &former_ones), expected, "{former:?} -> {wanted:?}");
        }
    }

    #[test]
    fn an_account_is_told_by_where_and_who_and_a_request_by_all_but_secrets() {
        let identity_with = |url: &str, client: &str, scope: &str, secret: &str| {
            let text = format!(
                "[credentials.c]\ntoken_url = \"{url}\"\ngrant = \"client_credentials\"\n\
                 client_id = \"{client}\"\nclient_secret = {{ value = \"{secret}\" }}\n\
                 scope = \"{scope}\"\n[[routes]]\nupstream = \"https://a.example\"\n\
                 credential = \"c\""
            );
            identity(&config::parse(&text).unwrap().credentials[0].source).unwrap()
        };
        let one = identity_with("https://idp.example/v1/token", "id", "read", "secret");
        for (url, client, scope, secret, same_account, same_request) in [
            ("https://idp.example/v1/token", "id", "read", "other", true, true),
            ("https://idp.example/v2/token", "id", "read", "secret", true, false),
            ("https://idp.example/v1/token", "id", "write", "secret", true, false),
            ("https://idp.example/v1/token", "di", "read", "secret", false, false),
            ("https://idp.example:444/v1/token", "id", "read", "secret", false, false),
        ] {
            let other = identity_with(url, client, scope, secret);
            let same = (one.account == other.account, one == other);
            assert_eq!(same, (same_account, same_request), "{url} {client} {scope} {secret}");
        }
    }
}
