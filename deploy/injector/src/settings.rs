//! What a pod asks for: the annotations that begin with `bearerd/`, each checked, none unknown.
//!
//! Whoever may create a pod may put any container into it, so nothing here is a privilege; a value
//! that means nothing is refused all the same, with what to write instead.

use serde_json::{Map, Value};
use thiserror::Error;

/// The label whose value `true` asks for the sidecar.
pub const LABEL: &str = "bearerd/inject";
/// The annotation that marks a pod that has been through here; its value is the injector's version.
pub const INJECTED: &str = "bearerd/injected";
/// The variable that applications get unless they name their own.
pub const VARIABLE: &str = "BEARERD_BASE_URL";

/// What every annotation begins with.
pub const PREFIX: &str = "bearerd/";
const KEYS: [&str; 18] = [
    "admin-port",
    "config",
    "containers",
    "cpu-limit",
    "cpu-request",
    "env",
    "image",
    "image-pull-policy",
    "memory-limit",
    "memory-request",
    "mode",
    "port",
    "pre-stop-seconds",
    "secret",
    "startup-seconds",
    "store",
    "token-audience",
    "token-expiration-seconds",
];
/// The most of a wrong value that is shown, in characters.
const SHOWN: usize = 60;

/// Which form of sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An init container that stays (Kubernetes 1.29): starts before and ends after the others.
    Native,
    /// An ordinary container, the first of its pod.
    Ordinary,
}

/// Where a refresh token that rotates is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// Nowhere on a disk.
    None,
    /// In a volume that ends with the pod.
    EmptyDir,
    /// In a claim of this name.
    Claim(String),
    /// In a Secret, by the pod's service account (`store = "kubernetes:NAMESPACE/SECRET"`).
    Kubernetes,
}

/// A variable of the application's containers: the proxy's base URL with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Empty, or begins with a slash.
    pub path: String,
}

/// A token that the cluster issues for the pod's service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectedToken {
    /// Who accepts it.
    pub audience: String,
    /// How long it lives, in seconds; at least 600.
    pub expiration_seconds: u32,
}

/// All that annotations say, with the defaults for what they do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The sidecar's image, unless it is the injector's default.
    pub image: Option<String>,
    /// When the image is pulled, unless Kubernetes chooses by its tag.
    pub pull_policy: Option<String>,
    /// The form, unless the cluster's version chooses.
    pub mode: Option<Mode>,
    /// The `ConfigMap` with `bearerd.toml`.
    pub config: String,
    /// The Secret whose files are mounted; `None`: `bearerd`, if there is one.
    pub secret: Option<String>,
    /// A projected token beside it.
    pub token: Option<ProjectedToken>,
    /// The store's volume.
    pub store: Store,
    /// Where the proxy listens on loopback.
    pub port: u16,
    /// Where the admin listener is.
    pub admin_port: u16,
    /// Variables with the proxy's base URL.
    pub variables: Vec<Variable>,
    /// The containers that get them; `None`: all.
    pub containers: Option<Vec<String>>,
    /// How long the first tokens may take before the container is restarted.
    pub startup_seconds: u32,
    /// How long an ordinary container's SIGTERM is held back; `None` where the cluster cannot.
    pub pre_stop_seconds: Option<u32>,
    /// Kubernetes quantities; `None`: no limit, which would delay the application's every request.
    pub cpu_limit: Option<String>,
    /// Kubernetes quantities.
    pub cpu_request: String,
    /// Kubernetes quantities.
    pub memory_request: String,
    /// Kubernetes quantities.
    pub memory_limit: String,
}

/// Why annotations are refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingError {
    /// The value means nothing.
    #[error("annotation bearerd/{key} is {value:?}; write {wanted}")]
    Invalid {
        /// Without the prefix.
        key: &'static str,
        /// Its beginning.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
    /// No such annotation.
    #[error("annotation {0:?} is not known; there are bearerd/{keys}", keys = KEYS.join(", bearerd/"))]
    Unknown(String),
    /// An expiration without a token.
    #[error("annotation bearerd/token-expiration-seconds wants bearerd/token-audience beside it")]
    NoAudience,
}

impl Settings {
    /// Reads a pod's annotations.
    ///
    /// # Errors
    /// [`SettingError`] names the annotation.
    pub fn read(annotations: Option<&Map<String, Value>>) -> Result<Self, SettingError> {
        let annotations = Annotations(annotations);
        annotations.all_known()?;
        Ok(Self {
            image: annotations.parse("image", "an image's name", image)?,
            pull_policy: annotations.parse(
                "image-pull-policy",
                "Always, IfNotPresent or Never",
                |text| ["Always", "IfNotPresent", "Never"].contains(&text).then(|| text.to_owned()),
            )?,
            mode: annotations.parse("mode", "native or ordinary", mode)?,
            config: annotations
                .parse("config", "a ConfigMap's name", object_name)?
                .unwrap_or_else(|| "bearerd".to_owned()),
            secret: annotations.parse("secret", "a Secret's name", object_name)?,
            token: annotations.token()?,
            store: annotations
                .parse("store", "none, emptyDir, claim:NAME or kubernetes", store)?
                .unwrap_or(Store::EmptyDir),
            port: annotations.port("port")?.unwrap_or(8080),
            admin_port: annotations.port("admin-port")?.unwrap_or(9901),
            variables: annotations
                .parse("env", "names, or NAME=/path, with commas between them", variables)?
                .unwrap_or_else(|| vec![Variable { name: VARIABLE.into(), path: String::new() }]),
            containers: annotations.parse(
                "containers",
                "names of containers, with commas between them",
                |text| list(text, |name| object_name(name).filter(|name| !name.contains('.'))),
            )?,
            startup_seconds: annotations.seconds("startup-seconds", 1)?.unwrap_or(120),
            pre_stop_seconds: annotations.seconds("pre-stop-seconds", 1)?.or(Some(20)),
            cpu_limit: annotations.quantity("cpu-limit")?,
            cpu_request: annotations.quantity("cpu-request")?.unwrap_or_else(|| "10m".into()),
            memory_request: annotations
                .quantity("memory-request")?
                .unwrap_or_else(|| "16Mi".into()),
            memory_limit: annotations.quantity("memory-limit")?.unwrap_or_else(|| "64Mi".into()),
        })
    }
}

struct Annotations<'a>(Option<&'a Map<String, Value>>);

impl Annotations<'_> {
    fn all_known(&self) -> Result<(), SettingError> {
        let keys = self.0.iter().flat_map(|annotations| annotations.keys());
        let known = |key: &&str| KEYS.contains(key) || *key == &INJECTED[PREFIX.len()..];
        let unknown = |key: &&String| key.strip_prefix(PREFIX).is_some_and(|key| !known(&key));
        match keys.into_iter().find(unknown) {
            Some(key) => Err(SettingError::Unknown(shown(key))),
            None => Ok(()),
        }
    }

    fn parse<T>(
        &self,
        key: &'static str,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingError> {
        let value = self.0.and_then(|annotations| annotations.get(&format!("{PREFIX}{key}")));
        let Some(value) = value.and_then(Value::as_str) else { return Ok(None) };
        let invalid = || SettingError::Invalid { key, value: shown(value), wanted };
        parse(value).map(Some).ok_or_else(invalid)
    }

    /// Only root may listen below 1024, and the sidecar is not root.
    fn port(&self, key: &'static str) -> Result<Option<u16>, SettingError> {
        let port = |text: &str| text.parse().ok().filter(|port| *port >= 1024);
        self.parse(key, "a port from 1024 to 65535", port)
    }

    fn seconds(&self, key: &'static str, least: u32) -> Result<Option<u32>, SettingError> {
        let seconds = |text: &str| text.parse().ok().filter(|s: &u32| (least..=86400).contains(s));
        self.parse(key, "whole seconds, at most 86400 (for a token at least 600)", seconds)
    }

    fn quantity(&self, key: &'static str) -> Result<Option<String>, SettingError> {
        self.parse(key, "a quantity such as 10m or 64Mi", quantity)
    }

    fn token(&self) -> Result<Option<ProjectedToken>, SettingError> {
        let audience =
            self.parse("token-audience", "who accepts the token, such as a URL", word)?;
        let expiration = self.seconds("token-expiration-seconds", 600)?;
        match (audience, expiration) {
            (Some(audience), expiration) => {
                let expiration_seconds = expiration.unwrap_or(3600);
                Ok(Some(ProjectedToken { audience, expiration_seconds }))
            }
            (None, Some(_)) => Err(SettingError::NoAudience),
            (None, None) => Ok(None),
        }
    }
}

fn shown(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
}

fn mode(text: &str) -> Option<Mode> {
    match text {
        "native" => Some(Mode::Native),
        "ordinary" => Some(Mode::Ordinary),
        _ => None,
    }
}

fn store(text: &str) -> Option<Store> {
    match text {
        "none" => Some(Store::None),
        "emptyDir" => Some(Store::EmptyDir),
        "kubernetes" => Some(Store::Kubernetes),
        _ => text.strip_prefix("claim:").and_then(object_name).map(Store::Claim),
    }
}

fn variables(text: &str) -> Option<Vec<Variable>> {
    list(text, |variable| {
        let (name, path) = variable.split_once('=').unwrap_or((variable, ""));
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = name.starts_with(|c: char| !c.is_ascii_digit()) && name.chars().all(letters);
        // The kubelet expands `$(NAME)` in values.
        let graphic = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'$');
        let is_path = path.is_empty() || (path.starts_with('/') && graphic);
        let variable = Variable { name: name.to_owned(), path: path.to_owned() };
        (is_name && is_path).then_some(variable)
    })
}

fn list<T>(text: &str, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(|part| item(part.trim())).collect()
}

/// RFC 1123 subdomains, as Kubernetes names its objects.
fn object_name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let edges = edge(text.chars().next()) && edge(text.chars().last());
    (edges && text.len() <= 253 && text.chars().all(allowed)).then(|| text.to_owned())
}

fn image(text: &str) -> Option<String> {
    word(text).filter(|text| text.len() <= 512)
}

fn word(text: &str) -> Option<String> {
    let graphic = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    graphic.then(|| text.to_owned())
}

fn quantity(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let number = digits.parse::<f64>().is_ok_and(f64::is_finite)
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let known = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"].contains(&unit);
    (number && known).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(annotations: &Value) -> Result<Settings, SettingError> {
        Settings::read(annotations.as_object())
    }

    fn defaults() -> Settings {
        read(&json!({})).unwrap()
    }

    #[test]
    fn without_annotations_everything_has_a_default() {
        let settings = Settings::read(None).unwrap();
        assert_eq!(settings, defaults());
        assert_eq!((settings.config.as_str(), settings.port), ("bearerd", 8080));
        assert_eq!(settings.store, Store::EmptyDir);
        assert_eq!(settings.variables[0].name, VARIABLE);
    }

    #[test]
    fn every_annotation_is_taken() {
        let all = json!({
            "bearerd/admin-port": "9902",
            "bearerd/config": "orders.bearerd",
            "bearerd/containers": "orders, worker",
            "bearerd/cpu-limit": "1",
            "bearerd/cpu-request": "0.5",
            "bearerd/env": "ORDERS_API,BILLING_API=/billing",
            "bearerd/image": "registry.example/bearerd@sha256:00",
            "bearerd/image-pull-policy": "Always",
            "bearerd/injected": "0.0.9",
            "bearerd/memory-limit": "1Gi",
            "bearerd/memory-request": "32Mi",
            "bearerd/mode": "ordinary",
            "bearerd/port": "8081",
            "bearerd/pre-stop-seconds": "5",
            "bearerd/secret": "orders-oauth",
            "bearerd/startup-seconds": "60",
            "bearerd/store": "claim:orders",
            "bearerd/token-audience": "https://api.example",
            "bearerd/token-expiration-seconds": "600",
            "example.com/other": "anything",
        });
        assert_eq!(all.as_object().unwrap().len(), KEYS.len() + 2);
        let variable = |name: &str, path: &str| Variable { name: name.into(), path: path.into() };
        let settings = Settings {
            image: Some("registry.example/bearerd@sha256:00".into()),
            pull_policy: Some("Always".into()),
            mode: Some(Mode::Ordinary),
            config: "orders.bearerd".into(),
            secret: Some("orders-oauth".into()),
            token: Some(ProjectedToken {
                audience: "https://api.example".into(),
                expiration_seconds: 600,
            }),
            store: Store::Claim("orders".into()),
            port: 8081,
            admin_port: 9902,
            variables: vec![variable("ORDERS_API", ""), variable("BILLING_API", "/billing")],
            containers: Some(vec!["orders".into(), "worker".into()]),
            startup_seconds: 60,
            pre_stop_seconds: Some(5),
            cpu_limit: Some("1".into()),
            cpu_request: "0.5".into(),
            memory_request: "32Mi".into(),
            memory_limit: "1Gi".into(),
        };
        assert_eq!(read(&all).unwrap(), settings);
    }

    #[test]
    fn a_value_that_means_nothing_is_refused_with_what_to_write() {
        for (key, value) in [
            ("admin-port", "0"),
            ("config", "Not_A_Name"),
            ("config", "-orders"),
            ("containers", ""),
            ("containers", "a.b"),
            ("cpu-request", "much"),
            ("cpu-request", "1e3"),
            ("env", "1ST"),
            ("env", "A=billing"),
            ("env", "A=/$(SECRET)"),
            ("env", "A,,B"),
            ("image", "two words"),
            ("image", ""),
            ("image-pull-policy", "always"),
            ("cpu-limit", "none"),
            ("memory-limit", "-1"),
            ("memory-request", "64 Mi"),
            ("mode", "Native"),
            ("port", "80"),
            ("port", "65536"),
            ("pre-stop-seconds", "0"),
            ("secret", ""),
            ("startup-seconds", "-5"),
            ("store", "claim:"),
            ("store", "hostPath"),
            ("token-audience", ""),
            ("token-expiration-seconds", "599"),
        ] {
            let error = read(&json!({ format!("bearerd/{key}"): value })).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("annotation bearerd/{key} is {value:?}; write")));
        }
    }

    #[test]
    fn an_annotation_that_is_not_known_is_refused() {
        let error = read(&json!({ "bearerd/confg": "orders" })).unwrap_err().to_string();
        assert!(error.starts_with("annotation \"bearerd/confg\" is not known; there are"));
        assert!(error.contains("bearerd/config"), "{error}");
    }

    #[test]
    fn an_expiration_needs_a_token() {
        let alone = json!({ "bearerd/token-expiration-seconds": "600" });
        assert_eq!(read(&alone), Err(SettingError::NoAudience));
    }

    #[test]
    fn a_long_value_is_shown_in_part() {
        let error = read(&json!({ "bearerd/mode": "x".repeat(5000) })).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
