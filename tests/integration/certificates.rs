//! TLS towards upstreams and callers: whose certificate is taken and whose is not, what is shown,
//! and files that are replaced while bearerd runs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::stage::{Stage, route_to};
use crate::support::{Daemon, eventually};

/// Who issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    pub fn issue(&self, names: &[&str]) -> Identity {
        self.sign(&params(names))
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Identity { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        roots
    }

    /// A caller that trusts it, and speaks `protocols`.
    pub fn trusted_by_caller(&self, protocols: &[&str]) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let mut config = builder.with_root_certificates(self.roots()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// A certificate and its key.
pub struct Identity {
    pub pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        Self { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn pin(&self) -> String {
        use aws_lc_rs::digest::{SHA256, digest};
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        BASE64_STANDARD.encode(digest(&SHA256, &self.key.subject_public_key_info()))
    }

    /// A server that shows it, and wants a certificate of `clients` if there are any.
    pub fn server(&self, clients: Option<&Authority>, protocols: &[&str]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match clients {
            Some(clients) => {
                let roots = Arc::new(clients.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = builder.with_single_cert(vec![self.der.clone()], key);
        let mut config = config.expect("key and certificate belong together");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What an upstream saw of a request.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    asked_for: Option<String>,
    certificate: Option<Vec<u8>>,
}

/// An upstream whose identity can be replaced.
struct Upstream {
    address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let config = Arc::new(Mutex::new(config));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let upstream = Self { address, config: Arc::clone(&config), seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, seen) =
                    (Arc::clone(&config.lock().expect("not poisoned")), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let shown = session.peer_certificates().and_then(<[_]>::first);
                    let saw = Seen {
                        asked_for: session.server_name().map(str::to_owned),
                        certificate: shown.map(|shown| shown.to_vec()),
                    };
                    let service = service_fn(move |request: http::Request<_>| {
                        assert!(request.headers().contains_key("authorization"));
                        seen.lock().expect("not poisoned").push(saw.clone());
                        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done"))) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        upstream
    }

    fn show(&self, config: Arc<ServerConfig>) {
        *self.config.lock().expect("not poisoned") = config;
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn start(stage: &Stage, url: &str, tls: &str) -> Daemon {
    let route = route_to(url, &format!("tls = {{ {tls} }}"));
    Daemon::start(&stage.home, &(stage.credential("") + &route))
}

async fn assert_unreachable(daemon: &Daemon, what: &str) {
    let answer = daemon.post("/", b"secret order").await;
    let reason = answer.header("bearerd-reason");
    assert_eq!((answer.status, reason), (502, Some("upstream_unreachable")), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_means_that_the_upstream_sees_no_request() {
    let (stage, authority) = (Stage::new(), Authority::new("ours"));
    let good = authority.issue(&["localhost"]);
    let upstream = Upstream::start(good.server(None, &["http/1.1"])).await;
    let ca_file = stage.home.write("ca.pem", &authority.pem);
    let daemon = start(&stage, &upstream.url("localhost"), &format!("ca_file = \"{ca_file}\""));
    daemon.ready().await;
    let mut expired = params(&["localhost"]);
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let mut early = params(&["localhost"]);
    early.not_before = rcgen::date_time_ymd(2999, 1, 1);
    early.not_after = rcgen::date_time_ymd(3000, 1, 1);
    let mut common_name = CertificateParams::default();
    common_name.distinguished_name.push(DnType::CommonName, "localhost");
    for (what, wrong) in [
        ("expired", authority.sign(&expired)),
        ("not valid yet", authority.sign(&early)),
        ("another name", authority.issue(&["api.example", "127.0.0.1"])),
        ("unknown authority", Authority::new("another").issue(&["localhost"])),
        ("an authority that only calls itself ours", Authority::new("ours").issue(&["localhost"])),
        ("self-signed", Identity::self_signed(&params(&["localhost"]))),
        ("name only as common name", authority.sign(&common_name)),
    ] {
        upstream.show(wrong.server(None, &["http/1.1"]));
        assert_unreachable(&daemon, what).await;
        assert_eq!(upstream.seen(), [], "{what}");
    }
    upstream.show(good.server(None, &["http/1.1"]));
    assert_eq!(daemon.post("/", b"order").await.status, 200);
    assert_eq!(upstream.seen(), [Seen { asked_for: Some("localhost".into()), certificate: None }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_roots_are_trusted_and_no_others() {
    let (stage, authority) = (Stage::new(), Authority::new("the system's"));
    let upstream =
        Upstream::start(authority.issue(&["localhost"]).server(None, &["http/1.1"])).await;
    let roots = stage.home.write("roots.pem", &authority.pem);
    let others = stage.home.write("others.pem", &Authority::new("another").pem);
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let config =
        format!("{server}{}{}", stage.credential(""), route_to(&upstream.url("localhost"), ""));
    let daemon = Daemon::start_in(&stage.home, &config, &[("SSL_CERT_FILE", &others)]);
    assert_unreachable(&daemon, "not among the system's roots").await;
    assert_eq!(upstream.seen(), []);
    let daemon = Daemon::start_in(&stage.home, &config, &[("SSL_CERT_FILE", &roots)]);
    assert_eq!(daemon.get("/").await.status, 200);
    // A CA file takes their place.
    let with_file =
        config.replace("credential = \"c\"", "credential = \"c\"\ntls = { ca_file = \"FILE\" }");
    let daemon = Daemon::start_in(
        &stage.home,
        &with_file.replace("FILE", &others),
        &[("SSL_CERT_FILE", &roots)],
    );
    assert_unreachable(&daemon, "among the system's roots, but not in the file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_accepts_a_self_signed_appliance_at_an_address_and_only_that_key() {
    let stage = Stage::new();
    let appliance = Identity::self_signed(&params(&["appliance.local"]));
    let upstream = Upstream::start(appliance.server(None, &["http/1.1"])).await;
    let other = Identity::self_signed(&params(&["127.0.0.1"]));
    let pin = |identity: &Identity| format!("pin_sha256 = [\"{}\"]", identity.pin());
    let daemon = start(&stage, &upstream.url("127.0.0.1"), &pin(&other));
    assert_unreachable(&daemon, "another key").await;
    assert_eq!(upstream.seen(), []);
    let both = format!("pin_sha256 = [\"{}\", \"{}\"]", other.pin(), appliance.pin());
    let daemon = start(&stage, &upstream.url("127.0.0.1"), &both);
    assert_eq!(daemon.get("/").await.status, 200);
    // An address is never asked for by name (RFC 6066 §3).
    assert_eq!(upstream.seen(), [Seen { asked_for: None, certificate: None }]);
    // The key counts, and who shows its certificate has to have it.
    upstream.show(other.server(None, &["http/1.1"]));
    let daemon = start(&stage, &upstream.url("127.0.0.1"), &pin(&appliance));
    assert_unreachable(&daemon, "the appliance's key has changed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_beside_a_ca_file_means_that_both_must_hold() {
    let (stage, authority) = (Stage::new(), Authority::new("ours"));
    let ca_file = format!("ca_file = \"{}\"", stage.home.write("ca.pem", &authority.pem));
    let (pinned, other) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let stranger = Identity::self_signed(&params(&["localhost"]));
    let elsewhere = authority.issue(&["elsewhere"]);
    for (what, shown, pin, accepted) in [
        ("both hold", &pinned, pinned.pin(), true),
        ("another key of the same authority", &other, pinned.pin(), false),
        ("the key, but not the authority", &stranger, stranger.pin(), false),
        ("the key and the authority, but another name", &elsewhere, elsewhere.pin(), false),
    ] {
        let upstream = Upstream::start(shown.server(None, &["http/1.1"])).await;
        let tls = format!("{ca_file}, pin_sha256 = [\"{pin}\"]");
        let daemon = start(&stage, &upstream.url("localhost"), &tls);
        if accepted {
            assert_eq!(daemon.get("/").await.status, 200, "{what}");
        } else {
            assert_unreachable(&daemon, what).await;
            assert_eq!(upstream.seen(), [], "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_name_is_asked_for_and_verified_in_place_of_the_urls_host() {
    let (stage, authority) = (Stage::new(), Authority::new("ours"));
    let upstream =
        Upstream::start(authority.issue(&["api.internal"]).server(None, &["http/1.1"])).await;
    let ca_file = format!("ca_file = \"{}\"", stage.home.write("ca.pem", &authority.pem));
    let daemon = start(&stage, &upstream.url("127.0.0.1"), &ca_file);
    assert_unreachable(&daemon, "the address is not in the certificate").await;
    let tls = format!("{ca_file}, server_name = \"api.internal\"");
    let daemon = start(&stage, &upstream.url("127.0.0.1"), &tls);
    assert_eq!(daemon.get("/").await.status, 200);
    assert_eq!(
        upstream.seen(),
        [Seen { asked_for: Some("api.internal".into()), certificate: None }]
    );
    let tls = format!("{ca_file}, server_name = \"localhost\"");
    let daemon = start(&stage, &upstream.url("127.0.0.1"), &tls);
    assert_unreachable(&daemon, "another name is in the certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_and_read_again_when_it_is_replaced() {
    let (stage, authority) = (Stage::new(), Authority::new("ours"));
    let (clients, strangers) = (Authority::new("clients"), Authority::new("strangers"));
    let server = authority.issue(&["localhost"]);
    let upstream = Upstream::start(server.server(Some(&clients), &["http/1.1"])).await;
    let ca_file = format!("ca_file = \"{}\"", stage.home.write("ca.pem", &authority.pem));
    let daemon = start(&stage, &upstream.url("localhost"), &ca_file);
    let answer = daemon.get("/").await;
    assert_eq!(answer.status, 502, "without a certificate");
    let (first, second) = (strangers.issue(&["client"]), clients.issue(&["client"]));
    let third = clients.issue(&["client"]);
    let put = |identity: &Identity| {
        let certificate = stage.home.write("client.pem", &identity.pem);
        let key = stage.home.write("client.key", &identity.key_pem());
        format!("client_cert = \"{certificate}\", client_key = \"{key}\"")
    };
    let tls = format!("{ca_file}, {}", put(&first));
    let daemon = start(&stage, &upstream.url("localhost"), &tls);
    assert_eq!(daemon.get("/").await.status, 502, "a stranger's certificate");
    assert_eq!(upstream.seen(), []);
    for next in [&second, &third] {
        put(next);
        let shown = || upstream.seen().last().and_then(|seen| seen.certificate.clone());
        eventually("the new certificate is shown", async || {
            daemon.get("/").await.status == 200 && shown() == Some(next.der.to_vec())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_is_read_again_when_it_is_replaced() {
    let (stage, old, new) = (Stage::new(), Authority::new("old"), Authority::new("new"));
    let upstream = Upstream::start(new.issue(&["localhost"]).server(None, &["http/1.1"])).await;
    let ca_file = stage.home.write("ca.pem", &old.pem);
    let daemon = start(&stage, &upstream.url("localhost"), &format!("ca_file = \"{ca_file}\""));
    assert_unreachable(&daemon, "the old authority").await;
    // Both, as long as a rotation takes.
    stage.home.write("ca.pem", &format!("{}{}", old.pem, new.pem));
    eventually("the new one is trusted", async || daemon.get("/").await.status == 200).await;
    // Half a file changes nothing.
    let reloads = daemon.metric("bearerd_config_reloads_total", &["failed"]).await;
    stage.home.write("ca.pem", &new.pem[..100]);
    eventually("it was refused", async || {
        daemon.metric("bearerd_config_reloads_total", &["failed"]).await > reloads
    })
    .await;
    assert_eq!(daemon.get("/").await.status, 200);
    // Nobody's connection is used who is not trusted any more.
    stage.home.write("ca.pem", &old.pem);
    eventually("the new one is not trusted", async || daemon.get("/").await.status == 502).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_shows_its_new_certificate_when_the_files_are_replaced() {
    let (stage, authority) = (Stage::new(), Authority::new("ours"));
    let put = |identity: &Identity| {
        let certificate = stage.home.write("tls.crt", &identity.pem);
        let key = stage.home.write("tls.key", &identity.key_pem());
        format!("cert = \"{certificate}\", key = \"{key}\"")
    };
    let (first, second) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let server = format!(
        "[server]\nlisten = [\"tls:127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntls = {{ {} }}\n",
        put(&first)
    );
    let config = server + &stage.credential("") + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    let address = tls_address(&daemon);
    assert_eq!(shown(&authority, address).await, first.der);
    put(&second);
    eventually("the new certificate is shown", async || {
        shown(&authority, address).await == second.der
    })
    .await;
}

/// Where the TLS listener of `daemon` is.
pub fn tls_address(daemon: &Daemon) -> SocketAddr {
    let line = daemon.wait_for_log("bearerd is listening");
    let rest = line.split("tls:").nth(1).expect("a TLS listener");
    let address = rest.split([' ', '"']).next().and_then(|address| address.parse().ok());
    address.expect("an address")
}

async fn shown(trusted: &Authority, address: SocketAddr) -> CertificateDer<'static> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let connector = trusted.trusted_by_caller(&["http/1.1"]);
    let stream = connector.connect("localhost".try_into().expect("a name"), stream).await;
    let stream = stream.expect("a handshake");
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    shown.expect("a certificate").into_owned()
}
