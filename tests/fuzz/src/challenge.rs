//! `WWW-Authenticate` of an upstream, one field line a line.

use bearerd::proxy::challenge::{invites_new_token, wants_nonce};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

/// Only a challenge of the token's own scheme leads to a refresh, or none at all.
pub fn check(data: &[u8]) -> bool {
    let lines = data.split(|byte| *byte == b'\n');
    let lines: Vec<HeaderValue> =
        lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).take(100).collect();
    let headers: HeaderMap = lines.iter().map(|line| (WWW_AUTHENTICATE, line.clone())).collect();
    let mentions = |word: &[u8]| {
        lines.iter().any(|line| {
            line.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
        })
    };
    for scheme in ["Bearer", "DPoP"] {
        let invited = invites_new_token(&headers, scheme);
        assert!(invited || !lines.is_empty());
        assert!(!invited || lines.is_empty() || mentions(scheme.as_bytes()));
    }
    let wanted = wants_nonce(&headers);
    assert!(!wanted || (mentions(b"DPoP") && mentions(b"use_dpop_nonce")));
    invites_new_token(&headers, "Bearer")
}
