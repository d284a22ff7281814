//! A register as one key of a Secret in Kubernetes, replaced by PUT of the whole object with the
//! resource version that was read: who comes later gets 409. Other keys, labels and annotations stay
//! as they are, byte for byte.
//!
//! The Secret must be there beforehand: a role can name it then, and allows nothing else. Changes are
//! heard of by a watch of that one object. Nothing is ever patched, and a write whose answer did not
//! come is told apart by reading.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{Content, Held, Register, RegisterError, Swapped, Version};
use crate::clock::monotonic;

mod api;
mod object;
mod watch;

use api::{Answer, Api, Trouble};
use object::{Malformed, Object};
use watch::{News, Watch};

/// Where a pod finds its service account.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The key of the Secret that is ours.
pub const KEY: &str = "bearerd";

/// Between two attempts to watch: at first, and at most.
const REWATCH: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// So often in a row it is the role: an API server that has just started does not know the roles yet.
const FORBIDDEN: u32 = 3;

/// Which Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub namespace: String,
    /// What it is called.
    pub secret: String,
    /// Where the API server is; `None` outside of a cluster.
    pub server: Option<(String, u16)>,
    /// The directory of the service account: `token`, and `ca.crt`, which says who may be shown it.
    pub account: PathBuf,
}

impl Place {
    /// Whether both are the same Secret, whoever asks for it.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (&self.namespace, &self.secret) == (&other.namespace, &other.secret)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubernetes:{}/{}", self.namespace, self.secret)
    }
}

/// How far it is with listening. All of it is kept between calls: whoever gives one up, again and
/// again, must not keep the next one from getting any further.
enum Ear {
    /// Until then.
    Resting(Instant),
    Opening(Pin<Box<dyn Future<Output = Result<Watch, Trouble>> + Send>>),
    Open(Watch),
}

/// A register in a Secret.
pub struct Kubernetes {
    place: Place,
    api: Api,
    /// As it was read or written last.
    known: Option<Object>,
    ear: Ear,
    /// The version up to which the watches have told everything.
    told: Option<String>,
    /// Before the next attempt to watch.
    pause: Duration,
    /// How often in a row it was not allowed to watch.
    forbidden: u32,
}

impl Kubernetes {
    /// A register at `place`; nothing is connected yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        let api = Api::new(place.server.clone(), place.account.clone());
        let ear = Ear::Resting(monotonic());
        Self { place, api, known: None, ear, told: None, pause: REWATCH.0, forbidden: 0 }
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}", self.place.namespace, self.place.secret)
    }

    async fn look(&mut self) -> Result<&Object, RegisterError> {
        let path = self.path();
        let answer = self.api.call(Method::GET, &path, None).await;
        let answer = answer.map_err(|(trouble, _)| self.place.unreachable(trouble))?;
        if answer.status != StatusCode::OK {
            return Err(self.place.refused(&answer));
        }
        let object = Object::parse(answer.body).map_err(|problem| self.place.malformed(problem))?;
        Ok(self.known.insert(object))
    }
}

impl Register for Kubernetes {
    async fn read(&mut self) -> Result<Held, RegisterError> {
        let object = self.look().await?;
        let (version, content) = (Version(object.version().to_owned()), object.content(KEY));
        let content = content.map_err(|problem| self.place.malformed(problem))?;
        Ok(Held { version, content })
    }

    async fn swap(
        &mut self,
        expected: &Version,
        content: &Content,
    ) -> Result<Swapped, RegisterError> {
        let known = self.known.as_ref().filter(|object| object.version() == expected.0);
        let object = match known {
            Some(object) => object,
            None => self.look().await?,
        };
        if object.version() != expected.0 {
            return Ok(Swapped::Conflict);
        }
        let body = object.with(KEY, content).map_err(|problem| self.place.malformed(problem))?;
        let path = self.path();
        let answer = match self.api.call(Method::PUT, &path, Some(body)).await {
            Ok(answer) => answer,
            Err((trouble, false)) => return Err(self.place.unreachable(trouble)),
            Err((trouble, true)) => return Ok(Swapped::Unknown(self.place.unreachable(trouble))),
        };
        match answer.status.as_u16() {
            200 => match Object::parse(answer.body) {
                Ok(object) => {
                    let version = Version(object.version().to_owned());
                    self.known = Some(object);
                    Ok(Swapped::Done(version))
                }
                // It says that it is written, and not as what.
                Err(problem) => Ok(Swapped::Unknown(self.place.malformed(problem))),
            },
            409 => Ok(Swapped::Conflict),
            // Turned away before it was looked at.
            400..=499 => Err(self.place.refused(&answer)),
            // A time-out at etcd is a 500 too, and does not say that nothing was written.
            _ => Ok(Swapped::Unknown(self.place.refused(&answer))),
        }
    }

    async fn changed(&mut self) {
        loop {
            match &mut self.ear {
                Ear::Resting(until) => {
                    sleep_until(*until).await;
                    let target = watch::target(&self.place, self.told.as_deref());
                    self.ear = Ear::Opening(Box::pin(self.api.clone().watch(target)));
                }
                Ear::Opening(opening) => match opening.await {
                    Ok(watch) => {
                        self.ear = Ear::Open(watch);
                        self.forbidden = 0;
                        if self.told.is_none() {
                            // Nobody knows what happened before it began.
                            return;
                        }
                    }
                    Err(trouble) => self.no_watch(&trouble),
                },
                Ear::Open(watch) => match watch.next().await {
                    News::Changed(version) => {
                        let known = self.known.as_ref().is_some_and(|o| o.version() == version);
                        (self.told, self.pause) = (Some(version), REWATCH.0);
                        if !known {
                            return;
                        }
                    }
                    News::Bookmark(version) => self.told = Some(version),
                    News::Deleted => return,
                    // The next one begins where this one was.
                    News::Ended if watch.was_long() => self.rest(REWATCH.0),
                    News::Ended => self.rest(self.pause * 2),
                    News::Expired => {
                        self.told = None;
                        self.rest(self.pause * 2);
                    }
                },
            }
        }
    }

    fn listens(&self) -> bool {
        matches!(self.ear, Ear::Open(_))
    }
}

impl Kubernetes {
    fn no_watch(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Status(StatusCode::GONE) => self.told = None,
            Trouble::Status(StatusCode::FORBIDDEN) => {
                self.forbidden = self.forbidden.saturating_add(1);
                if self.forbidden == FORBIDDEN {
                    let place = self.place.to_string();
                    warn!(place, "changes are seen late: the role does not allow watch");
                }
            }
            _ => {}
        }
        self.rest(self.pause * 2);
    }

    /// Listens again after about so long: not all processes at the same moment.
    fn rest(&mut self, pause: Duration) {
        self.pause = pause.min(REWATCH.1);
        self.ear = Ear::Resting(monotonic() + self.pause.mul_f64(0.5 + fastrand::f64()));
    }
}

impl Place {
    fn unreachable(&self, trouble: Trouble) -> RegisterError {
        let place = self.to_string();
        match trouble {
            Trouble::NoCluster => {
                RegisterError::Unusable { place, problem: Trouble::NoCluster.to_string() }
            }
            trouble => RegisterError::Unreachable { place, source: trouble.into() },
        }
    }

    fn malformed(&self, problem: Malformed) -> RegisterError {
        RegisterError::Unusable { place: self.to_string(), problem: problem.to_string() }
    }

    /// What the API server said no with; its own words are not shown.
    fn refused(&self, answer: &Answer) -> RegisterError {
        let Self { namespace, secret, .. } = self;
        let problem = match answer.status.as_u16() {
            401 => {
                "cannot be opened: the API server does not know the service account's token".into()
            }
            403 => {
                "is not allowed to this service account: allow it get, update and watch on that \
                    Secret (a Role and a RoleBinding, as in deploy/kubernetes/shared.yaml)"
                    .into()
            }
            404 => format!(
                "is not there; create it: kubectl --namespace {namespace} create secret generic \
                 {secret}"
            ),
            400 | 405 | 413 | 415 | 422 => {
                "was not accepted by the API server: is it immutable, or nearly 1 MiB large?".into()
            }
            _ => return self.unreachable(Trouble::Status(answer.status)),
        };
        RegisterError::Unusable { place: self.to_string(), problem }
    }
}
