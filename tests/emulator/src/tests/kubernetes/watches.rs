//! Watches: what they tell from where on, how they end, and what is expired.

use serde_json::{Value, json};

use super::{SECRETS, connect, get, put, version, with_secret};
use crate::Kubernetes;
use crate::client::Client;
use crate::tests::DEADLINE;

/// A watch of the one Secret, its head read.
struct Watch(Client);

impl Watch {
    async fn open(server: &Kubernetes, query: &str) -> Self {
        let mut client = connect(server).await;
        let request = format!(
            "GET {SECRETS}?watch=1&fieldSelector=metadata.name%3Dtokens{query} HTTP/1.1\r\nHost: k\r\n\
             Authorization: Bearer {}\r\n\r\n",
            server.admin_token()
        );
        client.send(request.as_bytes()).await.unwrap();
        let head = client.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("Content-Type: application/json\r\n"), "{head}");
        Self(client)
    }

    /// The next event: one line in a chunk of its own.
    async fn event(&mut self) -> Value {
        let read = async {
            self.0.until("\r\n").await.unwrap();
            let line = self.0.until("\n\r\n").await.unwrap();
            serde_json::from_str(&line).unwrap()
        };
        tokio::time::timeout(DEADLINE, read).await.expect("an event in time")
    }

    /// Whether it ended properly.
    async fn ended(mut self) -> bool {
        let end = tokio::time::timeout(DEADLINE, self.0.until("0\r\n\r\n")).await;
        end.expect("an end in time").is_ok()
    }
}

async fn changed(server: &Kubernetes, value: &str) -> u64 {
    let mut secret = get(server).await;
    secret["metadata"]["labels"]["team"] = value.into();
    version(&put(server, &secret).await.json())
}

#[tokio::test]
async fn a_watch_tells_what_came_after_its_version_and_goes_on() {
    let server = with_secret();
    let first = version(&get(&server).await);
    let second = changed(&server, "b").await;
    let mut from_first = Watch::open(&server, &format!("&resourceVersion={first}")).await;
    let mut from_nothing = Watch::open(&server, "").await;
    let event = from_first.event().await;
    assert_eq!((&event["type"], version(&event["object"])), (&json!("MODIFIED"), second));
    let event = from_nothing.event().await;
    assert_eq!((&event["type"], version(&event["object"])), (&json!("ADDED"), second));
    // Others are none of its business.
    server.create(json!({ "kind": "Secret", "metadata": { "name": "x", "namespace": "shop" } }));
    let third = changed(&server, "c").await;
    for watch in [&mut from_first, &mut from_nothing] {
        assert_eq!(version(&watch.event().await["object"]), third);
    }
    assert!(server.delete_secret("shop", "tokens"));
    assert_eq!(from_first.event().await["type"], "DELETED");
}

#[tokio::test]
async fn bookmarks_are_for_those_who_asked() {
    let server = with_secret();
    let first = version(&get(&server).await);
    let from = format!("&resourceVersion={first}");
    let mut told = Watch::open(&server, &format!("{from}&allowWatchBookmarks=true")).await;
    let mut untold = Watch::open(&server, &from).await;
    server.create(json!({ "kind": "Secret", "metadata": { "name": "x", "namespace": "shop" } }));
    server.bookmark();
    let bookmark = told.event().await;
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("Secret"))
    );
    assert!(version(&bookmark["object"]) > first && bookmark["object"].get("data").is_none());
    changed(&server, "b").await;
    assert_eq!(untold.event().await["type"], "MODIFIED");
}

#[tokio::test]
async fn an_expired_version_is_an_error_event_in_a_200() {
    let server = with_secret();
    let first = version(&get(&server).await);
    let mut open = Watch::open(&server, &format!("&resourceVersion={first}")).await;
    let second = changed(&server, "b").await;
    open.event().await;
    server.compact();
    let mut late = Watch::open(&server, &format!("&resourceVersion={first}")).await;
    let event = late.event().await;
    let status = &event["object"];
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
    let message = format!("too old resource version: {first} ({second})");
    assert_eq!(status["message"], message);
    assert!(late.ended().await);
    server.expire_watches();
    assert_eq!(open.event().await["object"]["code"], 410);
    // From the present on all is well.
    Watch::open(&server, &format!("&resourceVersion={second}")).await;
}

#[tokio::test]
async fn watches_end_by_their_time_are_ended_or_cut() {
    let server = with_secret();
    assert!(Watch::open(&server, "&resourceVersion=1000000&timeoutSeconds=1").await.ended().await);
    let ending = Watch::open(&server, "&resourceVersion=1000000").await;
    assert_eq!(server.watches(), 1);
    server.end_watches();
    assert!(ending.ended().await);
    let cut = Watch::open(&server, "&resourceVersion=1000000&timeoutSeconds=600").await;
    server.cut_watches();
    assert!(!cut.ended().await);
    assert_eq!(server.watches(), 0);
}
