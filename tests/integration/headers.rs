//! Fields on their way up, byte by byte: what is stripped, what is injected, what stays as it is.

use emulator::client::{Answer, Client};
use serde_json::Value;

use crate::stage::Stage;
use crate::support::Daemon;

const HOST: &str = "Host: localhost\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_injected_header_leaves_whatever_the_caller_sent() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let ours = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    for lines in [
        "",
        "Authorization: Bearer evil\r\n",
        "authorization: Basic evil\r\nAUTHORIZATION: Bearer evil\r\n",
        "aUtHoRiZaTiOn:evil\r\n",
        "Connection: authorization\r\n",
        "Connection: close, Authorization\r\nAuthorization: evil\r\n",
        "Author_ization: evil\r\nX_Api_Key: evil\r\n",
        "Proxy-Authorization: Basic evil\r\n",
    ] {
        let answer = get(&daemon, &format!("{HOST}{lines}")).await;
        assert_eq!(answer.status, 200, "{lines}: {}", answer.text());
        assert_eq!(fields(&answer, "authorization"), [ours.as_str()], "{lines}");
        assert!(!answer.text().contains("evil"), "{lines}: {}", answer.text());
    }
    assert!(stage.api.violations().is_empty());
    let head = stage.api.last_request().expect("a request").raw_head.clone();
    let head = String::from_utf8(head).expect("ASCII");
    assert_eq!(head.to_ascii_lowercase().matches("authorization").count(), 1, "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_header_can_carry_the_token() {
    for (route, scheme, spellings) in [
        (
            "header = \"x-api-key\"\nscheme = \"\"",
            None,
            "X-Api-Key: evil\r\nx_api_key: evil\r\nX-Api_Key: evil\r\n",
        ),
        ("header = \"x-api-key\"", Some("Bearer"), "x-API-key: evil\r\n"),
        ("header = \"x-api-key\"\nscheme = \"token\"", Some("token"), "Connection: x-api-key\r\n"),
    ] {
        let stage = Stage::new();
        stage.api.set_credential_header("x-api-key", scheme);
        let daemon = stage.ready(route).await;
        let answer = get(&daemon, &format!("{HOST}{spellings}")).await;
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
        let token = stage.tokens.latest().expect("a token");
        let value = scheme.map_or(token.clone(), |scheme| format!("{scheme} {token}"));
        assert_eq!(fields(&answer, "x-api-key"), [value.as_str()], "{route}");
        // A replay injects in the same place.
        stage.tokens.revoke_all();
        assert_eq!(get(&daemon, HOST).await.status, 200, "{route}");
        assert!(stage.api.violations().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scheme_can_stand_before_the_token() {
    let stage = Stage::new();
    stage.api.set_credential_header("authorization", Some("token"));
    let daemon = stage.ready("scheme = \"token\"").await;
    let answer = get(&daemon, &format!("{HOST}Authorization: token evil\r\n")).await;
    let token = stage.tokens.latest().expect("a token");
    assert_eq!(fields(&answer, "authorization"), [format!("token {token}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_reject_or_keep_the_callers_own_authorization() {
    let stage = Stage::new();
    let daemon = stage.ready("client_authorization = \"reject\"").await;
    let ours = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    let answer = get(&daemon, &format!("{HOST}AUTHORIZATION: Bearer own\r\n")).await;
    assert_eq!(
        (answer.status, answer.header("bearerd-reason")),
        (400, Some("client_authorization"))
    );
    assert_eq!(stage.api.request_count(), 0);
    for lines in ["", "Author_ization: evil\r\n", "Connection: authorization\r\n"] {
        let answer = get(&daemon, &format!("{HOST}{lines}")).await;
        assert_eq!(fields(&answer, "authorization"), [ours.as_str()], "{lines}");
    }
    let stage = Stage::new();
    let daemon = stage.ready("client_authorization = \"keep\"").await;
    let ours = format!("Bearer {}", stage.tokens.latest().expect("a token"));
    stage.tokens.issue("own", None);
    let answer = get(&daemon, &format!("{HOST}authorization: Bearer own\r\n")).await;
    assert_eq!(fields(&answer, "authorization"), ["Bearer own"]);
    let answer = get(&daemon, HOST).await;
    assert_eq!(fields(&answer, "authorization"), [ours.as_str()]);
    // Kept or not, what the caller nominates is gone, and a bare request never leaves.
    let answer =
        get(&daemon, &format!("{HOST}Connection: authorization\r\nAuthorization: Bearer own\r\n"))
            .await;
    assert_ne!(answer.status, 401, "a bare request left");
    assert!(stage.api.violations().is_empty(), "{:?}", stage.api.violations());
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_and_what_connection_names_end_here() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let answer = get(
        &daemon,
        &format!(
            "{HOST}Connection: keep-alive, X-Mine\r\nX-Mine: hop\r\nKeep-Alive: timeout=hop\r\n\
         Proxy-Connection: hop\r\nProxy-Authorization: hop\r\nTE: hop;q=0.5\r\nUpgrade: hop\r\n\
         X-Kept: 1\r\nx-kept: 2\r\nAccept: */*\r\nCookie: a=b\r\n"
        ),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("hop"), "{}", answer.text());
    assert_eq!(fields(&answer, "x-kept"), ["1", "2"]);
    assert_eq!(fields(&answer, "cookie"), ["a=b"]);
    let answer = get(&daemon, &format!("{HOST}TE: trailers, deflate\r\nConnection: TE\r\n")).await;
    assert_eq!(fields(&answer, "te"), ["trailers"]);
    let ten = ["a"; 10].join(", ");
    assert_eq!(get(&daemon, &format!("{HOST}Connection: {ten}\r\n")).await.status, 200);
    for refused in [
        format!("Connection: {ten}, a\r\n"),
        "Connection: a\r\n".repeat(11),
        "Connection: a b\r\n".to_owned(),
    ] {
        let answer = get(&daemon, &format!("{HOST}{refused}")).await;
        assert_eq!((answer.status, answer.header("bearerd-reason")), (400, Some("bad_request")));
    }
    assert_eq!(stage.api.request_count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn provenance_is_dropped_unless_the_route_keeps_it_and_via_is_appended() {
    let forged = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\n\
                  X_Forwarded_For: 5.6.7.8\r\nVia: 1.0 before\r\n";
    for (route, kept) in [("", 0), ("forwarded = \"keep\"", 1)] {
        let stage = Stage::new();
        let daemon = stage.ready(route).await;
        let answer = get(&daemon, &format!("{HOST}{forged}")).await;
        for name in ["x-forwarded-for", "x-forwarded-proto", "forwarded"] {
            assert_eq!(fields(&answer, name).len(), kept, "{route} {name}");
        }
        assert!(!answer.text().contains("5.6.7.8"));
        let via = fields(&answer, "via");
        assert_eq!((via.len(), via[0].as_str()), (2, "1.0 before"));
        // What comes back with our own entry is a loop.
        let looped = get(&daemon, &format!("{HOST}Via: {}\r\n", via[1])).await;
        assert_eq!((looped.status, looped.header("bearerd-reason")), (508, Some("loop")));
        assert_eq!(stage.api.request_count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_upstream_is_the_configured_one_and_the_target_unchanged() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let authority = stage.api.server().address().to_string();
    for target in ["/", "/a/../b", "/a%2Fb%2e?x=%20&y=/../", "/?", "//a;b", "/%C3%A9?a+b", "/a\\b"]
    {
        let answer = send(&daemon, &format!("GET {target} HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!(answer.json()["target"], target);
        assert_eq!(fields(&answer, "host"), [authority.as_str()]);
    }
    let absolute = send(&daemon, &format!("GET http://localhost/a?b HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(absolute.json()["target"], "/a?b");
    let asterisk = send(&daemon, &format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!((asterisk.status, &asterisk.json()["target"]), (200, &Value::from("*")));
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_stop_at_a_route_that_strips_them() {
    let stage = Stage::new();
    stage.api.set_cookies_forbidden(true);
    let daemon = stage.ready("strip_cookies = true").await;
    let answer = get(&daemon, &format!("{HOST}Cookie: a=b\r\ncookie: c=d\r\n")).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
    assert!(stage.api.violations().is_empty());
}

/// GET with exactly these field lines.
async fn get(daemon: &Daemon, lines: &str) -> Answer {
    send(daemon, &format!("GET / HTTP/1.1\r\n{lines}\r\n")).await
}

async fn send(daemon: &Daemon, request: &str) -> Answer {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(request.as_bytes()).await.expect("sent");
    caller.answer().await.expect("an answer")
}

/// The values of a field as the API got them.
fn fields(answer: &Answer, name: &str) -> Vec<String> {
    let json = answer.json();
    let pairs = json["headers"].as_array().cloned().unwrap_or_default();
    let named = pairs
        .iter()
        .filter(|pair| pair[0].as_str().is_some_and(|sent| sent.eq_ignore_ascii_case(name)));
    named.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
}
