//! The requests of plain OAuth 2.0: parameters, client authentication, assertions.

use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderName, Method};

use super::{Choices, ClientAuthentication, Grant};
use crate::source::assertion::{Assertion, Key as SignedWith};
use crate::source::dialect::{
    Basic, Body, BodyKind, Exchange, Matcher, Ok, Status, Test, TokenType,
};
use crate::source::expiry::{Rule, Shape};
use crate::source::template::Template;
use crate::source::{Class, Reason};

/// RFC 7523 §2.2.
const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion may be used; some servers refuse longer ones.
const ASSERTION_LIFETIME: Duration = Duration::from_mins(3);

pub(super) fn ways(choices: &Choices) -> Vec<Exchange> {
    let field = |name: &str| (name.to_owned(), Template::key(name));
    let renamed = |name: &str, key: &str| (name.to_owned(), Template::key(key));
    match choices.grant {
        Grant::ClientCredentials => vec![way(choices, &[], Vec::new())],
        Grant::RefreshToken => vec![way(choices, &["refresh_token"], vec![field("refresh_token")])],
        Grant::Password => vec![way(choices, &[], vec![field("username"), field("password")])],
        Grant::JwtBearer => {
            let signed = vec![renamed("assertion", "grant_assertion")];
            vec![
                way(choices, &["assertion"], vec![field("assertion")]),
                way(choices, &["private_key"], signed),
            ]
        }
        Grant::TokenExchange => vec![way(
            choices,
            &[],
            vec![
                renamed("subject_token", "subject"),
                field("subject_token_type"),
                renamed("actor_token", "actor"),
                field("actor_token_type"),
                field("requested_token_type"),
            ],
        )],
    }
}

fn way(choices: &Choices, needs: &[&str], own: Vec<(String, Template)>) -> Exchange {
    let grant_type = ("grant_type".to_owned(), Template::literal(choices.grant.on_the_wire()));
    let scope = ("scope".to_owned(), Template::key("scope"));
    let mut form: Vec<_> = std::iter::once(grant_type).chain(own).chain([scope]).collect();
    let basic = authenticate(choices, &mut form);
    let spends = choices.grant == Grant::RefreshToken;
    Exchange {
        name: choices.grant.as_str().to_owned(),
        method: Method::POST,
        url: Template::key("token_url"),
        headers: headers(choices),
        when: Vec::new(),
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        body: Body::Form(form),
        basic,
        bearer: None,
        // RFC 6749 §4.4.3: with other grants than its own a refresh token is not looked for.
        ok: Ok {
            refresh_token: spends.then(|| "/refresh_token".to_owned()),
            token_type: token_type(choices),
            ..standard_ok()
        },
        errors: if spends { dead_refresh_token().to_vec() } else { Vec::new() },
    }
}

pub(super) fn token_type(choices: &Choices) -> TokenType {
    // RFC 9449 §5: a server that does not know better may still answer with a Bearer token.
    let dpop = choices.dpop.then(|| "DPoP".to_owned());
    let accept = choices.token_types.iter().cloned().chain(dpop).collect();
    TokenType { at: "/token_type".to_owned(), accept }
}

/// RFC 7009 §2.1, authenticated like a token request.
pub(super) fn revocation(choices: &Choices) -> Exchange {
    let hint = Template::literal("access_token");
    let mut form = vec![
        ("token".to_owned(), Template::key("access_token")),
        ("token_type_hint".to_owned(), hint),
    ];
    let basic = authenticate(choices, &mut form);
    Exchange {
        name: "revoke".to_owned(),
        method: Method::POST,
        url: Template::key("revocation_url"),
        headers: headers(choices),
        when: Vec::new(),
        needs: vec!["revocation_url".to_owned()],
        body: Body::Form(form),
        basic,
        bearer: None,
        ok: standard_ok(),
        errors: Vec::new(),
    }
}

pub(super) fn headers(choices: &Choices) -> Vec<(HeaderName, Template)> {
    let accept = (ACCEPT, Template::literal("application/json"));
    std::iter::once(accept).chain(choices.headers.clone()).collect()
}

/// Adds what says who asks to `form`, or gives user and password of the Basic scheme: one way only
/// (RFC 6749 §2.3).
pub(super) fn authenticate(choices: &Choices, form: &mut Vec<(String, Template)>) -> Option<Basic> {
    use ClientAuthentication as Auth;
    let mut field = |name: &str, value| form.push((name.to_owned(), value));
    let encoded = choices.authentication == Auth::Basic;
    if encoded || choices.authentication == Auth::BasicRaw {
        let (user, password) = (Template::key("client_id"), Template::key("client_secret"));
        return Some(Basic { user, password, encoded });
    }
    field("client_id", Template::key("client_id"));
    let assertion = match choices.authentication {
        Auth::Post => {
            field("client_secret", Template::key("client_secret"));
            return None;
        }
        Auth::PrivateKeyJwt | Auth::ClientSecretJwt => "client_assertion",
        Auth::AssertionFile => "assertion_file",
        Auth::Basic | Auth::BasicRaw | Auth::Tls | Auth::None => return None,
    };
    field("client_assertion_type", Template::literal(CLIENT_ASSERTION_TYPE));
    field("client_assertion", Template::key(assertion));
    None
}

/// What is signed for the requests.
pub(super) fn assertions(choices: &Choices) -> Vec<Assertion> {
    client_assertion(choices).into_iter().chain(grant_assertion(choices)).collect()
}

/// RFC 7523 §3: issuer and subject are the client.
fn client_assertion(choices: &Choices) -> Option<Assertion> {
    let key = match choices.authentication {
        ClientAuthentication::PrivateKeyJwt => SignedWith::Private(Template::key("private_key")),
        ClientAuthentication::ClientSecretJwt => SignedWith::Secret(Template::key("client_secret")),
        _ => return None,
    };
    let claims = [("iss", "client_id"), ("sub", "client_id"), ("aud", audience(choices))];
    let claims = claims.map(|(name, key)| (name.to_owned(), Template::key(key)));
    Some(assertion("client_assertion", key, claims.to_vec()))
}

/// RFC 7523 §2.1: the subject is whom the token is for.
fn grant_assertion(choices: &Choices) -> Option<Assertion> {
    let issuer = if choices.assertion_issuer { "assertion_issuer" } else { "client_id" };
    let claims = [("iss", issuer), ("sub", "assertion_subject"), ("aud", audience(choices))];
    let claims = claims.map(|(name, key)| (name.to_owned(), Template::key(key)));
    let extra = choices.claims.iter().map(|(name, value)| (name.clone(), Template::literal(value)));
    let key = SignedWith::Private(Template::key("private_key"));
    (choices.grant == Grant::JwtBearer)
        .then(|| assertion("grant_assertion", key, claims.into_iter().chain(extra).collect()))
}

fn audience(choices: &Choices) -> &'static str {
    if choices.assertion_audience { "assertion_audience" } else { "token_url" }
}

fn assertion(name: &str, key: SignedWith, claims: Vec<(String, Template)>) -> Assertion {
    Assertion {
        name: name.to_owned(),
        key,
        algorithm: Some(Template::key("signing_alg")),
        key_id: Some(Template::key("key_id")),
        claims,
        lifetime: ASSERTION_LIFETIME,
        backdated: Duration::ZERO,
    }
}

/// RFC 6749 §5.1, and the `exp` of a token that is a JWT.
#[must_use]
pub fn standard_ok() -> Ok {
    let rule =
        |at: &str, shape| Rule { at: at.to_owned(), shape, issued: None, zero_is_never: false };
    Ok {
        status: vec![Status::Class(2)],
        headers: Vec::new(),
        access_token: "/access_token".to_owned(),
        refresh_token: Some("/refresh_token".to_owned()),
        renewable: None,
        token_type: TokenType { at: "/token_type".to_owned(), accept: vec!["bearer".to_owned()] },
        body: BodyKind::Json,
        expiry: vec![rule("/expires_in", Shape::Seconds), rule("", Shape::JwtExp)],
    }
}

/// RFC 6749 §5.2 `invalid_grant`: the refresh token is unknown, expired, revoked or another's. Some
/// servers say no more than its status.
fn dead_refresh_token() -> [Matcher; 2] {
    let said = Matcher {
        id: "invalid_grant".to_owned(),
        status: vec![Status::Class(4)],
        test: Some(("/error".to_owned(), Test::Is("invalid_grant".to_owned()))),
        missing: None,
        empty: false,
        media_type: None,
        class: Class::Terminal,
        reason: Reason::NeedsOperator,
        try_next: false,
        hint: Some("refresh token not accepted: sign in again and replace it".to_owned()),
    };
    let silent = Matcher {
        id: "empty_400".to_owned(),
        status: vec![Status::Exactly(400)],
        test: None,
        empty: true,
        ..said.clone()
    };
    [said, silent]
}
