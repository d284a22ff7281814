//! Proofs of possession on what goes upstream (RFC 9449 §7), one for each sending.

use http::HeaderMap;

use crate::clock::Moment;
use crate::config::UpstreamConfig;
use crate::credential::Bound;
use crate::dpop::DPOP;
use crate::proxy::upstream::Outgoing;

/// Puts a proof for this sending in the place of a former one, or of the caller's.
pub(super) fn add(bound: &Bound, outgoing: &mut Outgoing, upstream: &UpstreamConfig) {
    let (method, path) = (&outgoing.method, outgoing.target.path());
    let (now, hash) = (Moment::now(), Some(bound.token_hash.as_str()));
    match bound.prover.proof(now, method, &origin(upstream), path, hash) {
        Some(proof) => drop(outgoing.headers.insert(DPOP, proof)),
        // Without one the upstream refuses the token, which is the truth.
        None => drop(outgoing.headers.remove(DPOP)),
    }
}

/// Keeps the nonce that an answer brings; true if it brings one. Another request may have brought the
/// same one before.
pub(super) fn remember(bound: &Bound, headers: &HeaderMap, upstream: &UpstreamConfig) -> bool {
    bound.prover.remember(&origin(upstream), headers)
}

/// Scheme and authority as the upstream knows itself by.
fn origin(upstream: &UpstreamConfig) -> String {
    let scheme = if upstream.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", upstream.authority)
}
