//! What an identity provider's answer means: a token, or a classified refusal.
//!
//! The dialect's own matchers come first, then the rules that hold for all. Nothing of the body
//! gets into an error's text: only status, closed words and the matcher's id. A new refresh token
//! is kept whatever the rest of a successful answer is worth: the one sent is spent.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};

use super::dialect::{BodyKind, Matcher, Ok as OkRules};
use super::expiry;
use super::json::Document;
use super::{Bounds, Class, FetchError, Fetched, Reason};
use crate::clock::Moment;
use crate::secret::Secret;
use crate::token::{AccessToken, TokenError};
use zeroize::Zeroizing;

/// An answer as it came: the whole body, within its bound.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// At most [`Bounds::answer_bytes`].
    pub body: Zeroizing<Vec<u8>>,
}

/// A refusal, and whether the dialect knows another way in.
pub struct Refusal {
    /// The classified error.
    pub error: FetchError,
    /// `then = "next"` of the matcher that fired.
    pub try_next: bool,
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        Self { error, try_next: false }
    }
}

/// Reads the answer to a token request that was sent at `now`.
///
/// # Errors
/// A [`Refusal`] for everything that is no usable token.
pub fn read(
    answer: &Answer,
    ok: &OkRules,
    matchers: &[Matcher],
    now: Moment,
    bounds: Bounds,
) -> Result<Fetched, Refusal> {
    let document = document(answer, ok.body);
    let retry_after = retry_after(&answer.headers, now);
    let text = |pointer| document.as_ref().and_then(|document| document.text(pointer));
    let sent = |name, value: &str| answer.headers.get(name).is_some_and(|sent| sent == value);
    let accepted = ok.status.iter().any(|status| status.matches(answer.status))
        && ok.headers.iter().all(|(name, value)| sent(name, value));
    let granted = accepted && text("/error").is_none();
    let refresh_token = ok.refresh_token.as_deref().filter(|_| granted).and_then(text);
    let refresh_token = refresh_token.map(|text| Box::new(Secret::new(text.to_owned())));
    let finish = |mut error: FetchError| {
        error.status = Some(answer.status);
        error.retry_after = retry_after;
        error.rotated.clone_from(&refresh_token);
        error
    };
    if let Some(matcher) = matchers.iter().find(|m| matches(m, answer, document.as_ref())) {
        let mut error = FetchError::new(matcher.class, matcher.reason);
        error.matcher = Some(matcher.id.clone());
        error.hint.clone_from(&matcher.hint);
        return Err(Refusal { error: finish(error), try_next: matcher.try_next });
    }
    if let Some(error) = common_refusal(answer.status, text("/error")) {
        return Err(finish(error).into());
    }
    let unusable = |hint: &str| {
        let mut error = FetchError::new(Class::Transient, Reason::Unusable);
        error.hint = Some(hint.to_owned());
        Refusal::from(finish(error))
    };
    let (true, Some(document)) = (accepted, &document) else {
        let mut refusal = unusable("the answer is not in the form that its dialect names");
        // A torn grant is a lost one: as if no answer had come. A page in its place grants nothing.
        let success = accepted || (200..=299).contains(&answer.status);
        let torn = begins_as_json(&answer.body) || cut_before_its_body(answer);
        refusal.error.ambiguous = success && document.is_none() && torn;
        return Err(refusal);
    };
    let value = document.text(&ok.access_token);
    let value = value.ok_or_else(|| unusable("the answer holds no access token"))?;
    if !type_understood(document, ok) {
        return Err(unusable("the answer's token_type is not one that can be injected"));
    }
    let life = expiry::lifetime(&ok.expiry, document, value, now);
    if life.skewed {
        tracing::warn!("the identity provider's clock and this machine's disagree");
    }
    let lifetime = life.lifetime.unwrap_or(bounds.default_lifetime);
    if lifetime.is_zero() {
        return Err(unusable("the access token had expired when it came"));
    }
    let token = access_token(Secret::new(value.to_owned()), now, lifetime, bounds)
        .map_err(|error| Refusal::from(finish(error)))?;
    let renewable = ok.renewable.as_ref().and_then(|pointer| document.at(pointer)?.as_bool());
    Ok(Fetched {
        token,
        refresh_token: refresh_token.map(|boxed| *boxed),
        gave_up: false,
        renewable: renewable.unwrap_or(false),
    })
}

/// Reads the answer to a revocation, of which only the status counts (RFC 7009 §2.2).
///
/// # Errors
/// The status is not one of those that the dialect names.
pub fn read_revocation(answer: &Answer, ok: &OkRules) -> Result<(), FetchError> {
    if ok.status.iter().any(|status| status.matches(answer.status)) {
        return Ok(());
    }
    let mut error = FetchError::new(Class::Terminal, Reason::Unusable);
    error.status = Some(answer.status);
    Err(error)
}

/// A token that can be injected.
///
/// # Errors
/// It cannot: transient, since the identity provider may do better next time.
pub fn access_token(
    value: Secret,
    now: Moment,
    lifetime: Duration,
    bounds: Bounds,
) -> Result<AccessToken, FetchError> {
    let fits = value.expose().len() <= bounds.token_bytes;
    let token =
        if fits { AccessToken::new(value, now, lifetime) } else { Err(TokenError::TooLong) };
    token.map_err(|error| FetchError::new(Class::Transient, Reason::Unusable).caused_by(error))
}

/// The classes that hold in every dialect, for answers that can be no token.
#[must_use]
pub fn common_refusal(status: u16, oauth_error: Option<&str>) -> Option<FetchError> {
    use Class::{Terminal, Transient};
    let refusal = |class, reason| Some(FetchError::new(class, reason));
    match status {
        429 => return refusal(Transient, Reason::RateLimited),
        408 | 425 | 500..=599 => return refusal(Transient, Reason::Server),
        _ => {}
    }
    if let Some(error) = oauth_error {
        let (word, class, reason) = classify(error);
        let mut error = FetchError::new(class, reason);
        error.oauth_error = Some(word);
        return Some(error);
    }
    match status {
        200..=299 => None,
        404 => refusal(Terminal, Reason::NotFound),
        401 | 403 => refusal(Terminal, Reason::BadClient),
        _ => refusal(Terminal, Reason::BadRequest),
    }
}

/// RFC 6749 §5.2, RFC 8628 §3.5 (`slow_down`), and what real providers add.
fn classify(error: &str) -> (&'static str, Class, Reason) {
    use Class::{Terminal, Transient};
    match error {
        "temporarily_unavailable" => ("temporarily_unavailable", Transient, Reason::Server),
        "server_error" => ("server_error", Transient, Reason::Server),
        "slow_down" => ("slow_down", Transient, Reason::RateLimited),
        "invalid_request" => ("invalid_request", Terminal, Reason::BadRequest),
        "invalid_client" => ("invalid_client", Terminal, Reason::BadClient),
        "invalid_grant" => ("invalid_grant", Terminal, Reason::BadGrant),
        "unauthorized_client" => ("unauthorized_client", Terminal, Reason::BadClient),
        "unsupported_grant_type" => ("unsupported_grant_type", Terminal, Reason::BadRequest),
        "invalid_scope" => ("invalid_scope", Terminal, Reason::BadRequest),
        "invalid_target" => ("invalid_target", Terminal, Reason::BadRequest),
        "invalid_token" => ("invalid_token", Terminal, Reason::BadGrant),
        // RFC 9449 §5, §8: a nonce that was wanted has been tried by then.
        "use_dpop_nonce" => ("use_dpop_nonce", Transient, Reason::Server),
        "invalid_dpop_proof" => ("invalid_dpop_proof", Terminal, Reason::BadClient),
        "access_denied" => ("access_denied", Terminal, Reason::BadGrant),
        _ => ("(not a known word)", Terminal, Reason::BadRequest),
    }
}

fn begins_as_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().starts_with(b"{")
}

/// Nothing says how long the body is, so that the connection's end ends it (RFC 9112 §6.3), and that
/// came first.
fn cut_before_its_body(answer: &Answer) -> bool {
    let told = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|n| answer.headers.contains_key(n));
    answer.body.is_empty() && !told && !matches!(answer.status, 204 | 205)
}

fn document(answer: &Answer, kind: BodyKind) -> Option<Document> {
    match kind {
        BodyKind::Json => Document::parse(&answer.body),
        // An error may still come as JSON where a token comes as a form.
        BodyKind::Form => {
            Document::parse(&answer.body).or_else(|| Some(Document::from_form(&answer.body)))
        }
        BodyKind::Text => Document::from_text(&answer.body),
    }
}

fn type_understood(document: &Document, ok: &OkRules) -> bool {
    if ok.token_type.accept.is_empty() {
        return true;
    }
    // Absent is taken as bearer: some leave it out although RFC 6749 §5.1 requires it.
    document.at(&ok.token_type.at).is_none_or(|value| {
        let accepted =
            |kind: &str| ok.token_type.accept.iter().any(|a| a.eq_ignore_ascii_case(kind));
        value.as_str().is_some_and(accepted)
    })
}

fn matches(matcher: &Matcher, answer: &Answer, document: Option<&Document>) -> bool {
    let status = matcher.status.is_empty()
        || matcher.status.iter().any(|status| status.matches(answer.status));
    let value = |pointer: &String| document.and_then(|document| document.at(pointer));
    let tested = matcher
        .test
        .as_ref()
        .is_none_or(|(pointer, test)| value(pointer).is_some_and(|value| test.fits(value)));
    let missing = matcher.missing.as_ref().is_none_or(|pointer| value(pointer).is_none());
    let empty = !matcher.empty || answer.body.is_empty();
    let media_type = matcher.media_type.as_ref().is_none_or(|wanted| {
        let sent = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = sent.and_then(|sent| sent.split(';').next()).unwrap_or("").trim();
        essence.eq_ignore_ascii_case(wanted)
    });
    status && tested && missing && empty && media_type
}

/// `Retry-After` in seconds or in any of the three date forms (RFC 9110 §10.2.3, §5.6.7).
fn retry_after(headers: &HeaderMap, now: Moment) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(u64::MAX));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now.wall).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::source::oauth2::standard_ok;

    fn read_200(body: &str) -> Result<Fetched, FetchError> {
        let ok = OkRules { refresh_token: Some("/refresh_token".to_owned()), ..standard_ok() };
        let body = Zeroizing::new(body.as_bytes().to_vec());
        let answer = Answer { status: 200, headers: HeaderMap::new(), body };
        read(&answer, &ok, &[], Moment::now(), Bounds::default()).map_err(|r| r.error)
    }

    /// Pieces of which real and broken answers are made.
    const PIECES: [&str; 24] = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\u00",
        "null",
        "true",
        "-1",
        "1e999",
        "\u{feff}",
        "\0",
        "\"access_token\":",
        "\"token_type\":\"Bearer\"",
        "\"expires_in\":",
        "\"error\":",
        "\"refresh_token\":",
        "\"canary-text\"",
        "canary-text",
        "=",
        "&",
        "access_token",
    ];

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_a_token_that_can_be_used_or_an_error_that_shows_nothing(
            status in 100_u16..1000,
            pieces in proptest::collection::vec(0..PIECES.len(), 0..40),
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            kind in 0..3_usize,
        ) {
            let mut body: Vec<u8> =
                pieces.iter().flat_map(|piece| PIECES[*piece].bytes()).collect();
            body.extend(noise);
            let body_kind = [BodyKind::Json, BodyKind::Form, BodyKind::Text][kind];
            let ok = OkRules { body: body_kind, ..standard_ok() };
            let answer = Answer { status, headers: HeaderMap::new(), body: Zeroizing::new(body) };
            let now = Moment::now();
            match read(&answer, &ok, &[], now, Bounds::default()) {
                Ok(fetched) => proptest::prop_assert!(fetched.token.usable(now)),
                Err(Refusal { error, .. }) => {
                    let told = format!("{error} {error:?}");
                    proptest::prop_assert!(!told.contains("canary"), "{told}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn in_no_vendors_dialect_does_an_answer_panic_or_show_itself(
            status in proptest::sample::select(vec![200_u16, 201, 204, 302, 400, 401, 403, 404, 429, 500]),
            kind in proptest::sample::select(vec!["", "application/json", "text/html", ";"]),
            pieces in proptest::collection::vec(0..VENDORS.len(), 0..30),
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..8),
        ) {
            let body: Vec<u8> = pieces.iter().flat_map(|piece| VENDORS[*piece].bytes()).collect();
            let body = [body, noise].concat();
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            let now = Moment::now();
            for exchange in exchanges() {
                let (headers, body) = (headers.clone(), Zeroizing::new(body.clone()));
                let answer = Answer { status, headers, body };
                match read(&answer, &exchange.ok, &exchange.errors, now, Bounds::default()) {
                    Ok(fetched) => proptest::prop_assert!(fetched.token.usable(now)),
                    Err(Refusal { error, .. }) => {
                        let told = format!("{error} {error:?}");
                        proptest::prop_assert!(!told.contains("canary"), "{told}");
                    }
                }
            }
        }
    }

    /// Every exchange of every dialect that is compiled in.
    fn exchanges() -> &'static [crate::source::dialect::Exchange] {
        static ALL: std::sync::OnceLock<Vec<crate::source::dialect::Exchange>> =
            std::sync::OnceLock::new();
        ALL.get_or_init(|| {
            let dialects = crate::source::vendor::ALL
                .iter()
                .map(|(_, text)| crate::config::parse_dialect(text).expect("compiled in"));
            dialects.flat_map(|dialect| dialect.obtain).collect()
        })
    }

    /// Pieces of which vendors' answers are made.
    const VENDORS: [&str; 26] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"auth\":{",
        "\"data\":{",
        "\"client_token\":\"canary-token\"",
        "\"token\":\"canary-token\"",
        "\"accessToken\":\"canary-token\"",
        "\"access_token\":\"canary-token\"",
        "\"access_token\":null",
        "\"mfa_token\":\"canary\"",
        "\"redirectTo\":\"canary\"",
        "\"cspErrorCode\":\"canary\"",
        "\"message\":\"canary rate limit\"",
        "\"error\":\"invalid_grant\"",
        "\"error\":{\"canary\":1}",
        "\"lease_duration\":0",
        "\"lease_duration\":-1e308",
        "\"renewable\":true",
        "\"expireTime\":\"9999-99-99T99:99:99Z\"",
        "\"expires_at\":\"2999-01-01T00:00:00.123456789012Z\"",
        "\"expires_on\":\"99999999999999999999\"",
        "\".expires\":\"2021-10-04T15:04:04.9299072Z\",\".issued\":\"x\"",
        "\"token_type\":\"bearer\"",
    ];

    #[test]
    fn a_new_refresh_token_outlives_an_unusable_access_token() {
        let long = "x".repeat(20_000);
        for access in [
            String::new(),
            r#""access_token":"t","token_type":"mac","#.to_owned(),
            r#""access_token":"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln","#.to_owned(),
            r#""access_token":"a b","#.to_owned(),
            format!(r#""access_token":"{long}","#),
        ] {
            let error = read_200(&format!(r#"{{{access}"refresh_token":"newest"}}"#)).unwrap_err();
            let rotated = error.rotated.as_ref().map(|secret| secret.expose());
            assert_eq!((rotated, error.ambiguous), (Some("newest"), false), "{error}");
            assert!(!format!("{error:?} {error}").contains("newest"));
        }
        let refused = read_200(r#"{"error":"invalid_grant","refresh_token":"sent"}"#).unwrap_err();
        assert!(refused.rotated.is_none());
    }

    #[test]
    fn a_torn_grant_is_a_lost_answer_and_a_page_is_none() {
        let told = HeaderMap::from_iter([(CONTENT_LENGTH, "0".parse().unwrap())]);
        for (status, headers, body, lost) in [
            (200, HeaderMap::new(), "<html>", false),
            (200, HeaderMap::new(), r#"{"access_tok"#, true),
            (200, HeaderMap::new(), "{}", false),
            (200, HeaderMap::new(), "", true),
            (200, told, "", false),
            (204, HeaderMap::new(), "", false),
            (503, HeaderMap::new(), "", false),
        ] {
            let body = Zeroizing::new(body.as_bytes().to_vec());
            let answer = Answer { status, headers, body };
            let read = read(&answer, &standard_ok(), &[], Moment::now(), Bounds::default());
            let refusal = read.expect_err("no token");
            assert_eq!(refusal.error.ambiguous, lost, "{status} {:?}", answer.body);
        }
    }

    #[test]
    fn retry_after_in_seconds_and_three_date_forms() {
        let now =
            Moment { wall: UNIX_EPOCH + Duration::from_secs(784_111_777 - 30), ..Moment::now() };
        for (text, wait) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", None),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn the_common_classes_are_read_downwards() {
        let class = |status, error| common_refusal(status, error).map(|e| e.class);
        assert_eq!(class(200, None), None);
        assert_eq!(class(201, None), None);
        for status in [408, 425, 429, 500, 503, 599] {
            assert_eq!(class(status, Some("invalid_grant")), Some(Class::Transient), "{status}");
        }
        for error in ["temporarily_unavailable", "server_error", "slow_down"] {
            assert_eq!(class(400, Some(error)), Some(Class::Transient), "{error}");
        }
        assert_eq!(class(200, Some("invalid_grant")), Some(Class::Terminal));
        for status in [301, 307, 400, 401, 403, 404, 410] {
            assert_eq!(class(status, None), Some(Class::Terminal), "{status}");
        }
    }
}
