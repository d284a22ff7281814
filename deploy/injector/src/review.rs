//! An `AdmissionReview` and its answer: `admission.k8s.io/v1`, and `v1beta1`, which has the same
//! fields as far as they matter here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::decision::Decision;

const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// Why something is no review that could be answered.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// Not JSON, or not the fields.
    #[error("the body is not an AdmissionReview")]
    Malformed(#[from] serde_json::Error),
    /// Another kind, or a version that is not known.
    #[error("the body is not an AdmissionReview of admission.k8s.io/v1 or v1beta1")]
    Version,
    /// It is an answer.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// What is asked.
#[derive(Debug)]
pub struct Request {
    api_version: String,
    uid: String,
    kind: Kind,
    operation: String,
    sub_resource: String,
    /// Where the pod is to be; empty for what is in no namespace.
    pub namespace: String,
    /// The pod; null where there is none, as at a deletion.
    pub object: Value,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Kind {
    group: String,
    version: String,
    #[serde(rename = "kind")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReview {
    api_version: String,
    kind: String,
    request: Option<RawRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    uid: String,
    kind: Kind,
    operation: String,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
}

impl Request {
    /// Reads a review.
    ///
    /// # Errors
    /// [`ReviewError`].
    pub fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let review: RawReview = serde_json::from_slice(body)?;
        if review.kind != "AdmissionReview" || !VERSIONS.contains(&review.api_version.as_str()) {
            return Err(ReviewError::Version);
        }
        let request = review.request.ok_or(ReviewError::NoRequest)?;
        Ok(Self {
            api_version: review.api_version,
            uid: request.uid,
            kind: request.kind,
            operation: request.operation,
            sub_resource: request.sub_resource,
            namespace: request.namespace,
            object: request.object,
        })
    }

    /// A pod is created, as opposed to changed, deleted, bound or entered.
    #[must_use]
    pub fn creates_pod(&self) -> bool {
        let pod = Kind { group: String::new(), version: "v1".into(), name: "Pod".into() };
        self.kind == pod
            && self.operation == "CREATE"
            && self.sub_resource.is_empty()
            && self.object["spec"].is_object()
            && self.object["metadata"].is_object()
    }

    /// What is answered, in the version that was asked in.
    #[must_use]
    pub fn answer(&self, decision: &Decision) -> Value {
        let mut response = json!({
            "uid": self.uid,
            "allowed": !matches!(decision, Decision::Refused(_)),
        });
        match decision {
            Decision::Unchanged => {}
            Decision::Injected { patch, warnings } => {
                let patch = Value::from(patch.clone()).to_string();
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(patch));
                if !warnings.is_empty() {
                    response["warnings"] = json!(warnings);
                }
            }
            Decision::Refused(why) => {
                response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": why });
            }
        }
        json!({ "apiVersion": self.api_version, "kind": "AdmissionReview", "response": response })
    }
}
