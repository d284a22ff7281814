//! Text with placeholders, and the values that a credential gives them.
//!
//! `{key}` is a placeholder, `{key.member}` a string in a JSON document, `{{` and `}}` are braces.
//! Encoding is not done here: it depends on the place that the text goes to.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::secret::{Secret, SecretError, SecretRef};

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Key(String),
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// What is wrong with a brace, in words for the author of a dialect file.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    literal.push(c);
                }
                '{' => {
                    let mut key = String::new();
                    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
                    while let Some(c) = chars.next_if(fits) {
                        key.push(c);
                    }
                    if key.is_empty() || chars.next() != Some('}') {
                        return Err(
                            "has a `{` that begins no placeholder such as `{client_id}`; for a \
                             brace write `{{`",
                        );
                    }
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Key(key));
                }
                '}' => return Err("has a `}` without its `{`; for a brace write `}}`"),
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// A text without placeholders.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self(vec![Piece::Literal(text.to_owned())])
    }

    /// Nothing but the placeholder `key`.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self(vec![Piece::Key(key.to_owned())])
    }

    /// What stands before the first placeholder.
    #[must_use]
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Piece::Literal(literal)) => literal,
            _ => "",
        }
    }

    /// What stands between the placeholders, in order.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(literal) => Some(literal.as_str()),
            Piece::Key(_) => None,
        })
    }

    /// The placeholders, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Key(key) => Some(key.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// Scheme and authority of a URL, as far as they are known before an attempt.
    #[must_use]
    pub fn origin(&self, values: &Values) -> String {
        let mut url = String::new();
        for piece in &self.0 {
            url.push_str(match piece {
                Piece::Literal(literal) => literal,
                Piece::Key(key) => values.get(key).and_then(Value::said).unwrap_or_default(),
            });
        }
        url.split('/').take(3).collect::<Vec<_>>().join("/")
    }

    /// Fills the placeholders, each through `encode`; `None` if one has no value.
    #[must_use]
    pub fn render(
        &self,
        values: &Rendered,
        encode: impl Fn(&str, &str) -> String,
    ) -> Option<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::new());
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Key(key) => {
                    let value = Zeroizing::new(encode(key, values.get(key)?));
                    text.push_str(&value);
                }
            }
        }
        Some(text)
    }
}

/// What a credential says for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Scheme and authority, `https://idp.example:8443`.
    Host(String),
    /// A path, put in as it stands.
    Path(String),
    /// Any text.
    Text(String),
    /// An absolute URL, put in as it stands.
    Url(String),
    /// One line, read again at each use.
    Secret(SecretRef),
    /// Any number of lines, read again at each use.
    Block(SecretRef),
    /// A JSON object, read again at each use; its strings are `{key.member}`.
    Document(SecretRef),
    /// The access token of the credential of that name.
    Credential(String),
    /// `true` is sent as `true`, `false` not at all.
    Bool(bool),
}

impl Value {
    /// What is known of it before an attempt, `None` if it will be left out; empty for a secret.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Host(text) | Self::Text(text) | Self::Url(text) => {
                Some(text.as_str()).filter(|text| !text.is_empty())
            }
            // An empty path is one: `base_path = ""`.
            Self::Path(text) => Some(text),
            Self::Secret(_) | Self::Block(_) | Self::Document(_) | Self::Credential(_) => Some(""),
            Self::Bool(said) => said.then_some("true"),
        }
    }

    /// Where its secret is read from, if it is one.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Secret(secret) | Self::Block(secret) | Self::Document(secret) => Some(secret),
            _ => None,
        }
    }
}

/// A credential's values by key.
pub type Values = BTreeMap<String, Value>;

/// The values of one attempt: secrets read, absent ones left out.
#[derive(Default)]
pub struct Rendered(BTreeMap<String, Zeroizing<String>>);

impl Rendered {
    /// Reads every value now.
    ///
    /// # Errors
    /// The first secret that cannot be read.
    pub fn read(values: &Values, but: impl Fn(&str) -> bool) -> Result<Self, SecretError> {
        let mut rendered = Self::default();
        for (key, value) in values.iter().filter(|(key, _)| !but(key)) {
            match value {
                Value::Secret(secret) => rendered.set(key, secret.read()?.expose()),
                Value::Block(secret) => rendered.set(key, secret.read_text()?.expose()),
                Value::Document(secret) => rendered.set_document(key, secret)?,
                // Whoever renders asks for that token.
                Value::Credential(_) => {}
                _ => {
                    if let Some(text) = value.said() {
                        rendered.0.insert(key.clone(), Zeroizing::new(text.to_owned()));
                    }
                }
            }
        }
        Ok(rendered)
    }

    fn set_document(&mut self, key: &str, secret: &SecretRef) -> Result<(), SecretError> {
        let text = secret.read_text()?;
        let members = members(&text).ok_or_else(|| SecretError::Malformed {
            place: secret.place(),
            problem: "is no JSON object",
        })?;
        self.set(key, text.expose());
        for (member, value) in &members {
            if let serde_json::Value::String(value) = value {
                self.set(&format!("{key}.{member}"), value);
            }
        }
        Ok(())
    }

    /// Sets one value; empty text is the same as none (RFC 6749 §3.2).
    pub fn set(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.0.insert(key.to_owned(), Zeroizing::new(text.to_owned()));
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|text| text.as_str())
    }
}

/// The members of a JSON object.
#[must_use]
pub fn members(text: &Secret) -> Option<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(text.expose()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, values: &Rendered) -> Option<String> {
        let template = Template::parse(text).unwrap();
        template.render(values, |_, value| value.to_uppercase()).map(|text| text.to_string())
    }

    #[test]
    fn placeholders_are_filled_through_the_encoder_and_literals_are_not() {
        let mut values = Rendered::default();
        values.set("a", "x");
        values.set("empty", "");
        assert_eq!(render("pre{a}post{{}}{a}", &values).unwrap(), "preXpost{}X");
        assert_eq!(render("{missing}", &values), None);
        assert_eq!(render("{empty}", &values), None);
    }

    #[test]
    fn unbalanced_braces_are_refused() {
        for bad in ["{", "{}", "{a b}", "}", "a}b", "{a"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse("{client_id}:{{x}}").is_ok());
    }
}
