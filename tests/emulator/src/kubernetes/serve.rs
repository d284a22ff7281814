//! One request: who asks and whether they may, the step of the script, and the deed itself.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::access::User;
use super::admission::Admission;
use super::object::{self, Writer};
use super::objects::{Interest, Key};
use super::resource::{Call, Resource, Verb};
use super::status::{self, Status};
use super::{State, TOKEN_SECONDS, patch};
use crate::http::{Body, Exchange, Fault, Handler, Recorded, Reply, Work};
use crate::locked;
use crate::step::Step;
use crate::style::rfc3339;

impl Handler for State {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            if self.down.load(Relaxed) {
                return Ok(Reply::fault(Fault::Lost));
            }
            let call = Call::read(exchange.head());
            let step = call.as_ref().map_or(Step::Normal, |call| self.script(call.verb).next());
            if let Step::Stall | Step::Early(_) = step {
                self.log.record(&std::sync::Arc::new(exchange.head().clone()));
                if let Some(call) = &call {
                    self.count(call.verb).add();
                }
                return step.without_body(exchange).await;
            }
            let request = exchange.body().await?;
            self.log.record(&request);
            let Some(call) = call else {
                let text = "404 page not found\n";
                return Ok(Reply::bytes(404, "text/plain; charset=utf-8", text));
            };
            self.count(call.verb).add();
            let admitted = self.admitted(&call, &request).await;
            let commit = || match admitted {
                Ok((object, warnings)) => warned(self.perform(&call, &request, object), &warnings),
                Err(status) => status.reply(),
            };
            Ok(step.perform(commit).await)
        })
    }
}

impl State {
    /// The object in the body, as the webhooks leave it; null without a body.
    async fn admitted(
        &self,
        call: &Call,
        request: &Recorded,
    ) -> Result<(Value, Vec<String>), Status> {
        let user = locked(&self.access).user(request).ok_or_else(status::unauthorized)?;
        if !user.may(call, &locked(&self.objects)) {
            return Err(status::forbidden(call, &user.name));
        }
        let written = matches!(call.verb, Verb::Create | Verb::Update | Verb::Patch);
        if !written {
            return Ok((Value::Null, Vec::new()));
        }
        let media_type = request.media_type().unwrap_or_default();
        if media_type != "application/json" && call.verb != Verb::Patch {
            return Err(status::unsupported_media_type());
        }
        let mut object = body(request)?;
        if object.is_array() && call.verb != Verb::Patch {
            return Err(status::bad_request("the body of the request is no object"));
        }
        if call.verb != Verb::Create || call.resource.kind != "Pod" || call.subresource.is_some() {
            return Ok((object, Vec::new()));
        }
        for (field, value) in
            [("kind", call.resource.kind.to_owned()), ("apiVersion", call.resource.api_version())]
        {
            if object[field].is_null() {
                object[field] = value.into();
            }
        }
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = call.namespace.clone().into();
        }
        self.admission(call, user).admit(object).await
    }

    fn admission(&self, call: &Call, user: User) -> Admission {
        let all = |kind: &str, name: Option<String>| {
            let resource = Resource::of_kind(kind).expect("served");
            let namespace = String::new();
            locked(&self.objects).list(&Interest { resource, namespace, name, bookmarks: false })
        };
        let namespace = call.namespace.clone();
        let known = all("Namespace", Some(namespace.clone())).pop();
        // A namespace that nobody created is there nevertheless.
        let labels = known.map(|namespace| namespace["metadata"]["labels"].clone());
        Admission {
            resource: call.resource,
            namespace_labels: labels
                .unwrap_or_else(|| json!({ "kubernetes.io/metadata.name": namespace })),
            namespace,
            user,
            dry_run: dry_run(call),
            configurations: all("MutatingWebhookConfiguration", None),
            services: locked(&self.services).clone(),
        }
    }

    fn perform(&self, call: &Call, request: &Recorded, object: Value) -> Reply {
        let done = match call.verb {
            Verb::Get => self.get(call),
            Verb::List => Ok(self.list(call)),
            Verb::Watch => self.watch(call),
            Verb::Create if call.subresource.is_some() => self.token(call),
            Verb::Create => self.create_from(call, request, object),
            Verb::Update => self.update(call, request, object),
            Verb::Patch => self.patch(call, request, &object),
            Verb::Delete => self.delete(call),
        };
        done.unwrap_or_else(Status::reply)
    }

    fn get(&self, call: &Call) -> Result<Reply, Status> {
        let (name, objects) = (call.name(), locked(&self.objects));
        let found = objects.find(&call.key()).cloned();
        found
            .map(|object| Reply::json(200, object))
            .ok_or_else(|| status::not_found(call.resource, name))
    }

    fn list(&self, call: &Call) -> Reply {
        let objects = locked(&self.objects);
        let mut items = objects.list(&call.interest());
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("kind");
            item.remove("apiVersion");
        }
        Reply::json(
            200,
            json!({
                "kind": format!("{}List", call.resource.kind),
                "apiVersion": call.resource.api_version(),
                "metadata": { "resourceVersion": objects.revision().to_string() },
                "items": items,
            }),
        )
    }

    fn watch(&self, call: &Call) -> Result<Reply, Status> {
        let from = call.query.value("resourceVersion").unwrap_or("0");
        let from = from.parse().map_err(|_| {
            let why = format!("Invalid value: {from:?}: strconv.ParseUint: invalid syntax");
            status::invalid(call.resource, "", "resourceVersion", &why)
        })?;
        let (feed, end) = locked(&self.objects).watch(call.interest(), from);
        let seconds = call.query.value("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
        // 0 is as if nothing were said.
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                end.upgrade().map(|feed| feed.send(None))
            });
        }
        Ok(Reply::status(200)
            .header("Content-Type", "application/json")
            .body(Body::Feed(feed))
            .chunked(usize::MAX))
    }

    /// `authentication.k8s.io/v1`, TokenRequest.
    fn token(&self, call: &Call) -> Result<Reply, Status> {
        if (call.resource.kind, call.subresource.as_deref()) != ("ServiceAccount", Some("token")) {
            return Err(status::not_found(call.resource, call.name()));
        }
        let account = call.name();
        let token = locked(&self.access).service_account(&call.namespace, account, TOKEN_SECONDS);
        let until = SystemTime::now() + Duration::from_secs(TOKEN_SECONDS);
        Ok(Reply::json(
            201,
            json!({
                "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                "metadata": { "name": account, "namespace": call.namespace },
                "spec": { "expirationSeconds": TOKEN_SECONDS },
                "status": { "token": token, "expirationTimestamp": rfc3339(until, 0) },
            }),
        ))
    }

    fn create_from(&self, call: &Call, request: &Recorded, object: Value) -> Result<Reply, Status> {
        let agent = request.header("user-agent").unwrap_or_default();
        let writer = Writer { user_agent: &agent };
        let object = object::new(call.resource, &call.namespace, object, &writer)?;
        let name = object::text(&object, "name");
        let key = Key::new(call.resource, &call.namespace, name);
        let mut objects = locked(&self.objects);
        if objects.find(&key).is_some() {
            return Err(status::already_exists(call.resource, name));
        }
        let stored = if dry_run(call) { object } else { objects.put(key, object) };
        Ok(Reply::json(201, stored))
    }

    fn update(&self, call: &Call, request: &Recorded, object: Value) -> Result<Reply, Status> {
        if object::text(&object, "resourceVersion").is_empty() {
            let name = call.name();
            let what =
                format!("a PUT of {} {name} without a resource version", call.resource.plural);
            locked(&self.violations).push(what);
        }
        self.replace(call, request, object)
    }

    fn replace(&self, call: &Call, request: &Recorded, object: Value) -> Result<Reply, Status> {
        let (key, mut objects) = (call.key(), locked(&self.objects));
        let existing = objects.find(&key).cloned();
        let existing = existing.ok_or_else(|| status::not_found(call.resource, &key.name))?;
        let agent = request.header("user-agent").unwrap_or_default();
        let writer = Writer { user_agent: &agent };
        let changed = object::update(call.resource, &existing, object, &writer)?;
        let now = match changed {
            Some(object) if !dry_run(call) => objects.put(key, object),
            Some(object) => object,
            None => existing,
        };
        Ok(Reply::json(200, now))
    }

    fn patch(&self, call: &Call, request: &Recorded, change: &Value) -> Result<Reply, Status> {
        locked(&self.violations).push(format!(
            "a PATCH of {} {}",
            call.resource.plural,
            call.name()
        ));
        let existing = locked(&self.objects).find(&call.key()).cloned();
        let mut object = existing.ok_or_else(|| status::not_found(call.resource, call.name()))?;
        match request.media_type().as_deref() {
            Some("application/json-patch+json") => patch::json_patch(&mut object, change)
                .map_err(|why| status::invalid(call.resource, call.name(), "patch", &why))?,
            Some("application/merge-patch+json") => patch::merge_patch(&mut object, change),
            _ => return Err(status::unsupported_media_type()),
        }
        self.replace(call, request, object)
    }

    fn delete(&self, call: &Call) -> Result<Reply, Status> {
        let removed = locked(&self.objects).remove(&call.key());
        let removed = removed.ok_or_else(|| status::not_found(call.resource, call.name()))?;
        Ok(Reply::json(
            200,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": { "name": call.name(), "kind": call.resource.plural,
                             "uid": removed["metadata"]["uid"] },
            }),
        ))
    }
}

impl Call {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn key(&self) -> Key {
        Key::new(self.resource, &self.namespace, self.name())
    }

    fn interest(&self) -> Interest {
        Interest {
            resource: self.resource,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            bookmarks: self.query.value("allowWatchBookmarks").is_some_and(|v| v != "false"),
        }
    }
}

/// The object or the patch in the body.
fn body(request: &Recorded) -> Result<Value, Status> {
    if request.body_length > request.body.len() as u64 {
        return Err(status::too_large());
    }
    let object: Value = serde_json::from_slice(&request.body).map_err(|error| {
        status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    })?;
    match (&object, &object["metadata"]) {
        (Value::Array(_), _) | (Value::Object(_), Value::Null | Value::Object(_)) => Ok(object),
        _ => Err(status::bad_request("the body of the request is no object")),
    }
}

fn dry_run(call: &Call) -> bool {
    call.query.value("dryRun") == Some("All")
}

/// RFC 7234 §5.5, as the API server passes warnings on.
fn warned(mut reply: Reply, warnings: &[String]) -> Reply {
    for text in warnings {
        reply = reply.header("Warning", format!("299 - {text:?}"));
    }
    reply
}
