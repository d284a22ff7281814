//! `[credentials.NAME]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Item, Section};
use super::server::number;
use super::url::{check_plaintext, host, http_url};
use super::{CredentialConfig, SourceConfig, dialect_file, parse_dialect, tls};
use crate::schedule::RefreshPolicy;
use crate::secret::SecretRef;
use crate::source::dialect::{Dialect, Key, Kind};
use crate::source::oauth2::{self, ClientAuthentication, Grant};
use crate::source::template::{Value, Values};
use crate::source::vendor;
use crate::tls::TlsSettings;

/// The grants of `provider = "oauth2"`.
const GRANTS: [(&str, Grant); 3] = [
    ("client_credentials", Grant::ClientCredentials),
    ("refresh_token", Grant::RefreshToken),
    ("password", Grant::Password),
];

pub(super) fn read_all(
    root: &Section<'_>,
    warnings: &mut Vec<String>,
) -> Option<Vec<CredentialConfig>> {
    let item = root.require("credentials", "at least one [credentials.NAME] table")?;
    let section = item.section()?;
    let mut all = Vec::new();
    let mut complete = true;
    for (name, item) in section.entries() {
        match read(&name, &item, warnings) {
            Some(credential) => all.push(credential),
            None => complete = false,
        }
    }
    (complete && one_owner_each(&section, &all)).then_some(all)
}

/// Two credentials with one store would keep each other from it.
fn one_owner_each(section: &Section<'_>, all: &[CredentialConfig]) -> bool {
    let mut sound = true;
    for (index, credential) in all.iter().enumerate().filter(|(_, c)| c.store.is_some()) {
        let owner = all[..index].iter().find(|earlier| earlier.store == credential.store);
        let item = section.take(&credential.name).and_then(|item| item.section()?.take("store"));
        if let (Some(owner), Some(item)) = (owner, item) {
            item.wrong(format!(
                "is the store of credentials.{} already; write a file of its own",
                owner.name
            ));
            sound = false;
        }
    }
    sound
}

fn read(name: &str, item: &Item<'_>, warnings: &mut Vec<String>) -> Option<CredentialConfig> {
    let section = item.section()?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
        section.wrong("is no name for a metric label; write letters, digits, - _ . (at most 63)");
    }
    let provider = section.take("provider").map_or(Some("oauth2".to_owned()), |i| i.text())?;
    let refresh = refresh(section.take("refresh"));
    if provider == "file" {
        let path =
            section.require("path", "path = \"/path/to/token\"").and_then(|item| item.path());
        section.finish();
        let source = SourceConfig::File(path?);
        let refresh = refresh?;
        let (name, dialect_file, refresh_token, store) = (name.to_owned(), None, None, None);
        let revoke_on_shutdown = false;
        return Some(CredentialConfig {
            name,
            provider,
            source,
            dialect_file,
            refresh_token,
            store,
            refresh,
            revoke_on_shutdown,
        });
    }
    let allow_plaintext = section.take("allow_plaintext").map_or(Some(false), |item| item.bool());
    let tls = section.take("tls").map_or(Some(TlsSettings::default()), |item| tls::tls(&item));
    let mut params = section.take("params").map_or(Some(Vec::new()), |item| params(&item))?;
    let store = section.take("store").map_or(Some(None), |item| store(&item).map(Some));
    let revoke = section.take("revoke_on_shutdown");
    let Some(speaks) = dialect(&provider, &section, allow_plaintext?, &mut params) else {
        if provider == "oauth2" {
            finish_undecided(section);
        }
        return None;
    };
    let custom = if provider == "custom" { section.take("dialect") } else { None };
    let dialect_file = custom.and_then(|item| item.path());
    let values = values(&speaks, &section, allow_plaintext?);
    section.finish();
    let values = values?;
    let revoke_on_shutdown = revoke.map_or(Some(false), |item| revocation(&item, &speaks, &values));
    warnings.extend(env_warnings(name, &values));
    let rotating = speaks.keys.iter().find(|key| key.rotating);
    let refresh_token = rotating.and_then(|key| match values.get(&key.name) {
        Some(Value::Secret(secret)) => Some(secret.clone()),
        _ => None,
    });
    let store = store?;
    if !can_obtain(&speaks, &values, store.is_some()) {
        item.wrong(format!("has no way to obtain a token; write {}", wanted(&speaks, &values)));
        return None;
    }
    if refresh_token.is_some() && store.is_none() && speaks.rotates {
        warnings.push(format!(
            "credentials.{name}: without a store a refresh token that the identity provider replaces \
             is lost at a restart; write store = \"file:/var/lib/bearerd/{name}.json\""
        ));
    }
    let source = SourceConfig::Dialect { dialect: Arc::new(speaks), values, params, tls: tls? };
    Some(CredentialConfig {
        name: name.to_owned(),
        provider,
        source,
        dialect_file,
        refresh_token,
        store,
        refresh: refresh?,
        revoke_on_shutdown: revoke_on_shutdown?,
    })
}

fn dialect(
    provider: &str,
    section: &Section<'_>,
    allow_plaintext: bool,
    params: &mut Vec<(String, String)>,
) -> Option<Dialect> {
    match provider {
        "oauth2" => oauth2(section, allow_plaintext, params),
        "custom" => {
            let item = section.require("dialect", "dialect = \"/path/to/dialect.toml\"")?;
            let loaded = dialect_file(&item.path()?);
            loaded.map_err(|problem| item.wrong(problem)).ok()
        }
        vendor => {
            if let Some(Ok(dialect)) = vendor::text(vendor).map(parse_dialect) {
                return Some(dialect);
            }
            let known = ["oauth2", "file", "custom"].into_iter();
            let vendors = vendor::ALL.iter().map(|(name, _)| *name);
            let names: Vec<String> = known.chain(vendors).map(str::to_owned).collect();
            section.take("provider")?.not_among(vendor, &names);
            None
        }
    }
}

fn oauth2(
    section: &Section<'_>,
    allow_plaintext: bool,
    params: &mut Vec<(String, String)>,
) -> Option<Dialect> {
    let example = "token_url = \"https://idp.example/oauth2/token\"";
    let token_url = section.require("token_url", example).and_then(|item| {
        let text = item.text()?;
        let url = http_url(&item, &text, "https://idp.example/oauth2/token")?;
        check_plaintext(&item, &url, allow_plaintext)?;
        Some(text)
    });
    let grant = section
        .require("grant", "grant = \"client_credentials\", \"refresh_token\" or \"password\"")
        .and_then(|item| item.choice(&GRANTS));
    let authentication =
        section.take("client_auth").map_or(Some(ClientAuthentication::Basic), |item| {
            item.choice(&[
                ("basic", ClientAuthentication::Basic),
                ("post", ClientAuthentication::Post),
                ("none", ClientAuthentication::None),
            ])
        });
    for (key, given) in
        [("audience", section.take("audience")), ("resource", section.take("resource"))]
    {
        for item in given.iter().flat_map(Item::items) {
            params.push((key.to_owned(), item.text()?));
        }
    }
    let fallback = section.take("fallback").map_or(Some(None), |item| fallback(&item).map(Some));
    let (token_url, grant, authentication) = (token_url?, grant?, authentication?);
    let dialect = oauth2::dialect(&token_url, grant, authentication);
    let Some(fallback) = fallback? else {
        return Some(dialect);
    };
    let item = section.take("fallback")?;
    if grant != Grant::RefreshToken {
        item.wrong("is for grant = \"refresh_token\" only; leave it out");
        return None;
    }
    // RFC 6749 §4.4: only confidential clients.
    if fallback == Grant::ClientCredentials && authentication == ClientAuthentication::None {
        item.wrong("is for a client that has a secret; write client_auth = \"basic\" or \"post\"");
        return None;
    }
    let other = oauth2::dialect(&token_url, fallback, authentication);
    Some(oauth2::falling_back(dialect, fallback, other))
}

fn fallback(item: &Item<'_>) -> Option<Grant> {
    item.choice(&[("password", Grant::Password), ("client_credentials", Grant::ClientCredentials)])
}

/// Tells unknown keys although it is open which grant is meant: those that no grant has.
fn finish_undecided(section: Section<'_>) {
    for (_, grant) in GRANTS {
        for key in oauth2::dialect("", grant, ClientAuthentication::Basic).keys {
            section.take(&key.name);
        }
    }
    section.finish();
}

/// What the credential says for each of the dialect's keys.
fn values(dialect: &Dialect, section: &Section<'_>, allow_plaintext: bool) -> Option<Values> {
    let mut values = Values::new();
    let mut complete = true;
    for key in &dialect.keys {
        let given = if key.required {
            section.require(&key.name, &example(key))
        } else {
            section.take(&key.name)
        };
        let value = match given {
            Some(item) => value(key, &item, allow_plaintext),
            None if key.required => None,
            None => match default(key) {
                Some(value) => Some(value),
                None => continue,
            },
        };
        match value {
            Some(value) => {
                values.insert(key.name.clone(), value);
            }
            None => complete = false,
        }
    }
    complete.then_some(values)
}

fn value(key: &Key, item: &Item<'_>, allow_plaintext: bool) -> Option<Value> {
    match key.kind {
        Kind::Host => host(item, &item.text()?, allow_plaintext).map(Value::Host),
        Kind::Path => {
            let text = item.text()?;
            let sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
            if !(text.is_empty() || text.starts_with('/')) || !text.bytes().all(sendable) {
                item.wrong("is no path; write \"\" or one such as \"/sec\"");
                return None;
            }
            Some(Value::Path(text))
        }
        // OAuth's lists are written with spaces (RFC 6749 §3.3).
        Kind::Text => item.texts().map(|texts| Value::Text(texts.join(" "))),
        Kind::Secret => item.secret().map(Value::Secret),
        Kind::Bool => item.bool().map(Value::Bool),
        Kind::Choice => {
            let text = item.text()?;
            if !key.of.contains(&text) {
                item.not_among(&text, &key.of);
                return None;
            }
            Some(Value::Text(text))
        }
    }
}

fn default(key: &Key) -> Option<Value> {
    let text = key.default.clone()?;
    Some(match key.kind {
        Kind::Host => Value::Host(format!("https://{text}")),
        Kind::Path => Value::Path(text),
        Kind::Bool => Value::Bool(text == "true"),
        Kind::Text | Kind::Choice | Kind::Secret => Value::Text(text),
    })
}

fn example(key: &Key) -> String {
    match key.kind {
        Kind::Secret => format!("{} = {{ file = \"/path/to/{}\" }}", key.name, key.name),
        Kind::Host => format!("{} = \"host.example\"", key.name),
        Kind::Bool => format!("{} = true", key.name),
        _ => format!("{} = \"…\"", key.name),
    }
}

/// Whether some exchange has everything that it needs; a store may supply the refresh token.
fn can_obtain(dialect: &Dialect, values: &Values, stored: bool) -> bool {
    let rotating = |key: &str| dialect.keys.iter().any(|k| k.rotating && k.name == key);
    let supplied = |key: &str| (stored && rotating(key)).then_some("");
    let value = |key: &str| values.get(key).and_then(Value::said).or_else(|| supplied(key));
    dialect.obtain.iter().any(|exchange| exchange.applies(value))
}

/// What would have to be written, for each way in that the credential's choices leave open.
fn wanted(dialect: &Dialect, values: &Values) -> String {
    let value = |key: &str| values.get(key).and_then(Value::said);
    let open = dialect.obtain.iter().filter(|exchange| exchange.chosen(value));
    let ways: Vec<String> = open.map(|exchange| exchange.needs.join(" and ")).collect();
    ways.join(", or ")
}

fn revocation(item: &Item<'_>, dialect: &Dialect, values: &Values) -> Option<bool> {
    if !item.bool()? {
        return Some(false);
    }
    let Some(exchange) = &dialect.revoke else {
        item.wrong(format!("{} has no endpoint that revokes a token; write false", dialect.name));
        return None;
    };
    let missing: Vec<_> = exchange.needs.iter().filter(|key| !values.contains_key(*key)).collect();
    if let [first, ..] = missing[..] {
        item.wrong(format!(
            "needs {first:?}, or nobody could sign in afterwards; write {first} too"
        ));
        return None;
    }
    Some(true)
}

fn env_warnings<'a>(name: &'a str, values: &'a Values) -> impl Iterator<Item = String> + 'a {
    values.iter().filter_map(move |(key, value)| match value {
        Value::Secret(SecretRef::Env(variable)) => Some(format!(
            "credentials.{name}.{key}: environment variable {variable} can be read by others who run \
             as this user; a file is better"
        )),
        _ => None,
    })
}

fn refresh(item: Option<Item<'_>>) -> Option<RefreshPolicy> {
    let seconds = |section: &Section<'_>, key, default, range| {
        number(section, key, default, range).map(Duration::from_secs)
    };
    let Some(item) = item else {
        return Some(RefreshPolicy {
            min_interval: Duration::from_secs(1),
            default_lifetime: Duration::from_mins(5),
            idle_after: None,
        });
    };
    let section = item.section()?;
    let min_interval = seconds(&section, "min_interval_seconds", 1, 1..=86_400);
    let default_lifetime = seconds(&section, "default_lifetime_seconds", 300, 1..=31_536_000);
    let idle_after = seconds(&section, "idle_after_seconds", 0, 0..=31_536_000);
    section.finish();
    Some(RefreshPolicy {
        min_interval: min_interval?,
        default_lifetime: default_lifetime?,
        idle_after: Some(idle_after?).filter(|idle| !idle.is_zero()),
    })
}

fn params(item: &Item<'_>) -> Option<Vec<(String, String)>> {
    let entries = item.section()?.entries();
    entries.into_iter().map(|(name, item)| Some((name, item.text()?))).collect()
}

fn store(item: &Item<'_>) -> Option<PathBuf> {
    let text = item.text()?;
    let path = text.strip_prefix("file:").map(PathBuf::from).filter(|path| path.is_absolute());
    if path.is_none() {
        item.wrong("is no store; write \"file:/absolute/path.json\"");
    }
    let directory = path.as_ref().and_then(|path| path.parent());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        item.wrong(format!("is in {}, which is no directory; create it", directory.display()));
        return None;
    }
    path
}
