//! Looks for a secret in a text, in every form in which it could get there.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// The first form of `secret` that is in `text`.
pub fn found(text: &str, secret: &str) -> Option<String> {
    forms(secret).into_iter().find(|form| text.contains(form))
}

/// The secret, its ends, and how it looks encoded, by itself or inside of something else.
fn forms(secret: &str) -> Vec<String> {
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let percent = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let mut forms = vec![secret[..12].to_owned(), secret[secret.len() - 12..].to_owned()];
    for text in [secret, &form, &percent] {
        forms.push(text.to_owned());
        for before in 0..3 {
            let bytes = [&[0; 2][..before], text.as_bytes()].concat();
            for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&bytes);
                // Without the characters that hold bits of what stands before or behind.
                let (from, to) = (before + usize::from(before > 0), encoded.len() - 2);
                forms.push(encoded[from..to].to_owned());
            }
        }
    }
    forms
}

#[test]
fn every_form_of_a_secret_is_found() {
    let secret = "canary/of+one=kind?and&its end Zq8Wn3Lk5Vt0";
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("client:{secret}:more"));
    for text in forms(secret).into_iter().chain([basic]) {
        assert!(found(&format!("a line with {text} in it"), secret).is_some(), "{text}");
    }
    assert_eq!(found("canary of another kind, and its end", secret), None);
}
