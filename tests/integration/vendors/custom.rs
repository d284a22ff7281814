//! A dialect that a user writes: a JSON request, other pointers, an RFC 3339 expiry, and a token
//! that is fetched with GET.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emulator::{Api, Step, Tls};
use serde_json::{Value, json};

use super::{Rig, credential, failed, lives, pauses, told};

const DIALECT: &str = r#"
format = 1
name = "acme"
inject = { variants = ["x-acme-token:"] }
flow = { obtain = ["json", "get"] }
[keys]
host = { kind = "host", required = true }
tenant = { kind = "text", required = true }
way = { kind = "choice", of = ["json", "get"], default = "json" }
api_key = { kind = "secret", required = true }
[exchange.json]
when = { way = "json" }
json = { auth = { tenant = "{tenant}", key = "{api_key}" }, lasting = true, note = "{{x}}" }
[exchange.get]
when = { way = "get" }
method = "GET"
headers = { "x-api-key" = "{api_key}" }
[defaults]
url = "{host}/tenants/{tenant}/token"
headers = { accept = "application/vnd.acme+json" }
[defaults.ok]
status = 201
access_token = "/data/0/token"
refresh_token = ""
token_type = { at = "/kind", accept = ["acme"] }
expiry = [{ at = "/data/0/valid~1until", as = "rfc3339" }]
[[defaults.error]]
id = "A1"
status = "4xx"
at = "/fault/code"
has = "LOCK"
outcome = "terminal"
reason = "needs_operator"
hint = "unlock the tenant"
"#;

fn written(rig: &Rig, idp: &Api, way: &str) -> String {
    format!(
        "provider = \"custom\"\ndialect = \"{}\"\nhost = \"{}\"\ntenant = \"a b/c\"\n\
         way = \"{way}\"\napi_key = {}\n",
        rig.home.write("acme.toml", DIALECT),
        idp.url(),
        rig.secret("api-key", "k\"+&")
    )
}

/// A server that answers everything alike.
fn answering(rig: &Rig, step: Step) -> Api {
    let server = Api::start(Tls::Off, &rig.tokens);
    server.set_always(Some(step));
    server
}

/// A success whose token lives for ten minutes.
fn success(token: &str) -> Step {
    let until = SystemTime::now() + Duration::from_secs(600);
    let until = until.duration_since(UNIX_EPOCH).unwrap();
    let until = jiff::Timestamp::from_second(until.as_secs().try_into().unwrap()).unwrap();
    let answer = json!({ "data": [{ "token": token, "valid/until": until.to_string() }],
        "kind": "ACME", "expires_in": 5 });
    Step::Json(201, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialect_file_says_what_is_sent_and_how_the_answer_is_read() {
    for way in ["json", "get"] {
        let rig = Rig::new();
        rig.api.set_credential_header("x-acme-token", None);
        let idp = answering(&rig, success("acme-1"));
        rig.tokens.issue("acme-1", None);
        let route = "header = \"x-acme-token\"\nscheme = \"\"";
        let config = rig.config_with_route(&written(&rig, &idp, way), route);
        let daemon = crate::support::Daemon::start_with(&rig.home, &config);
        daemon.ready().await;
        lives(&credential(&daemon).await, 600);
        assert_eq!(daemon.get("/things").await.status, 200);
        let sent = idp.last_request().unwrap();
        assert_eq!(sent.target, "/tenants/a%20b%2Fc/token");
        assert_eq!(sent.header("accept").as_deref(), Some("application/vnd.acme+json"));
        if way == "json" {
            assert_eq!(sent.method, "POST");
            assert_eq!(sent.header("content-type").as_deref(), Some("application/json"));
            let body: Value = serde_json::from_slice(&sent.body).unwrap();
            assert_eq!(
                body,
                json!({ "auth": { "tenant": "a b/c", "key": "k\"+&" }, "lasting": true,
                    "note": "{x}" })
            );
        } else {
            assert_eq!((sent.method.as_str(), sent.body.len()), ("GET", 0));
            assert_eq!(sent.header("x-api-key").as_deref(), Some("k\"+&"));
            assert!(!sent.has("content-type"));
        }
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialect_files_own_errors_come_first() {
    let rig = Rig::new();
    let idp = answering(&rig, Step::Json(423, json!({ "fault": { "code": "TENANT-LOCKED" } })));
    let daemon = rig.start(&written(&rig, &idp, "json"));
    let status = failed(&daemon, "terminal").await;
    told(&status, &["answered 423 (needs_operator)", "rule A1", "unlock the tenant"], true);
    pauses(&status);
    assert!(daemon.stop().success());
}
