//! From an exchange and the values of one attempt to the request that is sent.
//!
//! Every value is encoded for the place it goes to: form, JSON string, path segment or header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::dialect::{Body, Dialect, Exchange, Json, Kind};
use super::template::{Rendered, Template};
use super::{Class, FetchError, Reason};

/// RFC 3986 §2.3: everything but the unreserved characters is encoded in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request to an identity provider.
pub struct TokenRequest {
    /// Usually POST.
    pub method: Method,
    /// Absolute.
    pub uri: Uri,
    /// Complete but for `content-length`.
    pub headers: HeaderMap,
    /// Wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// Builds the request of `exchange`; `params` follow its own form fields.
///
/// # Errors
/// A value cannot stand where the dialect puts it. Terminal: it takes another value to mend it.
pub fn render(
    exchange: &Exchange,
    dialect: &Dialect,
    values: &Rendered,
    params: &[(String, String)],
) -> Result<TokenRequest, FetchError> {
    let url = exchange.url.render(values, |key, value| in_url(dialect, key, value));
    let uri: Uri = url
        .and_then(|url| url.parse().ok())
        .ok_or_else(|| unfit("the URL that the dialect builds is none"))?;
    let mut headers = HeaderMap::new();
    let authority = uri.authority().ok_or_else(|| unfit("the URL has no host"))?;
    headers.insert(HOST, header(authority.as_str(), "host")?);
    headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
    for (name, template) in &exchange.headers {
        if let Some(text) = template.render(values, raw) {
            headers.insert(name.clone(), header(&text, name.as_str())?);
        }
    }
    if let Some(credentials) = authorization(exchange, values) {
        let mut value = header(&credentials, "authorization")?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let (media_type, body) = body(exchange, values, params);
    if let Some(media_type) = media_type {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type));
    }
    Ok(TokenRequest { method: exchange.method.clone(), uri, headers, body })
}

/// The value of `key` as it stands in a URL.
#[must_use]
pub fn in_url(dialect: &Dialect, key: &str, value: &str) -> String {
    match dialect.keys.iter().find(|spec| spec.name == key).map(|spec| spec.kind) {
        Some(Kind::Host | Kind::Path | Kind::Url) => value.to_owned(),
        _ => utf8_percent_encode(value, SEGMENT).to_string(),
    }
}

/// One way of authenticating per request (RFC 6749 §2.3).
fn authorization(exchange: &Exchange, values: &Rendered) -> Option<Zeroizing<String>> {
    if let Some(basic) = &exchange.basic {
        // RFC 6749 §2.3.1: form-encoded, so that a colon in the id splits nothing.
        let encode = |_: &str, value: &str| {
            if basic.encoded { form_encoded(value) } else { value.to_owned() }
        };
        let part = |template: &Template| template.render(values, encode);
        let pair = format!("{}:{}", *part(&basic.user)?, *part(&basic.password)?);
        let pair = Zeroizing::new(pair);
        return Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))));
    }
    let token = exchange.bearer.as_ref()?.render(values, raw)?;
    Some(Zeroizing::new(format!("Bearer {}", *token)))
}

fn body(
    exchange: &Exchange,
    values: &Rendered,
    params: &[(String, String)],
) -> (Option<&'static str>, Zeroizing<Vec<u8>>) {
    match &exchange.body {
        Body::Empty => (None, Zeroizing::default()),
        Body::Form(pairs) => {
            let mut form = Zeroizing::new(String::new());
            let own = pairs.iter().filter_map(|(name, template)| {
                Some((name.as_str(), template.render(values, raw)?))
            });
            let extra =
                params.iter().map(|(name, value)| (name.as_str(), Zeroizing::new(value.clone())));
            for (name, value) in own.chain(extra) {
                let separator = if form.is_empty() { "" } else { "&" };
                let value = Zeroizing::new(form_encoded(&value));
                form.push_str(separator);
                form.push_str(&form_encoded(name));
                form.push('=');
                form.push_str(&value);
            }
            let bytes = Zeroizing::new(form.as_bytes().to_vec());
            (Some("application/x-www-form-urlencoded"), bytes)
        }
        Body::Json(json) => {
            let value = json_value(json, values).unwrap_or(Value::Null);
            (Some("application/json"), Zeroizing::new(value.to_string().into_bytes()))
        }
    }
}

fn json_value(json: &Json, values: &Rendered) -> Option<Value> {
    Some(match json {
        Json::Text(template) => Value::String(template.render(values, raw)?.to_string()),
        Json::Plain(value) => value.clone(),
        Json::List(items) => items.iter().filter_map(|item| json_value(item, values)).collect(),
        Json::Object(entries) => entries
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), json_value(value, values)?)))
            .collect(),
    })
}

/// `application/x-www-form-urlencoded` as the URL standard has it: space is `+`, and of the
/// punctuation only `*-._` stands for itself.
fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn raw(_: &str, value: &str) -> String {
    value.to_owned()
}

fn header(text: &str, name: &str) -> Result<HeaderValue, FetchError> {
    HeaderValue::from_str(text)
        .map_err(|_| unfit(&format!("a value for the header {name} has control characters")))
}

fn unfit(hint: &str) -> FetchError {
    let mut error = FetchError::new(Class::Terminal, Reason::Input);
    error.hint = Some(hint.to_owned());
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q11_one_strict_form_encoder() {
        assert_eq!(form_encoded("a b+c&d=e~f*g%/:é"), "a+b%2Bc%26d%3De%7Ef*g%25%2F%3A%C3%A9");
    }
}
