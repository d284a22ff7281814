//! Who asks, and what they may: bearer tokens of service accounts, and roles bound to them (RBAC).

use std::collections::HashMap;

use serde_json::{Value, json};

use super::objects::{Interest, Objects};
use super::resource::{Call, Resource};
use crate::http::Recorded;
use crate::mint;

/// Whose token it is that [`Access::default`] begins with; everything is allowed.
const ADMIN: &str = "kubernetes-admin";

#[derive(Debug, Default)]
pub(super) struct Access {
    users: HashMap<String, User>,
}

/// A caller, as webhooks are told of it.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl Access {
    /// A token of somebody who may do everything.
    pub(super) fn admin(&mut self) -> String {
        let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
        self.issue(User { name: ADMIN.to_owned(), groups }, json!({ "sub": ADMIN }))
    }

    /// A token of a service account, as the kubelet projects one.
    pub(super) fn service_account(&mut self, namespace: &str, name: &str, seconds: u64) -> String {
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let claims = json!({
            "sub": user, "iss": "https://kubernetes.default.svc.cluster.local",
            "aud": ["https://kubernetes.default.svc.cluster.local"],
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name } },
            "lives": seconds,
        });
        self.issue(User { name: user, groups }, claims)
    }

    fn issue(&mut self, user: User, claims: Value) -> String {
        let token = mint::jwt(r#"{"alg":"RS256","kid":"emulated"}"#, &{
            let mut claims = claims;
            claims["jti"] = mint::uuid().into();
            claims.to_string()
        });
        self.users.insert(token.clone(), user);
        token
    }

    /// From now on this token is 401.
    pub(super) fn revoke(&mut self, token: &str) {
        self.users.remove(token);
    }

    pub(super) fn user(&self, request: &Recorded) -> Option<User> {
        let field = request.header("authorization")?;
        let token = field.strip_prefix("Bearer ").unwrap_or_default();
        self.users.get(token).cloned()
    }
}

impl User {
    /// Whether some role that is bound to the user allows the call.
    pub(super) fn may(&self, call: &Call, objects: &Objects) -> bool {
        if self.groups.iter().any(|group| group == "system:masters") {
            return true;
        }
        let all = |kind: &str| {
            let resource = Resource::of_kind(kind).expect("served");
            let (namespace, name) = (call.namespace.clone(), None);
            objects.list(&Interest { resource, namespace, name, bookmarks: false })
        };
        let bound = all("RoleBinding").into_iter().filter(|binding| self.is_bound(binding));
        let roles: Vec<Value> = bound.map(|binding| binding["roleRef"]["name"].clone()).collect();
        let roles =
            all("Role").into_iter().filter(|role| roles.contains(&role["metadata"]["name"]));
        let rules: Vec<Value> =
            roles.filter_map(|r| r["rules"].as_array().cloned()).flatten().collect();
        !call.namespace.is_empty() && rules.iter().any(|rule| allows(rule, call))
    }

    fn is_bound(&self, binding: &Value) -> bool {
        binding["subjects"].as_array().into_iter().flatten().any(|subject| {
            let said = |field: &str| subject[field].as_str().unwrap_or_default();
            let name = said("name");
            match said("kind") {
                "ServiceAccount" => {
                    self.name == format!("system:serviceaccount:{}:{name}", said("namespace"))
                }
                "User" => self.name == name,
                "Group" => self.groups.iter().any(|group| group == name),
                _ => false,
            }
        })
    }
}

/// A rule that names objects allows no call without a name.
fn allows(rule: &Value, call: &Call) -> bool {
    let has = |field: &str, wanted: &str| {
        let items = rule[field].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).any(|item| item == "*" || item == wanted)
    };
    let resource = match &call.subresource {
        Some(subresource) => format!("{}/{subresource}", call.resource.plural),
        None => call.resource.plural.to_owned(),
    };
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    let named = names.is_none_or(|names| {
        call.name.as_ref().is_some_and(|name| names.contains(&Value::from(name.as_str())))
    });
    has("apiGroups", call.resource.group)
        && has("resources", &resource)
        && has("verbs", call.verb.as_str())
        && named
}
