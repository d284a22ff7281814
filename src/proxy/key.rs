//! The key that callers may have to show: who can reach a listener is not always who may use it.

use http::{HeaderMap, HeaderName};

use super::reject::Reason;
use crate::config::KeyConfig;
use crate::secret::{Fingerprint, SecretError, SecretRef};

/// The keys that are good now.
pub struct CallerKeys {
    header: HeaderName,
    digests: Vec<Fingerprint>,
}

impl CallerKeys {
    /// Reads them; a file that is replaced later is read again with the configuration.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn read(config: &KeyConfig) -> Result<Self, SecretError> {
        let secrets = config.keys.iter().map(SecretRef::read);
        let digests = secrets.map(|secret| secret.map(|secret| secret.fingerprint()));
        Ok(Self { header: config.header.clone(), digests: digests.collect::<Result<_, _>>()? })
    }

    /// Looks whether a request shows one of them. How long that takes tells nothing about how much
    /// of it is right, nor which one it is.
    ///
    /// # Errors
    /// It does not, or shows two.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Reason> {
        let mut shown = headers.get_all(&self.header).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return Err(Reason::CallerKey);
        };
        let shown = Fingerprint::of(shown.as_bytes());
        let good = self.digests.iter().fold(false, |good, key| good | key.matches(&shown));
        if good { Ok(()) } else { Err(Reason::CallerKey) }
    }

    /// Takes the key out of a request: it is for nobody behind us.
    pub fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(&self.header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn keys(texts: &[&str]) -> CallerKeys {
        let secret = |text: &&str| SecretRef::Value(Secret::new((*text).to_owned()));
        let header = HeaderName::from_static("bearerd-key");
        let keys = texts.iter().map(secret).collect();
        CallerKeys::read(&KeyConfig { header, keys }).unwrap()
    }

    fn shown(values: &[&'static str]) -> HeaderMap {
        let name = HeaderName::from_static("bearerd-key");
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn one_of_the_keys_is_to_be_shown_once_and_whole() {
        let keys = keys(&["old", "new"]);
        for (values, good) in [
            (&["old"][..], true),
            (&["new"], true),
            (&[], false),
            (&[""], false),
            (&["ol"], false),
            (&["oldx"], false),
            (&["OLD"], false),
            (&["old, new"], false),
            (&["old", "old"], false),
            (&["old", "x"], false),
        ] {
            let mut headers = shown(values);
            assert_eq!(keys.check(&headers).is_ok(), good, "{values:?}");
            keys.strip(&mut headers);
            assert!(headers.is_empty(), "{values:?}");
        }
    }
}
