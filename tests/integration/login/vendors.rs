//! Logins of the vendor dialects and of a user's own, as far as documents establish them.

use std::time::Duration;

use emulator::http::Reply;
use emulator::{Step, Tls, Veeam};
use serde_json::json;

use super::{Browser, Login};
use crate::support::eventually;
use crate::vendors::{Rig, credential};

#[tokio::test(flavor = "multi_thread")]
async fn v2_the_code_of_the_second_factor_is_asked_for_on_the_terminal() {
    let rig = Rig::new();
    let veeam = Veeam::start(Tls::self_signed(), &rig.tokens);
    veeam.add_user("administrator", "the password of the administrator");
    veeam.set_mfa("administrator", "123456");
    let pin = veeam.server().certificate().expect("TLS").pin_sha256().to_owned();
    let written = format!(
        "provider = \"veeam-azure\"\nhost = \"{}\"\nusername = \"administrator\"\npassword = {}\n\
         tls = {{ pin_sha256 = [\"{pin}\"] }}\n{}",
        veeam.host(),
        rig.secret("password", "the password of the administrator"),
        rig.store()
    );
    let daemon = rig.start(&written);
    eventually("a person is needed", async || {
        credential(&daemon).await["last"]["needs_operator"] == true
    })
    .await;
    let remedy = credential(&daemon).await["last"]["remedy"].clone();
    assert!(remedy.as_str().is_some_and(|r| r.starts_with("bearerd login")), "{remedy}");
    // Nobody is there to answer.
    let mut login = Login::start(&rig.home, &[]);
    login.hang_up();
    let (code, _, errors) = login.end();
    assert!(code == 1 && errors.contains("no code was given"), "{errors}");
    // Whoever changes his mind at the question gets out.
    for signal in ["INT", "TERM", "HUP"] {
        let login = Login::start(&rig.home, &[]);
        login.asks("Code of the second factor for c: ");
        login.signal(signal);
        let (code, _, errors) = login.end();
        assert_eq!(code, 130, "{signal}: {errors}");
        assert!(errors.ends_with("bearerd: interrupted; nothing was kept\n"), "{errors}");
        assert!(!rig.home.path("store.json.login").exists());
    }
    // There is no other way.
    for (flag, told) in [("--code", "leave --code out"), ("--device", "leave --device out")] {
        let (code, out, errors) = Login::start(&rig.home, &[flag]).end();
        assert!(code == 1 && out.is_empty() && errors.contains(told), "{errors}");
    }
    // A wrong code, then the right one.
    for (typed, exit) in [("000000", 1), ("123456", 0)] {
        let mut login = Login::start(&rig.home, &[]);
        login.write(typed);
        let (code, out, errors) = login.end();
        assert_eq!(code, exit, "{errors}");
        assert!(out.starts_with("Code of the second factor for c: "), "{out}");
        assert!(!format!("{out}{errors}").contains(typed));
    }
    daemon.ready().await;
    assert_eq!(daemon.get("/").await.status, 200);
    let sent = veeam.requests();
    let mfa = sent.iter().rev().find(|request| request.body_text().contains("Mfa")).expect("sent");
    assert_eq!(mfa.form().names(), ["grant_type", "mfa_token", "mfa_code"]);
    // From now on the refresh token serves: nobody signs in again.
    let logins = veeam.logins();
    rig.refresh_now(&daemon).await;
    assert_eq!(veeam.logins(), logins);
    assert_eq!(veeam.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_tenant_is_signed_in_to_where_its_metadata_says() {
    let rig = Rig::new();
    let idp = crate::vendors::tenant(&rig);
    let written = crate::vendors::written_for(&rig, &idp);
    let daemon = rig.start(&written);
    eventually("a person is needed", async || {
        credential(&daemon).await["last"]["needs_operator"] == true
    })
    .await;
    let login = Login::start(&rig.home, &[]);
    let url = login.url();
    assert!(url.starts_with(&format!("{}/oauth2/authorize?", idp.url())), "{url}");
    for pair in ["scope=openid", "client_id=TENANT_CLIENT_ID", "code_challenge_method=S256"] {
        assert!(url.contains(pair), "{pair} in {url}");
    }
    assert_eq!(Browser::default().open(&url).await.status, 200);
    let (code, _, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    daemon.ready().await;
    let sent = idp.requests();
    let exchange = sent.iter().find(|r| r.form().value("code").is_some()).expect("sent");
    let names = exchange.form();
    // As the page on PKCE has it: no client_secret.
    assert_eq!(names.names(), ["client_id", "grant_type", "code", "redirect_uri", "code_verifier"]);
    rig.refresh_now(&daemon).await;
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(idp.violations(), Vec::<String>::new());
}

/// A dialect whose logins are in JSON and under other words than RFC 6749's.
const OWN: &str = r#"
format = 1
name = "acme"
flow = { obtain = ["refresh"] }
[keys]
host = { kind = "host", required = true }
app = { kind = "text", required = true }
tenant = { kind = "text", required = true }
refresh_token = { kind = "secret", rotating = true }
[login]
code = { url = "{host}/{tenant}/signin", query = [["app", "{app}"]], exchange = ["code"] }
[exchange.refresh]
needs = ["refresh_token"]
json = { app = "{app}", refresh = "{refresh_token}" }
[exchange.code]
json = { app = "{app}", code = "{code}", back = "{redirect_uri}", proof = "{code_verifier}" }
[defaults]
url = "{host}/token"
ok = { access_token = "/data/token", refresh_token = "/data/refresh", expiry = [{ at = "/data/ttl", as = "seconds" }] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_dialect_of_ones_own_can_have_a_login() {
    let rig = Rig::new();
    let idp = emulator::Oauth2::start(Tls::Off, &rig.tokens);
    let dialect = rig.home.write("acme.toml", OWN);
    let credential = format!(
        "provider = \"custom\"\ndialect = \"{dialect}\"\nhost = \"{}\"\napp = \"the app\"\n\
         tenant = \"a b/c\"\n{}",
        idp.url(),
        rig.store()
    );
    rig.home.write("bearerd.toml", &rig.config(&credential));
    rig.tokens.issue("token-of-acme", Some(Duration::from_secs(600)));
    let data = json!({ "data": { "token": "token-of-acme", "refresh": "next", "ttl": 600 } });
    idp.script([Step::from(Reply::json(200, data))]);
    let login = Login::start(&rig.home, &[]);
    let url = login.url();
    let begin = format!("{}/a%20b%2Fc/signin?response_type=code&app=the+app&", idp.url());
    assert!(url.starts_with(&begin), "each value as its place wants it: {url}");
    let query = url.split_once('?').expect("a query").1;
    let value = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == wanted).expect(wanted).1.into_owned()
    };
    let back = format!("{}?code=the-code&state={}", value("redirect_uri"), value("state"));
    assert_eq!(Browser::default().open(&back).await.status, 200);
    let (code, _, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    let sent: serde_json::Value =
        serde_json::from_slice(&idp.last_request().expect("sent").body).expect("JSON");
    assert_eq!((&sent["code"], &sent["app"]), (&"the-code".into(), &"the app".into()));
    assert_eq!(sent["proof"].as_str().map(str::len), Some(43));
    let daemon = rig.started(&credential).await;
    assert_eq!(daemon.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_dialect_has_no_login_or_lacks_something_for_it_that_is_said() {
    for (lines, told) in [
        (
            "provider = \"servicemax-max\"\nhost = \"h.example\"\nclient_id = \"i\"\n\
             refresh_token = SECRET",
            "servicemax-max has no [login]; put a new refresh_token in place",
        ),
        (
            "provider = \"vmware-csp\"\napi_token = SECRET",
            "vmware-csp has no [login]: it takes no person",
        ),
        (
            "provider = \"veeam-azure\"\nhost = \"h.example\"\nrefresh_token = SECRET",
            "the [login] of veeam-azure needs password and username",
        ),
        (
            "provider = \"tencent-ciam\"\nhost = \"h.example\"\nclient_id = \"i\"\n\
             client_secret = SECRET\ngrant = \"client_credentials\"",
            "what is chosen in it takes no person",
        ),
        ("provider = \"exec\"\ncommand = [\"/bin/true\"]", "its tokens come from elsewhere"),
    ] {
        let rig = Rig::new();
        let lines = lines.replace("SECRET", &rig.secret("secret", "s"));
        rig.home.write("bearerd.toml", &rig.config(&lines));
        let (code, out, errors) = Login::start(&rig.home, &[]).end();
        assert_eq!((code, out.as_str()), (64, ""), "{errors}");
        assert!(errors.contains(&format!("nobody can sign in for c: {told}\n")), "{errors}");
    }
}
