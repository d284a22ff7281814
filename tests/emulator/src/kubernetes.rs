//! The API server of a cluster, as far as Secrets, their watches, access to them and the admission of
//! pods go. Shapes and conflicts are those of Kubernetes' own `apimachinery` and `apiserver`.
//!
//! Objects: Secrets, Pods, ServiceAccounts (with `/token`), Namespaces, Roles, RoleBindings and
//! MutatingWebhookConfigurations, by their usual paths. Nothing acts on them but what stands here:
//! no kubelet, no controllers, no defaults of a pod's fields, no validating webhooks.

mod access;
mod admission;
mod object;
mod objects;
mod patch;
mod resource;
mod serve;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

pub use resource::Verb;
pub use status::{etcd_timeout, timeout, too_many_requests};

use crate::http::{Recorded, Server, Tls};
use crate::locked;
use crate::log::{Count, Log};
use crate::step::{Script, Step};
use access::Access;
use objects::{Key, Objects};
use resource::Resource;

/// The names in its certificate beside its address.
const NAMES: [&str; 3] = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
/// Life of the tokens that it issues, in seconds; it does not count.
const TOKEN_SECONDS: u64 = 3607;

/// The API server: HTTPS, under an authority of its own.
#[derive(Debug)]
pub struct Kubernetes {
    server: Server,
    state: Arc<State>,
    admin: String,
}

#[derive(Debug, Default)]
struct State {
    objects: Mutex<Objects>,
    access: Mutex<Access>,
    services: Mutex<admission::Services>,
    scripts: Mutex<BTreeMap<Verb, Arc<Script>>>,
    counts: Mutex<BTreeMap<Verb, Arc<Count>>>,
    log: Log,
    down: AtomicBool,
    violations: Mutex<Vec<String>>,
}

impl Kubernetes {
    /// Starts one without objects.
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let admin = locked(&state.access).admin();
        let server = Server::start(Arc::clone(&state), Tls::own_authority(&NAMES));
        Self { server, state, admin }
    }

    /// The server: address, URL, certificate (its authority), connections.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The authority that its certificate is under, PEM.
    pub fn authority(&self) -> &str {
        self.server.certificate().map_or("", |certificate| certificate.pem())
    }

    /// A token that may do everything.
    pub fn admin_token(&self) -> &str {
        &self.admin
    }

    /// Stores a new object of any kind served; panics if the server would refuse it.
    pub fn create(&self, object: Value) -> Value {
        let kind = object["kind"].as_str().unwrap_or_default();
        let resource = Resource::of_kind(kind).expect("a kind that is served");
        let namespace = object::text(&object, "namespace").to_owned();
        let writer = object::Writer { user_agent: "kubectl-create" };
        let object = object::new(resource, &namespace, object, &writer).expect("a valid object");
        let key = Key::new(resource, &namespace, object::text(&object, "name"));
        locked(&self.state.objects).put(key, object)
    }

    /// A Secret as it is now.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        locked(&self.state.objects).find(&secret(namespace, name)).cloned()
    }

    /// Lets somebody else change a Secret: the resource version moves on.
    pub fn change_secret(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let (mut objects, key) = (locked(&self.state.objects), secret(namespace, name));
        let mut object = objects.find(&key).cloned().expect("a Secret that is there");
        change(&mut object);
        objects.put(key, object);
    }

    /// Deletes a Secret; false if there is none.
    pub fn delete_secret(&self, namespace: &str, name: &str) -> bool {
        locked(&self.state.objects).remove(&secret(namespace, name)).is_some()
    }

    /// A role that allows `verbs` on one Secret, bound to a service account; and a token of that.
    pub fn allow(&self, namespace: &str, account: &str, name: &str, verbs: &[&str]) -> String {
        let metadata = json!({ "name": format!("{account}-{name}"), "namespace": namespace });
        self.create(json!({
            "kind": "Role", "metadata": metadata,
            "rules": [{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [name],
                        "verbs": verbs }],
        }));
        self.create(json!({
            "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
                         "name": metadata["name"] },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": namespace }],
        }));
        self.issue_token(namespace, account)
    }

    /// A further token of a service account.
    pub fn issue_token(&self, namespace: &str, account: &str) -> String {
        locked(&self.state.access).service_account(namespace, account, TOKEN_SECONDS)
    }

    /// From now on this token is 401.
    pub fn revoke_token(&self, token: &str) {
        locked(&self.state.access).revoke(token);
    }

    /// Writes what a pod finds in `/var/run/secrets/kubernetes.io/serviceaccount`, or replaces it.
    pub fn mount(&self, directory: &Path, namespace: &str, token: &str) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        for (name, content) in
            [("ca.crt", self.authority()), ("namespace", namespace), ("token", token)]
        {
            let new = directory.join(format!("{name}.new"));
            std::fs::write(&new, content)?;
            std::fs::rename(new, directory.join(name))?;
        }
        Ok(())
    }

    /// Where the service of a webhook really listens.
    pub fn route_service(&self, namespace: &str, name: &str, to: SocketAddr) {
        locked(&self.state.services).insert(format!("{namespace}/{name}"), to);
    }

    /// Adds steps; each call of that kind takes one.
    pub fn script(&self, verb: Verb, steps: impl IntoIterator<Item = Step>) {
        self.state.script(verb).extend(steps);
    }

    /// What happens to each call of that kind once the script is empty; `None` is normal.
    pub fn set_always(&self, verb: Verb, step: Option<Step>) {
        self.state.script(verb).set_always(step);
    }

    /// Steps of that kind that were not taken yet.
    pub fn steps_left(&self, verb: Verb) -> usize {
        self.state.script(verb).len()
    }

    /// Down: connections are closed at once, open ones at their next request, and watches are cut.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Relaxed);
        self.server.set_accepting(!down);
        if down {
            self.cut_watches();
        }
    }

    /// Cuts the connections of all watches.
    pub fn cut_watches(&self) {
        locked(&self.state.objects).cut();
    }

    /// Ends all watches properly, as their time-outs do.
    pub fn end_watches(&self) {
        locked(&self.state.objects).end();
    }

    /// Ends all watches with 410 as an ERROR event, and forgets the history.
    pub fn expire_watches(&self) {
        locked(&self.state.objects).expire();
    }

    /// Forgets the history: a watch that begins before now gets 410 as an ERROR event.
    pub fn compact(&self) {
        locked(&self.state.objects).compact();
    }

    /// Sends a bookmark to the watches that asked for them.
    pub fn bookmark(&self) {
        locked(&self.state.objects).bookmark();
    }

    /// Watches that are open now.
    pub fn watches(&self) -> usize {
        locked(&self.state.objects).watchers()
    }

    /// Calls of that kind so far, refused ones too.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.state.count(verb).now()
    }

    /// Waits for at least so many calls of that kind; the error tells how many came.
    pub async fn wait_for_calls(
        &self,
        verb: Verb,
        wanted: u64,
        deadline: Duration,
    ) -> Result<u64, String> {
        self.state.count(verb).wait_for(wanted, deadline).await
    }

    /// All requests, in order of arrival.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.state.log.all()
    }

    /// Forgets the requests recorded so far; counts stay.
    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// What a client that shares a Secret must never do: a PATCH, a PUT without a resource version.
    pub fn violations(&self) -> Vec<String> {
        locked(&self.state.violations).clone()
    }
}

impl State {
    fn script(&self, verb: Verb) -> Arc<Script> {
        Arc::clone(locked(&self.scripts).entry(verb).or_default())
    }

    fn count(&self, verb: Verb) -> Arc<Count> {
        Arc::clone(locked(&self.counts).entry(verb).or_default())
    }
}

fn secret(namespace: &str, name: &str) -> Key {
    Key::new(Resource::of_kind("Secret").expect("served"), namespace, name)
}
