//! `[credentials.NAME]`

use std::sync::Arc;
use std::time::Duration;

use super::reader::{Item, Section};
use super::server::number;
use super::{CredentialConfig, SourceConfig, dialect_file, parse_dialect, readable_by_others, tls};
use crate::schedule::RefreshPolicy;
use crate::source::dialect::Dialect;
use crate::source::template::{Value, Values};
use crate::source::vendor;
use crate::store::StoreSettings;
use crate::tls::TlsSettings;

mod chains;
mod exec;
mod limits;
mod login;
mod oauth2;
mod params;
mod store;
mod values;

use values::{can_obtain, example, values, wanted};

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
    warnings.extend(shared_beginnings(&all));
    (complete && chains::sound(&section, &all) && one_owner_each(&section, &all)).then_some(all)
}

/// Where refresh tokens rotate, two chains that begin with one end each other (RFC 9700 §4.14.2).
fn shared_beginnings(all: &[CredentialConfig]) -> impl Iterator<Item = String> + '_ {
    let rotates = |one: &CredentialConfig| match &one.source {
        SourceConfig::Dialect { dialect, .. } => dialect.rotates,
        SourceConfig::File(_) | SourceConfig::Exec(_) => false,
    };
    all.iter().enumerate().filter(move |(_, one)| rotates(one)).filter_map(|(index, one)| {
        let secret = one.refresh_token.as_ref()?;
        let same = |earlier: &&CredentialConfig| earlier.refresh_token.as_ref() == Some(secret);
        let earlier = all[..index].iter().find(same)?;
        Some(format!(
            "credentials.{}: begins with the refresh token of credentials.{}: an identity provider that \
             replaces it at each use ends both; give each one of its own",
            one.name, earlier.name
        ))
    })
}

/// Two credentials with one store would keep each other from it.
fn one_owner_each(section: &Section<'_>, all: &[CredentialConfig]) -> bool {
    let mut sound = true;
    for (index, credential) in all.iter().enumerate().filter(|(_, c)| c.store.is_some()) {
        let same = |earlier: &&CredentialConfig| match (&earlier.store, &credential.store) {
            (Some(one), Some(other)) => one.is(other),
            _ => false,
        };
        let owner = all[..index].iter().find(same);
        let item = section.take(&credential.name).and_then(|item| item.section()?.take("store"));
        if let (Some(owner), Some(item)) = (owner, item) {
            item.wrong(format!(
                "is the store of credentials.{} already; write one of its own",
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
    let limits = limits::read(section.take("limits"));
    if let "file" | "exec" = provider.as_str() {
        let source = if provider == "file" {
            let path = section.require("path", "path = \"/path/to/token\"");
            path.and_then(|item| item.path()).map(SourceConfig::File)
        } else {
            exec::read(&section).map(SourceConfig::Exec)
        };
        section.finish();
        return Some(CredentialConfig {
            name: name.to_owned(),
            provider,
            source: source?,
            dialect_file: None,
            refresh_token: None,
            store: None,
            refresh: refresh?,
            bounds: limits?.bounds(refresh?),
            waiters: limits?.waiters,
            revoke_on_shutdown: false,
            login: None,
        });
    }
    let allow_plaintext = section.take("allow_plaintext").map_or(Some(false), |item| item.bool());
    let tls = section.take("tls").map_or(Some(TlsSettings::default()), |item| tls::tls(&item));
    let extra = section.take("params").map_or(Some(Vec::new()), |item| params::read(&item));
    let mut params = extra.clone().unwrap_or_default();
    let store = store::read(name, &section);
    let revoke = section.take("revoke_on_shutdown");
    let tls = tls?;
    let Some(speaks) = dialect(&provider, &section, &tls, &mut params) else {
        if provider == "oauth2" {
            oauth2::finish_undecided(section);
        }
        return None;
    };
    let custom = if provider == "custom" { section.take("dialect") } else { None };
    let dialect_file = custom.and_then(|item| item.path());
    let fit = section.take("params").is_none_or(|item| params::fit(&item, &speaks));
    let login = login::read(&section, &speaks, &params);
    let values = values(&speaks, &section, allow_plaintext?);
    section.finish();
    let values = values.filter(|_| fit && extra.is_some())?;
    let revoke_on_shutdown = revoke.map_or(Some(false), |item| revocation(&item, &speaks, &values));
    let rotating = speaks.keys.iter().find(|key| key.rotating);
    let refresh_token = rotating.and_then(|key| match values.get(&key.name) {
        Some(Value::Secret(secret)) => Some(secret.clone()),
        _ => None,
    });
    let store = store?;
    warnings.extend(in_environment(name, &values, store.as_ref()));
    let login = Some(login?).filter(|_| login::is_possible(&speaks, &values));
    if !can_obtain(&speaks, &values, store.is_some()) {
        item.wrong(format!("has no way to obtain a token; write {}", wanted(&speaks, &values)));
        return None;
    }
    if let (true, Some(StoreSettings::Shared(_))) = (speaks.dpop, &store) {
        item.wrong(
            "has dpop and a store that others share: its tokens are bound to a key of one process; \
             write store = \"file:/absolute/path.json\"",
        );
        return None;
    }
    if let (Some(true), Some(StoreSettings::Shared(_))) = (revoke_on_shutdown, &store) {
        item.wrong(
            "has revoke_on_shutdown and a store that others share: they use the same access token; \
             leave revoke_on_shutdown out",
        );
        return None;
    }
    if refresh_token.is_some() && store.is_none() && speaks.rotates {
        warnings.push(format!(
            "credentials.{name}: without a store a refresh token that the identity provider replaces \
             is lost at a restart; write store = \"file:/var/lib/bearerd/{name}.json\""
        ));
    }
    let source = SourceConfig::Dialect { dialect: Arc::new(speaks), values, params, tls };
    Some(CredentialConfig {
        name: name.to_owned(),
        provider,
        source,
        dialect_file,
        refresh_token,
        store,
        refresh: refresh?,
        bounds: limits?.bounds(refresh?),
        waiters: limits?.waiters,
        revoke_on_shutdown: revoke_on_shutdown?,
        login,
    })
}

fn dialect(
    provider: &str,
    section: &Section<'_>,
    tls: &TlsSettings,
    params: &mut Vec<(String, String)>,
) -> Option<Dialect> {
    match provider {
        "oauth2" => oauth2::read(section, tls, params),
        "custom" => {
            let item = section.require("dialect", "dialect = \"/path/to/dialect.toml\"")?;
            let loaded = dialect_file(&item.path()?);
            loaded.map_err(|problem| item.wrong(problem)).ok()
        }
        vendor => {
            if let Some(Ok(dialect)) = vendor::text(vendor).map(parse_dialect) {
                return Some(dialect);
            }
            let known = ["oauth2", "file", "exec", "custom"].into_iter();
            let vendors = vendor::ALL.iter().map(|(name, _)| *name);
            let names: Vec<String> = known.chain(vendors).map(str::to_owned).collect();
            section.take("provider")?.not_among(vendor, &names);
            None
        }
    }
}

fn revocation(item: &Item<'_>, dialect: &Dialect, values: &Values) -> Option<bool> {
    if !item.bool()? {
        return Some(false);
    }
    let Some(exchange) = &dialect.revoke else {
        item.wrong(format!("{} has no endpoint that revokes a token; write false", dialect.name));
        return None;
    };
    let missing = |key: &&String| !values.contains_key(*key) && dialect.discovery.is_none();
    if let Some(first) = exchange.needs.iter().find(missing) {
        let key = dialect.keys.iter().find(|key| key.name == *first);
        let write = key.map_or_else(|| first.clone(), example);
        let why =
            if exchange.mentions(first) { "" } else { ", or nobody could sign in afterwards" };
        item.wrong(format!("needs {first} too{why}; write {write}"));
        return None;
    }
    Some(true)
}

/// What to know about secrets that stand in the environment.
fn in_environment(name: &str, values: &Values, store: Option<&StoreSettings>) -> Vec<String> {
    let own = values.iter().filter_map(|(key, value)| Some((key.clone(), value.secret()?)));
    let settings = store.and_then(|store| match store {
        StoreSettings::Shared(settings) => Some(settings),
        StoreSettings::File(_) => None,
    });
    let stores = settings.into_iter().flat_map(|settings| settings.secrets());
    let stores = stores.map(|(key, secret)| (format!("store_options.{key}"), secret));
    let told = |(key, secret)| readable_by_others(&format!("credentials.{name}.{key}"), secret);
    own.chain(stores).filter_map(told).collect()
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
