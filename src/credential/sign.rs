//! How an upstream says, other than by 401, that it no longer takes a token: a status, and perhaps
//! words in the body. Pure; whoever has the answer reads it.

use serde_json::Value;

/// One way of saying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// Any of these, from 200 to 599.
    pub statuses: Vec<u16>,
    /// What the body must say besides; `None`: the status says it all.
    pub words: Option<Words>,
}

/// Words in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// A JSON pointer (RFC 6901); `None`: the body as it is.
    pub at: Option<String>,
    /// What must be there.
    pub test: Test,
}

/// A test of a value, or of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// There, and not null.
    Exists,
    /// Equal, as text.
    Is(String),
    /// Containing this text.
    Has(String),
}

impl Words {
    /// Whether `body` says so.
    #[must_use]
    pub fn are_in(&self, body: &[u8]) -> bool {
        let Some(pointer) = &self.at else {
            return self.test.holds(String::from_utf8_lossy(body).trim());
        };
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let document: Option<Value> = serde_json::from_slice(body).ok();
        let value = document.as_ref().and_then(|document| document.pointer(pointer));
        value.is_some_and(|value| self.test.fits(value))
    }
}

impl Test {
    /// Whether a value of a JSON document passes it. Numbers are compared as text, so that
    /// `is = "540"` matches the number and the string.
    #[must_use]
    pub fn fits(&self, value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::String(text) => self.holds(text),
            other => self.holds(&other.to_string()),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::Is(wanted) => text == wanted,
            Self::Has(part) => text.contains(part.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(at: Option<&str>, test: Test) -> Words {
        Words { at: at.map(str::to_owned), test }
    }

    #[test]
    fn q9_words_are_found_at_their_place_or_anywhere() {
        let is = |text: &str| Test::Is(text.to_owned());
        let has = |text: &str| Test::Has(text.to_owned());
        for (body, at, test, found) in [
            (r#"[{"errorCode":"GONE"}]"#, Some("/0/errorCode"), is("GONE"), true),
            (r#"[{"errorCode":"GONE"}]"#, Some("/0/errorCode"), is("GON"), false),
            (r#"[{"errorCode":"GONE"}]"#, Some("/errorCode"), is("GONE"), false),
            ("\u{feff}{\"code\":190}", Some("/code"), is("190"), true),
            (
                r#"{"error":{"message":"jwt expired"}}"#,
                Some("/error/message"),
                has("expired"),
                true,
            ),
            (r#"{"expired":false}"#, Some("/expired"), is("true"), false),
            (r#"{"expired":null}"#, Some("/expired"), Test::Exists, false),
            (r#"{"expired":0}"#, Some("/expired"), Test::Exists, true),
            (r#"{"a":"expired"#, Some("/a"), has("expired"), false),
            ("<fault>session expired</fault>", None, has("session expired"), true),
            ("Bad_Token\n", None, is("Bad_Token"), true),
            ("not Bad_Token", None, is("Bad_Token"), false),
            ("", None, has("x"), false),
            ("\u{fffd}\0", Some("/a"), Test::Exists, false),
        ] {
            assert_eq!(words(at, test.clone()).are_in(body.as_bytes()), found, "{body} {test:?}");
        }
    }
}
