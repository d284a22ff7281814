//! What the API server makes of an object before it is stored: what it fills in, what it refuses, and
//! what an update may not change.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::resource::Resource;
use super::status::{self, Status};
use crate::mint;
use crate::style::rfc3339;

/// The values of a Secret together (core/v1, `MaxSecretSize`).
const MAX_SECRET_BYTES: usize = 1 << 20;

/// Who writes, for `managedFields`.
pub(super) struct Writer<'a> {
    pub(super) user_agent: &'a str,
}

/// A new object as it is stored.
pub(super) fn new(
    resource: &Resource,
    namespace: &str,
    mut object: Value,
    writer: &Writer<'_>,
) -> Result<Value, Status> {
    let prefix = text(&object, "generateName");
    if text(&object, "name").is_empty() && !prefix.is_empty() {
        object["metadata"]["name"] = format!("{prefix}{}", &mint::uuid()[..5]).into();
    }
    let name = text(&object, "name").to_owned();
    if name.is_empty() {
        let why = "Required value: name or generateName is required";
        return Err(status::invalid(resource, "", "metadata.name", why));
    }
    check_type(resource, &object)?;
    check_namespace(namespace, &object)?;
    if !text(&object, "resourceVersion").is_empty() {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(status::bad_request(why));
    }
    fill_in(resource, &name, &mut object)?;
    let now = rfc3339(SystemTime::now(), 0);
    let metadata = &mut object["metadata"];
    if resource.namespaced {
        metadata["namespace"] = namespace.into();
    }
    metadata["uid"] = mint::uuid().into();
    metadata["creationTimestamp"] = now.as_str().into();
    let managed = managed_fields(resource, &object, writer, &now);
    object["metadata"]["managedFields"] = managed;
    if resource.kind == "Namespace" {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    }
    Ok(object)
}

/// What becomes of `existing` by a PUT of `object`; `None` if that changes nothing, in which case
/// nothing is written and the resource version stays.
pub(super) fn update(
    resource: &Resource,
    existing: &Value,
    mut object: Value,
    writer: &Writer<'_>,
) -> Result<Option<Value>, Status> {
    let name = text(existing, "name").to_owned();
    check_type(resource, &object)?;
    if text(&object, "name") != name {
        let why = format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            text(&object, "name")
        );
        return Err(status::bad_request(why));
    }
    check_namespace(text(existing, "namespace"), &object)?;
    let (uid, is) = (text(&object, "uid"), text(existing, "uid"));
    if !uid.is_empty() && uid != is {
        return Err(status::other_uid(resource, &name, uid, is));
    }
    let version = text(&object, "resourceVersion");
    if !version.is_empty() && version != text(existing, "resourceVersion") {
        return Err(status::modified(resource, &name));
    }
    fill_in(resource, &name, &mut object)?;
    for field in ["namespace", "uid", "creationTimestamp", "resourceVersion"] {
        if let Some(value) = existing["metadata"].get(field) {
            object["metadata"][field] = value.clone();
        }
    }
    unchangeable(resource, &name, existing, &object)?;
    let (before, after) = (unmanaged(existing), unmanaged(&object));
    if before == after {
        return Ok(None);
    }
    let now = rfc3339(SystemTime::now(), 0);
    object["metadata"]["managedFields"] = managed_fields(resource, &object, writer, &now);
    Ok(Some(object))
}

fn unchangeable(
    resource: &Resource,
    name: &str,
    existing: &Value,
    object: &Value,
) -> Result<(), Status> {
    if resource.kind != "Secret" {
        return Ok(());
    }
    if object["type"] != existing["type"] {
        let why = format!("Invalid value: {}: field is immutable", object["type"]);
        return Err(status::invalid(resource, name, "type", &why));
    }
    if existing["immutable"] == true {
        let why = "Forbidden: field is immutable when `immutable` is set";
        for field in ["immutable", "data"] {
            if object.get(field) != existing.get(field) {
                return Err(status::invalid(resource, name, field, why));
            }
        }
    }
    Ok(())
}

/// Defaults, and the write-only field of a Secret.
fn fill_in(resource: &Resource, name: &str, object: &mut Value) -> Result<(), Status> {
    object["kind"] = resource.kind.into();
    object["apiVersion"] = resource.api_version().into();
    match resource.kind {
        "Secret" => secret(resource, name, object),
        "Pod" if object["spec"]["containers"].as_array().is_none_or(Vec::is_empty) => {
            Err(status::invalid(resource, name, "spec.containers", "Required value"))
        }
        _ => Ok(()),
    }
}

fn secret(resource: &Resource, name: &str, object: &mut Value) -> Result<(), Status> {
    if object["type"].as_str().is_none_or(str::is_empty) {
        object["type"] = "Opaque".into();
    }
    let plain = object.as_object_mut().and_then(|object| object.remove("stringData"));
    let Some(data) = object["data"].as_object_mut() else {
        if object["data"].is_null() {
            object.as_object_mut().map(|object| object.remove("data"));
        }
        return match plain {
            Some(plain) => {
                object["data"] = json!({});
                object["stringData"] = plain;
                secret(resource, name, object)
            }
            None => Ok(()),
        };
    };
    for (key, value) in plain.iter().filter_map(Value::as_object).flatten() {
        let value = value.as_str().unwrap_or_default();
        data.insert(key.clone(), BASE64_STANDARD.encode(value).into());
    }
    let mut total = 0;
    for (key, value) in data {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || key.len() > 253 || !key.chars().all(valid) {
            let why = format!(
                "Invalid value: {key:?}: a valid config key must consist of \
                alphanumeric characters, '-', '_' or '.'"
            );
            return Err(status::invalid(resource, name, &format!("data[{key}]"), &why));
        }
        let decoded = value.as_str().and_then(|value| BASE64_STANDARD.decode(value).ok());
        let Some(decoded) = decoded else {
            let why = "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data \
                       at input byte 0";
            return Err(status::bad_request(why));
        };
        total += decoded.len();
    }
    if total > MAX_SECRET_BYTES {
        let why = "Too long: may not be more than 1048576 bytes";
        return Err(status::invalid(resource, name, "data", why));
    }
    Ok(())
}

fn check_type(resource: &Resource, object: &Value) -> Result<(), Status> {
    let said = |field: &str| object[field].as_str().unwrap_or_default();
    let (kind, version) = (said("kind"), said("apiVersion"));
    let fits = |said: &str, wanted: &str| said.is_empty() || said == wanted;
    if fits(kind, resource.kind) && fits(version, &resource.api_version()) {
        return Ok(());
    }
    Err(status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: no kind {kind:?} is registered \
         for version {version:?} in scheme",
        resource.kind
    )))
}

fn check_namespace(namespace: &str, object: &Value) -> Result<(), Status> {
    match text(object, "namespace") {
        "" => Ok(()),
        said if said == namespace => Ok(()),
        _ => Err(status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Who wrote which of the fields last: everything by the newest writer.
fn managed_fields(resource: &Resource, object: &Value, writer: &Writer<'_>, now: &str) -> Value {
    let manager = writer.user_agent.split('/').next().filter(|name| !name.is_empty());
    let fields = object.as_object().into_iter().flatten().map(|(field, _)| field);
    let fields =
        fields.filter(|field| !matches!(field.as_str(), "kind" | "apiVersion" | "metadata"));
    let fields: Map<String, Value> = fields.map(|f| (format!("f:{f}"), json!({}))).collect();
    json!([{
        "manager": manager.unwrap_or("unknown"), "operation": "Update",
        "apiVersion": resource.api_version(), "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }])
}

fn unmanaged(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().map(|metadata| metadata.remove("managedFields"));
    object
}

/// A field of the metadata; empty if it is not there.
pub(super) fn text<'o>(object: &'o Value, field: &str) -> &'o str {
    object["metadata"][field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_secret_have_a_limit() {
        let resource = Resource::of_kind("Secret").unwrap();
        let made = |bytes: usize| {
            let data = json!({ "x": BASE64_STANDARD.encode(vec![0; bytes]) });
            let object = json!({ "metadata": { "name": "s" }, "data": data });
            new(resource, "shop", object, &Writer { user_agent: "" })
        };
        assert!(made(MAX_SECRET_BYTES).is_ok());
        let refused = made(MAX_SECRET_BYTES + 1).unwrap_err().0;
        assert_eq!(
            refused["message"],
            "Secret \"s\" is invalid: data: Too long: may not be more \
                                        than 1048576 bytes"
        );
    }
}
