//! A Secret as the API server writes it. Only what is ours is looked at; everything else goes back as
//! it came, so that fields of later versions of the API survive too.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::store::shared::{Content, MAX_CONTENT_BYTES};

/// Why an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    /// Not an object with a version.
    #[error("is not told as a Secret: is something else between us and the API server?")]
    Foreign,
    /// Our key holds what we never write.
    #[error("holds something under its key bearerd that bearerd did not write")]
    Key,
    /// It cannot be written any more.
    #[error("is immutable; delete it, and create it without that")]
    Immutable,
}

/// An object, whole.
pub(super) struct Object {
    json: Zeroizing<Vec<u8>>,
    version: String,
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "resourceVersion")]
    resource_version: String,
}

impl Object {
    pub(super) fn parse(json: Zeroizing<Vec<u8>>) -> Result<Self, Malformed> {
        let fields = fields(&json)?;
        let is_secret = fields.get("kind").is_some_and(|kind| kind.get() == r#""Secret""#);
        let version = fields.get("metadata").filter(|_| is_secret).and_then(|m| version(m.get()));
        if fields.get("immutable").is_some_and(|immutable| immutable.get() == "true") {
            return Err(Malformed::Immutable);
        }
        let version = version.ok_or(Malformed::Foreign)?;
        Ok(Self { json, version })
    }

    /// Its resource version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The value under `key`; `None` if there is no such key, or nothing under it.
    pub(super) fn content(&self, key: &str) -> Result<Option<Content>, Malformed> {
        let data = data(&fields(&self.json)?)?;
        let Some(value) = data.get(key) else { return Ok(None) };
        let text: &str = serde_json::from_str(value.get()).map_err(|_| Malformed::Key)?;
        if text.len() > MAX_CONTENT_BYTES.div_ceil(3) * 4 {
            return Err(Malformed::Key);
        }
        let content = Zeroizing::new(STANDARD.decode(text).map_err(|_| Malformed::Key)?);
        Ok(Some(content).filter(|content| !content.is_empty()))
    }

    /// The same object with another value under `key`.
    pub(super) fn with(&self, key: &str, content: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let quoted = Zeroizing::new(format!("\"{}\"", STANDARD.encode(content)));
        let value: &RawValue = serde_json::from_str(&quoted).map_err(|_| Malformed::Key)?;
        let mut fields = fields(&self.json)?;
        let mut data = data(&fields)?;
        data.insert(key.to_owned(), value);
        // Room for all of it: what a vector leaves behind when it grows is not wiped.
        let mut written = Zeroizing::new(Vec::with_capacity(self.json.len() + quoted.len() + 64));
        serde_json::to_writer(&mut *written, &data).map_err(|_| Malformed::Foreign)?;
        let data: &RawValue = serde_json::from_slice(&written).map_err(|_| Malformed::Foreign)?;
        fields.insert("data".to_owned(), data);
        let mut whole = Zeroizing::new(Vec::with_capacity(self.json.len() + quoted.len() + 64));
        serde_json::to_writer(&mut *whole, &fields).map_err(|_| Malformed::Foreign)?;
        Ok(whole)
    }
}

/// The version in the metadata of any object.
pub(super) fn version(metadata: &str) -> Option<String> {
    let metadata: Metadata = serde_json::from_str(metadata).ok()?;
    Some(metadata.resource_version).filter(|version| !version.is_empty())
}

fn fields(json: &[u8]) -> Result<Fields<'_>, Malformed> {
    serde_json::from_slice(json).map_err(|_| Malformed::Foreign)
}

fn data<'a>(fields: &Fields<'a>) -> Result<Fields<'a>, Malformed> {
    let data = fields.get("data").map_or("null", |data| data.get());
    let data: Option<Fields<'a>> = serde_json::from_str(data).map_err(|_| Malformed::Foreign)?;
    Ok(data.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(json: &Value) -> Result<Object, Malformed> {
        Object::parse(Zeroizing::new(json.to_string().into_bytes()))
    }

    fn secret(data: &Value) -> Value {
        json!({
            "kind": "Secret", "apiVersion": "v1", "type": "Opaque",
            "metadata": { "name": "s", "uid": "u", "resourceVersion": "12",
                          "labels": { "a": "b" }, "managedFields": [{ "later": 1.0 }] },
            "data": data, "ofALaterVersion": { "x": [1, 2.50, null] },
        })
    }

    #[test]
    fn only_our_key_is_replaced() {
        for data in [json!({ "other": "YQ==" }), json!({ "bearerd": "b2xk" }), json!(null)] {
            let before = secret(&data);
            let whole = object(&before).unwrap().with("bearerd", b"new").unwrap();
            let mut wanted = before;
            wanted["data"]["bearerd"] = "bmV3".into();
            let after: Value = serde_json::from_slice(&whole).unwrap();
            assert_eq!(after, wanted);
            let after = object(&after).unwrap();
            assert_eq!(after.content("bearerd").unwrap().unwrap().as_slice(), b"new");
        }
    }

    #[test]
    fn what_is_not_ours_goes_back_byte_for_byte() {
        let metadata = r#"{ "resourceVersion":"1", "x": 2.50, "y":"\u00e9\/" }"#;
        let json = format!(r#"{{"metadata":{metadata},"kind":"Secret","data":{{"a": "YQ==" }}}}"#);
        let object = Object::parse(Zeroizing::new(json.into_bytes())).unwrap();
        let whole = object.with("bearerd", b"new").unwrap();
        let data = r#"{"a":"YQ==","bearerd":"bmV3"}"#;
        let wanted = format!(r#"{{"data":{data},"kind":"Secret","metadata":{metadata}}}"#);
        assert_eq!(std::str::from_utf8(&whole).unwrap(), wanted);
    }

    #[test]
    fn a_secret_without_our_key_holds_nothing_yet() {
        for data in [json!({}), json!({ "other": "YQ==" }), json!(null), json!({ "bearerd": "" })] {
            let object = object(&secret(&data)).unwrap();
            assert!(object.content("bearerd").unwrap().is_none());
            assert_eq!(object.version(), "12");
        }
        let mut bare = secret(&json!(null));
        bare.as_object_mut().unwrap().remove("data");
        assert!(object(&bare).unwrap().content("bearerd").unwrap().is_none());
    }

    #[test]
    fn what_is_no_secret_of_ours_is_told() {
        let refused = |json: &Value| object(json).err().unwrap();
        for odd in [json!([]), json!({}), json!({ "kind": "Secret" }), json!({ "kind": "Status" })]
        {
            assert_eq!(refused(&odd), Malformed::Foreign, "{odd}");
        }
        let mut odd = secret(&json!({}));
        odd["metadata"]["resourceVersion"] = "".into();
        assert_eq!(refused(&odd), Malformed::Foreign);
        odd = secret(&json!({}));
        odd["immutable"] = true.into();
        assert_eq!(refused(&odd), Malformed::Immutable);
        for value in [json!(1), json!("no base64"), json!("A".repeat(MAX_CONTENT_BYTES * 2))] {
            let object = object(&secret(&json!({ "bearerd": value }))).unwrap();
            assert_eq!(object.content("bearerd").err(), Some(Malformed::Key));
        }
        assert_eq!(
            object(&secret(&json!("x"))).unwrap().content("k").err(),
            Some(Malformed::Foreign)
        );
    }
}
