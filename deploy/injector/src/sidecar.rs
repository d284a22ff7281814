//! The container and its volumes. They are those of `deploy/kubernetes/sidecar.yaml` and
//! `legacy.yaml`, where each line is explained; `make test-deploy` compares all forms.

use serde_json::{Value, json};

use crate::settings::{Mode, Settings, Store};

/// The container's name, in every form of deployment.
pub const NAME: &str = "bearerd";
/// Whose files the sidecar owns, and its group.
pub const USER: u32 = 65532;
/// The names of its volumes.
pub const VOLUMES: [&str; 4] = [CONFIG, SECRETS, STORE, ACCOUNT];

const CONFIG: &str = "bearerd-config";
const SECRETS: &str = "bearerd-secrets";
const STORE: &str = "bearerd-store";
const ACCOUNT: &str = "bearerd-account";
/// Nobody but the sidecar mounts these volumes, so that its files need no group. One that is forced
/// upon the pod (`fsGroup`) would change the owners of the application's own volumes.
const READABLE: u32 = 0o444;
/// Mounted if it is there, and nobody named another one.
const DEFAULT_SECRET: &str = "bearerd";

/// The container.
#[must_use]
pub fn container(settings: &Settings, mode: Mode, default_image: &str) -> Value {
    let mut container = json!({
        "name": NAME,
        "image": settings.image.as_deref().unwrap_or(default_image),
        "ports": [{ "name": "bearerd-admin", "containerPort": settings.admin_port }],
        "livenessProbe": {
            "httpGet": { "path": "/livez", "port": "bearerd-admin" },
            "periodSeconds": 10,
        },
        "resources": {
            "requests": { "cpu": settings.cpu_request, "memory": settings.memory_request },
            "limits": limits(settings),
        },
        // Not the pod's: the application may run as somebody else.
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": mounts(settings),
    });
    if let Some(policy) = &settings.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    match mode {
        Mode::Native => {
            container["restartPolicy"] = json!("Always");
            container["startupProbe"] = json!({
                "httpGet": { "path": "/startupz", "port": "bearerd-admin" },
                "periodSeconds": 1,
                "failureThreshold": settings.startup_seconds,
            });
        }
        Mode::Ordinary => container["lifecycle"] = hooks(settings),
    }
    container
}

fn limits(settings: &Settings) -> Value {
    let mut limits = json!({ "memory": settings.memory_limit });
    if let Some(limit) = &settings.cpu_limit {
        limits["cpu"] = json!(limit);
    }
    limits
}

fn hooks(settings: &Settings) -> Value {
    let mut command = vec!["/bearerd".to_owned(), "healthcheck".into(), "--ready".into()];
    if settings.admin_port != 9901 {
        command.extend(["--admin".to_owned(), format!("127.0.0.1:{}", settings.admin_port)]);
    }
    command.extend(["--wait".to_owned(), settings.startup_seconds.to_string()]);
    let mut hooks = json!({ "postStart": { "exec": { "command": command } } });
    if let Some(seconds) = settings.pre_stop_seconds {
        hooks["preStop"] = json!({ "sleep": { "seconds": seconds } });
    }
    hooks
}

fn mounts(settings: &Settings) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "name": CONFIG, "mountPath": "/etc/bearerd", "readOnly": true }),
        json!({ "name": SECRETS, "mountPath": "/var/run/secrets/bearerd", "readOnly": true }),
    ];
    match settings.store {
        Store::None => {}
        Store::EmptyDir | Store::Claim(_) => {
            mounts.push(json!({ "name": STORE, "mountPath": "/var/lib/bearerd" }));
        }
        Store::Kubernetes => mounts.push(json!({
            "name": ACCOUNT,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            "readOnly": true,
        })),
    }
    mounts
}

/// Its volumes.
#[must_use]
pub fn volumes(settings: &Settings) -> Vec<Value> {
    let secret = match &settings.secret {
        Some(name) => json!({ "secret": { "name": name } }),
        None => json!({ "secret": { "name": DEFAULT_SECRET, "optional": true } }),
    };
    let token = settings.token.as_ref().map(|token| {
        json!({ "serviceAccountToken": {
            "path": "token",
            "audience": token.audience,
            "expirationSeconds": token.expiration_seconds,
        }})
    });
    let sources: Vec<Value> = std::iter::once(secret).chain(token).collect();
    let mut volumes = vec![
        json!({ "name": CONFIG, "configMap": { "name": settings.config } }),
        json!({ "name": SECRETS, "projected": { "defaultMode": READABLE, "sources": sources } }),
    ];
    let store = match &settings.store {
        Store::None => None,
        Store::EmptyDir => Some(json!({ "name": STORE, "emptyDir": { "sizeLimit": "16Mi" } })),
        Store::Claim(name) => {
            Some(json!({ "name": STORE, "persistentVolumeClaim": { "claimName": name } }))
        }
        Store::Kubernetes => Some(account()),
    };
    volumes.extend(store);
    volumes
}

/// What automounting would give to every container: for the API server, replaced every hour.
fn account() -> Value {
    json!({ "name": ACCOUNT, "projected": { "defaultMode": READABLE, "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
        { "configMap": {
            "name": "kube-root-ca.crt",
            "items": [{ "key": "ca.crt", "path": "ca.crt" }],
        }},
    ]}})
}
