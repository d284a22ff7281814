//! What etcd keeps: objects under one growing revision, the history of their changes, and who
//! watches them.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};

use super::resource::Resource;
use super::status;
use crate::http::{Feed, Piece};

/// Older changes are forgotten, as by etcd's compaction.
const HISTORY: usize = 1000;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) plural: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(resource: &'static Resource, namespace: &str, name: &str) -> Self {
        let (plural, name) = (resource.plural, name.to_owned());
        Self { plural, namespace: namespace.to_owned(), name }
    }
}

#[derive(Debug)]
pub(super) struct Objects {
    revision: u64,
    /// Changes up to here are not known any more.
    compacted: u64,
    by_key: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Change {
    revision: u64,
    kind: &'static str,
    key: Key,
    object: Value,
}

/// Which changes a watcher is told.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    pub(super) resource: &'static Resource,
    /// Empty: all of them.
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) bookmarks: bool,
}

#[derive(Debug)]
struct Watcher {
    interest: Interest,
    feed: UnboundedSender<Piece>,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            revision: 1000, // other objects were there before
            compacted: 0,
            by_key: BTreeMap::new(),
            history: VecDeque::new(),
            watchers: Vec::new(),
        }
    }
}

impl Objects {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn find(&self, key: &Key) -> Option<&Value> {
        self.by_key.get(key)
    }

    /// Everything that `interest` covers.
    pub(super) fn list(&self, interest: &Interest) -> Vec<Value> {
        let covered = self.by_key.iter().filter(|(key, _)| interest.covers(key));
        covered.map(|(_, object)| object.clone()).collect()
    }

    /// Stores an object as it is under the next revision, and tells who watches.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let former = self.by_key.insert(key.clone(), object.clone());
        let kind = if former.is_some() { "MODIFIED" } else { "ADDED" };
        self.changed(kind, key, object.clone());
        object
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.by_key.remove(key)?;
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.changed("DELETED", key.clone(), object.clone());
        Some(object)
    }

    fn changed(&mut self, kind: &'static str, key: Key, object: Value) {
        let change = Change { revision: self.revision, kind, key, object };
        self.watchers.retain(|w| !w.interest.covers(&change.key) || w.tell(&change));
        self.history.push_back(change);
        if self.history.len() > HISTORY {
            self.compacted = self.history.pop_front().map_or(0, |oldest| oldest.revision);
        }
    }

    /// Changes after revision `from`; with 0, all objects first. What happened before the history
    /// begins is an ERROR event in a 200 answer. Also returns what can end it.
    pub(super) fn watch(
        &mut self,
        interest: Interest,
        from: u64,
    ) -> (Feed, WeakUnboundedSender<Piece>) {
        let (feed, stream) = Feed::new();
        let end = feed.downgrade();
        let watcher = Watcher { interest, feed };
        if from == 0 {
            for (key, object) in self.by_key.iter().filter(|(k, _)| watcher.interest.covers(k)) {
                let (key, object) = (key.clone(), object.clone());
                watcher.tell(&Change { revision: self.revision, kind: "ADDED", key, object });
            }
        } else if from < self.compacted {
            watcher.fail(&status::expired(from, self.compacted).0);
            return (stream, end);
        } else {
            let later = self.history.iter().filter(|change| change.revision > from);
            for change in later.filter(|change| watcher.interest.covers(&change.key)) {
                watcher.tell(change);
            }
        }
        self.watchers.push(watcher);
        (stream, end)
    }

    /// Forgets the history: what was watched from before now is expired.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    /// Tells those who asked for it how far they are.
    pub(super) fn bookmark(&mut self) {
        let revision = self.revision.to_string();
        for watcher in self.watchers.iter().filter(|watcher| watcher.interest.bookmarks) {
            let Resource { kind, .. } = watcher.interest.resource;
            let object = json!({
                "kind": kind, "apiVersion": watcher.interest.resource.api_version(),
                "metadata": { "resourceVersion": revision, "creationTimestamp": null },
            });
            watcher.send("BOOKMARK", &object);
        }
    }

    /// Ends all watches with 410 as an ERROR event.
    pub(super) fn expire(&mut self) {
        self.compact();
        for watcher in self.watchers.drain(..) {
            watcher.fail(&status::expired(1, self.compacted).0);
        }
    }

    /// Cuts the connections of all watches.
    pub(super) fn cut(&mut self) {
        self.watchers.clear();
    }

    /// Ends all watches properly, as by their time-out.
    pub(super) fn end(&mut self) {
        for watcher in self.watchers.drain(..) {
            let _gone = watcher.feed.send(None);
        }
    }

    pub(super) fn watchers(&self) -> usize {
        self.watchers.iter().filter(|watcher| !watcher.feed.is_closed()).count()
    }
}

impl Interest {
    fn covers(&self, key: &Key) -> bool {
        key.plural == self.resource.plural
            && (self.namespace.is_empty() || key.namespace == self.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

impl Watcher {
    /// False when the client is gone.
    fn tell(&self, change: &Change) -> bool {
        self.send(change.kind, &change.object)
    }

    fn fail(&self, status: &Value) {
        self.send("ERROR", status);
        let _gone = self.feed.send(None);
    }

    fn send(&self, kind: &str, object: &Value) -> bool {
        let event = json!({ "type": kind, "object": object });
        self.feed.send(Some(format!("{event}\n").into_bytes())).is_ok()
    }
}
