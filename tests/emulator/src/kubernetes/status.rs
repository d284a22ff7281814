//! `kind: Status`, as the API server words its refusals (apimachinery, `pkg/api/errors`).

use serde_json::{Value, json};

use super::resource::{Call, Resource};
use crate::http::Reply;

/// What other writers are told who were late.
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A refusal: a `Status` object.
#[derive(Clone, Debug)]
pub(super) struct Status(pub(super) Value);

impl Status {
    fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "reason": reason, "code": code,
        }))
    }

    /// Says which object it is about; the field `kind` holds the resource.
    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = json!({ "kind": resource.plural });
        for (field, value) in [("name", name), ("group", resource.group)] {
            if !value.is_empty() {
                details[field] = value.into();
            }
        }
        self.0["details"] = details;
        self
    }

    pub(super) fn reply(self) -> Reply {
        let code = self.0["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        Reply::json(code.unwrap_or(500), self.0).header("Cache-Control", "no-cache, private")
    }
}

pub(super) fn unauthorized() -> Status {
    Status::new(401, "Unauthorized", "Unauthorized")
}

pub(super) fn forbidden(call: &Call, user: &str) -> Status {
    let (resource, name) = (call.resource, call.name.as_deref().unwrap_or_default());
    let plural = match &call.subresource {
        Some(subresource) => format!("{}/{subresource}", resource.plural),
        None => resource.plural.to_owned(),
    };
    let place = match call.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let object = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    let message = format!(
        "{}{object} is forbidden: User {user:?} cannot {} resource {plural:?} in API group {:?} \
         {place}",
        resource.qualified(),
        call.verb.as_str(),
        resource.group,
    );
    Status::new(403, "Forbidden", message).about(resource, name)
}

pub(super) fn not_found(resource: &Resource, name: &str) -> Status {
    let message = format!("{} {name:?} not found", resource.qualified());
    Status::new(404, "NotFound", message).about(resource, name)
}

pub(super) fn already_exists(resource: &Resource, name: &str) -> Status {
    let message = format!("{} {name:?} already exists", resource.qualified());
    Status::new(409, "AlreadyExists", message).about(resource, name)
}

/// Somebody else wrote in between.
pub(super) fn modified(resource: &Resource, name: &str) -> Status {
    conflict(resource, name, MODIFIED)
}

/// The object of that name is another one than the writer means.
pub(super) fn other_uid(resource: &Resource, name: &str, wanted: &str, is: &str) -> Status {
    let why =
        format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {is}");
    conflict(resource, name, &why)
}

fn conflict(resource: &Resource, name: &str, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.plural);
    Status::new(409, "Conflict", message).about(resource, name)
}

pub(super) fn bad_request(message: impl Into<String>) -> Status {
    Status::new(400, "BadRequest", message)
}

/// A real one takes three times as much as is kept of a request here.
pub(super) fn too_large() -> Status {
    let message = "Request entity too large: limit is 3145728";
    Status::new(413, "RequestEntityTooLarge", message)
}

pub(super) fn unsupported_media_type() -> Status {
    let message = "the body of the request was in an unknown format - accepted media types \
                   include: application/json, application/yaml, \
                   application/vnd.kubernetes.protobuf";
    Status::new(415, "UnsupportedMediaType", message)
}

/// `kind` here is the kind, not the resource, other than everywhere else.
pub(super) fn invalid(resource: &Resource, name: &str, field: &str, why: &str) -> Status {
    let message = format!("{} {name:?} is invalid: {field}: {why}", resource.kind);
    let mut status = Status::new(422, "Invalid", message).about(resource, name);
    status.0["details"]["kind"] = resource.kind.into();
    let reason = match why.split(':').next().unwrap_or_default() {
        "Forbidden" => "FieldValueForbidden",
        "Required value" => "FieldValueRequired",
        "Too long" => "FieldValueTooLong",
        _ => "FieldValueInvalid",
    };
    status.0["details"]["causes"] = json!([{ "reason": reason, "message": why, "field": field }]);
    status
}

/// The history does not go back so far.
pub(super) fn expired(from: u64, oldest: u64) -> Status {
    Status::new(410, "Expired", format!("too old resource version: {from} ({oldest})"))
}

pub(super) fn internal(why: &str) -> Status {
    let mut status = Status::new(500, "InternalError", format!("Internal error occurred: {why}"));
    status.0["details"] = json!({ "causes": [{ "message": why }] });
    status
}

/// What a webhook said no with (apiserver, `webhook/errors`).
pub(super) fn denied(webhook: &str, result: &Value) -> Status {
    let said = |field: &str| result[field].as_str().filter(|text| !text.is_empty());
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match said("message").or(said("reason")) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    };
    let code = result["code"].as_u64().filter(|code| *code >= 400).unwrap_or(400);
    let code = u16::try_from(code).unwrap_or(400);
    Status::new(code, said("reason").unwrap_or_default(), message)
}

/// Too many requests are under way; a plain text, as the API server's own limits say it.
pub fn too_many_requests(retry_after: &str) -> Reply {
    let text = "Too many requests, please try again later.\n";
    Reply::bytes(429, "text/plain; charset=utf-8", text).retry_after(retry_after)
}

/// The request took too long: it may have been carried out or not.
pub fn timeout() -> Reply {
    let message = "Timeout: request did not complete within requested timeout - context deadline \
                   exceeded";
    let mut status = Status::new(504, "Timeout", message);
    status.0["details"] = json!({});
    status.reply()
}

/// etcd did not answer in time: the write may have been made or not.
pub fn etcd_timeout() -> Reply {
    let mut status = Status::new(500, "", "etcdserver: request timed out");
    status.0.as_object_mut().map(|fields| fields.remove("reason"));
    status.reply()
}
