//! Identity providers, a protected API and a bad network, for bearerd's tests, benches and demo.
//!
//! Everything listens on 127.0.0.1 at a port that the system chooses, runs on the runtime that
//! starts it, and ends when it is dropped. Providers judge raw bytes as strictly as the documents
//! say; what the documents leave open is a switch. Rows (`S5`, `V-E3`, `Q18`) are those of the
//! provider specification.
//!
//! | what | where |
//! | --- | --- |
//! | any RFC 6749 provider, every quirk | [`Oauth2`] |
//! | the vendors | [`Servicemax`], [`Csp`], [`Veeam`], [`Tencent`] |
//! | what all providers share: script, outages, records | [`Front`] |
//! | a cluster's API server | [`Kubernetes`] |
//! | the protected upstream | [`Api`] |
//! | the tokens that are out, shared by all | [`Tokens`] |
//! | the network | [`FaultProxy`] |
//! | one request's fate, one answer | [`Step`], [`Reply`] |
//! | sending bytes by hand | [`client`] |
//!
//! # By example
//!
//! ```
//! use std::time::Duration;
//! use emulator::{Api, Oauth2, Step, Tls, Tokens, client};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//!
//! let tokens = Tokens::new();
//! let idp = Oauth2::start(Tls::Off, &tokens); // knows client:secret and user:password
//! let api = Api::start(Tls::Off, &tokens);
//! idp.set_lifetime(Duration::from_secs(10));
//!
//! // The next two token requests fail, each in its own way; after them all is normal.
//! idp.script([Step::Status(503).retry_after("7"), Step::LostAnswer]);
//! // Fields of a normal answer can be changed, taken out, or the answer replaced:
//! idp.script([Step::With(serde_json::json!({ "expires_in": "3600" }))]);
//!
//! # let to = idp.server().address();
//! # let grant = ("grant_type", "client_credentials");
//! # let form = [grant, ("client_id", "client"), ("client_secret", "secret")];
//! # assert_eq!(client::post_form(to, "/token", &[], &form).await.unwrap().status, 503);
//! # assert!(client::post_form(to, "/token", &[], &form).await.is_err());
//! # let answer = client::post_form(to, "/token", &[], &form).await.unwrap();
//! # assert_eq!(answer.json()["expires_in"], "3600");
//! idp.wait_for_token_requests(3, Duration::from_secs(5)).await.expect("three attempts");
//!
//! let token = tokens.latest().expect("one was issued");
//! tokens.revoke(&token); // the API now answers 401
//! # let bearer = format!("Bearer {token}");
//! # let mut caller = client::Client::connect(api.server().address()).await.unwrap();
//! # let fields = [("Authorization", bearer.as_str())];
//! # assert_eq!(caller.request("GET", "/", &fields, b"").await.unwrap().status, 401);
//! assert_eq!(api.tally(&token).unauthorized, 1);
//! assert!(idp.violations().is_empty() && api.violations().is_empty());
//! # });
//! ```
//!
//! TLS: `Tls::self_signed()`, then `idp.server().certificate()` has `pem()` for `tls.ca_file` and
//! `pin_sha256()` for `tls.pin_sha256`. Streams: `api.serve("/events", Reply::events(&source))`,
//! then `source.send("data: 1\n\n")`. Outages: `idp.set_down(true)` closes every connection,
//! `idp.set_always(Some(Step::Status(503)))` answers whatever the script leaves over, and
//! [`FaultProxy::refuse`] refuses to connect. Mutual TLS: `Tls::mutual()`.
//!
//! Not here: HTTP/2, unix sockets, verifiable signatures.

pub mod api;
pub mod client;
pub mod csp;
mod fault;
mod form;
mod front;
pub mod http;
pub mod kubernetes;
mod log;
pub mod mint;
pub mod oauth2;
pub mod servicemax;
mod step;
mod style;
pub mod tencent;
mod tokens;
pub mod veeam;

#[cfg(test)]
mod tests;

pub use api::{Api, Challenge};
pub use csp::Csp;
pub use fault::FaultProxy;
pub use form::{Form, Pair};
pub use front::Front;
pub use http::{EventSource, Fault, Recorded, Reply, Tls};
pub use kubernetes::Kubernetes;
pub use oauth2::Oauth2;
pub use servicemax::Servicemax;
pub use step::Step;
pub use style::http_date;
pub use tencent::Tencent;
pub use tokens::{Tokens, Verdict};
pub use veeam::Veeam;

/// A lock that a panicking test does not take down with it.
fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
