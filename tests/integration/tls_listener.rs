//! Callers that speak TLS, those that do not get so far, and those for whom there is no place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http2::{ask, speak};
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon};

/// Far below the time that a handshake may take (10 s).
const PROMPT: Duration = Duration::from_secs(5);

/// A daemon that listens with TLS only.
struct Listener {
    daemon: Daemon,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

impl Listener {
    async fn start(stage: &Stage, server: &str) -> Self {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("signed");
        let certificate = stage.home.write("tls.crt", &signed.cert.pem());
        let key = stage.home.write("tls.key", &signed.signing_key.serialize_pem());
        let server = format!(
            "[server]\nlisten = [\"tls:127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}\n\
             tls = {{ cert = \"{certificate}\", key = \"{key}\" }}\n"
        );
        let daemon =
            Daemon::start_with(&stage.home, &(server + &stage.credential("") + &stage.route("")));
        daemon.ready().await;
        let line = daemon.wait_for_log("bearerd is listening");
        let port = line.split("tls:127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next());
        let port: u16 = port.expect("told where").parse().expect("a port");
        let certificate = signed.cert.der().clone();
        Self { daemon, address: ([127, 0, 0, 1], port).into(), certificate }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// A connection on which `protocol` was agreed on.
    async fn speak(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = "localhost".try_into().expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.connect().await).await;
        let stream = stream.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        stream
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_listener_agrees_on_either_protocol() {
    let stage = Stage::new();
    let listener = Listener::start(&stage, "").await;
    let stream = listener.speak("h2").await;
    assert_eq!(ask(&mut speak(stream).await, "/", b"").await.0.status, 200);
    let stream = TokioIo::new(listener.speak("http/1.1").await);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1");
    tokio::spawn(connection);
    let request = Request::builder().uri("/").header("host", "localhost");
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    assert_eq!(sender.send_request(request).await.expect("an answer").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_hello_does_not_hold_the_exit() {
    let stage = Stage::new();
    let listener = Listener::start(&stage, "").await;
    let _silent = listener.connect().await;
    // Who is served came later.
    let mut served = speak(listener.speak("h2").await).await;
    assert_eq!(ask(&mut served, "/", b"").await.0.status, 200);
    let signalled = Instant::now();
    assert!(listener.daemon.stop().success());
    assert!(signalled.elapsed() < PROMPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_one_too_many_is_not_answered_without_tls() {
    let stage = Stage::new();
    let listener = Listener::start(&stage, "limits = { connections = 1 }").await;
    let mut served = speak(listener.speak("h2").await).await;
    assert_eq!(ask(&mut served, "/", b"").await.0.status, 200);
    let mut late = listener.connect().await;
    // It may be closed before it has said anything.
    let _hello = late.write_all(&[0x16, 3, 1, 0, 0]).await;
    let mut said = Vec::new();
    let _reset_or_closed = timeout(DEADLINE, late.read_to_end(&mut said)).await.expect("closed");
    assert_eq!(String::from_utf8_lossy(&said), "");
    assert!(listener.daemon.metric("bearerd_refused_total", &["overloaded"]).await >= 1.0);
    assert_eq!(ask(&mut served, "/", b"").await.0.status, 200);
}
