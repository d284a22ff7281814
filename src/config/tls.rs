//! `tls = { … }`: what peers must show, and what we show.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::reader::Item;
use super::route::optional;
use crate::tls::{TlsError, TlsIdentity, TlsSettings};

/// `tls = { … }`, of a route or a credential; what it names must load now.
pub(super) fn tls(item: &Item<'_>) -> Option<TlsSettings> {
    let section = item.section()?;
    let ca_file = optional(&section, "ca_file", ca_file);
    let server_name = optional(&section, "server_name", server_name);
    let certificate = optional(&section, "client_cert", Item::path);
    let key = optional(&section, "client_key", Item::path);
    let pins = section.take("pin_sha256").map_or(Some(Vec::new()), |item| pins(&item));
    section.finish();
    let identity = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            item.wrong("has only one of client_cert and client_key; write both");
            return None;
        }
    };
    let settings =
        TlsSettings { ca_file: ca_file?, pins: pins?, server_name: server_name?, identity };
    if settings.identity.is_some() {
        loads(item, &settings)?;
    }
    Some(settings)
}

fn ca_file(item: &Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    loads(item, &TlsSettings { ca_file: Some(path.clone()), ..TlsSettings::default() })?;
    Some(path)
}

fn loads(item: &Item<'_>, settings: &TlsSettings) -> Option<()> {
    let Err(error) = crate::tls::client(settings) else {
        return Some(());
    };
    unfit(item, &error);
    None
}

fn unfit(item: &Item<'_>, error: &TlsError) {
    let write = match error {
        TlsError::Identity { .. } => "; write the key that belongs to the certificate",
        TlsError::NoRoots => "",
        _ => "; write the path of a PEM file",
    };
    item.wrong(format!("{}{write}", crate::telemetry::chain(error)));
}

/// A name or address that a certificate can be for.
fn server_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.to_ascii_lowercase();
    let name = text.trim_matches(['[', ']']);
    if !crate::tls::is_name(name) {
        item.wrong(
            "is no name or address that a certificate could be for; write one such as \"api.example\"",
        );
        return None;
    }
    Some(name.to_owned())
}

fn pins(item: &Item<'_>) -> Option<Vec<crate::tls::Pin>> {
    let pin = |item: &Item<'_>| {
        let text = item.text()?;
        let pin = STANDARD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        if pin.is_none() {
            item.wrong(
                "is no pin; write the base64 of the SHA-256 of the certificate's public key (44 \
                 characters)",
            );
        }
        pin
    };
    item.each(pin)
}

/// `server.tls = { … }`; what it names must load now.
pub(super) fn identity(item: &Item<'_>) -> Option<TlsIdentity> {
    let section = item.section()?;
    let certificate = section.require("cert", "cert = \"/etc/bearerd/tls.crt\"");
    let key = section.require("key", "key = \"/etc/bearerd/tls.key\"");
    let client_ca_file = optional(&section, "client_ca_file", Item::path);
    section.finish();
    let identity = TlsIdentity {
        certificate: certificate?.path()?,
        key: key?.path()?,
        client_ca_file: client_ca_file?,
    };
    let Err(error) = crate::tls::server(&identity) else {
        return Some(identity);
    };
    unfit(item, &error);
    None
}
