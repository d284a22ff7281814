//! What a credential says for the keys of its dialect, and whether that is enough.

use crate::config::reader::{Item, Section};
use crate::config::url::{check_plaintext, host, http_url};
use crate::secret::SecretRef;
use crate::source::assertion::Assertion;
use crate::source::dialect::{Dialect, Exchange, Key, Kind};
use crate::source::signing::{self, SigningKey};
use crate::source::template::{Template, Value, Values, members};

/// What the credential says for each of the dialect's keys.
pub(super) fn values(
    dialect: &Dialect,
    section: &Section<'_>,
    allow_plaintext: bool,
) -> Option<Values> {
    let mut values = Values::new();
    let mut complete = true;
    for key in &dialect.keys {
        let given = if key.required {
            section.require(&key.name, &example(key))
        } else {
            section.take(&key.name)
        };
        let value = match given {
            Some(item) => value(key, &item, allow_plaintext),
            None if key.required => None,
            None => match default(key, &values) {
                Some(value) => Some(value),
                None => continue,
            },
        };
        match value {
            Some(value) => {
                values.insert(key.name.clone(), value);
            }
            None => complete = false,
        }
    }
    (complete && documents(dialect, section, &values) && signs(section, &values)).then_some(values)
}

/// Whether the JSON documents hold what the dialect takes from them.
fn documents(dialect: &Dialect, section: &Section<'_>, values: &Values) -> bool {
    let templates = dialect.assertions.iter().flat_map(Assertion::templates);
    let templates = templates.chain(dialect.obtain.iter().flat_map(Exchange::templates));
    let mut complete = true;
    for (document, member) in templates.flat_map(Template::keys).filter_map(|k| k.split_once('.')) {
        let Some(Value::Document(secret)) = values.get(document) else { continue };
        let members = secret.read_text().ok().as_ref().and_then(members).unwrap_or_default();
        let there = members.get(member).is_some_and(serde_json::Value::is_string);
        if let Some(item) = section.take(document).filter(|_| !there) {
            let place = secret.place();
            item.wrong(format!("{place} has no text {member:?}; write the path of the right file"));
            complete = false;
        }
    }
    complete
}

/// Whether the key can sign with the algorithm that is asked for.
fn signs(section: &Section<'_>, values: &Values) -> bool {
    let (Some(Value::Block(key)), Some(Value::Text(name))) =
        (values.get("private_key"), values.get("signing_alg"))
    else {
        return true;
    };
    let key = key.read_text().ok().and_then(|text| SigningKey::parse(text.expose()).ok());
    let signed = key.is_some_and(|key| key.sign(&(), signing::algorithm(name), None).is_ok());
    if let Some(item) = section.take("signing_alg").filter(|_| !signed) {
        item.wrong("is not for the kind of key that private_key is; leave it out");
    }
    signed
}

fn value(key: &Key, item: &Item<'_>, allow_plaintext: bool) -> Option<Value> {
    match key.kind {
        // What the dialect itself names is trusted as it stands.
        Kind::Host if key.default.is_some() && item.text() == key.default => {
            default(key, &Values::new())
        }
        Kind::Host => host(item, &item.text()?, allow_plaintext).map(Value::Host),
        Kind::Path => {
            let text = item.text()?;
            let sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
            if !(text.is_empty() || text.starts_with('/')) || !text.bytes().all(sendable) {
                item.wrong("is no path; write \"\" or one such as \"/sec\"");
                return None;
            }
            Some(Value::Path(text))
        }
        Kind::Url => {
            let text = if item.has("env") { item.variable()? } else { item.text()? };
            let url = http_url(item, &text, "https://idp.example/oauth2/token")?;
            check_plaintext(item, &url, allow_plaintext)?;
            Some(Value::Url(text))
        }
        // OAuth's lists are written with spaces (RFC 6749 §3.3).
        Kind::Text => item.texts().map(|texts| Value::Text(texts.join(" "))),
        Kind::File => item.secret_file().map(Value::Secret),
        Kind::SigningKey => signing_key(item, key).map(Value::Block),
        Kind::Document => document(item).map(Value::Document),
        Kind::Token if item.has("credential") => item.credential().map(Value::Credential),
        Kind::Secret | Kind::Token => item.secret(SecretRef::read).map(Value::Secret),
        Kind::Bool => item.bool().map(Value::Bool),
        Kind::Choice => {
            let text = item.text()?;
            if !key.of.contains(&text) {
                item.not_among(&text, &key.of);
                return None;
            }
            Some(Value::Text(text))
        }
    }
}

/// A private key that can sign.
fn signing_key(item: &Item<'_>, key: &Key) -> Option<SecretRef> {
    let secret = item.secret(SecretRef::read_text)?;
    let text = secret.read_text().ok()?;
    let place = secret.place();
    match SigningKey::parse(text.expose()) {
        Err(error) => {
            item.wrong(format!("{place} {error}; make one with: openssl genpkey -algorithm RSA"));
            None
        }
        // RFC 9449 leaves the algorithm open; ES256 is what every server knows.
        Ok(signing) if key.name == "dpop_key" && signing.p256().is_none() => {
            item.wrong(format!(
                "{place} is no P-256 key; make one with: openssl genpkey -algorithm EC -pkeyopt \
                 ec_paramgen_curve:P-256"
            ));
            None
        }
        Ok(_) => Some(secret),
    }
}

fn document(item: &Item<'_>) -> Option<SecretRef> {
    let secret = item.secret(SecretRef::read_text)?;
    if secret.read_text().is_ok_and(|text| members(&text).is_none()) {
        item.wrong(format!("{} is no JSON object; write the path of one", secret.place()));
        return None;
    }
    Some(secret)
}

/// What holds if the credential says nothing; `{other}` is what holds for an earlier key.
fn default(key: &Key, values: &Values) -> Option<Value> {
    let text = key.default.clone()?;
    let other = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let text = match other {
        Some(other) => values.get(other).and_then(Value::said)?.to_owned(),
        None => text,
    };
    Some(match key.kind {
        // A dialect may name a place that speaks plaintext only: a metadata server.
        Kind::Host if text.contains("://") => Value::Host(text),
        Kind::Host => Value::Host(format!("https://{text}")),
        Kind::Path => Value::Path(text),
        Kind::Url => Value::Url(text),
        Kind::Bool => Value::Bool(text == "true"),
        _ => Value::Text(text),
    })
}

pub(super) fn example(key: &Key) -> String {
    match key.kind {
        Kind::Secret | Kind::SigningKey | Kind::Document | Kind::Token => {
            format!("{} = {{ file = \"/path/to/{}\" }}", key.name, key.name)
        }
        Kind::File => format!("{} = \"/path/to/{}\"", key.name, key.name),
        Kind::Url => format!("{} = \"https://idp.example/…\"", key.name),
        Kind::Host => format!("{} = \"host.example\"", key.name),
        Kind::Bool => format!("{} = true", key.name),
        _ => format!("{} = \"…\"", key.name),
    }
}

/// Whether some exchange has everything that it needs; a store may supply the refresh token.
pub(super) fn can_obtain(dialect: &Dialect, values: &Values, stored: bool) -> bool {
    let rotating = |key: &str| dialect.keys.iter().any(|k| k.rotating && k.name == key);
    let supplied = |key: &str| (stored && rotating(key)).then_some("");
    let value = |key: &str| values.get(key).and_then(Value::said).or_else(|| supplied(key));
    dialect.obtain.iter().any(|exchange| exchange.applies(value))
}

/// What would have to be written, for each way in that the credential's choices leave open.
pub(super) fn wanted(dialect: &Dialect, values: &Values) -> String {
    let value = |key: &str| values.get(key).and_then(Value::said);
    let open = dialect.obtain.iter().filter(|exchange| exchange.chosen(value));
    let ways: Vec<String> = open.map(|exchange| exchange.needs.join(" and ")).collect();
    ways.join(", or ")
}
