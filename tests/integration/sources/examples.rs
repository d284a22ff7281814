//! Every file of `deploy/examples`, loaded and run against a server of that provider's shape: what
//! goes out to the letter, and a request that carries what came back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use emulator::http::Recorded;
use emulator::{Form, Reply, Step};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use super::keys::Rsa;
use super::{Told, pairs, said};
use crate::support::{Daemon, eventually, read};
use crate::vendors::{Rig, credential, lives};

const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples")
}

/// One example on its stage: its secrets are in place, its upstream is the stage's API.
struct Example {
    rig: Rig,
    text: String,
}

impl Example {
    fn of(name: &str, secrets: &[(&str, &str)]) -> Self {
        let rig = Rig::new();
        let home = rig.home.path("").display().to_string();
        for directory in ["run", "lib"] {
            std::fs::create_dir_all(rig.home.path(directory)).unwrap();
        }
        for (path, content) in secrets {
            let path = rig.home.path("run").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let text = read(directory().join(format!("{name}.toml")));
        let text = text.replace("/var/run/secrets/", &format!("{home}/run/"));
        let text = text.replace("/var/lib/bearerd/", &format!("{home}/lib/"));
        let upstream = format!("upstream = \"{}\"", rig.api.url());
        let line = |line: &str| match line.starts_with("upstream = ") {
            true => upstream.clone(),
            false => line.to_owned(),
        };
        let text = text.lines().map(line).collect::<Vec<_>>().join("\n");
        Self { rig, text }
    }

    /// Puts `to` in the place of `from`, which must be there.
    fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "no {from} in {}", self.text);
        self.text = self.text.replace(from, to);
        self
    }

    /// Starts a daemon by it, and sends a request that must be accepted with `token`.
    async fn runs(&self, token: &str) -> Daemon {
        self.rig.tokens.issue(token, None);
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
        let daemon = Daemon::start_with(&self.rig.home, &format!("{server}{}", self.text));
        daemon.ready().await;
        assert_eq!(daemon.get("/orders").await.status, 200);
        assert!(self.rig.api.violations().is_empty());
        daemon
    }
}

/// Fields of a form that do not change from run to run.
fn without(form: &Form, name: &str) -> Vec<(String, String)> {
    pairs(form).into_iter().filter(|(field, _)| field != name).collect()
}

fn claims(form: &Form, field: &str, key: &DecodingKey) -> Value {
    let mut validation = jsonwebtoken::Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    let jwt = form.value(field).expect("an assertion");
    jsonwebtoken::decode::<Value>(jwt, key, &validation).expect("signed by that key").claims
}

fn in_an_hour() -> String {
    let until = SystemTime::now() + Duration::from_secs(3600);
    jiff::Timestamp::try_from(until).unwrap().to_string()
}

#[test]
fn every_example_is_run_and_listed() {
    let there: BTreeSet<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .collect();
    let (tests, list) = (include_str!("examples.rs"), read(directory().join("README.md")));
    assert!(there.len() >= 17);
    for name in there {
        assert!(tests.contains(&format!("Example::of(\"{name}\"")), "{name} is not run");
        assert!(list.contains(&format!("[{name}.toml]({name}.toml)")), "{name} is not listed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auth0() {
    let idp = Told::start(|_| {
        let answer = json!({ "access_token": "auth0", "scope": "read:orders",
            "expires_in": 86400, "token_type": "Bearer" });
        Reply::json(200, answer)
    });
    let example = Example::of("auth0", &[("auth0/client-secret", "s")])
        .with("https://TENANT.eu.auth0.com", &idp.url(""));
    let daemon = example.runs("auth0").await;
    lives(&credential(&daemon).await, 86400);
    assert_eq!(idp.asked()[0].target, "/oauth/token");
    let expected = said(&[
        ("grant_type", "client_credentials"),
        ("client_id", "CLIENT_ID"),
        ("client_secret", "s"),
        ("audience", "https://api.example.com"),
    ]);
    assert_eq!(pairs(&idp.forms()[0]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn cognito() {
    let idp = Told::start(|_| {
        Reply::json(
            200,
            json!({ "access_token": "cognito", "expires_in": 3600, "token_type": "Bearer" }),
        )
    });
    let example = Example::of("cognito", &[("cognito/client-secret", "s")])
        .with("https://DOMAIN.auth.eu-central-1.amazoncognito.com", &idp.url(""));
    example.runs("cognito").await;
    let request = idp.asked().remove(0);
    assert_eq!(request.target, "/oauth2/token");
    // CLIENT_ID:s
    assert_eq!(request.header("authorization").as_deref(), Some("Basic Q0xJRU5UX0lEOnM="));
    let expected = said(&[("grant_type", "client_credentials"), ("scope", "orders/read")]);
    assert_eq!(pairs(&request.form()), expected);
}

fn entra_answer() -> Reply {
    let answer = json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599,
        "access_token": "entra" });
    Reply::json(200, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn entra() {
    let idp = Told::start(|_| entra_answer());
    let example = Example::of("entra", &[("entra/client-secret", "s")])
        .with("https://login.microsoftonline.com", &idp.url(""));
    let daemon = example.runs("entra").await;
    lives(&credential(&daemon).await, 3599);
    assert_eq!(idp.asked()[0].target, "/TENANT/oauth2/v2.0/token");
    let expected = said(&[
        ("grant_type", "client_credentials"),
        ("scope", "https://graph.microsoft.com/.default"),
        ("client_id", "11111111-2222-3333-4444-555555555555"),
        ("client_secret", "s"),
    ]);
    assert_eq!(pairs(&idp.forms()[0]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn entra_workload() {
    let idp = Told::start(|_| entra_answer());
    let secrets = [("azure/tokens/azure-identity-token", "projected")];
    let example = Example::of("entra-workload", &secrets)
        .with("https://login.microsoftonline.com", &idp.url(""));
    example.runs("entra").await;
    let expected = said(&[
        ("grant_type", "client_credentials"),
        ("scope", "https://graph.microsoft.com/.default"),
        ("client_id", "11111111-2222-3333-4444-555555555555"),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", "projected"),
    ]);
    assert_eq!(pairs(&idp.forms()[0]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn okta() {
    let idp = Told::start(|_| {
        Reply::json(
            200,
            json!({ "token_type": "Bearer", "expires_in": 3600,
            "access_token": "okta", "scope": "okta.users.read" }),
        )
    });
    let key = Rsa::new();
    let example = Example::of("okta", &[("okta/key.pem", &key.pem)])
        .with("https://ORG.okta.com", &idp.url(""));
    example.runs("okta").await;
    let form = idp.forms().remove(0);
    let expected = said(&[
        ("grant_type", "client_credentials"),
        ("scope", "okta.users.read"),
        ("client_id", "CLIENT_ID"),
        ("client_assertion_type", CLIENT_ASSERTION),
    ]);
    assert_eq!(without(&form, "client_assertion"), expected);
    let claims = claims(&form, "client_assertion", &key.public);
    assert_eq!(claims["aud"], idp.url("/oauth2/v1/token"));
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("CLIENT_ID"), &json!("CLIENT_ID")));
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak() {
    let idp = Told::start(|request| {
        let issuer = format!("http://{}/realms/REALM", request.header("host").unwrap());
        match request.path() {
            "/realms/REALM/.well-known/openid-configuration" => Reply::json(
                200,
                json!({ "issuer": issuer,
                    "token_endpoint": format!("{issuer}/protocol/openid-connect/token") }),
            ),
            "/realms/REALM/protocol/openid-connect/token" => Reply::json(
                200,
                json!({ "access_token": "keycloak", "expires_in": 300, "refresh_expires_in": 0,
                    "refresh_token": "second", "token_type": "Bearer", "not-before-policy": 0,
                    "session_state": "x", "scope": "offline_access" }),
            ),
            _ => Reply::json(404, json!({ "error": "HTTP 404 Not Found" })),
        }
    });
    let secrets = [("keycloak/client-secret", "s"), ("keycloak/offline-token", "first")];
    let example =
        Example::of("keycloak", &secrets).with("https://keycloak.example.com", &idp.url(""));
    let daemon = example.runs("keycloak").await;
    lives(&credential(&daemon).await, 300);
    let form = idp.forms().pop().unwrap();
    let expected = said(&[("grant_type", "refresh_token"), ("refresh_token", "first")]);
    assert_eq!(pairs(&form), expected);
    assert!(read(example.rig.home.path("lib/keycloak.json")).contains("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn zoho() {
    let calls = std::sync::atomic::AtomicU32::new(0);
    let idp = Told::start(move |_| {
        if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            // Zoho says no with a 200.
            return Reply::json(200, json!({ "error": "temporarily_unavailable" }));
        }
        Reply::json(
            200,
            json!({ "access_token": "zoho", "api_domain": "https://elsewhere.example",
            "token_type": "Bearer", "expires_in": 3600 }),
        )
    });
    let secrets = [("zoho/client-secret", "s"), ("zoho/refresh-token", "r")];
    let example = Example::of("zoho", &secrets).with("https://accounts.zoho.eu", &idp.url(""));
    example.rig.api.set_credential_header("authorization", Some("Zoho-oauthtoken"));
    let daemon = example.runs("zoho").await;
    assert!(daemon.metric("bearerd_token_fetches_total", &["outcome=\"transient\""]).await > 0.0);
    let expected = said(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", "r"),
        ("client_id", "1000.CLIENTID"),
        ("client_secret", "s"),
    ]);
    assert_eq!(pairs(&idp.forms()[1]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn google_service_account() {
    let idp = Told::start(|_| {
        Reply::json(
            200,
            json!({ "access_token": "google", "expires_in": 3599, "token_type": "Bearer" }),
        )
    });
    let key = Rsa::new();
    let file = json!({ "type": "service_account", "project_id": "p", "private_key_id": "kid-1",
        "private_key": key.pem, "client_email": "robot@p.iam.gserviceaccount.com",
        "client_id": "1", "token_uri": "https://elsewhere.example/token" });
    let here =
        format!("provider = \"google-service-account\"\ntoken_url = \"{}\"", idp.url("/token"));
    let example = Example::of("google-service-account", &[("google/key.json", &file.to_string())])
        .with("provider = \"google-service-account\"", &here);
    let daemon = example.runs("google").await;
    lives(&credential(&daemon).await, 3599);
    let form = idp.forms().remove(0);
    assert_eq!(without(&form, "assertion"), said(&[("grant_type", JWT_BEARER)]));
    let claims = claims(&form, "assertion", &key.public);
    assert_eq!(claims["iss"], "robot@p.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/devstorage.read_only");
    assert_eq!(claims["aud"], idp.url("/token"));
    assert_eq!(claims.get("sub"), None);
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(life, 3600);
    let header = jsonwebtoken::decode_header(form.value("assertion").unwrap()).unwrap();
    assert_eq!((header.kid.as_deref(), header.typ.as_deref()), (Some("kid-1"), Some("JWT")));
}

#[tokio::test(flavor = "multi_thread")]
async fn google_workload() {
    let idp = Told::start(|request| match request.path() {
        // Without expires_in: then the life is that of the subject.
        "/v1/token" => Reply::json(
            200,
            json!({ "access_token": "federated",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer" }),
        ),
        _ if request.header("authorization").as_deref() == Some("Bearer federated") => {
            Reply::json(200, json!({ "accessToken": "google", "expireTime": in_an_hour() }))
        }
        _ => Reply::status(401),
    });
    let impersonation = format!("provider = \"google-impersonation\"\nhost = \"{}\"", idp.url(""));
    let example = Example::of("google-workload", &[("tokens/google", "projected")])
        .with("https://sts.googleapis.com", &idp.url(""))
        .with("provider = \"google-impersonation\"", &impersonation);
    let daemon = example.runs("google").await;
    lives(&daemon.status().await["credentials"][1], 3600);
    let [exchange, impersonation] = <[_; 2]>::try_from(idp.asked()).expect("two requests");
    let expected = said(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "projected"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        (
            "audience",
            "//iam.googleapis.com/projects/123456789012/locations/global/\
             workloadIdentityPools/POOL/providers/PROVIDER",
        ),
    ]);
    assert_eq!(pairs(&exchange.form()), expected);
    let path = "/v1/projects/-/serviceAccounts/robot%40PROJECT.iam.gserviceaccount.com\
                :generateAccessToken";
    assert_eq!(impersonation.target, path);
    let body: Value = serde_json::from_slice(&impersonation.body).unwrap();
    let scope = ["https://www.googleapis.com/auth/cloud-platform"];
    assert_eq!(body, json!({ "scope": scope, "lifetime": "3600s" }));
}

fn metadata_server(request: &Recorded) -> Reply {
    let answer = json!({ "access_token": "google", "expires_in": 3599, "token_type": "Bearer" });
    match request.header("metadata-flavor").as_deref() {
        Some("Google") => Reply::json(200, answer).header("Metadata-Flavor", "Google"),
        _ => Reply::status(403),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn google_metadata() {
    let idp = Told::start(metadata_server);
    let here = format!("provider = \"google-metadata\"\nhost = \"{}\"", idp.url(""));
    let example = Example::of("google-metadata", &[]).with("provider = \"google-metadata\"", &here);
    example.runs("google").await;
    let request = idp.asked().remove(0);
    let target = "/computeMetadata/v1/instance/service-accounts/default/token";
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", target));
    assert!(request.body.is_empty() && !request.has("x-forwarded-for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_vm() {
    let until = SystemTime::now() + Duration::from_secs(86_000);
    let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().to_string();
    let idp = Told::start(move |request| match request.header("metadata").as_deref() {
        Some("true") => Reply::json(
            200,
            json!({ "access_token": "azure", "client_id": "x",
            "expires_in": "86399", "expires_on": until, "ext_expires_in": "86399",
            "not_before": "1", "refresh_token": "", "resource": "https://management.azure.com/",
            "token_type": "Bearer" }),
        ),
        _ => Reply::status(400),
    });
    let here = format!("provider = \"azure-imds\"\nhost = \"{}\"", idp.url(""));
    let example = Example::of("azure-vm", &[]).with("provider = \"azure-imds\"", &here);
    let daemon = example.runs("azure").await;
    lives(&credential(&daemon).await, 86_000);
    let target = "/metadata/identity/oauth2/token?api-version=2018-02-01\
                  &resource=https%3A%2F%2Fmanagement.azure.com%2F";
    assert_eq!(idp.asked()[0].target, target);
    assert!(!idp.asked()[0].has("x-forwarded-for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_app_service() {
    let idp = Told::start(|request| match request.header("x-identity-header").as_deref() {
        Some("identity-secret") => Reply::json(
            200,
            json!({ "access_token": "azure",
            "expires_on": "4102444800", "resource": "x", "token_type": "Bearer", "client_id": "x" }),
        ),
        _ => Reply::status(401),
    });
    let example = Example::of("azure-app-service", &[]);
    example.rig.tokens.issue("azure", None);
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let environment =
        [("IDENTITY_ENDPOINT", &*idp.url("/msi/token")), ("IDENTITY_HEADER", "identity-secret")];
    let config = format!("{server}{}", example.text);
    let daemon = Daemon::start_in(&example.rig.home, &config, &environment);
    daemon.ready().await;
    assert_eq!(daemon.get("/blob").await.status, 200);
    let target = "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com%2F";
    assert_eq!(idp.asked()[0].target, target);
}

#[tokio::test(flavor = "multi_thread")]
async fn github_app() {
    let idp = Told::start(|_| {
        Reply::json(
            201,
            json!({ "token": "ghs_x", "expires_at": in_an_hour(),
            "permissions": { "contents": "read" }, "repository_selection": "all" }),
        )
    });
    let key = Rsa::new();
    let here = format!("provider = \"github-app\"\nhost = \"{}\"", idp.url(""));
    let example = Example::of("github-app", &[("github/key.pem", &key.pem)])
        .with("provider = \"github-app\"", &here);
    let daemon = example.runs("ghs_x").await;
    lives(&credential(&daemon).await, 3600);
    let request = idp.asked().remove(0);
    assert_eq!(request.method, "POST");
    assert_eq!(request.target, "/app/installations/12345678/access_tokens");
    assert_eq!(request.header("accept").as_deref(), Some("application/vnd.github+json"));
    assert!(request.header("user-agent").is_some_and(|agent| agent.starts_with("bearerd/")));
    let bearer = request.header("authorization").unwrap_or_default();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::RS256);
    validation.leeway = 0;
    let jwt = bearer.strip_prefix("Bearer ").expect("a JWT");
    let claims = jsonwebtoken::decode::<Value>(jwt, &key.public, &validation).unwrap().claims;
    assert_eq!(claims["iss"], "Iv23liCLIENTID");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(iat + 55 <= now && exp - iat <= 600, "{claims} at {now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn salesforce() {
    let idp = Told::start(|_| {
        Reply::json(
            200,
            json!({ "access_token": "00D!AQ", "instance_url": "https://acme.example",
            "id": "https://login.salesforce.com/id/x", "token_type": "Bearer", "scope": "api",
            "issued_at": "1700000000000" }),
        )
    });
    let key = Rsa::new();
    let here = format!("provider = \"salesforce\"\nhost = \"{}\"", idp.url(""));
    let example = Example::of("salesforce", &[("salesforce/key.pem", &key.pem)])
        .with("provider = \"salesforce\"", &here);
    let daemon = example.runs("00D!AQ").await;
    lives(&credential(&daemon).await, 3600);
    let form = idp.forms().remove(0);
    assert_eq!(idp.asked()[0].target, "/services/oauth2/token");
    assert_eq!(without(&form, "assertion"), said(&[("grant_type", JWT_BEARER)]));
    let claims = claims(&form, "assertion", &key.public);
    assert_eq!(claims["iss"], "3MVG9CONSUMERKEY");
    assert_eq!(claims["sub"], "robot@acme.example");
    assert_eq!(claims["aud"], idp.url(""));
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 180);
    // Its APIs challenge nobody, and say it in a list.
    let gone =
        json!([{ "message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID" }]);
    example.rig.api.script([Step::Json(401, gone)]);
    assert_eq!(daemon.get("/orders").await.status, 200);
    assert_eq!(idp.asked().len(), 2);
}

/// `{"session":{…}}` for so many seconds.
fn session(token: &str, seconds: u64) -> Reply {
    let until = SystemTime::now() + Duration::from_secs(seconds);
    let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let session = json!({ "token": token, "renewable": true, "validUntil": until, "idle": 86_400 });
    Reply::json(201, json!({ "ok": true, "session": session }))
}

#[tokio::test(flavor = "multi_thread")]
async fn custom() {
    let idp = Told::start(|request| match request.method.as_str() {
        "POST" => session("acme", 4),
        "PUT" => session("acme", 3600),
        _ => Reply::status(204),
    });
    let example = Example::of("custom", &[("acme/api-key", "k\"1")]);
    let dialect = read(directory().join("dialects/acme.toml"));
    let dialect = example.rig.home.write("acme.toml", &dialect);
    let example = example
        .with("/etc/bearerd/acme.toml", &dialect)
        .with("login.acme.example", &idp.url(""))
        .with("api_key =", "revoke_on_shutdown = true\napi_key =");
    example.rig.api.set_credential_header("x-acme-token", None);
    let daemon = example.runs("acme").await;
    let signed_in = idp.asked().remove(0);
    assert_eq!(signed_in.target, "/v2/tenants/TENANT/sessions");
    let body: Value = serde_json::from_slice(&signed_in.body).unwrap();
    assert_eq!(body, json!({ "credentials": { "apiKey": "k\"1" } }));
    eventually("it is prolonged", async || idp.asked().len() == 2).await;
    eventually("that is in force", async || credential(&daemon).await["generation"] == 2).await;
    lives(&credential(&daemon).await, 3600);
    // The API says in its own way that the session is over.
    let over = Reply::json(403, json!({ "fault": { "code": "SESSION_EXPIRED" } }));
    // A token of the last second is given another chance first.
    eventually("signed in anew", async || {
        example.rig.api.script([Step::from(over.clone())]);
        assert_eq!(daemon.get("/orders").await.status, 200);
        idp.asked().len() > 2
    })
    .await;
    assert_eq!(idp.asked()[2].method, "POST", "what was refused is not prolonged");
    assert!(daemon.stop().success());
    let last = idp.asked().pop().unwrap();
    assert_eq!((last.method.as_str(), last.path()), ("DELETE", "/v2/sessions/current"));
    assert_eq!(last.header("authorization").as_deref(), Some("Bearer acme"));
}

fn login(token: &str, seconds: u64) -> Reply {
    Reply::json(
        200,
        json!({ "request_id": "x", "lease_id": "", "lease_duration": 0, "data": null,
        "auth": { "client_token": token, "accessor": "a", "policies": ["default"],
            "lease_duration": seconds, "renewable": true, "token_type": "service" } }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn vault() {
    let idp = Told::start(|_| login("hvs.x", 2_764_800));
    let example = Example::of("vault", &[("tokens/vault", "projected")])
        .with("vault.example.com:8200\"\nrole", &format!("{}\"\nrole", idp.url("")));
    example.rig.api.set_credential_header("x-vault-token", None);
    let daemon = example.runs("hvs.x").await;
    lives(&credential(&daemon).await, 2_764_800);
    let request = idp.asked().remove(0);
    assert_eq!(request.target, "/v1/auth/kubernetes/login");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({ "role": "orders", "jwt": "projected" }));
    assert!(!request.has("x-vault-namespace"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_identity() {
    let idp = Told::start(|request| match request.path() {
        "/v1/auth/approle/login" => login("hvs.y", 3600),
        _ if request.header("x-vault-token").as_deref() == Some("hvs.y") => Reply::json(
            200,
            json!({ "data": { "client_id": "c", "token": "an.identity.token", "ttl": 600 } }),
        ),
        _ => Reply::json(403, json!({ "errors": ["permission denied"] })),
    });
    let example = Example::of("vault-identity", &[("vault/secret-id", "s")])
        .with("vault.example.com:8200", &idp.url(""));
    let daemon = example.runs("an.identity.token").await;
    lives(&daemon.status().await["credentials"][1], 600);
    let body: Value = serde_json::from_slice(&idp.asked()[0].body).unwrap();
    assert_eq!(body, json!({ "role_id": "ROLE_ID", "secret_id": "s" }));
    assert_eq!(idp.asked()[1].target, "/v1/identity/oidc/token/orders");
}
