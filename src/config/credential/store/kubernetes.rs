//! `store = "kubernetes:NAMESPACE/SECRET"`, as a pod can reach it.

use crate::config::reader::{Item, Section};
use crate::store::shared::kubernetes::{ACCOUNT, Place};

/// The names, and what of the options concerns it.
pub(super) fn read(item: &Item<'_>, names: &str, options: Option<&Section<'_>>) -> Option<Place> {
    let account = match options.and_then(|options| options.take("service_account")) {
        Some(account) => account.path()?,
        None => ACCOUNT.into(),
    };
    let names = names.split_once('/');
    let valid = |(namespace, secret): &(&str, &str)| {
        is_label(namespace) && secret.len() <= 253 && secret.split('.').all(is_label)
    };
    let Some((namespace, secret)) = names.filter(valid) else {
        item.wrong("names no Secret; write \"kubernetes:NAMESPACE/SECRET\", as kubectl shows them");
        return None;
    };
    let (namespace, secret) = (namespace.to_owned(), secret.to_owned());
    Some(Place { namespace, secret, server: server(), account })
}

/// A part of a name (RFC 1123), as Kubernetes admits it: it needs no encoding in a path.
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| inner(byte) || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Where the API server is, as every container in a cluster is told.
fn server() -> Option<(String, u16)> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| !host.is_empty())?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?;
    Some((host, port))
}
