//! Client authentication (RFC 6749 §2.3.1): who asks, proven by exactly one method.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::grant::Refusal;
use crate::form::Form;
use crate::http::Recorded;

/// A method of client authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
    /// `none`: a public client names itself in the form.
    None,
}

#[derive(Debug, Default)]
pub(super) struct Clients(HashMap<String, Client>);

#[derive(Debug)]
struct Client {
    secret: Option<String>,
    methods: Vec<Authentication>,
}

impl Clients {
    pub(super) fn add(&mut self, id: &str, secret: Option<&str>) {
        let methods = match secret {
            Some(_) => vec![Authentication::Basic, Authentication::Post],
            None => vec![Authentication::None],
        };
        self.0.insert(id.to_owned(), Client { secret: secret.map(str::to_owned), methods });
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn allow(&mut self, id: &str, methods: &[Authentication]) {
        if let Some(client) = self.0.get_mut(id) {
            client.methods = methods.to_vec();
        }
    }

    /// The id of the client that the request comes from; the refusal names the id that failed, if
    /// there was one.
    pub(super) fn authenticate(
        &self,
        request: &Recorded,
        form: &Form,
    ) -> Result<String, (Refusal, Option<String>)> {
        let invalid_request = (Refusal::InvalidRequest, None);
        let (method, id, secret) = match request.headers("authorization").as_slice() {
            [] => {
                let id = form.value("client_id").ok_or((Refusal::InvalidClient, None))?;
                let secret = form.value("client_secret");
                let method =
                    if secret.is_some() { Authentication::Post } else { Authentication::None };
                (method, id.to_owned(), secret.map(str::to_owned))
            }
            [header] => {
                let (id, secret) = basic(header).ok_or((Refusal::InvalidClient, None))?;
                let other = form.value("client_id").is_some_and(|named| named != id);
                if other || form.value("client_secret").is_some() {
                    return Err(invalid_request);
                }
                (Authentication::Basic, id, Some(secret))
            }
            _ => return Err(invalid_request),
        };
        match self.0.get(&id) {
            Some(client) if client.secret == secret && client.methods.contains(&method) => Ok(id),
            _ => Err((Refusal::InvalidClient, Some(id))),
        }
    }
}

/// Id and secret of a Basic header: base64, split at the first colon, then each form-decoded (RFC
/// 6749 §2.3.1).
pub(crate) fn basic(header: &[u8]) -> Option<(String, String)> {
    let header = std::str::from_utf8(header).ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((form_decoded(id), form_decoded(secret)))
}

fn form_decoded(text: &str) -> String {
    let pair = format!("v={}", text.replace('&', "%26"));
    let decoded = form_urlencoded::parse(pair.as_bytes()).next();
    decoded.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_form_decoded_after_base64() {
        let header = format!("Basic {}", BASE64_STANDARD.encode("my%3Aid:p%25+%2B%26"));
        assert_eq!(basic(header.as_bytes()), Some(("my:id".into(), "p% +&".into())));
        assert_eq!(basic(b"Bearer abc"), None);
    }
}
