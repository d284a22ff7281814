//! Mutating admission of a new object: the registered webhooks are called in order, each sees what
//! the ones before it have made, and after a change those that ask for it are called once more
//! (apiserver, `webhook/mutating/dispatcher.go`).

mod matching;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::access::User;
use super::patch;
use super::resource::Resource;
use super::status::{self, Status};
use crate::client::Client;
use crate::mint;

/// Where the services of webhooks really listen, by `NAMESPACE/NAME`.
pub(super) type Services = BTreeMap<String, SocketAddr>;

/// What does not change while one object is admitted.
pub(super) struct Admission {
    pub(super) resource: &'static Resource,
    pub(super) namespace: String,
    pub(super) namespace_labels: Value,
    pub(super) user: User,
    pub(super) dry_run: bool,
    /// The registered configurations, by name.
    pub(super) configurations: Vec<Value>,
    pub(super) services: Services,
}

/// Why a call brought nothing.
enum Failed {
    /// The webhook said no.
    Denied(Status),
    /// It could not be asked, or its answer is none.
    Calling(String),
}

impl Admission {
    /// What the webhooks make of `object`, and what they warn of.
    pub(super) async fn admit(&self, mut object: Value) -> Result<(Value, Vec<String>), Status> {
        let (mut warnings, mut called, mut again) = (Vec::new(), HashSet::new(), HashSet::new());
        for round in 0..2 {
            let mut changed = false;
            for (index, webhook) in self.webhooks().enumerate() {
                let due = round == 0 || again.remove(&index);
                if !due || !self.concerns(webhook, &object)? {
                    continue;
                }
                let before = object.clone();
                match self.call(webhook, &mut object, &mut warnings).await {
                    Ok(()) => {}
                    Err(Failed::Denied(status)) => return Err(status),
                    Err(Failed::Calling(_)) if webhook["failurePolicy"] == "Ignore" => {
                        object = before.clone()
                    }
                    Err(Failed::Calling(why)) => {
                        let name = webhook["name"].as_str().unwrap_or_default();
                        let why = format!("failed calling webhook {name:?}: {why}");
                        return Err(status::internal(&why));
                    }
                }
                if object != before {
                    changed = true;
                    again.extend(called.drain());
                }
                if webhook["reinvocationPolicy"] == "IfNeeded" {
                    called.insert(index);
                }
            }
            if !changed {
                break;
            }
        }
        Ok((object, warnings))
    }

    fn webhooks(&self) -> impl Iterator<Item = &Value> {
        let configured = self.configurations.iter();
        configured.filter_map(|configuration| configuration["webhooks"].as_array()).flatten()
    }

    async fn call(
        &self,
        webhook: &Value,
        object: &mut Value,
        warnings: &mut Vec<String>,
    ) -> Result<(), Failed> {
        let uid = mint::uuid();
        let review = self.review(&uid, object);
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
        let sent = self.send(&webhook["clientConfig"], seconds, &review);
        let answer = tokio::time::timeout(Duration::from_secs(seconds), sent).await;
        let answer = answer
            .map_err(|_| "failed to call webhook: context deadline exceeded".to_owned())
            .and_then(|answer| answer.map_err(|why| format!("failed to call webhook: {why}")))
            .map_err(Failed::Calling)?;
        let response = verified(&uid, &answer)
            .map_err(|why| Failed::Calling(format!("received invalid webhook response: {why}")))?;
        let said = response["warnings"].as_array().into_iter().flatten();
        warnings.extend(said.filter_map(Value::as_str).map(str::to_owned));
        if response["allowed"] != true {
            let name = webhook["name"].as_str().unwrap_or_default();
            return Err(Failed::Denied(status::denied(name, &response["status"])));
        }
        let Some(text) = response["patch"].as_str().filter(|patch| !patch.is_empty()) else {
            return Ok(());
        };
        if response["patchType"] != "JSONPatch" {
            let why = format!("unsupported patch type {}", response["patchType"]);
            return Err(Failed::Calling(why));
        }
        let decoded = BASE64_STANDARD.decode(text).ok();
        let decoded = decoded.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let undecodable = || "received undecodable patch in webhook response".to_owned();
        let decoded = decoded.ok_or_else(undecodable).map_err(Failed::Calling)?;
        // A patch that does not fit is no failure that a policy forgives.
        patch::json_patch(object, &decoded).map_err(|why| Failed::Denied(status::internal(&why)))
    }

    /// `admission.k8s.io/v1`, as the API server fills it.
    fn review(&self, uid: &str, object: &Value) -> Value {
        let Resource { group, version, plural, kind, .. } = self.resource;
        let of_kind = json!({ "group": group, "version": version, "kind": kind });
        let of_resource = json!({ "group": group, "version": version, "resource": plural });
        let mut review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": uid,
                "kind": of_kind, "resource": of_resource,
                "requestKind": of_kind, "requestResource": of_resource,
                "namespace": self.namespace,
                "operation": "CREATE",
                "userInfo": { "username": self.user.name, "groups": self.user.groups },
                "object": object,
                "oldObject": null,
                "dryRun": self.dry_run,
                "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
            },
        });
        // With `generateName` there is no name yet.
        if let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) {
            review["request"]["name"] = name.into();
        }
        review
    }

    async fn send(&self, config: &Value, seconds: u64, review: &Value) -> Result<Value, String> {
        let (name, address, path) = self.target(config)?;
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let bundle = BASE64_STANDARD.decode(bundle).map_err(|_| "caBundle is no base64")?;
        let pem = String::from_utf8(bundle).map_err(|_| "caBundle is no PEM")?;
        let failed = |error: std::io::Error| format!("Post \"https://{name}{path}\": {error}");
        let mut client = Client::connect_tls(address, &name, &pem).await.map_err(failed)?;
        let fields = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let target = format!("{path}?timeout={seconds}s");
        let body = review.to_string();
        let answer = client.request("POST", &target, &fields, body.as_bytes()).await;
        let answer = answer.map_err(failed)?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
            status => Err(format!("the server responded with the status code {status}")),
        }
    }

    /// The name in the certificate, where it listens, and the path.
    fn target(&self, config: &Value) -> Result<(String, SocketAddr, String), String> {
        if let Some(url) = config["url"].as_str() {
            let rest = url.strip_prefix("https://").ok_or("the URL is not https")?;
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let address = authority.parse().map_err(|_| "only ADDRESS:PORT is reachable here")?;
            let (host, _) = authority.rsplit_once(':').unwrap_or((authority, ""));
            return Ok((host.to_owned(), address, format!("/{path}")));
        }
        let said = |field: &str| config["service"][field].as_str().unwrap_or_default();
        let service = format!("{}/{}", said("namespace"), said("name"));
        let address = self.services.get(&service);
        let address = *address.ok_or_else(|| format!("service {service} not found"))?;
        let path = format!("/{}", said("path").trim_start_matches('/'));
        Ok((format!("{}.{}.svc", said("name"), said("namespace")), address, path))
    }
}

/// The response, if it is one to this request (apiserver, `webhook/request/admissionreview.go`).
fn verified<'a>(uid: &str, review: &'a Value) -> Result<&'a Value, String> {
    let response = review.get("response").filter(|response| !response.is_null());
    let response = response.ok_or("webhook response was absent")?;
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
    }
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != "admission.k8s.io/v1" {
        return Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview".into());
    }
    let said = |field: &str| response[field].as_str().is_some_and(|text| !text.is_empty());
    match (said("patch"), said("patchType")) {
        (true, false) => Err("webhook returned response.patch but not response.patchType".into()),
        (false, true) => Err("webhook returned response.patchType but not response.patch".into()),
        _ => Ok(response),
    }
}
