//! The kinds of objects that are served, and what a request asks to be done with them: the path, the
//! method and the query read as the API server's `RequestInfo` does.

use crate::form::Form;
use crate::http::Recorded;

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
}

const fn core(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource { group: "", version: "v1", plural, kind, namespaced }
}

const fn grouped(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, version: "v1", plural, kind, namespaced: true }
}

const RBAC: &str = "rbac.authorization.k8s.io";

static SERVED: [Resource; 7] = [
    core("secrets", "Secret", true),
    core("pods", "Pod", true),
    core("serviceaccounts", "ServiceAccount", true),
    core("namespaces", "Namespace", false),
    grouped(RBAC, "roles", "Role"),
    grouped(RBAC, "rolebindings", "RoleBinding"),
    Resource {
        namespaced: false,
        ..grouped(
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            "MutatingWebhookConfiguration",
        )
    },
];

impl Resource {
    pub(super) fn of_kind(kind: &str) -> Option<&'static Self> {
        SERVED.iter().find(|resource| resource.kind == kind)
    }

    fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        let found = SERVED.iter().find(|r| (r.group, r.plural) == (group, plural));
        found.filter(|resource| resource.version == version)
    }

    /// `v1`, or `GROUP/v1`.
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As error messages name it: `secrets`, or `roles.rbac.authorization.k8s.io`.
    pub(super) fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// GET of a collection with `watch`.
    Watch,
    /// POST.
    Create,
    /// PUT: the whole object.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
}

impl Verb {
    /// As roles name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// A request for objects.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) resource: &'static Resource,
    /// Empty for all of them, and for what has none.
    pub(super) namespace: String,
    /// Of the path, or of a field selector that can match one object only: a role that names an
    /// object allows a list or a watch of it by that.
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) query: Form,
}

impl Call {
    /// `None` for what is no path of ours or no method.
    pub(super) fn read(request: &Recorded) -> Option<Self> {
        let parts: Vec<&str> = request.path().trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource] => (*plural, Some(*name), Some((*subresource).to_owned())),
            _ => return None,
        };
        let resource = Resource::find(group, version, plural)?;
        let query = Form::parse(request.query().unwrap_or_default().as_bytes());
        let watches = query.value("watch").is_some_and(|value| !matches!(value, "0" | "false"));
        let verb = match (request.method.as_str(), name) {
            ("GET", Some(_)) => Verb::Get,
            ("GET", None) if watches => Verb::Watch,
            ("GET", None) => Verb::List,
            ("POST", None) => Verb::Create,
            ("POST", Some(_)) if subresource.is_some() => Verb::Create,
            ("PUT", Some(_)) => Verb::Update,
            ("PATCH", Some(_)) => Verb::Patch,
            ("DELETE", Some(_)) => Verb::Delete,
            _ => return None,
        };
        let selected = query.value("fieldSelector").and_then(|fields| {
            let mut fields = fields.split(',');
            fields.find_map(|field| field.strip_prefix("metadata.name="))
        });
        let name = name.or(selected.map(|name| name.trim_start_matches('='))).map(str::to_owned);
        Some(Self { verb, resource, namespace: namespace.to_owned(), name, subresource, query })
    }
}
