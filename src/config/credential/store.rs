//! `store` and `store_options`: where a rotating refresh token lives.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::reader::{Item, Section};
use crate::secret::SecretRef;
use crate::store::StoreSettings;
use crate::store::shared::{self, Place, Settings, seal};

mod kubernetes;

/// What may be written.
const STORES: &str = "write \"file:/absolute/path.json\", \"redis://HOST:6379/0\", \
                      \"rediss://HOST:6379/0\" or \"kubernetes:NAMESPACE/SECRET\"";

/// The store of the credential `name`; `None` within if there is none.
#[allow(clippy::option_option)] // as everywhere here: without the outer one there is a mistake
pub(super) fn read(name: &str, section: &Section<'_>) -> Option<Option<StoreSettings>> {
    let options = section.take("store_options");
    let Some(item) = section.take("store") else {
        if let Some(options) = options {
            options.wrong("is of no use without a store; write store = \"redis://HOST:6379/0\"");
            return None;
        }
        return Some(None);
    };
    let text = item.text()?;
    if let Some(path) = text.strip_prefix("file:") {
        if let Some(options) = options {
            options.wrong("is for stores that several processes share; take it out");
            return None;
        }
        return file(&item, path).map(|path| Some(StoreSettings::File(path)));
    }
    let options = match &options {
        Some(options) => Some(options.section()?),
        None => None,
    };
    let settings = shared(name, &item, &text, options.as_ref());
    if let Some(options) = options {
        options.finish();
    }
    settings.map(|settings| Some(StoreSettings::Shared(Box::new(settings))))
}

fn file(item: &Item<'_>, path: &str) -> Option<PathBuf> {
    let path = Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    if path.is_none() {
        item.wrong(format!("is no store; {STORES}"));
    }
    let directory = path.as_ref().and_then(|path| path.parent());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        item.wrong(format!("is in {}, which is no directory; create it", directory.display()));
        return None;
    }
    path
}

fn shared(
    name: &str,
    item: &Item<'_>,
    text: &str,
    options: Option<&Section<'_>>,
) -> Option<Settings> {
    let place = place(name, item, text, options);
    let Some(options) = options else {
        return Some(Settings { place: place?, encryption_key: None, deadline: shared::DEADLINE });
    };
    let encryption_key = options.take("encryption_key").map(|item| key(&item));
    let usual = shared::DEADLINE.as_secs();
    let deadline = options.take("deadline_seconds");
    let deadline = deadline.map_or(Some(usual), |item| item.number(2..=300));
    let encryption_key = match encryption_key {
        Some(key) => Some(key?),
        None => None,
    };
    Some(Settings { place: place?, encryption_key, deadline: Duration::from_secs(deadline?) })
}

/// It must be a key now.
fn key(item: &Item<'_>) -> Option<SecretRef> {
    let key = item.secret(SecretRef::read)?;
    let Err(error) = seal::check(&key) else {
        return Some(key);
    };
    item.wrong(crate::telemetry::chain(&error));
    None
}

fn place(name: &str, item: &Item<'_>, text: &str, options: Option<&Section<'_>>) -> Option<Place> {
    if let Some(names) = text.strip_prefix("kubernetes:") {
        return kubernetes::read(item, names, options).map(Place::Kubernetes);
    }
    #[cfg(feature = "redis")]
    if text.starts_with("redis://") || text.starts_with("rediss://") {
        return redis::read(name, item, text, options).map(Place::Redis);
    }
    let _ = (name, text, options);
    item.wrong(format!("is no store; {STORES}"));
    None
}

#[cfg(feature = "redis")]
mod redis {
    use super::{Item, Section};
    use crate::config::tls;
    use crate::config::url::is_loopback;
    use crate::secret::SecretRef;
    use crate::store::shared::redis::Place;

    const EXAMPLE: &str = "write \"redis://HOST:6379/0\", or \"rediss://…\" for TLS";

    /// `redis[s]://[USER@]HOST[:PORT][/DATABASE]`, and what of the options concerns it.
    pub(super) fn read(
        name: &str,
        item: &Item<'_>,
        text: &str,
        options: Option<&Section<'_>>,
    ) -> Option<Place> {
        let take = |key| options.and_then(|options| options.take(key));
        let key = match take("key") {
            Some(key) => key.text()?,
            None => format!("bearerd:{name}"),
        };
        let password = match take("password") {
            Some(password) => Some(password.secret(SecretRef::read)?),
            None => None,
        };
        let tls_item = take("tls");
        let allowed = take("allow_plaintext").map_or(Some(false), |item| item.bool())?;
        let place = url(item, text)?;
        let tls = match (place.secure, tls_item) {
            (true, Some(item)) => Some(tls::tls(&item)?),
            (true, None) => Some(crate::tls::TlsSettings::default()),
            (false, None) => None,
            (false, Some(tls)) => {
                tls.wrong("is of no use with redis://; write rediss:// for TLS");
                return None;
            }
        };
        if tls.is_none() && !allowed && !is_loopback(&place.host) {
            item.wrong(
                "would send tokens in plaintext over a network; write rediss://, or allow_plaintext = \
                 true in store_options if the network itself is trusted",
            );
            return None;
        }
        let Url { host, port, database, username, .. } = place;
        Some(Place { host, port, database, key, username, password, tls })
    }

    struct Url {
        secure: bool,
        username: Option<String>,
        host: String,
        port: u16,
        database: i64,
    }

    fn url(item: &Item<'_>, text: &str) -> Option<Url> {
        let wrong = |what: &str| {
            item.wrong(format!("{what}; {EXAMPLE}"));
            None
        };
        let secure = text.starts_with("rediss://");
        let Ok(uri) = text.parse::<http::Uri>() else {
            return wrong("is no URL");
        };
        let Some(authority) = uri.authority().filter(|a| !a.host().is_empty()) else {
            return wrong("has no host");
        };
        let username = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
        if username.as_ref().is_some_and(|user| user.contains(':')) {
            item.wrong(
                "holds a password; take it out and write store_options = { password = { file = … } }",
            );
            return None;
        }
        let database = match uri.path().trim_start_matches('/') {
            "" => Some(0),
            number => number.parse().ok().filter(|number| (0..=65535).contains(number)),
        };
        let Some(database) = database.filter(|_| uri.query().is_none()) else {
            return wrong("names no database by its number");
        };
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if secure && !crate::tls::is_name(&host) {
            return wrong("has a host that no certificate could be for");
        }
        let port = authority.port_u16().unwrap_or(6379);
        Some(Url {
            secure,
            username: username.filter(|user| !user.is_empty()),
            host,
            port,
            database,
        })
    }
}
