//! What an identity provider may not make bearerd do: go elsewhere, remember it, unpack what it sent.

use std::io::Write;

use emulator::Reply;
use emulator::http::Recorded;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::{Told, token};
use crate::pressure::memory;
use crate::support::read;
use crate::vendors::{Rig, failed, told};

/// In a cookie: what is set here must come back nowhere.
const COOKIE: &str = "canary-Cookie-Zq8Wn3Lk5Vt0";

fn lines(rig: &Rig, endpoint: &str) -> String {
    let secret = rig.secret("secret", "s3cret");
    format!(
        "grant = \"client_credentials\"\nclient_id = \"c\"\nclient_secret = {secret}\n{endpoint}\n"
    )
}

fn paths(idp: &Told) -> Vec<String> {
    idp.asked().iter().map(|request| request.target.clone()).collect()
}

/// RFC 9110 §15.4: what was sent was meant for nobody else, and most of all the secret.
#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_of_an_identity_provider_is_followed() {
    for status in [300, 301, 302, 303, 305, 307, 308] {
        // To somebody else, and to another place at the same one.
        let elsewhere = Told::start(|_| token("evil", 3600));
        let other = elsewhere.url("/token");
        for location in [other.as_str(), "/other/token", "//127.0.0.1/token", ""] {
            let (rig, location) = (Rig::new(), location.to_owned());
            let idp = Told::start(move |request: &Recorded| match request.path() {
                "/token" => Reply::status(status)
                    .header("Location", &location)
                    .header("Refresh", format!("0; url={location}")),
                _ => token("evil", 3600),
            });
            let url = format!("token_url = \"{}\"", idp.url("/token"));
            let daemon = rig.start(&lines(&rig, &url));
            let answered = format!("answered {status}");
            told(&failed(&daemon, "terminal").await, &[answered.as_str()], false);
            assert_eq!(daemon.get("/").await.status, 503, "{status}");
            assert!(paths(&idp).iter().all(|path| path == "/token"), "{status}: {:?}", paths(&idp));
            assert!(daemon.stop().success());
        }
        assert!(elsewhere.asked().is_empty(), "{status}: went to {:?}", paths(&elsewhere));
    }
}

/// Who answers for an issuer says where secrets are sent.
#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_of_an_issuers_metadata_is_followed() {
    let elsewhere = Told::start(|request| {
        let origin = format!("http://{}", request.header("host").unwrap_or_default());
        Reply::json(200, json!({ "issuer": origin, "token_endpoint": format!("{origin}/token") }))
    });
    let (rig, location) = (Rig::new(), elsewhere.url("/metadata"));
    let idp = Told::start(move |_| Reply::status(302).header("Location", &location));
    let daemon = rig.start(&lines(&rig, &format!("issuer = \"{}\"", idp.url(""))));
    failed(&daemon, "terminal").await;
    assert!(paths(&idp).iter().all(|path| path.contains(".well-known")), "{:?}", paths(&idp));
    assert!(elsewhere.asked().is_empty(), "went to {:?}", paths(&elsewhere));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_an_identity_provider_are_neither_kept_nor_sent_back() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let idp = Told::start(|_| {
        let answer =
            json!({ "access_token": "granted", "refresh_token": "next", "expires_in": 600 });
        let kinds = ["", "; Path=/", "; Path=/token; HttpOnly", "; Domain=127.0.0.1; Max-Age=9999"];
        let reply = Reply::json(200, answer);
        kinds.into_iter().enumerate().fold(reply, |reply, (index, kind)| {
            reply.header("Set-Cookie", format!("session{index}={COOKIE}{kind}"))
        })
    });
    let first = rig.secret("refresh", "first");
    let config = format!(
        "grant = \"refresh_token\"\nclient_id = \"c\"\nclient_auth = \"none\"\n\
         token_url = \"{}\"\nrefresh_token = {first}\n{}",
        idp.url("/token"),
        rig.store()
    );
    for _ in 0..3 {
        let daemon = rig.started(&config).await;
        rig.refresh_now(&daemon).await;
        let answer = daemon.get("/").await;
        assert_eq!(answer.status, 200);
        assert!(!format!("{:?}{}", answer.head, answer.text()).contains(COOKIE), "told a caller");
        assert!(!daemon.logs().contains(COOKIE), "logged");
        assert!(daemon.stop().success());
        assert!(!read(rig.home.path("store.json")).contains(COOKIE), "kept over a restart");
    }
    assert!(idp.asked().len() >= 4, "{:?}", paths(&idp));
    for request in idp.asked().iter().chain(&rig.api.requests()) {
        assert!(!request.has("cookie"), "{:?}", request.head);
        assert!(!String::from_utf8_lossy(&request.raw_head).contains(COOKIE));
    }
}

/// A good token in a hundred megabytes of space, packed into some hundred kilobytes.
fn bomb() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(b"{\"access_token\":\"granted\",\"token_type\":\"Bearer\"").unwrap();
    let spaces = vec![b' '; 1 << 20];
    (0..100).for_each(|_| packed.write_all(&spaces).unwrap());
    packed.write_all(b"}").unwrap();
    packed.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_bomb_of_an_identity_provider_is_not_unpacked() {
    let packed = bomb();
    assert!(packed.len() < 1 << 18, "it is let in whole: {} bytes", packed.len());
    for coding in ["gzip", "x-gzip", "gzip, gzip"] {
        let (rig, packed) = (Rig::new(), packed.clone());
        let idp = Told::start(move |request| {
            assert!(!request.has("accept-encoding"), "nobody is to be asked for it");
            Reply::bytes(200, "application/json", packed.clone()).header("Content-Encoding", coding)
        });
        let url = format!("token_url = \"{}\"", idp.url("/token"));
        let daemon = rig.start(&lines(&rig, &url));
        let before = memory(&daemon, "VmRSS");
        told(&failed(&daemon, "transient").await, &["200 (unusable)"], false);
        let grown = memory(&daemon, "VmHWM").saturating_sub(before);
        assert!(grown < 16 << 10, "{coding}: {grown} KiB");
        assert_eq!(daemon.get("/").await.status, 503, "{coding}");
        assert!(daemon.stop().success());
    }
}
