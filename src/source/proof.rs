//! Proofs of possession on token requests (RFC 9449 §5), and tokens that come back bound.

use std::sync::Arc;

use super::answer::Answer;
use super::exchange::TokenRequest;
use super::json::Document;
use super::signing::SigningKey;
use super::{Class, FetchError, Fetched, Reason};
use crate::clock::Moment;
use crate::dpop::{DPOP, Prover, ProverError};
use crate::secret::Secret;

/// Proves with `key`, or with one made now.
///
/// # Errors
/// Terminal: it takes another key to mend it.
pub(super) fn prover(key: Option<&Secret>) -> Result<Prover, FetchError> {
    let Some(key) = key else {
        return Prover::generate().map_err(unfit);
    };
    let key = SigningKey::parse(key.expose()).map_err(|_| unfit(ProverError::Key))?;
    let prover = key.p256().ok_or(ProverError::Key).and_then(Prover::from_pkcs8);
    prover.map_err(unfit)
}

/// Puts a proof into `request`, and gives the origin that its server's nonces are known by.
///
/// # Errors
/// The key does not sign.
pub(super) fn add(
    prover: &Prover,
    request: &mut TokenRequest,
    now: Moment,
) -> Result<String, FetchError> {
    let uri = &request.uri;
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let origin = format!("{scheme}://{authority}");
    let proof = prover.proof(now, &request.method, &origin, uri.path(), None);
    request.headers.insert(DPOP, proof.ok_or_else(|| unfit(ProverError::Key))?);
    Ok(origin)
}

/// RFC 9449 §8.
pub(super) fn wants_nonce(answer: &Answer) -> bool {
    let document = Document::parse(&answer.body);
    document.is_some_and(|document| document.text("/error") == Some("use_dpop_nonce"))
}

/// Binds the token if its type says that it is bound (RFC 9449 §5).
pub(super) fn bind(fetched: Fetched, answer: &Answer, prover: Option<&Arc<Prover>>) -> Fetched {
    let document = Document::parse(&answer.body);
    let kind = document.as_ref().and_then(|document| document.text("/token_type"));
    match prover {
        Some(prover) if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("DPoP")) => {
            Fetched { token: fetched.token.bound_to(Arc::clone(prover)), ..fetched }
        }
        _ => fetched,
    }
}

fn unfit(error: ProverError) -> FetchError {
    let mut failure = FetchError::new(Class::Terminal, Reason::Input);
    failure.hint = Some(format!("dpop_key {error}"));
    failure
}
