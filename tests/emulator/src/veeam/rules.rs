//! What a request must look like, and who gets tokens.

use super::answers::{Issue, bad_request, mfa_wanted, redirected, success, unauthorized};
use super::{Book, Lenient, Spelling};
use crate::form::{Form, FormFault};
use crate::front::Desk;
use crate::http::{Recorded, Reply};
use crate::mint;
use crate::tokens::{Tokens, Verdict};

/// Grant types that the documents name and this appliance has not switched on.
const OTHER_GRANTS: [&str; 5] =
    ["Updater_token", "Saml", "SsoToken", "Authentication_code", "Unknown"];

pub(super) fn token(book: &mut Book, tokens: &Tokens, request: &Recorded, desk: &Desk) -> Reply {
    // V-E15: the sibling products want x-api-version, this one must not get it.
    if desk.common_violations(request, &["x-api-version", "authorization"]) {
        return bad_request("request", "The request is not valid.");
    }
    if !request.header("accept").is_some_and(|value| value.contains("application/json")) {
        desk.violation("no Accept: application/json");
        return Reply::status(406);
    }
    if request.media_type().as_deref() != Some("application/x-www-form-urlencoded") {
        return Reply::status(415);
    }
    let form = request.form();
    let Some(grant) = form.value("grant_type") else {
        return missing("grant_type");
    };
    match (grant, book.spelling) {
        ("Refresh_token", _) => refresh(book, tokens, &form, desk),
        ("Password", _) => login(book, tokens, &form, desk),
        ("Mfa", _) => mfa(book, tokens, &form, desk),
        (grant, Spelling::Both) if grant.eq_ignore_ascii_case("refresh_token") => {
            refresh(book, tokens, &form, desk)
        }
        (grant, Spelling::Both) if grant.eq_ignore_ascii_case("password") => {
            login(book, tokens, &form, desk)
        }
        (grant, _) if OTHER_GRANTS.contains(&grant) => {
            bad_request("grant_type", &format!("The grant type '{grant}' is not enabled."))
        }
        (grant, _) => bad_request("grant_type", &format!("The value '{grant}' is not valid.")),
    }
}

fn refresh(book: &mut Book, tokens: &Tokens, form: &Form, desk: &Desk) -> Reply {
    let bare = book.allows(Lenient::BareRefresh);
    let documented: &[&str] = match (book.spelling, bare) {
        (Spelling::Capital, false) => &["Username", "Password", "refresh_token", "grant_type"],
        (Spelling::Capital, true) => &["Username?", "Password?", "refresh_token", "grant_type"],
        (Spelling::Lower, _) => &["refresh_token", "grant_type"],
        (Spelling::Both, _) => {
            &["Username?", "Password?", "username?", "password?", "refresh_token", "grant_type"]
        }
    };
    if let Err(reply) = checked(book, form, documented, desk) {
        return reply;
    }
    let presented = form.value("refresh_token").unwrap_or_default();
    let (name, password) = credentials(form);
    let Some(user) = book.alive(presented).map(str::to_owned) else {
        desk.failure(name.unwrap_or_default());
        return unauthorized("The refresh token is invalid or expired."); // V5, V-E3, V-E4
    };
    let unchecked = book.allows(Lenient::PasswordUnchecked) || (name, password) == (None, None);
    let known = name.and_then(|name| book.users.get(name));
    if !unchecked && known.map(|user| user.password.as_str()) != password {
        desk.failure(name.unwrap_or_default());
        return unauthorized("The user name or password is incorrect.");
    }
    if !book.allows(Lenient::OldRefreshTokenLives) {
        book.kill(presented);
    }
    success(book, tokens, &Issue { user: &user, short_lived: false }) // V1
}

fn login(book: &mut Book, tokens: &Tokens, form: &Form, desk: &Desk) -> Reply {
    let documented: &[&str] = match book.spelling {
        Spelling::Capital => &["Username", "Password", "grant_type", "short_lived_refresh_token?"],
        Spelling::Lower => &["username", "password", "grant_type", "short_lived_refresh_token?"],
        Spelling::Both => &[
            "Username?",
            "Password?",
            "username?",
            "password?",
            "grant_type",
            "short_lived_refresh_token?",
        ],
    };
    if let Err(reply) = checked(book, form, documented, desk) {
        return reply;
    }
    let (Some(name), Some(password)) = credentials(form) else {
        return missing("Username");
    };
    let Some(user) = book.users.get(name).filter(|user| user.password == password) else {
        desk.failure(name);
        return unauthorized("The user name or password is incorrect."); // V6
    };
    if user.external {
        return redirected(); // V3
    }
    if user.mfa_code.is_some() {
        let mfa_token = mint::opaque(32);
        book.pending_mfa.insert(mfa_token.clone(), name.to_owned());
        return mfa_wanted(name, &mfa_token); // V2
    }
    book.logins += 1;
    let short_lived = form.value("short_lived_refresh_token") == Some("true"); // V-E9
    success(book, tokens, &Issue { user: name, short_lived })
}

/// V-E6: the second step.
fn mfa(book: &mut Book, tokens: &Tokens, form: &Form, desk: &Desk) -> Reply {
    if let Err(reply) = checked(book, form, &["grant_type", "mfa_token", "mfa_code"], desk) {
        return reply;
    }
    let mfa_token = form.value("mfa_token").unwrap_or_default();
    let Some(name) = book.pending_mfa.get(mfa_token).cloned() else {
        return unauthorized("The MFA token is invalid.");
    };
    let expected = book.users.get(&name).and_then(|user| user.mfa_code.as_deref());
    if expected != form.value("mfa_code") {
        desk.failure(&name);
        return unauthorized("The MFA code is incorrect.");
    }
    book.pending_mfa.remove(mfa_token);
    book.logins += 1;
    success(book, tokens, &Issue { user: &name, short_lived: false })
}

/// V-E10.
pub(super) fn logout(book: &mut Book, tokens: &Tokens, request: &Recorded, desk: &Desk) -> Reply {
    if desk.common_violations(request, &["x-api-version"]) {
        return bad_request("request", "The request is not valid.");
    }
    let token = match request.header("authorization") {
        None => return unauthorized("The request does not contain an access token."),
        Some(value) => match value.strip_prefix("Bearer ") {
            Some(token) => token.to_owned(),
            None => return bad_request("Authorization", "The scheme is not valid."),
        },
    };
    if tokens.verdict(&token) != Verdict::Live {
        return unauthorized("The access token is invalid.");
    }
    if book.logout_denied {
        return super::answers::forbidden();
    }
    tokens.revoke(&token);
    if !book.allows(Lenient::LogoutKeepsRefreshToken)
        && let Some(refresh_token) = book.siblings.remove(&token)
    {
        book.kill(&refresh_token);
    }
    Reply::status(204)
}

/// Compares with the documented parameters; only `Both` and MFA, of which no sample exists, leave
/// the order open.
fn checked(book: &Book, form: &Form, documented: &[&str], desk: &Desk) -> Result<(), Reply> {
    let ordered = book.spelling == Spelling::Capital && !documented.contains(&"mfa_code");
    form.check(documented, ordered).map_err(|fault| {
        desk.violation(format!("token request: {fault:?}"));
        match fault {
            FormFault::Missing(name) => missing(&name), // V4, V-E5
            FormFault::Repeated(name) | FormFault::Unknown(name) => {
                bad_request(&name, "The parameter is not valid.")
            }
            FormFault::Encoding | FormFault::Order => {
                bad_request("request", "The request is not valid.")
            }
        }
    })
}

fn missing(name: &str) -> Reply {
    bad_request(name, &format!("The {name} field is required."))
}

/// User name and password in whichever spelling.
fn credentials(form: &Form) -> (Option<&str>, Option<&str>) {
    let either = |a, b| form.value(a).or_else(|| form.value(b));
    (either("Username", "username"), either("Password", "password"))
}
