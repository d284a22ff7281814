//! Spans, in a build with the feature `otlp`: the real program, and a collector that reads OTLP.

#![allow(clippy::disallowed_methods, clippy::duration_suboptimal_units)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use emulator::client::{Answer, Client};
use emulator::http::{Exchange, Handler, Server, Work};
use emulator::{Api, Reply, Tls, Tokens};
use serde_json::Value as Json;
use tempfile::TempDir;

/// Every wait ends here; a test that gets so far has failed.
const DEADLINE: Duration = Duration::from_secs(30);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, with their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Number(u64::from_le_bytes(take(&mut message, 8).try_into().expect("8"))),
            2 => {
                let length = varint(&mut message);
                Field::Bytes(take(&mut message, length))
            }
            5 => {
                let four = take(&mut message, 4).try_into().expect("4");
                Field::Number(u64::from(u32::from_le_bytes(four)))
            }
            kind => panic!("wire type {kind}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint without an end")
}

fn take<'a>(message: &mut &'a [u8], length: u64) -> &'a [u8] {
    let (taken, rest) = message.split_at(usize::try_from(length).expect("a length"));
    *message = rest;
    taken
}

/// The messages in the fields of this number.
fn messages(message: &[u8], number: u64) -> Vec<&[u8]> {
    let fields = fields(message).into_iter();
    let chosen = fields.filter_map(|(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    });
    chosen.collect()
}

fn text(message: &[u8], number: u64) -> String {
    let bytes = messages(message, number).first().copied().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn hex(message: &[u8], number: u64) -> String {
    let bytes = messages(message, number).first().copied().unwrap_or_default();
    let number = bytes.iter().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    let digits = 2 * bytes.len();
    if digits == 0 { String::new() } else { format!("{number:0digits$x}") }
}

fn number(message: &[u8], number: u64) -> u64 {
    let fields = fields(message).into_iter();
    let mut numbers = fields.filter_map(|(found, field)| match field {
        Field::Number(value) if found == number => Some(value),
        _ => None,
    });
    numbers.next().unwrap_or(0)
}

/// `trace.proto`'s Span, as far as it is looked at.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    took: u64,
    status: u64,
    attributes: Vec<(String, String)>,
}

impl Span {
    fn read(message: &[u8]) -> Self {
        let status = messages(message, 15).first().map_or(0, |status| number(status, 3));
        Self {
            trace: hex(message, 1),
            id: hex(message, 2),
            parent: hex(message, 4),
            name: text(message, 5),
            kind: number(message, 6),
            took: number(message, 8) - number(message, 7),
            status,
            attributes: messages(message, 9).into_iter().map(attribute).collect(),
        }
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// `KeyValue` of `common.proto`; numbers as text.
fn attribute(message: &[u8]) -> (String, String) {
    let value = messages(message, 2)[0];
    let words = text(value, 1);
    let value = if words.is_empty() { number(value, 3).to_string() } else { words };
    (text(message, 1), value)
}

/// A collector: OTLP/HTTP with protobuf.
#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<Span>>,
    services: Mutex<Vec<String>>,
}

impl Handler for Collector {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let head = exchange.head();
            assert_eq!(head.path(), "/v1/traces");
            assert_eq!(head.media_type().as_deref(), Some("application/x-protobuf"));
            assert_eq!(head.header("x-tenant").as_deref(), Some("orders"));
            let body = exchange.body().await?.body.clone();
            for resource in messages(&body, 1) {
                let about = messages(resource, 1)[0];
                let attributes = messages(about, 1).into_iter().map(attribute);
                let service = attributes.into_iter().find(|(key, _)| key == "service.name");
                self.services.lock().expect("not poisoned").extend(service.map(|(_, name)| name));
                for scope in messages(resource, 2) {
                    let spans = messages(scope, 2).into_iter().map(Span::read);
                    self.spans.lock().expect("not poisoned").extend(spans);
                }
            }
            Ok(Reply::bytes(200, "application/x-protobuf", Vec::new()))
        })
    }
}

/// The program between an API and a collector.
struct Stage {
    home: TempDir,
    api: Api,
    tokens: Tokens,
    collector: Arc<Collector>,
    server: Server,
}

struct Daemon {
    child: Child,
    proxy: SocketAddr,
}

impl Stage {
    fn new() -> Self {
        let tokens = Tokens::new();
        let api = Api::start(Tls::Off, &tokens);
        let collector = Arc::new(Collector::default());
        let server = Server::start(Arc::clone(&collector), Tls::Off);
        let home = tempfile::tempdir().expect("a directory");
        let stage = Self { home, api, tokens, collector, server };
        stage.put_token();
        stage
    }

    /// A new token where bearerd looks for it; the former one is no longer good.
    fn put_token(&self) {
        self.tokens.revoke_all();
        let token = format!("token-{}", self.tokens.issued().len());
        self.tokens.issue(&token, None);
        let new = self.home.path().join("new");
        std::fs::write(&new, &token).expect("written");
        std::fs::rename(new, self.home.path().join("token")).expect("in place");
    }

    fn start(&self, more: &[(&str, &str)]) -> Daemon {
        let config = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             [credentials.orders]\nprovider = \"file\"\npath = \"{}\"\n\
             [[routes]]\nname = \"orders\"\nupstream = \"{}\"\ncredential = \"orders\"\n",
            self.home.path().join("token").display(),
            self.api.server().url(),
        );
        let path = self.home.path().join("bearerd.toml");
        std::fs::write(&path, config).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_bearerd"))
            .args(["run", "--config"])
            .arg(path)
            .env("RUST_LOG", "info")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", self.server.url())
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=orders")
            .envs(more.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bearerd starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut listening = lines.by_ref().map_while(Result::ok);
        let line = listening.find(|line| line.contains("is listening")).expect("it listens");
        std::thread::spawn(move || lines.for_each(drop));
        let line: Json = serde_json::from_str(&line).expect("JSON");
        let proxy = line["listen"].as_str().and_then(|address| address.parse().ok());
        Daemon { child, proxy: proxy.expect("an address") }
    }

    fn spans(&self) -> Vec<Span> {
        self.collector.spans.lock().expect("not poisoned").clone()
    }
}

impl Daemon {
    async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let mut client = Client::connect(self.proxy).await.expect("a connection");
        client.request("GET", target, fields, b"").await.expect("an answer")
    }

    /// SIGTERM; what is left is sent before the end.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let end = Instant::now() + DEADLINE;
        while self.child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sent_context(api: &Api) -> Vec<Option<String>> {
    api.requests().iter().map(|request| request.header("traceparent")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sending_is_a_client_span_and_the_replay_the_second_one() {
    let stage = Stage::new();
    let daemon = stage.start(&[]);
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let fields = [("traceparent", caller.as_str()), ("tracestate", "rojo=00f067aa0ba902b7")];
    assert_eq!(daemon.get("/orders?secret=1", &fields).await.status, 200);
    // Refused, and sent again with the next token.
    stage.put_token();
    assert_eq!(daemon.get("/orders", &fields).await.status, 200);
    daemon.stop();
    let spans = stage.spans();
    let told: Vec<_> = spans
        .iter()
        .map(|span| {
            let status = span.attribute("http.response.status_code");
            (status, span.attribute("http.request.resend_count"), span.status)
        })
        .collect();
    let (ok, refused) = ((Some("200"), None, 0), (Some("401"), None, 2));
    assert_eq!(told, [ok, refused, (Some("200"), Some("1"), 0)], "{spans:#?}");
    assert_eq!(spans[1].attribute("error.type"), Some("401"));
    let contexts = sent_context(&stage.api);
    for (span, context) in spans.iter().zip(contexts) {
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, CALLER));
        assert_eq!(context, Some(format!("00-{TRACE}-{}-01", span.id)));
        // `SPAN_KIND_CLIENT`.
        assert_eq!((span.name.as_str(), span.kind), ("GET", 3));
        assert_eq!(span.attribute("http.request.method"), Some("GET"));
        let url = format!("{}/orders", stage.api.server().url());
        assert_eq!(span.attribute("url.full"), Some(url.as_str()), "and no query");
        assert_eq!(span.attribute("server.address"), Some("127.0.0.1"));
        let port = stage.api.server().address().port().to_string();
        assert_eq!(span.attribute("server.port"), Some(port.as_str()));
        assert_eq!(span.attribute("bearerd.route"), Some("orders"));
        assert!(span.took > 0);
    }
    for request in stage.api.requests() {
        assert_eq!(request.header("tracestate").as_deref(), Some("rojo=00f067aa0ba902b7"));
    }
    assert!(stage.collector.services.lock().expect("not poisoned").iter().all(|s| s == "bearerd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_not_sampled_passes_untouched() {
    let stage = Stage::new();
    let daemon = stage.start(&[]);
    let caller = format!("00-{TRACE}-{CALLER}-00");
    assert_eq!(daemon.get("/orders", &[("traceparent", &caller)]).await.status, 200);
    daemon.stop();
    assert_eq!(sent_context(&stage.api), [Some(caller)]);
    assert!(stage.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_caller_that_traces_a_trace_begins_here_unless_the_sampler_says_no() {
    let stage = Stage::new();
    let daemon = stage.start(&[("OTEL_SERVICE_NAME", "orders-sidecar")]);
    assert_eq!(daemon.get("/orders", &[]).await.status, 200);
    daemon.stop();
    let [span] = &stage.spans()[..] else { panic!("{:#?}", stage.spans()) };
    assert_eq!(span.parent, "");
    assert_eq!(sent_context(&stage.api), [Some(format!("00-{}-{}-01", span.trace, span.id))]);
    assert_eq!(*stage.collector.services.lock().expect("not poisoned"), ["orders-sidecar"]);
    let daemon = stage.start(&[("OTEL_TRACES_SAMPLER", "always_off")]);
    assert_eq!(daemon.get("/orders", &[]).await.status, 200);
    daemon.stop();
    assert_eq!(stage.spans().len(), 1);
    assert_eq!(sent_context(&stage.api)[1], None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sending_says_what_kind_of_failure_it_was() {
    let stage = Stage::new();
    stage.api.serve("/broken", Reply::fault(emulator::Fault::Lost));
    let daemon = stage.start(&[]);
    assert_eq!(daemon.get("/broken", &[]).await.status, 502);
    daemon.stop();
    let spans = stage.spans();
    let last = spans.last().expect("a span");
    assert_eq!((last.attribute("error.type"), last.status), (Some("broken"), 2), "{spans:#?}");
    assert_eq!(last.attribute("http.response.status_code"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_delays_nobody() {
    let stage = Stage::new();
    let daemon = stage.start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]);
    assert_eq!(daemon.get("/orders", &[]).await.status, 200);
    daemon.stop();
    assert!(stage.spans().is_empty());
}
