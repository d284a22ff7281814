//! Hosts and URLs as the configuration writes them.

use std::net::IpAddr;

use http::Uri;

use super::reader::Item;

/// A URL taken apart.
pub(super) struct HttpUrl {
    /// `https://`
    pub secure: bool,
    /// Without brackets, in lowercase.
    pub host: String,
    /// Given or the scheme's.
    pub port: u16,
    /// `host[:port]` as written.
    pub authority: String,
    /// `/path?query`, or empty.
    pub target: String,
}

/// Reads `http://…` or `https://…`; user information and fragments are refused.
pub(super) fn http_url(item: &Item<'_>, text: &str, example: &str) -> Option<HttpUrl> {
    let wrong = |what: &str| {
        item.wrong(format!("{what}; write a URL such as {example:?}"));
        None
    };
    if text.contains('#') {
        return wrong("has a fragment, which is never sent");
    }
    let Ok(uri) = text.parse::<Uri>() else {
        return wrong("is no URL");
    };
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return wrong("does not begin with https:// or http://"),
    };
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return wrong("has no host");
    };
    if authority.as_str().contains('@') {
        return wrong("holds a user name or password");
    }
    let default_port = if secure { 443 } else { 80 };
    let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
    if secure && !crate::tls::is_name(&host) {
        return wrong("has a host that no certificate could be for");
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let bare = text.split_once("://").is_some_and(|(_, rest)| rest == authority.as_str());
    Some(HttpUrl {
        secure,
        host,
        port: authority.port_u16().unwrap_or(default_port),
        authority: authority.as_str().to_owned(),
        target: if bare { String::new() } else { target.to_owned() },
    })
}

/// True for a host that cannot be reached from outside this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// True for the metadata services of clouds: link-local addresses, and the names and unique local
/// addresses that they have besides.
pub(super) fn is_metadata(host: &str) -> bool {
    let named = ["metadata", "metadata.google.internal", "fd00:ec2::254", "fd20:ce::254"];
    named.contains(&host)
        || match host.parse() {
            Ok(IpAddr::V4(ip)) => ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
            Err(_) => false,
        }
}

/// Refuses plaintext towards anything but loopback.
pub(super) fn check_plaintext(item: &Item<'_>, url: &HttpUrl, allowed: bool) -> Option<()> {
    if url.secure || allowed || is_loopback(&url.host) {
        return Some(());
    }
    item.wrong(
        "would send credentials in plaintext over a network; write https://, or allow_plaintext = true \
         if the network itself is trusted",
    );
    None
}

/// Reads a dialect's host: `name`, `name:port`, an address, or a URL without a path for loopback.
pub(super) fn host(item: &Item<'_>, text: &str, allow_plaintext: bool) -> Option<String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = http_url(item, &full, "https://idp.example")?;
    if !url.target.is_empty() {
        item.wrong(
            "has a path; write the host alone, such as \"idp.example\" or \"10.0.0.5:8443\"",
        );
        return None;
    }
    check_plaintext(item, &url, allow_plaintext)?;
    Some(full)
}
