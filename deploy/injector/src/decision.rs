//! Whether a pod gets a sidecar. A pure function; every refusal says what to do instead.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::pod;
use crate::review::Request;
use crate::settings::{LABEL, Mode, Settings};
use crate::sidecar;
use crate::version::Version;

/// Namespaces that are the cluster's own: a webhook there could keep a cluster from starting.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What the injector was started with.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The sidecar's image.
    pub image: String,
    /// The injector's own namespace and others whose pods it leaves alone.
    pub excluded_namespaces: BTreeSet<String>,
    /// What annotations say where the pod has none of that name.
    pub annotations: Map<String, Value>,
}

/// What is to be done with a pod.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    Unchanged,
    /// A patch, and what the person who creates the pod should know.
    Injected {
        /// JSON patch operations.
        patch: Vec<Value>,
        /// Shown by `kubectl`.
        warnings: Vec<String>,
    },
    /// It asks for a sidecar and cannot have one; why, and what to do.
    Refused(String),
}

/// Decides about one review.
#[must_use]
pub fn decide(request: &Request, defaults: &Defaults, cluster: Version) -> Decision {
    if !request.creates_pod() || excluded(&request.namespace, defaults) {
        return Decision::Unchanged;
    }
    let pod = &request.object;
    if !asks(pod) || is_mirror(pod) {
        return Decision::Unchanged;
    }
    match inject(pod, defaults, cluster) {
        Ok((after, warnings)) => {
            let patch = pod::patch(pod, &after);
            if patch.is_empty() {
                Decision::Unchanged
            } else {
                Decision::Injected { patch, warnings }
            }
        }
        Err(why) => Decision::Refused(format!("bearerd cannot be injected: {why}")),
    }
}

fn excluded(namespace: &str, defaults: &Defaults) -> bool {
    SYSTEM_NAMESPACES.contains(&namespace) || defaults.excluded_namespaces.contains(namespace)
}

fn asks(pod: &Value) -> bool {
    pod::metadata(pod, "labels").is_some_and(|labels| {
        labels.get(LABEL).and_then(Value::as_str).is_some_and(|value| value == "true")
    })
}

/// The API server's picture of a static pod, which nobody can change.
fn is_mirror(pod: &Value) -> bool {
    let annotations = pod::metadata(pod, "annotations");
    annotations.is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"))
}

fn inject(
    pod: &Value,
    defaults: &Defaults,
    cluster: Version,
) -> Result<(Value, Vec<String>), String> {
    if let Some(part) = pod::misshapen(pod) {
        return Err(format!("the pod's {part} is not of the type that Kubernetes gives it"));
    }
    let mut annotations = defaults.annotations.clone();
    annotations.extend(pod::metadata(pod, "annotations").cloned().unwrap_or_default());
    let mut settings = Settings::read(Some(&annotations)).map_err(|error| error.to_string())?;
    if !cluster.has_sleep_hook() {
        settings.pre_stop_seconds = None;
    }
    check_node(pod)?;
    let present = pod::sidecar_in(pod);
    let chosen = settings.mode.unwrap_or(cluster.preferred_mode());
    if chosen == Mode::Native && !cluster.has_native_sidecars() {
        return Err(format!(
            "annotation bearerd/mode is native, which Kubernetes {cluster} does not know; leave it \
             out, or write ordinary"
        ));
    }
    if !pod::is_marked(pod) {
        check_names(pod)?;
    }
    let mode = present.unwrap_or(chosen);
    check_containers(pod, &settings, mode)?;
    let new = present.is_none() && mode == Mode::Ordinary;
    let warnings = if new { warnings(pod, cluster) } else { Vec::new() };
    Ok((pod::inject(pod, &settings, mode, &defaults.image), warnings))
}

/// Where the pod would run.
fn check_node(pod: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    if spec["hostNetwork"] == true {
        return Err(
            "the pod has hostNetwork, so its loopback is the node's, and every process of \
                    the node could use the token; take hostNetwork or the label bearerd/inject away"
                .into(),
        );
    }
    if wants_windows(spec) {
        return Err("the pod is for Windows nodes, where bearerd does not run; take the label \
                    bearerd/inject away"
            .into());
    }
    Ok(())
}

fn wants_windows(spec: &Value) -> bool {
    const LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
    let selected = LABELS.iter().any(|label| spec["nodeSelector"][label] == "windows");
    let terms = &spec["affinity"]["nodeAffinity"];
    let terms = &terms["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    // Any one of the terms is enough for a node.
    let mut terms = terms.as_array().into_iter().flatten().peekable();
    let required = terms.peek().is_some() && terms.all(requires_windows);
    let options = |place: &Value| !place["securityContext"]["windowsOptions"].is_null();
    let containers = spec["containers"].as_array().into_iter().flatten();
    spec["os"]["name"] == "windows"
        || selected
        || required
        || options(spec)
        || containers.into_iter().any(options)
}

fn requires_windows(term: &Value) -> bool {
    term["matchExpressions"].as_array().into_iter().flatten().any(|expression| {
        let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
        expression["key"] == "kubernetes.io/os"
            && expression["operator"] == "In"
            && !values.is_empty()
            && values.iter().all(|value| value == "windows")
    })
}

/// A pod that was not through here may not use our names.
fn check_names(pod: &Value) -> Result<(), String> {
    if pod::sidecar_in(pod).is_some() {
        return Err(
            "the pod has a container bearerd that is not the injector's; rename it, or take \
                    the label bearerd/inject away"
                .into(),
        );
    }
    let taken =
        |volume: &&Value| sidecar::VOLUMES.iter().any(|name| volume["name"].as_str() == Some(name));
    match pod::list(pod, "volumes").find(taken) {
        Some(volume) => Err(format!(
            "the pod has a volume {} that is not the injector's; rename it",
            volume["name"].as_str().unwrap_or_default()
        )),
        None => Ok(()),
    }
}

/// The containers that the annotations name are there, and none wants our ports.
fn check_containers(pod: &Value, settings: &Settings, mode: Mode) -> Result<(), String> {
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    if settings.port == settings.admin_port {
        return Err(format!(
            "annotations bearerd/port and bearerd/admin-port are both {}; they need two ports",
            settings.port
        ));
    }
    for wanted in settings.containers.iter().flatten() {
        if !pod::application(pod, mode).any(|container| name(container) == *wanted) {
            return Err(format!(
                "annotation bearerd/containers names {wanted:?}, which is no container of the pod \
                 that could use the proxy"
            ));
        }
    }
    for container in pod::application(pod, mode) {
        let ports = container["ports"].as_array().into_iter().flatten();
        for port in ports.filter_map(|port| port["containerPort"].as_u64()) {
            let (ours, key) = match port {
                port if port == u64::from(settings.port) => ("proxy", "port"),
                port if port == u64::from(settings.admin_port) => ("admin listener", "admin-port"),
                _ => continue,
            };
            return Err(format!(
                "container {} has port {port}, which is that of bearerd's {ours}; choose another \
                 one in bearerd.toml and in annotation bearerd/{key}",
                name(container)
            ));
        }
    }
    Ok(())
}

/// What an ordinary container does not do by itself.
fn warnings(pod: &Value, cluster: Version) -> Vec<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let ends = pod["spec"]["restartPolicy"].as_str().is_some_and(|policy| policy != "Always");
    let of_job = owners.into_iter().any(|owner| owner["kind"] == "Job");
    let completes = (ends || of_job).then(|| {
        "bearerd: the pod completes only if its last act is POST \
         http://127.0.0.1:9901/quitquitquit (server.quit_endpoint = true)"
            .to_owned()
    });
    let stops = (!cluster.has_sleep_hook()).then(|| {
        format!(
            "bearerd: Kubernetes {cluster} has no preStop.sleep, so SIGTERM reaches bearerd and the \
             application at once: the application should finish its requests before it ends"
        )
    });
    completes.into_iter().chain(stops).collect()
}
