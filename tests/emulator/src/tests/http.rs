//! Faults, framings and TLS.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::DEADLINE;
use crate::client::Client;
use crate::http::{ClientCertificate, pattern};
use crate::{Api, EventSource, Fault, Reply, Step, Tls, Tokens};

fn api() -> (Api, &'static str) {
    let tokens = Tokens::new();
    tokens.issue("live", None);
    (Api::start(Tls::Off, &tokens), "Bearer live")
}

async fn get(api: &Api, target: &str) -> io::Result<crate::client::Answer> {
    let mut client = Client::connect(api.server().address()).await?;
    client.request("GET", target, &[("Authorization", "Bearer live")], b"").await
}

#[tokio::test]
async fn each_fault_is_what_it_says() {
    let (api, _) = api();
    let cut = Reply::pattern(1000).with_fault(Fault::Cut { after_bytes: 10 });
    api.script([
        Step::Close,
        Step::Reset,
        Step::LostAnswer,
        Step::Garbage,
        Step::Cut,
        Step::from(cut),
        Step::from(Reply::status(200).with_fault(Fault::CutHead { after_bytes: 5 })),
        Step::Html(200),
    ]);
    let kind = |result: io::Result<_>| result.err().map(|error| error.kind());
    use io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
    assert_eq!(kind(get(&api, "/").await), Some(UnexpectedEof));
    assert_eq!(kind(get(&api, "/").await), Some(ConnectionReset));
    assert_eq!(kind(get(&api, "/").await), Some(UnexpectedEof));
    assert_eq!(kind(get(&api, "/").await), Some(InvalidData));
    for _ in 0..3 {
        assert_eq!(kind(get(&api, "/").await), Some(UnexpectedEof));
    }
    assert_eq!(
        get(&api, "/").await.unwrap().header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!((api.request_count(), api.ok(), api.steps_left()), (8, 2, 0));
}

#[tokio::test]
async fn a_hanging_request_ends_when_the_client_leaves() {
    let (api, _) = api();
    api.script([Step::Hang]);
    let answer = tokio::time::timeout(Duration::from_millis(50), get(&api, "/")).await;
    assert!(answer.is_err());
    assert!(api.server().wait_for_open_connections(0, DEADLINE).await);
}

#[tokio::test]
async fn bodies_arrive_in_every_framing() {
    let (api, bearer) = api();
    api.serve("/length", Reply::pattern(100_000));
    api.serve("/chunks", Reply::pattern(100_000).chunked(1000).trailer("X-End", "yes"));
    api.serve("/close", Reply::pattern(100_000).close_delimited());
    for target in ["/length", "/chunks", "/close"] {
        let answer = get(&api, target).await.unwrap();
        assert_eq!(answer.body, pattern(100_000), "{target}");
        assert_eq!(answer.trailers.len(), usize::from(target == "/chunks"));
    }
    let mut client = Client::connect(api.server().address()).await.unwrap();
    let request = format!(
        "POST /x?y HTTP/1.1\r\nhOsT: a\r\nAuthorization: {bearer}\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    );
    for _ in 0..2 {
        client.send(request.as_bytes()).await.unwrap();
        let echo = client.answer().await.unwrap().json();
        assert_eq!(echo["body_length"], 3);
        assert_eq!(
            echo["body_sha256"],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(echo["headers"][0], serde_json::json!(["hOsT", "a"]));
    }
    let recorded = api.last_request().unwrap();
    assert_eq!((recorded.path(), recorded.query()), ("/x", Some("y")));
    assert_eq!(recorded.trailers, [("X-Sum".to_owned(), b"1".to_vec())]);
    assert!(request.as_bytes().starts_with(&recorded.raw_head));
    assert_eq!(api.server().connections(), 4);
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let (api, _) = api();
    let mut client = Client::connect(api.server().address()).await.unwrap();
    let both =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(both).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 400);
    assert_eq!((api.server().malformed(), api.request_count()), (1, 0));
}

#[tokio::test]
async fn a_body_is_asked_for_by_100_or_answered_early() {
    let (api, bearer) = api();
    let head = format!(
        "POST / HTTP/1.1\r\nAuthorization: {bearer}\r\nContent-Length: 3\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    let mut client = Client::connect(api.server().address()).await.unwrap();
    client.send(head.as_bytes()).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 100);
    client.send(b"abc").await.unwrap();
    assert_eq!(client.answer().await.unwrap().json()["body_length"], 3);

    api.script([Step::early(Reply::status(403))]);
    client.send(head.as_bytes()).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 403);
    // Whether the body would still come cannot be known.
    assert!(client.rest().await.unwrap().is_empty());
}

#[tokio::test]
async fn events_leave_one_by_one_and_end() {
    let (api, _) = api();
    let source = EventSource::new();
    api.serve("/events", Reply::events(&source));
    let mut client = Client::connect(api.server().address()).await.unwrap();
    client.send(b"GET /events HTTP/1.1\r\nAuthorization: Bearer live\r\n\r\n").await.unwrap();
    assert!(source.wait_for_subscribers(1, DEADLINE).await);
    assert_eq!(source.send("data: 1\n\n"), 1);
    assert_eq!(source.send("data: 2\n\n"), 1);
    source.end();
    assert_eq!(client.answer().await.unwrap().text(), "data: 1\n\ndata: 2\n\n");
    assert!(source.wait_for_subscribers(0, DEADLINE).await);
}

#[tokio::test]
async fn an_upgrade_echoes() {
    let (api, _) = api();
    api.serve("/ws", Reply::upgrade("websocket"));
    let mut client = Client::connect(api.server().address()).await.unwrap();
    let fields =
        [("Authorization", "Bearer live"), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(client.request("GET", "/ws", &fields, b"").await.unwrap().status, 101);
    // The echo is made to read as an answer.
    client.send(b"HTTP/1.1 204 Echo\r\n\r\n").await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 204);
}

#[tokio::test]
async fn a_dripped_answer_takes_its_time() {
    let (api, _) = api();
    api.serve("/slow", Reply::json(200, serde_json::json!({})).drip(10, Duration::from_millis(5)));
    let before = Instant::now();
    assert_eq!(get(&api, "/slow").await.unwrap().text(), "{}");
    assert!(before.elapsed() >= Duration::from_millis(25));
}

/// Asks over TLS, trusting the server's own certificate.
async fn get_tls(api: &Api, name: &str, client: Option<&ClientCertificate>) -> io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    let pem = api.server().certificate().unwrap().pem();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = vec![CertificateDer::from_pem_slice(client.pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(api.server().address()).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    let request = b"GET / HTTP/1.1\r\nAuthorization: Bearer live\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn its_own_certificate_is_enough_to_trust_it() {
    let tokens = Tokens::new();
    tokens.issue("live", None);
    let api = Api::start(Tls::self_signed(), &tokens);
    let pin = api.server().certificate().unwrap().pin_sha256();
    assert_eq!(pin.len(), 44);
    for (name, sni) in [("127.0.0.1", None), ("localhost", Some("localhost"))] {
        let answer = get_tls(&api, name, None).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert_eq!(api.last_request().unwrap().sni.as_deref(), sni);
    }
    // V-E1: plaintext gets nowhere.
    assert!(get(&api, "/").await.is_err());
    assert_eq!(api.server().tls_failures(), 1);
}

#[tokio::test]
async fn mutual_tls_wants_the_client_s_certificate() {
    let tokens = Tokens::new();
    tokens.issue("live", None);
    let (tls, client) = Tls::mutual();
    let api = Api::start(tls, &tokens);
    assert!(get_tls(&api, "127.0.0.1", None).await.is_err());
    let answer = get_tls(&api, "127.0.0.1", Some(&client)).await;
    assert!(answer.unwrap().starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(api.ok(), 1);
}

#[tokio::test]
async fn a_thousand_connections_are_served_at_once() {
    let (api, _) = api();
    let api = Arc::new(api);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let api = Arc::clone(&api);
        callers.spawn(async move { get(&api, "/").await.unwrap().status });
    }
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|status| *status == 200));
    assert_eq!((api.ok(), api.request_count()), (1000, 1000));
}
