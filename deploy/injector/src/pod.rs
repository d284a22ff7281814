//! Reading a pod, and writing the sidecar into it.
//!
//! A pod stays the JSON that it came as: a type of our own would lose the fields that it does not
//! know, and every Kubernetes has new ones.

use serde_json::{Map, Value, json};

use crate::settings::{INJECTED, Mode, Settings, Store};
use crate::sidecar;

/// What Kubernetes fills in where nobody has said anything.
const DEFAULT_GRACE_SECONDS: u64 = 30;
/// Longer than the application's stop and bearerd's `shutdown_grace_seconds` (30) together.
const GRACE_SECONDS: u64 = 60;

/// What of a pod has another type than Kubernetes gives it. An API server sends no such pod; without
/// this a look into one would end the process.
#[must_use]
pub fn misshapen(pod: &Value) -> Option<&'static str> {
    let object = |value: &Value| value.is_null() || value.is_object();
    let list = |value: &Value| value.is_null() || value.is_array();
    let objects = |value: &Value| list(value) && items(value).all(Value::is_object);
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let maps = [("annotations", metadata), ("labels", metadata), ("securityContext", spec)];
    let lists = ["containers", "initContainers", "volumes"];
    let containers = ["containers", "initContainers"].map(|name| items(&spec[name])).into_iter();
    let wrong_map = maps.into_iter().find(|(name, part)| !object(&part[name]));
    let wrong_list = || lists.into_iter().find(|name| !objects(&spec[name]));
    let wrong_env = || {
        let mut containers = containers.flatten();
        containers.any(|container| !objects(&container["env"])).then_some("env")
    };
    wrong_map.map(|(name, _)| name).or_else(wrong_list).or_else(wrong_env)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The labels or the annotations.
#[must_use]
pub fn metadata<'a>(pod: &'a Value, what: &str) -> Option<&'a Map<String, Value>> {
    pod["metadata"][what].as_object()
}

/// The objects in a list of the pod's `spec`; none if there is no such list.
pub fn list<'a>(pod: &'a Value, what: &str) -> impl Iterator<Item = &'a Value> {
    items(&pod["spec"][what])
}

/// Every container that the application's author wrote: in native form the init containers can use
/// the proxy too.
pub fn application(pod: &Value, mode: Mode) -> impl Iterator<Item = &Value> {
    let init = if mode == Mode::Native { "initContainers" } else { "" };
    list(pod, init).chain(list(pod, "containers")).filter(|one| !is_sidecar(one))
}

fn is_sidecar(container: &Value) -> bool {
    container["name"] == sidecar::NAME
}

/// The form of the sidecar that is in `pod` already, whoever put it there.
#[must_use]
pub fn sidecar_in(pod: &Value) -> Option<Mode> {
    let forms = [("initContainers", Mode::Native), ("containers", Mode::Ordinary)];
    let found = forms.into_iter().find(|(list_name, _)| list(pod, list_name).any(is_sidecar));
    found.map(|(_, mode)| mode)
}

/// True if it has been through here.
#[must_use]
pub fn is_marked(pod: &Value) -> bool {
    metadata(pod, "annotations").is_some_and(|annotations| annotations.contains_key(INJECTED))
}

/// The pod with the sidecar in it, and with the variables in its containers. What is there already
/// stays as it is, but for what a container that came later lacks.
#[must_use]
pub fn inject(pod: &Value, settings: &Settings, mode: Mode, image: &str) -> Value {
    let mut pod = pod.clone();
    if sidecar_in(&pod).is_none() {
        let list = if mode == Mode::Native { "initContainers" } else { "containers" };
        let container = sidecar::container(settings, mode, image);
        // First: the others wait for those before them.
        array(&mut pod["spec"][list]).insert(0, container);
        let present: Vec<Value> = array(&mut pod["spec"]["volumes"]).clone();
        let is_there = |volume: &Value| present.iter().any(|one| one["name"] == volume["name"]);
        let new = sidecar::volumes(settings).into_iter().filter(|volume| !is_there(volume));
        array(&mut pod["spec"]["volumes"]).extend(new);
        if matches!(settings.store, Store::Claim(_)) {
            own_the_claim(&mut pod["spec"]);
        }
        let grace = &mut pod["spec"]["terminationGracePeriodSeconds"];
        if grace.as_u64().is_none_or(|seconds| seconds == DEFAULT_GRACE_SECONDS) {
            *grace = json!(GRACE_SECONDS);
        }
        pod["metadata"]["annotations"][INJECTED] = json!(env!("CARGO_PKG_VERSION"));
    }
    add_variables(&mut pod, settings, mode);
    pod
}

/// A claim is written by the group of the pod, which the kubelet gives to every container; the pod's
/// own will do.
fn own_the_claim(spec: &mut Value) {
    let context = &mut spec["securityContext"];
    if context["fsGroup"].is_null() {
        context["fsGroup"] = json!(sidecar::USER);
    }
    // Otherwise every mount would open the store to the group, and bearerd refuses such a file.
    if context["fsGroupChangePolicy"].is_null() {
        context["fsGroupChangePolicy"] = json!("OnRootMismatch");
    }
}

fn add_variables(pod: &mut Value, settings: &Settings, mode: Mode) {
    let lists: &[&str] = match mode {
        Mode::Native => &["initContainers", "containers"],
        Mode::Ordinary => &["containers"],
    };
    let wanted = |container: &Value| {
        let name = container["name"].as_str().unwrap_or_default();
        settings.containers.as_ref().is_none_or(|names| names.iter().any(|one| one == name))
    };
    for list in lists {
        let containers = pod["spec"].get_mut(*list).and_then(Value::as_array_mut);
        let containers = containers.into_iter().flatten();
        for container in containers.filter(|one| !is_sidecar(one) && wanted(one)) {
            let base = format!("http://127.0.0.1:{}", settings.port);
            let env = array(&mut container["env"]);
            // In front: a variable may refer to those before it. Backwards: so they keep their order.
            for variable in settings.variables.iter().rev() {
                if !env.iter().any(|one| one["name"] == variable.name.as_str()) {
                    let value = format!("{base}{}", variable.path);
                    env.insert(0, json!({ "name": variable.name, "value": value }));
                }
            }
        }
    }
}

/// The array at `place`, which is made if there is none.
fn array(place: &mut Value) -> &mut Vec<Value> {
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    let Value::Array(array) = place else { unreachable!("it has just been made one") };
    array
}

/// A JSON patch (RFC 6902) from `before` to `after`, which differ in members of `metadata` and
/// `spec`. Members are replaced whole (§4.1: adding a member that is there replaces it), so that no
/// path depends on what is in an array.
#[must_use]
pub fn patch(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    for part in ["metadata", "spec"] {
        for (name, value) in after[part].as_object().into_iter().flatten() {
            if before[part][name] != *value {
                let path = format!("/{part}/{name}");
                operations.push(json!({ "op": "add", "path": path, "value": value }));
            }
        }
    }
    operations
}
