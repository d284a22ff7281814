//! A person signs in once, for a credential's first refresh token: with a browser on this machine
//! (authorization code with PKCE), with one anywhere (device authorization grant), or with a code that
//! is typed in here.
//!
//! What comes is handed to whoever keeps it before the person is told that all is well. Which requests
//! are sent is the dialect's business, and where the token is kept is the caller's.

use std::io;

use thiserror::Error;

use crate::config::LoginConfig;
use crate::source::dialect::login::{CodeLogin, DeviceLogin, SecondStep};
use crate::source::speaker::login::SignIn;
use crate::source::{FetchError, Fetched};
use crate::store::{Handover, StoreError};

pub mod browser;
mod code;
mod device;
mod loopback;
mod page;
mod pkce;
mod second_step;
mod terminal;

/// A way that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Authorization code with PKCE, on this machine.
    Code,
    /// Device authorization grant.
    Device,
}

/// How one login is to be done.
pub struct Terms<'a> {
    /// The credential, for the person.
    pub name: &'a str,
    /// What is configured for logins.
    pub config: &'a LoginConfig,
    /// The way that was asked for.
    pub way: Option<Way>,
    /// A browser may be opened.
    pub browser: bool,
    /// Where what comes is to be kept.
    pub handover: &'a Handover,
}

/// Why a login brought nothing.
#[derive(Debug, Error)]
pub enum LoginError {
    /// Nothing says where a person could sign in.
    #[error("the identity provider offers no {way} that bearerd knows of; {instead}")]
    NotOffered {
        /// What is missing.
        way: &'static str,
        /// What to write, or to leave out.
        instead: String,
    },
    /// What the metadata says is no address that could be shown.
    #[error(
        "the address to sign in at is none that a terminal could show as it is; check \
         authorization_url, or the issuer's metadata"
    )]
    Unshowable,
    /// PKCE would be sent in the clear.
    #[error("the identity provider knows PKCE without S256 only, which protects nothing")]
    OnlyPlain,
    /// No browser could come back.
    #[error("cannot listen on {0} for the browser to come back")]
    Listen(String, #[source] io::Error),
    /// What the person or the identity provider answered, from a closed set.
    #[error("the sign-in was refused: {0}")]
    Refused(&'static str),
    /// RFC 9207 §2.4.
    #[error(
        "the browser came back from another issuer than it was sent to; the code was not used. \
         Start again, and if it happens again, somebody interferes"
    )]
    MixedUp,
    /// The person took too long.
    #[error("nobody signed in in time; start again")]
    TooLate,
    /// RFC 8628 §3.2 has required fields.
    #[error("the answer to the device authorization request is not in the form of RFC 8628")]
    Malformed,
    /// Nobody can be asked for a code.
    #[error("no code was given: write it on the terminal, or as a line on standard input")]
    NoCode(#[source] Option<io::Error>),
    /// The system gives no random bits.
    #[error("no random bits are to be had")]
    Random,
    /// The whole point.
    #[error(
        "the sign-in worked, but no refresh token came: ask for one with scope = [\"offline_access\", …], \
         authorization_params = {{ prompt = \"consent\" }} or {{ access_type = \"offline\" }}, as the \
         identity provider wants it"
    )]
    NoRefreshToken,
    /// It came, and is lost.
    #[error("the refresh token that came could not be stored; sign in again")]
    Store(#[source] StoreError),
    /// As the source classifies it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Has a person sign in, and keeps what that brings.
///
/// # Errors
/// [`LoginError`]; what was kept before is as it was.
pub async fn sign_in(sign_in: &SignIn, terms: &Terms<'_>) -> Result<(), LoginError> {
    match choose(sign_in, terms)? {
        Chosen::Code(way) => code::sign_in(sign_in, way, terms).await,
        Chosen::Device(way) => device::sign_in(sign_in, way, terms).await,
        Chosen::SecondStep(way) => second_step::sign_in(sign_in, way, terms).await,
    }
}

enum Chosen<'s> {
    Code(&'s CodeLogin),
    Device(&'s DeviceLogin),
    SecondStep(&'s SecondStep),
}

/// The way that was asked for. Else the code flow where a browser can be opened, since nobody can be
/// talked into entering somebody else's code there (RFC 8628 §5.4); where none can, the device flow.
fn choose<'s>(sign_in: &'s SignIn, terms: &Terms<'_>) -> Result<Chosen<'s>, LoginError> {
    let login = sign_in.login();
    let code = match &login.code {
        Some(code) if sign_in.url(&code.url)?.is_some() => Some(Chosen::Code(code)),
        _ => None,
    };
    let device = match &login.device {
        Some(device) if sign_in.offers(&device.start)? => Some(Chosen::Device(device)),
        _ => None,
    };
    let second_step = match &login.second_step {
        Some(second) if sign_in.offers(&second.first)? => Some(Chosen::SecondStep(second)),
        _ => None,
    };
    match terms.way {
        Some(Way::Code) => code.ok_or_else(|| not_offered(sign_in, Way::Code)),
        Some(Way::Device) => device.ok_or_else(|| not_offered(sign_in, Way::Device)),
        None => {
            let first = if terms.browser && browser::can_be_opened() {
                code.or(device)
            } else {
                device.or(code)
            };
            first.or(second_step).ok_or_else(|| nowhere(sign_in))
        }
    }
}

/// Nothing says where a person signs in that way; what can be done about it depends on whether the
/// credential has a key for it.
fn not_offered(sign_in: &SignIn, way: Way) -> LoginError {
    let (what, key, flag) = match way {
        Way::Code => ("authorization endpoint", "authorization_url", "--code"),
        Way::Device => ("device flow", "device_authorization_url", "--device"),
    };
    let instead = if sign_in.is_plain() {
        format!("write {key}, or issuer if its metadata names it")
    } else if sign_in.has_key(key) {
        format!("write {key}")
    } else {
        format!("leave {flag} out")
    };
    LoginError::NotOffered { way: what, instead }
}

fn nowhere(sign_in: &SignIn) -> LoginError {
    let key =
        ["authorization_url", "device_authorization_url"].iter().find(|key| sign_in.has_key(key));
    let instead = match key {
        _ if sign_in.is_plain() => {
            "write authorization_url or device_authorization_url, or issuer if its metadata names one"
                .to_owned()
        }
        Some(key) => format!("write {key}"),
        None => "check what the [login] of its dialect needs".to_owned(),
    };
    LoginError::NotOffered { way: "login", instead }
}

/// Keeps what came, if it is what a login is for.
async fn keep(fetched: &Fetched, terms: &Terms<'_>) -> Result<(), LoginError> {
    if fetched.refresh_token.is_none() {
        return Err(LoginError::NoRefreshToken);
    }
    terms.handover.leave(fetched).await.map_err(LoginError::Store)
}
