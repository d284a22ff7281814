//! A watch of one object: an answer without an end, one JSON event a line.
//!
//! Everything that is under way lives in [`Watch`], so that a call of [`Watch::next`] may be given up
//! at any moment.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::Place;
use super::api::{Driver, MAX_ANSWER_BYTES};
use super::object;
use crate::clock::monotonic;

/// How long the API server is asked to go on.
const SECONDS: u64 = 300;
/// So much later a watch is given up on which nothing ended: nobody may be there any more.
const LATE: Duration = Duration::from_secs(15);

/// A watch that goes on for so long was none that ends again and again.
const LONG: Duration = Duration::from_secs(30);

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It has this version now.
    Changed(String),
    /// Nothing else happened until this version.
    Bookmark(String),
    /// It is gone.
    Deleted,
    /// The version that the watch began with is too old: what came after it is not known.
    Expired,
    /// No more news from here.
    Ended,
}

#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    code: Option<u16>,
}

/// The target of a watch of one object; by the name in the selector a role allows it.
pub(super) fn target(place: &Place, from: Option<&str>) -> String {
    let Place { namespace, secret, .. } = place;
    let mut target = format!(
        "/api/v1/namespaces/{namespace}/secrets?watch=true&allowWatchBookmarks=true&\
         fieldSelector=metadata.name%3D{secret}&timeoutSeconds={SECONDS}"
    );
    // A version is opaque: what could not stand in a query was not one.
    let from = from.filter(|from| from.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if let Some(from) = from {
        target.push_str("&resourceVersion=");
        target.push_str(from);
    }
    target
}

/// A watch under way.
pub(super) struct Watch {
    body: Incoming,
    driver: Driver,
    /// What was read and is no whole line yet.
    rest: Zeroizing<Vec<u8>>,
    until: Instant,
    began: Instant,
}

impl Watch {
    pub(super) fn new(body: Incoming, driver: Driver) -> Self {
        let began = monotonic();
        let until = began + Duration::from_secs(SECONDS) + LATE;
        Self { body, driver, rest: Zeroizing::default(), until, began }
    }

    /// The next news. After [`News::Ended`] or [`News::Expired`] there is none.
    pub(super) async fn next(&mut self) -> News {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let news = read(&self.rest[..end]);
                self.rest.drain(..=end);
                return news;
            }
            let more = timeout_at(self.until, self.more()).await;
            if !more.unwrap_or(false) || self.rest.len() > MAX_ANSWER_BYTES {
                return News::Ended;
            }
        }
    }

    /// Whether it has gone on for some time.
    pub(super) fn was_long(&self) -> bool {
        monotonic().saturating_duration_since(self.began) > LONG
    }

    /// Reads some more; false at the end.
    async fn more(&mut self) -> bool {
        let frame = self.driver.during(self.body.frame()).await;
        let Some(Ok(frame)) = frame else { return false };
        if let Some(bytes) = frame.data_ref() {
            self.rest.extend_from_slice(bytes);
        }
        true
    }
}

fn read(line: &[u8]) -> News {
    let Ok(event) = serde_json::from_slice::<Event<'_>>(line) else { return News::Ended };
    let Ok(object) = serde_json::from_str::<Metadata<'_>>(event.object.get()) else {
        return News::Ended;
    };
    let version = object.metadata.and_then(|metadata| object::version(metadata.get()));
    match (event.r#type, version) {
        ("ADDED" | "MODIFIED", Some(version)) => News::Changed(version),
        ("BOOKMARK", Some(version)) => News::Bookmark(version),
        ("DELETED", _) => News::Deleted,
        ("ERROR", _) if object.code == Some(410) => News::Expired,
        _ => News::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_their_kind() {
        let object = r#"{"kind":"Secret","metadata":{"name":"s","resourceVersion":"7"},"data":{}}"#;
        let event = |kind: &str, object: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#);
        let status = |code: u16| format!(r#"{{"kind":"Status","metadata":{{}},"code":{code}}}"#);
        for (line, wanted) in [
            (event("ADDED", object), News::Changed("7".into())),
            (event("MODIFIED", object), News::Changed("7".into())),
            (event("BOOKMARK", object), News::Bookmark("7".into())),
            (event("DELETED", object), News::Deleted),
            (event("ERROR", &status(410)), News::Expired),
            (event("ERROR", &status(500)), News::Ended),
            (event("MODIFIED", "{}"), News::Ended),
            (event("LATER", object), News::Ended),
            ("not json".to_owned(), News::Ended),
        ] {
            assert_eq!(read(line.as_bytes()), wanted, "{line}");
        }
    }

    #[test]
    fn a_watch_is_of_one_object_by_name() {
        let place = Place {
            namespace: "shop".to_owned(),
            secret: "tokens".to_owned(),
            server: None,
            account: super::super::ACCOUNT.into(),
        };
        let all = target(&place, None);
        assert!(all.starts_with("/api/v1/namespaces/shop/secrets?watch=true&"), "{all}");
        assert!(all.contains("fieldSelector=metadata.name%3Dtokens"), "{all}");
        assert!(!all.contains("resourceVersion"), "{all}");
        assert!(target(&place, Some("12")).ends_with("&resourceVersion=12"));
        assert_eq!(target(&place, Some("1&x=2")), all);
    }
}
