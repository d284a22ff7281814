//! A JSON document from outside, read by pointers (RFC 6901), in which a key that stands twice is
//! not readable at all: two readers could see two different values (RFC 8259 §4).

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deeper nesting is refused; real answers have two or three levels.
const MAX_DEPTH: usize = 32;

/// A parsed answer.
pub struct Document {
    root: Value,
    duplicates: HashSet<String>,
}

impl Document {
    /// Parses JSON, with or without a byte order mark; `None` if it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut duplicates = HashSet::new();
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let root = Node { duplicates: &mut duplicates, depth: 0 }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(Self { root, duplicates })
    }

    /// An answer in `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn from_form(bytes: &[u8]) -> Self {
        let mut root = Map::new();
        let mut duplicates = HashSet::new();
        for (key, value) in form_urlencoded::parse(bytes) {
            if root.insert(key.to_string(), Value::String(value.to_string())).is_some() {
                duplicates.insert(key.to_string());
            }
        }
        Self { root: Value::Object(root), duplicates }
    }

    /// An answer that is nothing but the token.
    #[must_use]
    pub fn from_text(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim_start_matches('\u{feff}').trim();
        Some(Self { root: Value::String(text.to_owned()), duplicates: HashSet::new() })
    }

    /// The value at `pointer`; `None` if absent, `null`, or under a key that stands twice.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let ambiguous = pointer.split('/').any(|part| self.duplicates.contains(&unescape(part)));
        if ambiguous {
            return None;
        }
        self.root.pointer(pointer).filter(|value| !value.is_null())
    }

    /// The non-empty string at `pointer`.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.at(pointer)?.as_str().filter(|text| !text.is_empty())
    }
}

/// RFC 6901 §4.
fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// Builds a [`Value`] and notes every key that an object has twice.
struct Node<'a> {
    duplicates: &'a mut HashSet<String>,
    depth: usize,
}

impl Node<'_> {
    fn child(&mut self) -> Node<'_> {
        Node { duplicates: self.duplicates, depth: self.depth + 1 }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(serde::de::Error::custom("nested too deeply"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.child())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.child())?;
            if map.insert(key.clone(), value).is_some() {
                self.duplicates.insert(key);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_read_nested_values_and_null_is_absent() {
        let doc = Document::parse("\u{feff}{\"a\":{\"b/c\":\"x\"},\"n\":null}".as_bytes()).unwrap();
        assert_eq!(doc.text("/a/b~1c"), Some("x"));
        assert!(doc.at("/n").is_none() && doc.at("/missing").is_none());
    }

    #[test]
    fn a_key_that_stands_twice_is_not_readable() {
        let doc = Document::parse(br#"{"t":"1","t":"2","u":"3"}"#).unwrap();
        assert_eq!((doc.text("/t"), doc.text("/u")), (None, Some("3")));
        assert!(Document::from_form(b"t=1&t=2").text("/t").is_none());
    }

    #[test]
    fn what_is_no_json_is_none() {
        for bad in ["", "<html>", "{\"a\":", "{} trailing", &"[".repeat(100)] {
            assert!(Document::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
