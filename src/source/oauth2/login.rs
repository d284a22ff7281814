//! How a person signs in to an OAuth 2.0 server: authorization code with PKCE (RFC 6749 §4.1, RFC
//! 7636), and the device authorization grant (RFC 8628). Every client authentication applies.

use http::Method;

use super::request::{authenticate, headers, standard_ok, token_type};
use super::{Choices, Grant};
use crate::source::dialect::login::{CodeLogin, DeviceLogin, Login};
use crate::source::dialect::{Body, Exchange, Ok};
use crate::source::template::Template;

pub(super) fn login(choices: &Choices) -> Option<Login> {
    let (code, device) =
        (choices.authorization || choices.discovered, choices.device || choices.discovered);
    let possible = choices.grant == Grant::RefreshToken && (code || device);
    possible.then(|| Login {
        issuer: None,
        code: code.then(|| code_login(choices)),
        device: device.then(|| device_login(choices)),
        second_step: None,
    })
}

fn code_login(choices: &Choices) -> CodeLogin {
    let form = vec![
        literal("grant_type", "authorization_code"),
        field("code"),
        field("redirect_uri"),
        field("code_verifier"),
    ];
    CodeLogin {
        url: Template::key("authorization_url"),
        query: vec![field("client_id"), field("scope")],
        exchanges: vec![exchange(choices, "code", "token_url", form)],
    }
}

fn device_login(choices: &Choices) -> DeviceLogin {
    let start = exchange(choices, "device", "device_authorization_url", vec![field("scope")]);
    let grant = literal("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
    let form = vec![grant, field("device_code")];
    DeviceLogin {
        start: vec![Exchange { needs: vec!["device_authorization_url".to_owned()], ..start }],
        exchanges: vec![exchange(choices, "device_code", "token_url", form)],
    }
}

fn exchange(
    choices: &Choices,
    name: &str,
    url: &str,
    mut form: Vec<(String, Template)>,
) -> Exchange {
    let basic = authenticate(choices, &mut form);
    Exchange {
        name: name.to_owned(),
        method: Method::POST,
        url: Template::key(url),
        headers: headers(choices),
        when: Vec::new(),
        needs: Vec::new(),
        body: Body::Form(form),
        basic,
        bearer: None,
        ok: Ok { token_type: token_type(choices), ..standard_ok() },
        errors: Vec::new(),
    }
}

fn field(name: &str) -> (String, Template) {
    (name.to_owned(), Template::key(name))
}

fn literal(name: &str, text: &str) -> (String, Template) {
    (name.to_owned(), Template::literal(text))
}
