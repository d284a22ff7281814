//! Starts the real program, and speaks to it as an API server does.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bearerd::clock::monotonic;
use bearerd::dial::{Address, DialError, Peer};
use bearerd::stream::Stream;
use bearerd::tls::{TlsSettings, client};
use bytes::Bytes;
use emulator::client::{Answer, Client};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Every wait ends here; a test that gets so far has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The name by which an API server knows it.
pub const SERVICE: &str = "bearerd-injector.bearerd-system.svc";

/// A certificate in a directory that is swapped as the kubelet does.
pub struct Secret {
    home: TempDir,
    swaps: u32,
}

impl Secret {
    pub fn new() -> Self {
        let mut secret = Self { home: tempfile::tempdir().expect("a directory"), swaps: 0 };
        secret.renew();
        for name in ["tls.crt", "tls.key"] {
            let link = secret.path(name);
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).expect("a link");
        }
        secret
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Puts a new certificate in place; returns a file with it, for who is to trust it.
    pub fn renew(&mut self) -> PathBuf {
        let names = vec!["127.0.0.1".to_owned(), SERVICE.to_owned()];
        let new = rcgen::generate_simple_self_signed(names).expect("a certificate");
        self.swap(&new.cert.pem(), &new.signing_key.serialize_pem());
        self.trusted()
    }

    pub fn swap(&mut self, certificate: &str, key: &str) {
        self.swaps += 1;
        let version = self.path(&format!("..version_{}", self.swaps));
        std::fs::create_dir(&version).expect("a new directory");
        std::fs::write(version.join("tls.crt"), certificate).expect("written");
        std::fs::write(version.join("tls.key"), key).expect("written");
        let link = self.path("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).expect("a link");
        std::fs::rename(link, self.path("..data")).expect("swapped");
    }

    /// A copy of the certificate as it is now.
    pub fn trusted(&self) -> PathBuf {
        let copy = self.path(&format!("trusted_{}", self.swaps));
        std::fs::copy(self.path("..data/tls.crt"), &copy).expect("copied");
        copy
    }
}

/// A running `bearerd-injector`.
pub struct Injector {
    child: Child,
    pub reviews: SocketAddr,
    pub admin: SocketAddr,
    logs: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Injector {
    pub fn start(secret: &Secret, more: &[&str]) -> Self {
        let mut child = Self::command(secret, more).spawn().expect("the program starts");
        let logs = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let sink = Arc::clone(&logs);
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.0.lock().expect("not poisoned").push(line);
                sink.1.notify_all();
            }
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut injector = Self { child, reviews: unknown, admin: unknown, logs };
        let line = injector.wait_for_log("is listening");
        let line: Value = serde_json::from_str(&line).expect("a JSON line");
        let address = |key: &str| line[key].as_str().expect("an address").parse().expect("one");
        (injector.reviews, injector.admin) = (address("listen"), address("admin"));
        injector
    }

    pub fn command(secret: &Secret, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd-injector"));
        command
            .args([
                "run",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--image",
                "bearerd:1",
            ])
            .arg("--certificate")
            .arg(secret.path("tls.crt"))
            .arg("--key")
            .arg(secret.path("tls.key"))
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    pub fn check(&self, ca: &Path) -> Output {
        check(self.reviews, ca)
    }

    pub fn wait_for_log(&self, text: &str) -> String {
        let (lines, grown) = &*self.logs;
        let end = Instant::now() + DEADLINE;
        let mut lines = lines.lock().expect("not poisoned");
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {text:?} in {lines:#?}");
            lines = grown.wait_timeout(lines, left).expect("not poisoned").0;
        }
    }

    pub async fn admin(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.admin).await.expect("a connection");
        client.request("GET", path, &[], b"").await.expect("an answer")
    }

    pub async fn counted(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
        value.parse().expect("a number")
    }

    pub async fn connect(&self, settings: TlsSettings) -> Result<Stream, DialError> {
        let address = Address::Tcp(self.reviews.ip().to_string(), self.reviews.port());
        let name = "127.0.0.1".to_owned().try_into().expect("a name");
        let peer = Peer::new(address, Some((client(&settings).expect("settings"), name)));
        peer.connect(monotonic() + DEADLINE).await
    }

    /// A connection of somebody who trusts `ca_file`.
    pub async fn api_server(&self, ca_file: PathBuf) -> ApiServer {
        let settings = TlsSettings { ca_file: Some(ca_file), ..TlsSettings::default() };
        ApiServer::on(self.connect(settings).await.expect("a connection")).await
    }

    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    }

    pub fn exit(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `bearerd-injector check` of who listens at `webhook`.
pub fn check(webhook: SocketAddr, ca: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearerd-injector"))
        .args(["check", "--webhook", &webhook.to_string(), "--ca"])
        .arg(ca)
        .env("RUST_LOG", "info")
        .output()
        .expect("it runs")
}

/// Who sends reviews.
pub struct ApiServer(SendRequest<Full<Bytes>>);

impl ApiServer {
    pub async fn on(stream: Stream) -> Self {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", SERVICE)
            .header("content-type", kind)
            .body(Full::new(body.into()))
            .expect("a request");
        self.0.ready().await.expect("an open connection");
        let (head, body) = self.0.send_request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Whether nothing more can be asked here.
    pub async fn is_told_to_go(&mut self) -> bool {
        self.0.ready().await.is_err()
    }

    pub async fn review(&mut self, review: &Value) -> (u16, Value) {
        self.ask("POST", "/inject?timeout=5s", "application/json", review.to_string()).await
    }
}

pub fn review() -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5", "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "namespace": "shop", "operation": "CREATE",
        "object": {
            "metadata": { "labels": { "bearerd/inject": "true" } },
            "spec": { "containers": [{ "name": "orders", "image": "orders:1" }] },
        },
    }})
}

pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
