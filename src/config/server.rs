//! `[server]`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::reader::{Item, Section};
use super::route::{header, optional};
use super::{KeyConfig, Limits, Listen, ServerConfig, tls};
use crate::secret::SecretRef;

/// Where bearerd listens if the configuration does not say.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where callers show their key if the configuration does not say.
const KEY_HEADER: HeaderName = HeaderName::from_static("bearerd-key");
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

pub(super) fn read(item: Option<Item<'_>>) -> Option<ServerConfig> {
    let Some(item) = item else {
        return Some(default());
    };
    let section = item.section()?;
    let allow_remote = section.take("allow_remote").map_or(Some(false), |item| item.bool());
    let mut taken = Vec::new();
    let listen = if let Some(item) = section.take("listen") {
        listeners(&item, allow_remote == Some(true), &mut taken)
    } else {
        taken.push(Listen::Tcp(LISTEN));
        Some(vec![Listen::Tcp(LISTEN)])
    };
    let admin = admin(&section, &mut taken);
    let quit_endpoint = section.take("quit_endpoint").map_or(Some(false), |item| item.bool());
    let threads = number(&section, "threads", 1, 1..=256);
    let hosts = section.take("allowed_hosts").map_or(Some(Vec::new()), |item| allowed_hosts(&item));
    let grace = number(&section, "shutdown_grace_seconds", 30, 0..=3600);
    let tls = optional(&section, "tls", tls::identity);
    let key = optional(&section, "key", key);
    let by_socket = listen.iter().flatten().any(|listen| matches!(listen, Listen::Unix(_)));
    let peer_uids = section.take("allow_peer_uids").map_or(Some(Vec::new()), |item| {
        uids(&item, by_socket || listen.is_none(), "listen = [\"unix:/run/bearerd/proxy.sock\"]")
    });
    let has_token_socket = section.has("token_socket");
    let token_socket = section.take("token_socket").map_or(Some(None), |item| {
        let path = token_socket(&item)?;
        free(&item, Listen::Unix(path.clone()), &mut taken).map(|()| Some(path))
    });
    let token_socket_uids = section.take("token_socket_uids").map_or(Some(Vec::new()), |item| {
        uids(&item, has_token_socket, "token_socket = \"unix:/run/bearerd/token.sock\"")
    });
    let limits = section.take("limits").map_or(Some(default().limits), |item| limits(&item));
    section.finish();
    let (listen, tls) = (listen?, tls?);
    let wants_tls = listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
    if wants_tls && tls.is_none() {
        item.wrong(
            "listens with tls: but shows no certificate; write tls = { cert = \"…\", key = \"…\" }",
        );
        return None;
    }
    Some(ServerConfig {
        listen,
        admin: admin?,
        quit_endpoint: quit_endpoint?,
        threads: usize::try_from(threads?).ok()?,
        allowed_hosts: hosts?,
        shutdown_grace: Duration::from_secs(grace?),
        tls,
        key: key?,
        peer_uids: peer_uids?,
        token_socket: token_socket?,
        token_socket_uids: token_socket_uids?,
        limits: limits?,
    })
}

fn default() -> ServerConfig {
    ServerConfig {
        listen: vec![Listen::Tcp(LISTEN)],
        admin: ADMIN,
        quit_endpoint: false,
        threads: 1,
        allowed_hosts: Vec::new(),
        shutdown_grace: Duration::from_secs(30),
        tls: None,
        key: None,
        peer_uids: Vec::new(),
        token_socket: None,
        token_socket_uids: Vec::new(),
        limits: Limits {
            connections: 10_000,
            head_bytes: 64 << 10,
            head_fields: 100,
            target_bytes: 16 << 10,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_mins(1),
            replay_bytes: 64 << 20,
            http2_streams: 100,
            http2_requests: 10_000,
            http2_resets: 64,
        },
    }
}

fn listeners(item: &Item<'_>, allow_remote: bool, taken: &mut Vec<Listen>) -> Option<Vec<Listen>> {
    let listen = item.each(|item| {
        let listen = listener(item, allow_remote)?;
        free(item, listen.clone(), taken)?;
        Some(listen)
    });
    if listen.as_ref().is_some_and(Vec::is_empty) {
        item.wrong("is empty; write at least one address, such as [\"127.0.0.1:8080\"]");
        return None;
    }
    listen
}

fn listener(item: &Item<'_>, allow_remote: bool) -> Option<Listen> {
    let text = item.text()?;
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            item.wrong(
                "a unix socket needs an absolute path; write \"unix:/run/bearerd/proxy.sock\"",
            );
            return None;
        }
        return Some(Listen::Unix(path.into()));
    }
    let (address, listen): (_, fn(SocketAddr) -> Listen) = match text.strip_prefix("tls:") {
        Some(address) => (address, Listen::Tls),
        None => (text.as_str(), Listen::Tcp),
    };
    let address = socket(item, address)?;
    if !address.ip().is_loopback() && !allow_remote {
        item.wrong(
            "would let other machines send requests with the token; write \"127.0.0.1:PORT\", or \
             allow_remote = true if that is meant",
        );
        return None;
    }
    Some(listen(address))
}

fn admin(section: &Section<'_>, taken: &mut Vec<Listen>) -> Option<SocketAddr> {
    let Some(item) = section.take("admin") else {
        if taken.contains(&Listen::Tcp(ADMIN)) {
            section.wrong("listens where admin does by default; write admin = \"127.0.0.1:PORT\"");
            return None;
        }
        return Some(ADMIN);
    };
    let address = socket(&item, &item.text()?)?;
    free(&item, Listen::Tcp(address), taken).map(|()| address)
}

/// Whether nobody else of the configuration listens there; a port of the system's choice is another one
/// each time.
fn free(item: &Item<'_>, listen: Listen, taken: &mut Vec<Listen>) -> Option<()> {
    let listen = match listen {
        Listen::Tls(address) => Listen::Tcp(address),
        other => other,
    };
    let chosen = matches!(&listen, Listen::Tcp(address) if address.port() == 0);
    if !chosen && taken.contains(&listen) {
        item.wrong("is where the configuration listens already; write another one");
        return None;
    }
    taken.push(listen);
    Some(())
}

/// Tokens are handed out on this machine only.
fn token_socket(item: &Item<'_>) -> Option<PathBuf> {
    let text = item.text()?;
    let path = text.strip_prefix("unix:").filter(|path| path.starts_with('/'));
    if path.is_none() {
        item.wrong("is no unix socket; write \"unix:/run/bearerd/token.sock\"");
    }
    path.map(PathBuf::from)
}

fn socket(item: &Item<'_>, text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        item.wrong(format!(
            "is {text:?}, not an IP address and a port; write \"127.0.0.1:8080\" or \"[::1]:8080\""
        ));
    }
    address
}

/// Users who may connect to a socket, if there is one: whoever lists some means that they can.
fn uids(item: &Item<'_>, socket: bool, write: &str) -> Option<Vec<u32>> {
    let uid = |item: &Item<'_>| u32::try_from(item.number(0..=u64::from(u32::MAX))?).ok();
    let uids = item.each(uid)?;
    if !(socket || uids.is_empty()) {
        item.wrong(format!("says who may use a unix socket, and there is none; write {write}"));
        return None;
    }
    Some(uids)
}

/// `key = { header = …, any_of = [ … ] }`
fn key(item: &Item<'_>) -> Option<KeyConfig> {
    let section = item.section()?;
    let header = section.take("header").map_or(Some(KEY_HEADER), |item| header(&item));
    let keys = section.require("any_of", "any_of = [{ file = \"/var/run/secrets/caller-key\" }]");
    section.finish();
    let keys = keys?;
    let any_of = keys.each(|key| key.secret(SecretRef::read));
    if any_of.as_ref().is_some_and(Vec::is_empty) {
        keys.wrong("is empty, so that nobody could send anything; write at least one secret");
        return None;
    }
    Some(KeyConfig { header: header?, keys: any_of? })
}

fn allowed_hosts(item: &Item<'_>) -> Option<Vec<String>> {
    item.each(host_name)
}

/// A host name or address without port, in lowercase.
pub(super) fn host_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.to_ascii_lowercase();
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let bracketed = text.starts_with('[') && text.ends_with(']');
    if text.is_empty() || !(bracketed || text.chars().all(valid)) {
        item.wrong(
            "is no host name; write it without scheme, port and path, such as \"api.localhost\"",
        );
        return None;
    }
    Some(text)
}

fn limits(item: &Item<'_>) -> Option<Limits> {
    let section = item.section()?;
    let limit = default().limits;
    let size = |key, default: usize, range| {
        number(&section, key, default as u64, range).and_then(|n| usize::try_from(n).ok())
    };
    let seconds = |key, default: Duration| {
        number(&section, key, default.as_secs(), 1..=86_400).map(Duration::from_secs)
    };
    let connections = size("connections", limit.connections, 1..=1_000_000);
    // Less would refuse what browsers and applications usually send.
    let head_bytes = size("head_bytes", limit.head_bytes, 8192..=1 << 20);
    let head_fields = size("head_fields", limit.head_fields, 1..=1000);
    let target_bytes = size("target_bytes", limit.target_bytes, 16..=65_000);
    let head_time = seconds("head_seconds", limit.head_time);
    let idle_time = seconds("idle_seconds", limit.idle_time);
    let replay_bytes = size("replay_bytes", limit.replay_bytes, 0..=1 << 40);
    let http2_streams = number(&section, "http2_streams", limit.http2_streams.into(), 1..=10_000);
    let http2_requests = size("http2_requests", limit.http2_requests, 1..=1_000_000);
    let http2_resets = size("http2_resets", limit.http2_resets, 1..=10_000);
    section.finish();
    Some(Limits {
        connections: connections?,
        head_bytes: head_bytes?,
        head_fields: head_fields?,
        target_bytes: target_bytes?,
        head_time: head_time?,
        idle_time: idle_time?,
        replay_bytes: replay_bytes?,
        http2_streams: u32::try_from(http2_streams?).ok()?,
        http2_requests: http2_requests?,
        http2_resets: http2_resets?,
    })
}

/// A whole number with a default.
pub(super) fn number(
    section: &Section<'_>,
    key: &str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Option<u64> {
    section.take(key).map_or(Some(default), |item| item.number(range))
}
