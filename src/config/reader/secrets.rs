//! Secrets as the configuration writes them: a place to read one from.

use super::Item;
use crate::secret::{Secret, SecretError, SecretRef};

/// How a secret is read.
type ReadSecret = fn(&SecretRef) -> Result<Secret, SecretError>;

impl Item<'_> {
    /// `{ file = … }`, `{ env = … }` or `{ value = … }`; what it refers to must be readable now.
    pub(in crate::config) fn secret(&self, read: ReadSecret) -> Option<SecretRef> {
        const SHAPE: &str = "{ file = \"/path\" }, { env = \"NAME\" } or { value = \"…\" }";
        if self.value.as_str().is_some() {
            self.wrong(format!("a secret is not written as plain text; write {SHAPE}"));
            return None;
        }
        let section = self.section()?;
        let (file, env, value) = (section.take("file"), section.take("env"), section.take("value"));
        let given = [&file, &env, &value].into_iter().flatten().count();
        let unknown = section.finish();
        if given != 1 {
            if !unknown {
                self.wrong(format!("names {given} places; write exactly one of {SHAPE}"));
            }
            return None;
        }
        let (item, secret) = match (file, env, value) {
            (Some(item), _, _) => (item.clone(), SecretRef::File(item.path()?)),
            (_, Some(item), _) => (item.clone(), SecretRef::Env(item.text()?)),
            (_, _, Some(item)) => {
                let text = item.text()?;
                if text.is_empty() {
                    item.wrong("is empty; write the secret, or better name a file");
                    return None;
                }
                (item, SecretRef::Value(Secret::new(text)))
            }
            (None, None, None) => return None,
        };
        item.readable(secret, read)
    }

    /// The path of a file that holds a secret; it must be readable now.
    pub(in crate::config) fn secret_file(&self) -> Option<SecretRef> {
        self.readable(SecretRef::File(self.path()?), SecretRef::read)
    }

    fn readable(&self, secret: SecretRef, read: ReadSecret) -> Option<SecretRef> {
        if let Err(error) = read(&secret) {
            self.wrong(format!("{}; put the secret there first", crate::telemetry::chain(&error)));
            return None;
        }
        Some(secret)
    }

    /// What the environment variable in `{ env = "NAME" }` holds now.
    pub(in crate::config) fn variable(&self) -> Option<String> {
        let section = self.section()?;
        let item = section.require("env", "the name of an environment variable");
        section.finish();
        let (item, name) = item.and_then(|item| item.text().map(|name| (item, name)))?;
        let value = std::env::var(&name).ok();
        if value.is_none() {
            item.wrong(format!("environment variable {name} is not set to UTF-8 text; set it"));
        }
        value
    }

    /// Whether it is a table with this key.
    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.value.as_table().is_some_and(|table| table.iter().any(|(k, _)| k.get_ref() == key))
    }

    /// The name in `{ credential = "…" }`.
    pub(in crate::config) fn credential(&self) -> Option<String> {
        let section = self.section()?;
        let name = section.require("credential", "the name of one").and_then(|item| item.text());
        section.finish();
        name
    }
}
