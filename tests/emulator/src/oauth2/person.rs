//! Where a person signs in: the authorization endpoint with PKCE (RFC 6749 §4.1, RFC 7636), the device
//! authorization endpoint (RFC 8628), and the metadata that names them (RFC 8414). What the person
//! does is a switch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::grant::{Refusal, authenticated};
use super::{AUTHORIZE_PATH, Book, DEVICE_PATH, TOKEN_PATH};
use crate::form::Form;
use crate::front::Desk;
use crate::http::{Recorded, Reply};
use crate::mint;
use crate::step::merge;

/// What the person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To let the client in.
    Approves,
    /// Not to.
    Denies,
}

/// Requests that came from a login, and how the person takes them.
#[derive(Debug)]
pub(super) struct People {
    /// At the authorization endpoint, where the person answers at once.
    pub(super) decision: Decision,
    /// The `iss` of authorization responses; `None` is the server's own, empty is none.
    pub(super) iss: Option<String>,
    /// Fields that replace or join those of the metadata.
    pub(super) metadata: Value,
    /// Fields that replace or join those of the answer to a device authorization request.
    pub(super) device_answer: Value,
    codes: HashMap<String, Asked>,
    devices: HashMap<String, Device>,
}

impl Default for People {
    fn default() -> Self {
        let (codes, devices) = (HashMap::new(), HashMap::new());
        let (metadata, device_answer) = (json!({}), json!({}));
        Self { decision: Decision::Approves, iss: None, metadata, device_answer, codes, devices }
    }
}

/// What an authorization code was given for.
#[derive(Debug)]
struct Asked {
    client: String,
    redirect_uri: String,
    challenge: String,
}

#[derive(Debug)]
struct Device {
    client: String,
    user_code: String,
    decision: Option<Decision>,
    interval: Duration,
    polled_at: Instant,
    until: Instant,
}

impl People {
    /// The person enters a code on the page for devices; false if there is no such code.
    pub(super) fn decide(&mut self, user_code: &str, decision: Decision) -> bool {
        let found = self.devices.values_mut().find(|device| device.user_code == user_code);
        found.map(|device| device.decision = Some(decision)).is_some()
    }

    /// From now on so much slower (§3.5).
    pub(super) fn slow_down(&mut self) {
        self.devices.values_mut().for_each(|device| device.interval += Duration::from_secs(5));
    }

    pub(super) fn expire_codes(&mut self) {
        self.devices.values_mut().for_each(|device| device.until = Instant::now());
    }
}

fn own_url(request: &Recorded) -> String {
    format!("http://{}", request.header("host").unwrap_or_default())
}

pub(super) fn metadata(book: &Book, request: &Recorded) -> Reply {
    let url = own_url(request);
    let mut metadata = json!({
        "issuer": url,
        "token_endpoint": format!("{url}{TOKEN_PATH}"),
        "authorization_endpoint": format!("{url}{AUTHORIZE_PATH}"),
        "device_authorization_endpoint": format!("{url}{DEVICE_PATH}"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    merge(&mut metadata, book.people.metadata.clone());
    Reply::json(200, metadata)
}

/// The person's browser comes (RFC 6749 §4.1.1) and is sent back at once (§4.1.2).
pub(super) fn authorize(book: &mut Book, request: &Recorded, desk: &Desk) -> Reply {
    let query = Form::parse(request.query().unwrap_or_default().as_bytes());
    let text = |name: &str| query.value(name).unwrap_or_default().to_owned();
    let (client, redirect_uri) = (text("client_id"), text("redirect_uri"));
    let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"]
        .map(|l| redirect_uri.starts_with(l));
    if query.repeated().is_some() || !book.clients.knows(&client) || !loopback.contains(&true) {
        desk.violation(format!("authorization request: {:?}", request.target));
        return Reply::status(400);
    }
    let challenge = text("code_challenge");
    if text("response_type") != "code"
        || text("state").len() < 32
        || challenge.len() != 43
        || text("code_challenge_method") != "S256"
    {
        desk.violation(format!("authorization request: {:?}", request.target));
        return Reply::status(400);
    }
    let mut answer = form_urlencoded::Serializer::new(String::new());
    match book.people.decision {
        Decision::Approves => {
            let code = mint::opaque(24);
            answer.append_pair("code", &code);
            let redirect_uri = redirect_uri.clone();
            book.people.codes.insert(code, Asked { client, redirect_uri, challenge });
        }
        Decision::Denies => {
            answer.append_pair("error", "access_denied");
        }
    }
    answer.append_pair("state", &text("state"));
    match &book.people.iss {
        None => drop(answer.append_pair("iss", &own_url(request))),
        Some(iss) if !iss.is_empty() => drop(answer.append_pair("iss", iss)),
        Some(_) => {}
    }
    Reply::status(302).header("Location", format!("{redirect_uri}?{}", answer.finish()))
}

/// RFC 8628 §3.1, §3.2.
pub(super) fn device(book: &mut Book, request: &Recorded, desk: &Desk) -> Result<Reply, Refusal> {
    let (_, client) = authenticated(book, request, desk)?;
    let url = own_url(request);
    let user_code = mint::uuid()[..8].to_ascii_uppercase();
    let device_code = mint::opaque(32);
    let page = format!("{url}/device");
    let mut answer = json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "expires_in": 600,
        "interval": 1,
    });
    merge(&mut answer, book.people.device_answer.clone());
    let seconds = |name: &str, usual| Duration::from_secs(answer[name].as_u64().unwrap_or(usual));
    let device = Device {
        client,
        user_code,
        decision: None,
        interval: seconds("interval", 5),
        polled_at: Instant::now(),
        until: Instant::now() + seconds("expires_in", 600),
    };
    book.people.devices.insert(device_code, device);
    Ok(Reply::json(200, answer).header("Cache-Control", "no-store"))
}

/// Whether a code may be exchanged (RFC 6749 §4.1.3, RFC 7636 §4.6); it is good once.
pub(super) fn exchange(book: &mut Book, form: &Form, client: &str) -> Result<(), Refusal> {
    let value = |name: &str| form.value(name).ok_or(Refusal::InvalidRequest);
    let asked = book.people.codes.remove(value("code")?).ok_or(Refusal::InvalidGrant)?;
    let digest = digest(&SHA256, value("code_verifier")?.as_bytes());
    let proven = BASE64_URL_SAFE_NO_PAD.encode(digest) == asked.challenge;
    let same = asked.client == client && asked.redirect_uri == value("redirect_uri")?;
    if proven && same { Ok(()) } else { Err(Refusal::InvalidGrant) }
}

/// Whether a device may have its token by now (RFC 8628 §3.4, §3.5).
pub(super) fn poll(book: &mut Book, form: &Form, client: &str, desk: &Desk) -> Result<(), Refusal> {
    let code = form.value("device_code").ok_or(Refusal::InvalidRequest)?;
    let device = book.people.devices.get_mut(code).ok_or(Refusal::InvalidGrant)?;
    if device.client != client {
        return Err(Refusal::InvalidGrant);
    }
    // A client's timer and this clock may differ by a little.
    let too_soon = device.polled_at.elapsed() + Duration::from_millis(50) < device.interval;
    device.polled_at = Instant::now();
    if too_soon {
        desk.violation("a device was polled for sooner than the interval");
        device.interval += Duration::from_secs(5);
        return Err(Refusal::SlowDown);
    }
    if device.until <= Instant::now() {
        return Err(Refusal::ExpiredToken);
    }
    match device.decision {
        None => Err(Refusal::AuthorizationPending),
        Some(Decision::Denies) => Err(Refusal::AccessDenied),
        Some(Decision::Approves) => {
            book.people.devices.remove(code);
            Ok(())
        }
    }
}
