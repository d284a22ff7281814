//! Every answer that bearerd makes itself: the only place that chooses a status code.
//!
//! A refusal is `application/problem+json` (RFC 9457) with a static text, so that nothing from
//! outside and nothing secret can get into it, and names its reason in `bearerd-reason`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::http1::send::{put_length, write_fields};
use crate::clock::Moment;

/// Why a request was not forwarded, or its answer not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No route matches.
    NoRoute,
    /// `Host` is not one that this process answers to: DNS rebinding looks like that.
    HostNotAllowed,
    /// The request comes from a web page of another origin.
    OriginNotAllowed,
    /// The method is never forwarded, or not on this route.
    MethodNotAllowed,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// The request head did not come in time.
    HeadTimeout,
    /// The request body stopped coming.
    BodyTimeout,
    /// The request target is too long.
    TooLarge,
    /// The request head is too large.
    HeadTooLarge,
    /// The caller sent the header that the route injects.
    ClientAuthorization,
    /// The caller has to show a key, and shows none that is good.
    CallerKey,
    /// There is no usable token.
    TokenUnavailable(Duration),
    /// The upstream could not be connected to.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream answered with something that is not HTTP, or broke off.
    UpstreamProtocol,
    /// A bound was reached.
    Overloaded,
    /// The request has been through this process already.
    Loop,
}

impl Reason {
    /// Every word, for the metrics to be complete from the start.
    pub const WORDS: [&'static str; 13] = [
        "no_route",
        "host_not_allowed",
        "origin_not_allowed",
        "method_not_allowed",
        "bad_request",
        "too_large",
        "client_authorization",
        "token_unavailable",
        "upstream_unreachable",
        "upstream_timeout",
        "upstream_protocol",
        "overloaded",
        "loop",
    ];

    /// The word in `bearerd-reason` and in the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// The place of its word in [`Self::WORDS`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::NoRoute => 0,
            Self::HostNotAllowed => 1,
            Self::OriginNotAllowed => 2,
            Self::MethodNotAllowed => 3,
            Self::BadRequest | Self::HeadTimeout | Self::BodyTimeout => 4,
            Self::TooLarge | Self::HeadTooLarge => 5,
            Self::ClientAuthorization | Self::CallerKey => 6,
            Self::TokenUnavailable(_) => 7,
            Self::UpstreamUnreachable => 8,
            Self::UpstreamTimeout => 9,
            Self::UpstreamProtocol => 10,
            Self::Overloaded => 11,
            Self::Loop => 12,
        }
    }

    /// RFC 9110 §15, RFC 6585 §5 (431), RFC 5842 §7.2 (508). Never 401: that is the upstream's word.
    fn status(self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::HostNotAllowed => StatusCode::MISDIRECTED_REQUEST,
            Self::OriginNotAllowed | Self::CallerKey => StatusCode::FORBIDDEN,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest | Self::ClientAuthorization => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TokenUnavailable(_) | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::NoRoute => "no route matches this request",
            Self::HostNotAllowed => "this host name is not served here",
            Self::OriginNotAllowed => "requests from other origins are not forwarded",
            Self::MethodNotAllowed => "this method is not forwarded",
            Self::BadRequest => "the request is malformed or ambiguous",
            Self::TooLarge => "the request target is too long",
            Self::HeadTooLarge => "the request head is too large",
            Self::HeadTimeout => "the request head did not come in time",
            Self::BodyTimeout => "the request body stopped coming",
            Self::CallerKey => "the caller's key is missing or wrong",
            Self::ClientAuthorization => "the request carries a credential of its own",
            Self::TokenUnavailable(_) => "no usable token",
            Self::UpstreamUnreachable => "the upstream cannot be reached",
            Self::UpstreamTimeout => "the upstream did not answer in time",
            Self::UpstreamProtocol => "the upstream's answer is not usable",
            Self::Overloaded => "too many requests at once",
            Self::Loop => "the request came back to where it had been",
        }
    }
}

/// The answer that tells `reason`.
#[must_use]
pub fn response(reason: Reason) -> Response<Bytes> {
    let status = reason.status();
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{},\"reason\":\"{}\"}}\n",
        reason.title(),
        status.as_u16(),
        reason.as_str()
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(DATE, date());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert("bearerd-reason", HeaderValue::from_static(reason.as_str()));
    match reason {
        // Rounded up: coming back early would only earn the same answer.
        Reason::TokenUnavailable(wait) => {
            let seconds = wait.as_millis().div_ceil(1000).clamp(1, 86_400);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds as u32));
        }
        Reason::Overloaded => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // RFC 9112 §6.3: where a message ends that is framed ambiguously is anybody's guess, so
        // nothing that follows it is read. What follows half a body is the rest of it (RFC 9110
        // §15.5.9).
        Reason::BadRequest | Reason::BodyTimeout => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // RFC 9110 §15.5.6 wants the header; which methods a route forwards is not told.
        Reason::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static(""));
        }
        _ => {}
    }
    response
}

/// The answer of who is the last to see an OPTIONS request (RFC 9110 §7.6.2). Which methods a route
/// forwards is not told.
#[must_use]
pub fn last_recipient() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(DATE, date());
    response
}

/// The value of `Date` (RFC 9110 §6.6.1).
#[must_use]
pub fn date() -> HeaderValue {
    let date = httpdate::fmt_http_date(Moment::now().wall);
    HeaderValue::from_str(&date).unwrap_or(HeaderValue::from_static(""))
}

/// The answer that tells `reason`, after which the connection is closed, as HTTP/1.1: for where
/// there is no request to answer.
#[must_use]
pub fn on_the_wire(reason: Reason) -> BytesMut {
    let mut response = response(reason);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let status = response.status();
    let phrase = status.canonical_reason().unwrap_or_default();
    let mut wire = BytesMut::from(&format!("HTTP/1.1 {} {phrase}\r\n", status.as_str())[..]);
    write_fields(&mut wire, response.headers().iter());
    put_length(&mut wire, response.body().len() as u64);
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(response.body());
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_reason_and_when_to_come_back() {
        let response = response(Reason::TokenUnavailable(Duration::from_millis(2100)));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["bearerd-reason"], "token_unavailable");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["status"], 503);
    }
}
