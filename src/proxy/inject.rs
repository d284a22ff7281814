//! Sets the injected header: exactly one value leaves, whatever the caller sent.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::reject::Reason;
use crate::config::ClientAuthorization;

/// Whether the caller brought a copy of the injected header, and what the route makes of it.
///
/// Returns true if the caller's own is to be sent and nothing injected.
///
/// # Errors
/// The route rejects such requests.
pub fn caller_keeps_own(
    headers: &HeaderMap,
    injected: &HeaderName,
    policy: ClientAuthorization,
) -> Result<bool, Reason> {
    match policy {
        ClientAuthorization::Reject if headers.contains_key(injected) => {
            Err(Reason::ClientAuthorization)
        }
        ClientAuthorization::Replace | ClientAuthorization::Reject => Ok(false),
        ClientAuthorization::Keep => Ok(headers.contains_key(injected)),
    }
}

/// Sets `name` to `value`, which is marked sensitive; a former value is replaced.
pub fn inject(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    headers.insert(name.clone(), value);
}
