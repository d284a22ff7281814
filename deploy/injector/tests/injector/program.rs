//! The real program: TLS, bounds, certificates that change, the cluster's version, the end.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use bearerd::stream::Stream;
use bearerd::tls::TlsSettings;
use bytes::Bytes;
use emulator::http::{Exchange, Handler, Server, Work};
use emulator::{Reply, Tls};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{ApiServer, DEADLINE, Injector, Secret, check, eventually, review};

#[tokio::test(flavor = "multi_thread")]
async fn a_review_is_answered_over_tls_and_counted() {
    let secret = Secret::new();
    let injector =
        Injector::start(&secret, &["--kubernetes-version", "1.31", "--exclude-namespace", "own"]);
    assert_eq!(injector.admin("/livez").await.status, 200);
    assert_eq!(injector.admin("/readyz").await.status, 200);
    let mut caller = injector.api_server(secret.trusted()).await;
    let (status, answer) = caller.review(&review()).await;
    assert_eq!(status, 200);
    assert_eq!(answer["response"]["uid"], "705ab4f5");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let mut refused = review();
    refused["request"]["object"]["spec"]["hostNetwork"] = json!(true);
    let (status, answer) = caller.review(&refused).await;
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(false)));
    refused["request"]["namespace"] = json!("own");
    let (_, answer) = caller.review(&refused).await;
    assert_eq!(answer["response"]["allowed"], true);
    for outcome in ["injected", "refused", "unchanged"] {
        let series = format!("bearerd_injector_reviews_total{{outcome=\"{outcome}\"}}");
        assert!((injector.counted(&series).await - 1.0).abs() < f64::EPSILON, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_is_refused_within_bounds() {
    let secret = Secret::new();
    let injector = Injector::start(&secret, &["--kubernetes-version", "1.31"]);
    let json = "application/json";
    let large = vec![b' '; (4 << 20) + 1];
    for (method, path, kind, body, expected) in [
        ("POST", "/", json, Bytes::new(), 404),
        ("GET", "/inject", json, Bytes::new(), 405),
        ("POST", "/inject", "text/plain", Bytes::new(), 415),
        ("POST", "/inject", json, Bytes::new(), 400),
        ("POST", "/inject", json, "{\"kind\":\"AdmissionReview\"}".into(), 400),
        ("POST", "/inject", json, large.into(), 413),
    ] {
        let mut caller = injector.api_server(secret.trusted()).await;
        let (status, _) = caller.ask(method, path, kind, body).await;
        assert_eq!(status, expected, "{method} {path} {kind}");
    }
    let unreadable = "bearerd_injector_reviews_total{outcome=\"unreadable\"}";
    assert!((injector.counted(unreadable).await - 6.0).abs() < f64::EPSILON);
    // And goes on.
    let mut caller = injector.api_server(secret.trusted()).await;
    assert_eq!(caller.review(&review()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_does_not_come_is_not_waited_for() {
    let secret = Secret::new();
    let injector = Injector::start(&secret, &["--kubernetes-version", "1.31"]);
    let settings = TlsSettings { ca_file: Some(secret.trusted()), ..TlsSettings::default() };
    let mut stream = injector.connect(settings).await.expect("a connection");
    let head = "POST /inject HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut answer)).await;
    read.expect("an answer in time").expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_over_and_open_connections_stay() {
    let mut secret = Secret::new();
    let injector = Injector::start(&secret, &["--kubernetes-version", "1.31"]);
    let mut early = injector.api_server(secret.trusted()).await;
    let renewed = secret.renew();
    injector.wait_for_log("certificate reloaded");
    let mut late = injector.api_server(renewed.clone()).await;
    assert_eq!(late.review(&review()).await.0, 200);
    assert_eq!(early.review(&review()).await.0, 200);
    // One that cannot be used changes nothing.
    secret.swap("-----BEGIN CERTIFICATE-----\n", "");
    injector.wait_for_log("the new certificate cannot be used");
    assert!((injector.counted("bearerd_injector_certificate_stale").await - 1.0).abs() < 0.1);
    let mut later = injector.api_server(renewed).await;
    assert_eq!(later.review(&review()).await.0, 200);
    let mended = secret.renew();
    let stale = async || injector.counted("bearerd_injector_certificate_stale").await > 0.5;
    eventually("the mended certificate", async || !stale().await).await;
    let mut last = injector.api_server(mended).await;
    assert_eq!(last.review(&review()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_callers_with_a_certificate_are_heard_where_one_is_asked_for() {
    let (secret, ours) = (Secret::new(), Secret::new());
    let roots = ours.trusted().display().to_string();
    let injector =
        Injector::start(&secret, &["--kubernetes-version", "1.31", "--client-ca", &roots]);
    let ca_file = Some(secret.trusted());
    let stranger = TlsSettings { ca_file: ca_file.clone(), ..TlsSettings::default() };
    if let Ok(stream) = injector.connect(stranger).await {
        // With TLS 1.3 the refusal comes after the handshake.
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        let request = http::Request::new(Full::<Bytes>::default());
        assert!(sender.send_request(request).await.is_err());
    }
    let identity = Some((ours.path("tls.crt"), ours.path("tls.key")));
    let known = TlsSettings { ca_file, identity, ..TlsSettings::default() };
    let stream = injector.connect(known).await.expect("a connection");
    assert_eq!(ApiServer::on(stream).await.review(&review()).await.0, 200);
}

/// An API server that says its version once it wants to, to who has a token.
struct Versioned {
    known: std::sync::atomic::AtomicBool,
}

impl Handler for Versioned {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let known = self.known.load(std::sync::atomic::Ordering::Relaxed);
            let head = exchange.head();
            let token = head.header("authorization");
            let named = token.as_deref() == Some("Bearer of-the-injector");
            Ok(match head.path() {
                "/version" if !named => Reply::status(401),
                "/version" if known => Reply::json(
                    200,
                    json!({ "major": "1", "minor": "28+", "gitVersion": "v1.28.9-vendor.1" }),
                ),
                _ => Reply::status(503),
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_version_is_asked_for_and_nothing_is_ready_before() {
    let handler = Arc::new(Versioned { known: false.into() });
    let server = Server::start(Arc::clone(&handler), Tls::self_signed());
    let credentials = tempfile::tempdir().expect("a directory");
    let ca = server.certificate().expect("it speaks TLS").pem().to_owned();
    std::fs::write(credentials.path().join("ca.crt"), ca).expect("written");
    std::fs::write(credentials.path().join("token"), "of-the-injector\n").expect("written");
    let secret = Secret::new();
    let (address, directory) =
        (server.address().to_string(), credentials.path().display().to_string());
    let injector = Injector::start(
        &secret,
        &["--api-server", &address, "--api-server-credentials", &directory],
    );
    injector.wait_for_log("the cluster's version is not known yet");
    assert_eq!(injector.admin("/livez").await.status, 200);
    assert_eq!(injector.admin("/readyz").await.status, 503);
    let mut caller = injector.api_server(secret.trusted()).await;
    // An error, so that the webhook's failurePolicy decides.
    assert_eq!(caller.review(&review()).await.0, 503);
    handler.known.store(true, std::sync::atomic::Ordering::Relaxed);
    eventually("ready", async || injector.admin("/readyz").await.status == 200).await;
    let mut native = review();
    let annotations = json!({ "bearerd/mode": "native" });
    native["request"]["object"]["metadata"]["annotations"] = annotations;
    let mut caller = injector.api_server(secret.trusted()).await;
    let (_, answer) = caller.review(&native).await;
    let message = answer["response"]["status"]["message"].as_str().expect("a refusal");
    assert!(message.contains("Kubernetes 1.28 does not know"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_limit_to_connections_and_idle_ones_do_not_keep_an_api_server_out() {
    let secret = Secret::new();
    let injector = Injector::start(&secret, &["--kubernetes-version", "1.31"]);
    let trusted = secret.trusted();
    let mut held = vec![injector.api_server(trusted.clone()).await];
    assert_eq!(held[0].review(&review()).await.0, 200, "below the limit");
    for _ in 0..253 {
        held.push(injector.api_server(trusted.clone()).await);
    }
    let mut under_way = Started::on(&injector, &secret).await;
    held.push(injector.api_server(trusted.clone()).await);
    let line = injector.wait_for_log("no more connections at once");
    assert!(line.contains("\"limit\":256"), "{line}");
    let answer = under_way.finish().await;
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.contains("JSONPatch"), "{answer}");
    // The others stay open on this side.
    let mut late = injector.api_server(trusted).await;
    assert_eq!(late.review(&review()).await.0, 200);
    assert_eq!(injector.admin("/livez").await.status, 200, "the kubelet has a listener of its own");
    drop(held);
}

/// A review whose body is still to come.
struct Started {
    stream: Stream,
    body: String,
    answer: Vec<u8>,
}

impl Started {
    async fn on(injector: &Injector, secret: &Secret) -> Self {
        let settings = TlsSettings { ca_file: Some(secret.trusted()), ..TlsSettings::default() };
        let mut stream = injector.connect(settings).await.expect("a connection");
        let body = review().to_string();
        let head = format!(
            "POST /inject HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\n\
             Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // It is being read.
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.expect("100 Continue") > 0);
        }
        Self { stream, body, answer }
    }

    /// All that comes until the connection ends.
    async fn finish(&mut self) -> String {
        self.stream.write_all(self.body.as_bytes()).await.expect("sent");
        let read = self.stream.read_to_end(&mut self.answer);
        // Closing without a farewell of TLS is hyper's way.
        let _ = tokio::time::timeout(DEADLINE, read).await.expect("an end in time");
        String::from_utf8_lossy(&self.answer).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_asks_as_an_api_server_does_and_says_whether_a_pod_would_get_its_sidecar() {
    let secret = Secret::new();
    let version = ["--kubernetes-version", "1.31"];
    let injector = Injector::start(&secret, &version);
    let told = |done: &Output| String::from_utf8_lossy(&done.stderr).into_owned();
    let done = injector.check(&secret.trusted());
    assert_eq!(done.status.code(), Some(0), "{}", told(&done));
    assert!(told(&done).contains("Native"), "{}", told(&done));
    // Whom the API server would not trust.
    let done = injector.check(&Secret::new().trusted());
    assert_eq!(done.status.code(), Some(69), "{}", told(&done));
    let done = injector.check(Path::new("/nowhere/ca.crt"));
    assert!(done.status.code() == Some(69) && told(&done).contains("/nowhere/ca.crt"));
    // Nobody there.
    let mut ended = Injector::start(&secret, &[&version[..], &["--linger", "0"]].concat());
    ended.terminate();
    assert!(ended.exit().success());
    let done = ended.check(&secret.trusted());
    assert_eq!(done.status.code(), Some(69), "{}", told(&done));
    assert!(told(&done).contains("cannot be asked"), "{}", told(&done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_not_content_with_any_answer() {
    for (body, wanted) in [
        (json!({}), "what answers is no injector"),
        (json!({ "response": { "uid": "another" } }), "what answers is no injector"),
        (
            json!({ "response": { "uid": "bearerd-injector-check", "allowed": true } }),
            "would get no sidecar",
        ),
        (
            json!({ "response": { "uid": "bearerd-injector-check", "patch": "W10=" } }),
            "would get no sidecar",
        ),
    ] {
        let server = Server::start(Arc::new(Other(body)), Tls::self_signed());
        let ca = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(ca.path(), server.certificate().expect("TLS").pem()).expect("written");
        let done = check(server.address(), ca.path());
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(69) && told.contains(wanted), "{told}");
    }
}

/// Answers whatever comes.
struct Other(Value);

impl Handler for Other {
    fn handle<'a>(&'a self, _: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move { Ok(Reply::json(200, self.0.clone())) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_stop_it_says_so_answers_on_for_a_while_and_exits_0() {
    let secret = Secret::new();
    let mut injector = Injector::start(&secret, &["--kubernetes-version", "1.31", "--linger", "2"]);
    let mut idle = injector.api_server(secret.trusted()).await;
    assert_eq!(idle.review(&review()).await.0, 200);
    injector.terminate();
    injector.wait_for_log("\"stopping\"");
    assert_eq!(injector.admin("/readyz").await.status, 503);
    assert_eq!(injector.admin("/livez").await.status, 200);
    // The API server has not heard of it yet.
    let mut late = injector.api_server(secret.trusted()).await;
    assert_eq!(late.review(&review()).await.0, 200);
    assert!(injector.exit().success());
    injector.wait_for_log("\"stopped\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_while_it_stops_is_answered_and_told_to_go_elsewhere() {
    let secret = Secret::new();
    let injector = Injector::start(&secret, &["--kubernetes-version", "1.31", "--linger", "60"]);
    let mut early = injector.api_server(secret.trusted()).await;
    assert_eq!(early.review(&review()).await.0, 200);
    assert!(!early.is_told_to_go().await);
    injector.terminate();
    injector.wait_for_log("\"stopping\"");
    let mut late = injector.api_server(secret.trusted()).await;
    for caller in [&mut early, &mut late] {
        assert_eq!(caller.review(&review()).await.0, 200);
        assert!(caller.is_told_to_go().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_under_way_at_a_stop_is_answered() {
    let secret = Secret::new();
    let mut injector = Injector::start(&secret, &["--kubernetes-version", "1.31", "--linger", "0"]);
    let mut started = Started::on(&injector, &secret).await;
    injector.terminate();
    injector.wait_for_log("\"stopping\"");
    let address = injector.reviews;
    eventually("no new connections", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    let answer = started.finish().await;
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.contains("JSONPatch"), "{answer}");
    assert!(injector.exit().success());
}

#[test]
fn what_it_cannot_start_with_is_told_with_an_exit_code() {
    let secret = Secret::new();
    for (more, code, told) in [
        (vec!["--key", "/nowhere/tls.key"], 64, "cannot be used multiple times"),
        (vec!["--kubernetes-version", "newest"], 64, "write it like 1.31"),
        (vec!["--api-server", "nowhere"], 64, "is not HOST:PORT"),
        (vec!["--default", "memory-limit"], 64, "is not KEY=VALUE"),
        (vec!["--default", "memory-limit=much"], 64, "annotation bearerd/memory-limit is"),
        (vec!["--default", "confg=orders"], 64, "is not known"),
        (vec!["--client-ca", "/nowhere/ca.crt"], 70, "/nowhere/ca.crt"),
    ] {
        let done = Injector::command(&secret, &more).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
}
