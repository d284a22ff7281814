//! WebSocket from callers of HTTP/2 (RFC 8441): an extended CONNECT, said to the upstream as the
//! handshake of HTTP/1.1 (RFC 6455 §4) that its caller has no need of.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, response};
use hyper::ext::Protocol;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// What every server appends to the key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake made for a caller of HTTP/2.
pub(super) struct Handshake {
    /// What a server says that has understood it.
    accept: String,
}

impl Handshake {
    /// Makes a request of HTTP/1.1 of an extended CONNECT for WebSocket; `None` if `request` is
    /// something else, and then it stays as it is.
    pub(super) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        if request.method() != Method::CONNECT
            || request.extensions().get::<Protocol>()?.as_ref() != b"websocket"
        {
            return None;
        }
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).ok()?;
        let key = STANDARD.encode(nonce);
        let value = HeaderValue::from_str(&key).ok()?;
        // RFC 8441 §5: HTTP/2 has neither this method nor this field.
        *request.method_mut() = Method::GET;
        request.headers_mut().insert(KEY, value);
        Some(Self { accept: accept(&key) })
    }

    /// True if the upstream's 101 is for this handshake (RFC 6455 §4.1). It becomes what its caller
    /// understands, 200 (RFC 8441 §5), and what that caller has no need of is taken out.
    pub(super) fn agrees(&self, answered: &mut response::Parts) -> bool {
        let mut lines = answered.headers.get_all(ACCEPT).iter();
        let agrees = lines.next().is_some_and(|line| line.as_bytes() == self.accept.as_bytes())
            && lines.next().is_none();
        answered.headers.remove(ACCEPT);
        answered.status = StatusCode::OK;
        agrees
    }
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let text = [key.as_bytes(), GUID].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: Option<&'static str>) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        request
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_an_extended_connect_for_websocket_is_a_handshake() {
        for protocol in [None, Some("connect-udp"), Some("WebSocket2")] {
            let mut request = connect(protocol);
            assert!(Handshake::of(&mut request).is_none(), "{protocol:?}");
            assert_eq!(request.method(), Method::CONNECT);
            assert!(request.headers().is_empty());
        }
    }

    #[test]
    fn each_handshake_has_a_key_of_its_own_and_takes_the_answer_to_it_only() {
        let (mut one, mut two) = (connect(Some("websocket")), connect(Some("websocket")));
        one.headers_mut().insert(KEY, HeaderValue::from_static("the caller's"));
        let first = Handshake::of(&mut one).unwrap();
        let second = Handshake::of(&mut two).unwrap();
        assert_eq!(one.method(), Method::GET);
        assert_ne!(one.headers()[KEY], two.headers()[KEY]);
        let none = || http::Response::new(()).into_parts().0;
        let answer = |handshake: &Handshake| {
            let mut answer = none();
            answer.status = StatusCode::SWITCHING_PROTOCOLS;
            answer.headers.insert(ACCEPT, HeaderValue::from_str(&handshake.accept).unwrap());
            answer
        };
        let mut right = answer(&first);
        assert!(first.agrees(&mut right));
        assert!(right.headers.is_empty() && right.status == StatusCode::OK);
        assert!(!second.agrees(&mut answer(&first)));
        assert!(!first.agrees(&mut none()));
        let mut twice = answer(&first);
        twice.headers.append(ACCEPT, HeaderValue::from_static("other"));
        assert!(!first.agrees(&mut twice));
    }
}
