//! `bearerd-injector check`: asks a running injector what an API server asks, and trusts whom that
//! trusts. `helm test` runs it in the cluster; no pod is created.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::Full;
use serde_json::{Value, json};
use thiserror::Error;

use crate::call::{CallError, Server};
use crate::pod;
use crate::settings::{LABEL, Mode};
use crate::webhook;

/// A namespace that nobody excludes.
const NAMESPACE: &str = "bearerd-injector-check";
const UID: &str = "bearerd-injector-check";

/// Why a pod that asks for a sidecar would get none.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Nobody answers, or not as whom the API server would trust.
    #[error("the injector cannot be asked")]
    Call(#[from] CallError),
    /// The answer is no answer to the review.
    #[error("what answers is no injector")]
    Answer,
    /// It allows the pod as it is, or does not allow it.
    #[error("a pod with the label {LABEL}: \"true\" would get no sidecar")]
    NoSidecar,
}

/// The form of the sidecar that a pod would get from `injector`.
///
/// # Errors
/// [`CheckError`].
pub async fn ask(injector: &Server) -> Result<Mode, CheckError> {
    let mut request = Request::new(Full::new(Bytes::from(review().to_string())));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(webhook::PATH);
    let kind = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, kind);
    let answer = injector.call(request).await?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|_| CheckError::Answer)?;
    let response = &answer["response"];
    if response["uid"] != UID {
        return Err(CheckError::Answer);
    }
    let Some(patch) = response["patch"].as_str() else { return Err(CheckError::NoSidecar) };
    let patch = STANDARD.decode(patch).map_err(|_| CheckError::Answer)?;
    let patch: Vec<Value> = serde_json::from_slice(&patch).map_err(|_| CheckError::Answer)?;
    sidecar_in(&patch).ok_or(CheckError::NoSidecar)
}

/// Each operation puts a member of `spec` in place as a whole; see [`pod::patch`].
fn sidecar_in(patch: &[Value]) -> Option<Mode> {
    let mut spec = json!({});
    for operation in patch {
        let name = operation["path"].as_str().and_then(|path| path.strip_prefix("/spec/"));
        if let Some(name) = name {
            spec[name] = operation["value"].clone();
        }
    }
    pod::sidecar_in(&json!({ "spec": spec }))
}

fn review() -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": UID,
        "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "namespace": NAMESPACE,
        "operation": "CREATE",
        "dryRun": true,
        "object": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "check", "labels": { LABEL: "true" } },
            "spec": { "containers": [{ "name": "application", "image": "none" }] },
        },
    }})
}
