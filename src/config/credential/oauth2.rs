//! `provider = "oauth2"`: the grant, the client authentication, and what goes with them.

use http::HeaderName;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};

use crate::config::reader::{Item, Section};
use crate::source::dialect::Dialect;
use crate::source::oauth2::{self, Choices, ClientAuthentication, Grant};
use crate::source::template::Template;
use crate::tls::TlsSettings;

/// The grants, by the word that stands for each.
const GRANTS: [(&str, Grant); 5] = [
    ("client_credentials", Grant::ClientCredentials),
    ("refresh_token", Grant::RefreshToken),
    ("password", Grant::Password),
    ("jwt_bearer", Grant::JwtBearer),
    ("token_exchange", Grant::TokenExchange),
];

/// The ways of client authentication.
const AUTHENTICATIONS: [(&str, ClientAuthentication); 8] = [
    ("basic", ClientAuthentication::Basic),
    ("basic_raw", ClientAuthentication::BasicRaw),
    ("post", ClientAuthentication::Post),
    ("private_key_jwt", ClientAuthentication::PrivateKeyJwt),
    ("client_secret_jwt", ClientAuthentication::ClientSecretJwt),
    ("tls", ClientAuthentication::Tls),
    ("assertion_file", ClientAuthentication::AssertionFile),
    ("none", ClientAuthentication::None),
];

/// What the request is made of, or who it is from: not for a configuration to say.
const RESERVED: [HeaderName; 5] = [AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST];

pub(super) fn read(
    section: &Section<'_>,
    tls: &TlsSettings,
    params: &mut Vec<(String, String)>,
) -> Option<Dialect> {
    let discovered = endpoint(section);
    let words: Vec<String> = GRANTS.iter().map(|(word, _)| format!("{word:?}")).collect();
    let grant = section
        .require("grant", &format!("grant = {}", words.join(" or ")))
        .and_then(|item| item.choice(&GRANTS));
    let authentication = section.take("client_auth").map_or(Some(None), |item| {
        let chosen = item.choice(&AUTHENTICATIONS)?;
        if chosen == ClientAuthentication::Tls && tls.identity.is_none() {
            item.wrong(
                "needs a certificate to show; write tls = { client_cert = \"…\", client_key = \"…\" }",
            );
            return None;
        }
        Some(Some(chosen))
    });
    let dpop = section.take("dpop").map_or(Some(false), |item| item.bool());
    let headers = section.take("headers").map_or(Some(Vec::new()), |item| headers(&item));
    let token_types = section.take("token_types").map_or(Some(Vec::new()), |item| item.texts());
    let audience = section.take("audience").map_or(Some(Vec::new()), |item| item.texts());
    let resource = section.take("resource").map_or(Some(Vec::new()), |item| item.each(resource));
    params.extend(audience?.into_iter().map(|text| ("audience".to_owned(), text)));
    params.extend(resource?.into_iter().map(|text| ("resource".to_owned(), text)));
    let (discovered, grant, authentication) = (discovered?, grant?, authentication?);
    // RFC 7617 §2: where nothing is encoded, the first colon ends the id.
    let client_id = section
        .take("client_id")
        .filter(|_| authentication == Some(ClientAuthentication::BasicRaw));
    if let Some(item) = client_id.filter(|item| item.text().is_some_and(|id| id.contains(':'))) {
        item.wrong("has a colon, which basic_raw cannot tell; write client_auth = \"basic\"");
        return None;
    }
    let mut choices = Choices::new(grant, authentication.unwrap_or_else(|| usual(grant)));
    choices.discovered = discovered;
    choices.assertion_audience = section.has("assertion_audience");
    choices.assertion_issuer = section.has("assertion_issuer");
    if grant == Grant::JwtBearer {
        choices.claims = section.take("assertion_claims").map_or(Some(Vec::new()), |item| {
            item.each_entry(|name, item| Some((name, item.text()?)))
        })?;
    }
    choices.authorization = section.has("authorization_url");
    choices.device = section.has("device_authorization_url");
    choices.headers = headers?;
    choices.dpop = dpop?;
    // RFC 9449 §5: a public client's refresh token is bound as well.
    if choices.dpop
        && grant == Grant::RefreshToken
        && choices.authentication == ClientAuthentication::None
        && !section.has("dpop_key")
    {
        section.wrong(
            "binds its refresh token to a key that ends with this process; write dpop_key = { file = \
             \"/path/to/key.pem\" }",
        );
        return None;
    }
    choices.token_types.extend(token_types?);
    // Other grants do not know the key.
    let known = grant == Grant::RefreshToken || section.has("fallback");
    match known.then(|| section.take("fallback")).flatten() {
        Some(item) => fallback(&item, choices),
        None => Some(oauth2::dialect(&choices)),
    }
}

/// The dialect of `choices` with another way in, for when its refresh token is refused.
fn fallback(item: &Item<'_>, choices: Choices) -> Option<Dialect> {
    let other = item.choice(&[
        ("password", Grant::Password),
        ("client_credentials", Grant::ClientCredentials),
    ])?;
    if choices.grant != Grant::RefreshToken {
        item.wrong("is for grant = \"refresh_token\" only; leave it out");
        return None;
    }
    // RFC 6749 §4.4: only confidential clients.
    let public = choices.authentication == ClientAuthentication::None;
    if other == Grant::ClientCredentials && public {
        item.wrong("is for a client that has a secret; write client_auth = \"basic\" or \"post\"");
        return None;
    }
    let dialect = oauth2::dialect(&choices);
    let other_dialect = oauth2::dialect(&Choices { grant: other, ..choices });
    Some(oauth2::falling_back(dialect, other, other_dialect))
}

/// Basic is what RFC 8414 §2 supposes; a grant that is itself signed needs no client.
fn usual(grant: Grant) -> ClientAuthentication {
    if grant.identifies() { ClientAuthentication::None } else { ClientAuthentication::Basic }
}

/// Whether the endpoints are discovered: exactly one of `token_url` and `issuer` is written.
fn endpoint(section: &Section<'_>) -> Option<bool> {
    match (section.take("token_url"), section.take("issuer")) {
        (Some(_), Some(issuer)) => {
            issuer.wrong("stands beside token_url; write only one of them");
            None
        }
        (Some(_), None) => Some(false),
        (None, Some(issuer)) => {
            let text = issuer.text()?;
            // RFC 8414 §2: no query and no fragment; the latter is told with the other URLs.
            if text.contains('?') {
                issuer.wrong("has a query; write the issuer as its metadata has it");
                return None;
            }
            Some(true)
        }
        (None, None) => {
            section.require(
                "token_url",
                "token_url = \"https://idp.example/oauth2/token\", or issuer = \"https://idp.example\"",
            );
            None
        }
    }
}

/// RFC 8707 §2: an absolute URI without a fragment.
fn resource(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let absolute = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !absolute || text.contains('#') {
        item.wrong(
            "is no absolute URI without a fragment; write one such as \"https://api.example\"",
        );
        return None;
    }
    Some(text)
}

fn headers(item: &Item<'_>) -> Option<Vec<(HeaderName, Template)>> {
    item.each_entry(|name, item| {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        let Some(parsed) = parsed.filter(|name| !RESERVED.contains(name)) else {
            item.wrong("is no header that can be added; write one such as \"x-tenant\"");
            return None;
        };
        let text = item.text()?;
        if text.chars().any(char::is_control) {
            item.wrong("has control characters; write visible text");
            return None;
        }
        Some((parsed, Template::literal(&text)))
    })
}

/// Tells unknown keys although it is open which grant is meant: those that no choice has.
pub(super) fn finish_undecided(section: Section<'_>) {
    section.take("assertion_claims");
    for (_, grant) in GRANTS {
        for (_, authentication) in AUTHENTICATIONS {
            let choices =
                Choices { discovered: true, dpop: true, ..Choices::new(grant, authentication) };
            for key in oauth2::dialect(&choices).keys {
                section.take(&key.name);
            }
        }
    }
    section.finish();
}
