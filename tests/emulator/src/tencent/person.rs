//! Where a person signs in: the tenant's metadata, its authorization endpoint, and the exchange of a
//! code, as the pages on PKCE have them. The person lets everybody in.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;

use super::answers::{refused, success};
use super::{AUTHORIZE_PATH, Book, TOKEN_PATH};
use crate::form::Form;
use crate::front::Desk;
use crate::http::{Recorded, Reply};
use crate::mint;
use crate::tokens::Tokens;

/// What each code was given for: client, redirect and challenge.
pub(super) type Codes = HashMap<String, [String; 3]>;

pub(super) fn metadata(request: &Recorded) -> Reply {
    let url = format!("http://{}", request.header("host").unwrap_or_default());
    let metadata = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}{AUTHORIZE_PATH}"),
        "token_endpoint": format!("{url}{TOKEN_PATH}"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "scopes_supported": ["openid"],
    });
    Reply::json(200, metadata)
}

pub(super) fn authorize(book: &mut Book, request: &Recorded, desk: &Desk) -> Reply {
    let query = Form::parse(request.query().unwrap_or_default().as_bytes());
    let text = |name: &str| query.value(name).unwrap_or_default().to_owned();
    let known = book.clients.contains_key(&text("client_id"));
    let pkce = text("code_challenge").len() == 43 && text("code_challenge_method") == "S256";
    if !known || !pkce || text("scope") != "openid" || text("response_type") != "code" {
        desk.violation(format!("authorization request: {:?}", request.target));
        return Reply::status(400);
    }
    let code = mint::opaque(96);
    let asked = [text("client_id"), text("redirect_uri"), text("code_challenge")];
    let back = format!("{}?code={code}&state={}", asked[1], text("state"));
    book.codes.insert(code, asked);
    Reply::status(302).header("Location", back)
}

/// T5 says 401 `invalid_client` for a bad code or verifier too.
pub(super) fn exchange(book: &mut Book, tokens: &Tokens, request: &Recorded, desk: &Desk) -> Reply {
    let form = request.form();
    let documented = ["client_id", "grant_type", "code", "redirect_uri", "code_verifier"];
    if desk.common_violations(request, &["authorization"])
        || form.check(&documented, !book.any_order).is_err()
    {
        desk.violation(format!("exchange of a code: {:?}", form.names()));
        return refused(400, "invalid_request");
    }
    let value = |name: &str| form.value(name).unwrap_or_default();
    let challenge =
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, value("code_verifier").as_bytes()));
    let shown = [value("client_id"), value("redirect_uri"), &challenge].map(str::to_owned);
    if book.codes.remove(value("code")) != Some(shown) {
        desk.failure(value("client_id"));
        return refused(401, "invalid_client");
    }
    let refresh_token = book.issue(value("client_id"));
    success(book, tokens, value("client_id"), Some(&refresh_token)).1
}
