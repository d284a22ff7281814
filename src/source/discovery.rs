//! Endpoints from the metadata that an authorization server publishes (RFC 8414, OpenID Connect
//! Discovery): asked for once, believed only if it names exactly the configured issuer.

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use zeroize::Zeroizing;

use super::answer::{Answer, common_refusal};
use super::endpoint::Endpoint;
use super::exchange::TokenRequest;
use super::json::Document;
use super::{Class, FetchError, Reason};

/// How a dialect finds its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Those for clients that show a certificate go first, where there are any (RFC 8705 §5).
    pub mutual_tls: bool,
}

/// What was found.
pub struct Endpoints {
    /// By the keys that would have named them.
    named: Vec<(&'static str, String)>,
    /// The issuer, as both the configuration and the metadata have it.
    pub issuer: String,
    /// Answers to authorization requests say who gives them (RFC 9207 §3).
    pub iss_promised: bool,
    /// PKCE is known with S256, or it is not said how (RFC 8414 §2).
    pub s256: bool,
}

impl Endpoints {
    /// Key and URL.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(key, url)| (*key, url.as_str()))
    }
}

/// The endpoint without which there is no token, and the others, by the keys that would name them.
const TOKEN: (&str, &str) = ("token_url", "token_endpoint");
const OTHERS: [(&str, &str); 3] = [
    ("revocation_url", "revocation_endpoint"),
    ("authorization_url", "authorization_endpoint"),
    ("device_authorization_url", "device_authorization_endpoint"),
];

impl Discovery {
    /// Asks `issuer` for its metadata, at the place of RFC 8414 first and then at OpenID Connect's.
    ///
    /// # Errors
    /// Transient if the server cannot be asked now, terminal if it has no metadata that can be
    /// used.
    pub async fn ask(self, endpoint: &Endpoint, issuer: &str) -> Result<Endpoints, FetchError> {
        let mut refused = unfit(Reason::NotFound, "the issuer is no URL".to_owned());
        for url in well_known(issuer) {
            let answer = endpoint.send(request(&url)?, None).await.map_err(|mut error| {
                error.ambiguous = false; // nothing was spent
                error.hint = Some("asking the issuer for its metadata".to_owned());
                error
            })?;
            match self.read(&answer, issuer) {
                Ok(endpoints) => return Ok(endpoints),
                // Another place may have it.
                Err(error) if error.reason == Reason::NotFound => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    fn read(self, answer: &Answer, issuer: &str) -> Result<Endpoints, FetchError> {
        let missing = || {
            let mut error = unfit(Reason::NotFound, format!("no metadata of {issuer} found"));
            error.status = Some(answer.status);
            error
        };
        if answer.status != 200 {
            return Err(match common_refusal(answer.status, None) {
                Some(mut error) if error.class == Class::Transient => {
                    error.status = Some(answer.status);
                    error.hint = Some("asking the issuer for its metadata".to_owned());
                    error
                }
                _ => missing(),
            });
        }
        let document = Document::parse(&answer.body).ok_or_else(missing)?;
        // RFC 8414 §3.3: anything but the same string is not to be used.
        if document.text("/issuer") != Some(issuer) {
            return Err(unfit(
                Reason::Unusable,
                "the metadata is not that of the configured issuer; write issuer exactly as the \
                 metadata has it"
                    .to_owned(),
            ));
        }
        let endpoint = |name: &str| {
            let alias = document.text(&format!("/mtls_endpoint_aliases/{name}"));
            alias.filter(|_| self.mutual_tls).or_else(|| document.text(&format!("/{name}")))
        };
        let Some(token_url) = endpoint(TOKEN.1) else {
            let hint = "the issuer's metadata names no token_endpoint; write token_url".to_owned();
            return Err(unfit(Reason::Unusable, hint));
        };
        let mut named = vec![(TOKEN.0, acceptable(token_url, issuer)?.to_owned())];
        for (key, name) in OTHERS {
            // One that nothing may be sent to is as good as none.
            if let Some(Ok(url)) = endpoint(name).map(|url| acceptable(url, issuer)) {
                named.push((key, url.to_owned()));
            }
        }
        let methods = document.at("/code_challenge_methods_supported");
        let methods = methods.and_then(serde_json::Value::as_array);
        Ok(Endpoints {
            named,
            issuer: issuer.to_owned(),
            iss_promised: document.at("/authorization_response_iss_parameter_supported")
                == Some(&true.into()),
            s256: methods.is_none_or(|methods| methods.contains(&"S256".into())),
        })
    }
}

/// Secrets go to `https://`; to anything else only where the issuer itself is, which the
/// configuration allowed. As there, no fragment (RFC 6749 §3.1, §3.2), and no user before the host.
fn acceptable<'u>(url: &'u str, issuer: &str) -> Result<&'u str, FetchError> {
    let parts = |url: &str| {
        let uri: Uri = url.parse().ok().filter(|_| !url.contains('#'))?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        Some((uri.scheme_str()?.to_owned(), authority.to_string()))
    };
    match parts(url) {
        Some((scheme, _)) if scheme == "https" => Ok(url),
        Some(place) if place.0 == "http" && Some(&place) == parts(issuer).as_ref() => Ok(url),
        _ => Err(unfit(
            Reason::Unusable,
            "the issuer's metadata names an endpoint that is no plain https:// URL; write token_url"
                .to_owned(),
        )),
    }
}

/// RFC 8414 §3.1 puts the well-known part before the issuer's path, OpenID Connect Discovery §4
/// behind it.
fn well_known(issuer: &str) -> Vec<String> {
    let Some((origin, path)) = origin_and_path(issuer) else {
        return Vec::new();
    };
    let path = path.trim_end_matches('/');
    vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}{path}/.well-known/openid-configuration"),
    ]
}

fn origin_and_path(issuer: &str) -> Option<(&str, &str)> {
    let authority = issuer.find("://")? + 3;
    let path = issuer[authority..].find('/').map_or(issuer.len(), |slash| authority + slash);
    Some(issuer.split_at(path))
}

fn request(url: &str) -> Result<TokenRequest, FetchError> {
    let no_url = || unfit(Reason::NotFound, "the issuer is no URL".to_owned());
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let authority = uri.authority().ok_or_else(no_url)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| no_url())?;
    let headers = HeaderMap::from_iter([
        (HOST, host),
        (USER_AGENT, HeaderValue::from_static(crate::USER_AGENT)),
        (ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    Ok(TokenRequest { method: Method::GET, uri, headers, body: Zeroizing::default() })
}

fn unfit(reason: Reason, hint: String) -> FetchError {
    let mut error = FetchError::new(Class::Terminal, reason);
    error.hint = Some(hint);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Answer { status, headers: HeaderMap::new(), body }
    }

    fn token_url(issuer: &str, mutual_tls: bool, body: &str) -> Result<String, FetchError> {
        let found = Discovery { mutual_tls }.read(&answer(200, body), issuer)?;
        Ok(found.named().find(|(key, _)| *key == "token_url").unwrap().1.to_owned())
    }

    #[test]
    fn rule_52_the_well_known_part_goes_before_or_behind_the_path() {
        for (issuer, first, second) in [
            (
                "https://idp.example",
                "https://idp.example/.well-known/oauth-authorization-server",
                "https://idp.example/.well-known/openid-configuration",
            ),
            (
                "https://idp.example:8443/realms/a/",
                "https://idp.example:8443/.well-known/oauth-authorization-server/realms/a",
                "https://idp.example:8443/realms/a/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(well_known(issuer), [first, second]);
        }
    }

    #[test]
    fn rule_52_metadata_of_another_issuer_is_refused_even_if_a_slash_differs() {
        let body = r#"{"issuer":"https://idp.example/","token_endpoint":"https://idp.example/t"}"#;
        let error = token_url("https://idp.example", false, body).unwrap_err();
        assert_eq!((error.class, error.reason), (Class::Terminal, Reason::Unusable));
        assert_eq!(
            token_url("https://idp.example/", false, body).unwrap(),
            "https://idp.example/t"
        );
    }

    #[test]
    fn rule_50_the_alias_is_for_those_that_show_a_certificate() {
        let body = r#"{"issuer":"https://i","token_endpoint":"https://i/t",
            "mtls_endpoint_aliases":{"token_endpoint":"https://mtls.i/t"}}"#;
        assert_eq!(token_url("https://i", false, body).unwrap(), "https://i/t");
        assert_eq!(token_url("https://i", true, body).unwrap(), "https://mtls.i/t");
    }

    #[test]
    fn an_endpoint_in_plaintext_is_refused_but_at_a_plaintext_issuer() {
        let body = |issuer: &str, endpoint: &str| {
            let metadata = serde_json::json!({ "issuer": issuer, "token_endpoint": endpoint });
            token_url(issuer, false, &metadata.to_string())
        };
        assert!(body("https://i", "http://i/t").is_err());
        assert!(body("http://127.0.0.1:1", "http://127.0.0.1:2/t").is_err());
        assert!(body("http://127.0.0.1:1", "http://127.0.0.1:1/t").is_ok());
        assert!(body("http://127.0.0.1:1", "https://elsewhere/t").is_ok());
        assert!(body("https://i", "ftp://i/t").is_err());
        assert!(body("https://i", "https://i/t#part").is_err());
        assert!(body("https://i", "https://i@elsewhere/t").is_err());
        assert!(token_url("https://i", false, r#"{"issuer":"https://i"}"#).is_err());
    }

    #[test]
    fn what_is_no_metadata_is_looked_for_elsewhere_and_what_may_pass_is_tried_again() {
        let read = |status, body| {
            let result = Discovery { mutual_tls: false }.read(&answer(status, body), "https://i");
            result.map(|_| ()).unwrap_err()
        };
        for (status, body) in [(404, ""), (403, "{}"), (302, ""), (200, "<html>"), (204, "")] {
            assert_eq!(read(status, body).reason, Reason::NotFound, "{status}");
        }
        for status in [408, 429, 500, 503] {
            assert_eq!(read(status, "").class, Class::Transient, "{status}");
        }
    }
}
