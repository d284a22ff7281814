//! What of a caller's request goes out, and in what form.

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::Body;

use crate::proxy::inbound::Inbound;
use crate::proxy::reject::Reason;
use crate::proxy::route::{Route, Routes};
use crate::proxy::tunnel::Caller;
use crate::proxy::upstream::Outgoing;
use crate::proxy::websocket::Handshake;
use crate::proxy::wire::Wire;
use crate::proxy::{hop, inject, tunnel};

/// Why a request goes no further.
pub(super) enum Stop {
    /// It is refused.
    Refused(Reason),
    /// It was not to be forwarded any further.
    LastRecipient,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// The request as it goes out, but for the token; true if it keeps the caller's own.
pub(super) fn shape(
    mut head: Parts,
    route: &Route,
    routes: &Routes,
    upgrade: Option<&HeaderValue>,
) -> Result<(Outgoing, bool), Stop> {
    if head.method == Method::OPTIONS && hop::count_down(&mut head.headers)? {
        return Err(Stop::LastRecipient);
    }
    if let Some(keys) = &routes.keys {
        keys.strip(&mut head.headers);
    }
    let config = &route.config;
    let policy = config.client_authorization;
    let keeps_own = inject::caller_keeps_own(&head.headers, &config.header, policy)?;
    // RFC 9112 §2.3: the version is each hop's own; Via tells what was received.
    let old = head.version == Version::HTTP_10;
    let via = if old { &routes.via_http10 } else { &routes.via };
    hop::strip_request(&mut head.headers, &route.policy(keeps_own), via)?;
    if old {
        // RFC 9110 §10.1.1: from HTTP/1.0 it means nothing.
        head.headers.remove(EXPECT);
    }
    head.headers.insert(HOST, route.authority.clone());
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    if let Some(protocols) = upgrade {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocols.clone());
    }
    let target = head.uri.into_parts().path_and_query.ok_or(Reason::BadRequest)?;
    let target = if target.as_str().starts_with('?') { rooted(&target)? } else { target };
    // They are for HTTP/1 callers, where no cookies are to be stripped.
    let answer_in_lines = head.version != Version::HTTP_2 && !config.strip_cookies;
    let (method, headers) = (head.method, head.headers);
    Ok((Outgoing { method, target, headers, answer_in_lines }, keeps_own))
}

/// RFC 9112 §3.2.1: an origin server wants a path, which a URL with a query may lack.
fn rooted(target: &PathAndQuery) -> Result<PathAndQuery, Reason> {
    PathAndQuery::try_from(format!("/{}", target.as_str())).map_err(|_| Reason::BadRequest)
}

/// RFC 9113 §8.2.3: HTTP/2 may split what other versions want in one line.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// An upgrade that a caller asks for.
pub(super) struct Upgrade {
    pub(super) protocols: HeaderValue,
    pub(super) caller: Caller,
    /// Made for a caller of HTTP/2.
    pub(super) handshake: Option<Handshake>,
}

/// What `request` asks to go on with, if it may.
pub(super) fn upgrade(request: &mut Request<Inbound>, wire: &Wire) -> Option<Box<Upgrade>> {
    if request.version() == Version::HTTP_2 {
        let handshake = Some(Handshake::of(request)?);
        let protocols = HeaderValue::from_static("websocket");
        let caller = Caller::Http2(hyper::upgrade::on(request));
        return Some(Box::new(Upgrade { protocols, caller, handshake }));
    }
    let may = request.headers().contains_key(UPGRADE)
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream();
    let protocols = may.then(|| tunnel::wanted(request.headers())).flatten()?;
    let caller = Caller::Http1(wire.lane()?.clone());
    Some(Box::new(Upgrade { protocols, caller, handshake: None }))
}
