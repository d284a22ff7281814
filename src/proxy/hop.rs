//! What stays on this side of a gateway (RFC 9110 §3.7, §7.6).
//!
//! Hop-by-hop fields and whatever `Connection` names are dropped in both directions; from requests
//! also what would let a caller speak for us. Injection comes after: a caller's
//! `Connection: authorization` removes nothing of ours.

use http::header::{
    self, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::reject::Reason;

/// More names than this in `Connection` are refused: nobody has a reason, and each costs a lookup.
const MAX_NOMINATED: usize = 10;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a route wants of the caller's fields.
pub struct Policy<'a> {
    /// The injected header: the caller's copies are dropped, in every spelling.
    pub injected: &'a HeaderName,
    /// Drop `Cookie`.
    pub strip_cookies: bool,
    /// Pass `Forwarded` and `X-Forwarded-*` on.
    pub keep_forwarded: bool,
    /// Keep the caller's own copy of the injected header.
    pub keep_client_authorization: bool,
}

/// Strips a request's fields and appends our `Via` entry.
///
/// # Errors
/// The request is to be refused.
pub fn strip_request(
    headers: &mut HeaderMap,
    policy: &Policy<'_>,
    via: &HeaderValue,
) -> Result<(), Reason> {
    let found = Found::scan(headers, policy);
    let kept = policy.keep_client_authorization.then_some(policy.injected);
    found.strip_hop(headers, kept)?;
    if found.unwanted {
        strip_unwanted(headers, policy);
    }
    headers.append(VIA, via.clone());
    Ok(())
}

/// Counts a `Max-Forwards` down; true if the request is not to go any further (RFC 9110 §7.6.2).
///
/// # Errors
/// It is no number.
pub fn count_down(headers: &mut HeaderMap) -> Result<bool, Reason> {
    let Some(left) = headers.get_mut(MAX_FORWARDS) else { return Ok(false) };
    let number = left.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number: u32 = number.and_then(|text| text.parse().ok()).ok_or(Reason::BadRequest)?;
    if let Some(less) = number.checked_sub(1) {
        *left = HeaderValue::from(less);
    }
    Ok(number == 0)
}

/// Strips a response's fields.
///
/// # Errors
/// The response is not to be passed on.
pub fn strip_response(headers: &mut HeaderMap, strip_cookies: bool) -> Result<(), Reason> {
    let mut found = Found::default();
    headers.keys().for_each(|name| found.note_hop(name));
    found.strip_hop(headers, None).map_err(|_| Reason::UpstreamProtocol)?;
    if strip_cookies {
        headers.remove(SET_COOKIE);
    }
    Ok(())
}

/// Trailers never carry what would have been stripped or injected as a header (RFC 9110 §6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap, injected: Option<&HeaderName>) {
    strip_hop_by_hop(trailers);
    for name in [&CONNECTION, &CONTENT_LENGTH, &HOST, &header::AUTHORIZATION, &COOKIE, &SET_COOKIE]
    {
        trailers.remove(name);
    }
    if let Some(injected) = injected {
        trailers.remove(injected);
    }
    let underscored: Vec<_> =
        trailers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in underscored {
        trailers.remove(name);
    }
}

/// What a message has, found in one pass, so that the usual one pays for no removal.
#[derive(Default)]
struct Found {
    connection: bool,
    other_hop_by_hop: bool,
    unwanted: bool,
}

impl Found {
    fn scan(headers: &HeaderMap, policy: &Policy<'_>) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            found.note_hop(name);
            found.unwanted |= is_unwanted(name, policy);
        }
        found
    }

    fn note_hop(&mut self, name: &HeaderName) {
        if *name == CONNECTION {
            self.connection = true;
        } else {
            self.other_hop_by_hop |= is_hop_by_hop(name.as_str().as_bytes());
        }
    }

    fn strip_hop(&self, headers: &mut HeaderMap, kept: Option<&HeaderName>) -> Result<(), Reason> {
        if self.connection {
            strip_nominated(headers, kept)?;
        }
        if self.connection || self.other_hop_by_hop {
            // RFC 9112 §6.1: a coding beneath chunked would be lost with the field that names it, and
            // chunked is not applied twice.
            let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
            let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !codings.next().is_none_or(chunked) || codings.next().is_some() {
                return Err(Reason::BadRequest);
            }
            strip_hop_by_hop(headers);
        }
        Ok(())
    }
}

/// True if the field with a `name` in lowercase is this hop's own, `Connection` aside (RFC 9110 §7.6.1).
pub(super) fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

fn is_unwanted(name: &HeaderName, policy: &Policy<'_>) -> bool {
    let text = name.as_str();
    // Many servers read `_` as `-`: X_Forwarded_For, and the injected header itself.
    let underscored = text.as_bytes().contains(&b'_');
    let forwarded = *name == FORWARDED || text.starts_with("x-forwarded-");
    underscored
        || (name == policy.injected && !policy.keep_client_authorization)
        || (forwarded && !policy.keep_forwarded)
        || (policy.strip_cookies && *name == COOKIE)
}

fn strip_unwanted(headers: &mut HeaderMap, policy: &Policy<'_>) {
    let unwanted: Vec<_> =
        headers.keys().filter(|name| is_unwanted(name, policy)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// RFC 9110 §7.6.1: what `Connection` names goes with it. What frames or routes the message, and
/// `Cookie`, cannot be nominated; nor can `kept`, or a request would leave without any credential.
/// `TE` always is (§10.1.4) and is dealt with by [`strip_hop_by_hop`].
fn strip_nominated(headers: &mut HeaderMap, kept: Option<&HeaderName>) -> Result<(), Reason> {
    let mut nominated = Vec::new();
    for line in headers.get_all(CONNECTION) {
        let line = line.to_str().map_err(|_| Reason::BadRequest)?;
        for name in line.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Reason::BadRequest)?;
            nominated.push(name);
        }
    }
    if nominated.len() > MAX_NOMINATED {
        return Err(Reason::BadRequest);
    }
    for name in nominated {
        if !matches!(name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING | COOKIE | TE)
            && Some(&name) != kept
        {
            headers.remove(name);
        }
    }
    Ok(())
}

/// RFC 9110 §7.6.1; `TE: trailers` is the one thing that may be said again (§10.1.4).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|line| {
        line.as_bytes()
            .split(|b| *b == b',')
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    for name in [
        &CONNECTION,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHENTICATE,
        &PROXY_AUTHORIZATION,
        &TE,
        &TRANSFER_ENCODING,
        &UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // RFC 9110 §10.1.4: TE is itself hop-by-hop, so it has to be nominated.
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn strip(lines: &[(&str, &str)], policy: &Policy<'_>) -> Result<Vec<String>, Reason> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        strip_request(&mut headers, policy, &HeaderValue::from_static("1.1 us"))?;
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        Ok(headers.iter().map(text).collect())
    }

    const POLICY: Policy<'static> = Policy {
        injected: &AUTHORIZATION,
        strip_cookies: false,
        keep_forwarded: false,
        keep_client_authorization: false,
    };

    #[test]
    fn hop_by_hop_and_nominated_fields_are_dropped() {
        let kept = strip(
            &[
                ("host", "h"),
                ("connection", "close, X-Mine,host , content-length,cookie"),
                ("x-mine", "1"),
                ("keep-alive", "5"),
                ("proxy-connection", "x"),
                ("proxy-authorization", "Basic x"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("te", "gzip"),
                ("content-length", "3"),
                ("cookie", "a=b"),
                ("accept", "*/*"),
            ],
            &POLICY,
        );
        let expected =
            ["host: h", "content-length: 3", "cookie: a=b", "accept: */*", "via: 1.1 us"];
        let mut kept = kept.unwrap();
        kept.sort();
        let mut expected = expected.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!(kept, expected);
    }

    #[test]
    fn every_spelling_of_the_injected_header_and_forged_provenance_is_dropped() {
        let kept = strip(
            &[
                ("Authorization", "Bearer evil"),
                ("AUTHORIZATION", "Basic evil"),
                ("x_api_key", "evil"),
                ("x-forwarded-for", "1.2.3.4"),
                ("X-Forwarded-Anything", "x"),
                ("forwarded", "for=x"),
            ],
            &POLICY,
        );
        assert_eq!(kept.unwrap(), ["via: 1.1 us"]);
        let custom = HeaderName::from_static("x-api-key");
        let policy = Policy { injected: &custom, strip_cookies: true, ..POLICY };
        let kept = strip(&[("X-Api-Key", "e"), ("x_api-key", "e"), ("cookie", "a")], &policy);
        assert_eq!(kept.unwrap(), ["via: 1.1 us"]);
    }

    #[test]
    fn max_forwards_is_counted_down_to_the_last_recipient() {
        for (said, result, left) in [
            (None, Ok(false), None),
            (Some("0"), Ok(true), Some("0")),
            (Some("1"), Ok(false), Some("0")),
            (Some("12"), Ok(false), Some("11")),
            (Some(""), Err(Reason::BadRequest), Some("")),
            (Some("-1"), Err(Reason::BadRequest), Some("-1")),
            (Some("99999999999"), Err(Reason::BadRequest), Some("99999999999")),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(said.map(|said| (MAX_FORWARDS, said.parse().unwrap())));
            assert_eq!(count_down(&mut headers), result, "{said:?}");
            assert_eq!(headers.get(MAX_FORWARDS).map(|v| v.to_str().unwrap()), left, "{said:?}");
        }
    }

    #[test]
    fn te_trailers_is_said_again() {
        let kept = strip(&[("connection", "TE"), ("te", "trailers")], &POLICY).unwrap();
        assert!(kept.contains(&"te: trailers".to_owned()), "{kept:?}");
        let kept = strip(&[("te", "gzip, Trailers")], &POLICY).unwrap();
        assert!(kept.contains(&"te: trailers".to_owned()), "{kept:?}");
        assert!(kept.contains(&"connection: TE".to_owned()), "{kept:?}");
    }

    #[test]
    fn too_many_or_malformed_nominations_are_refused() {
        let names = ["a"; MAX_NOMINATED + 1].join(",");
        assert_eq!(strip(&[("connection", &names)], &POLICY), Err(Reason::BadRequest));
        assert_eq!(strip(&[("connection", "a b")], &POLICY), Err(Reason::BadRequest));
        assert!(strip(&[("connection", &["a"; MAX_NOMINATED].join(","))], &POLICY).is_ok());
    }
}
