//! How a person signs in to one kind of identity provider, as data. What goes into the exchanges
//! beside the credential's own keys is named by [`MADE`].

use super::Exchange;
use crate::source::template::Template;

/// Placeholders that only a login fills.
pub const MADE: [&str; 6] =
    ["code", "redirect_uri", "code_verifier", "device_code", "mfa_token", "mfa_code"];

/// Parameters of the authorization request that the login itself makes, or that would undo it.
pub const RESERVED: [&str; 11] = [
    "code_challenge",
    "code_challenge_method",
    "redirect_uri",
    "response_type",
    "state",
    // The answer has to come in the query: nothing else reaches the port that waits for it.
    "response_mode",
    // RFC 9101 §6.3: what such an object says counts in place of all of these.
    "request",
    "request_uri",
    // RFC 6749 §2.3.1: clients prove who they are in the token request, never in a URL.
    "client_assertion",
    "client_assertion_type",
    "client_secret",
];

/// How a person signs in; the ways that are `None` do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// An issuer whose metadata names `authorization_url` and `device_authorization_url` where the
    /// credential does not.
    pub issuer: Option<Template>,
    /// With a browser on this machine.
    pub code: Option<CodeLogin>,
    /// With a browser anywhere.
    pub device: Option<DeviceLogin>,
    /// With a code that is typed in here.
    pub second_step: Option<SecondStep>,
}

/// Authorization code (RFC 6749 §4.1) with PKCE (RFC 7636).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLogin {
    /// The authorization endpoint.
    pub url: Template,
    /// Its parameters, beside those that the protocol makes.
    pub query: Vec<(String, Template)>,
    /// The code for a token; the first that applies.
    pub exchanges: Vec<Exchange>,
}

/// Device authorization grant (RFC 8628).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLogin {
    /// The device authorization request (§3.1); the first that applies.
    pub start: Vec<Exchange>,
    /// The device access token request (§3.4); the first that applies.
    pub exchanges: Vec<Exchange>,
}

/// A sign-in whose answer asks for another factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondStep {
    /// The sign-in; the first that applies.
    pub first: Vec<Exchange>,
    /// Where its answer has the `mfa_token` when a code is wanted.
    pub token: String,
    /// The code for a token; the first that applies.
    pub exchanges: Vec<Exchange>,
}

impl Login {
    /// Every exchange of every way.
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        let code = self.code.iter().flat_map(|code| &code.exchanges);
        let device = self.device.iter().flat_map(|way| way.start.iter().chain(&way.exchanges));
        let second = self.second_step.iter().flat_map(|way| way.first.iter().chain(&way.exchanges));
        code.chain(device).chain(second)
    }
}
