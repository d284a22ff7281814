//! Spans by OTLP over HTTP, in builds with the feature `otlp`; `OTEL_*` variables configure it, as they
//! do every OpenTelemetry program. What becomes a span is `proxy::exchange`'s affair.
//!
//! Spans are collected by the SDK's own thread, which also sends them: neither requests nor
//! refreshers wait for a collector, and what does not fit its queue is dropped.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry::global;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::clock::monotonic;
use crate::dial::{Address, Peer};
use crate::tls::{self, TlsSettings};

/// Either of these says where the collector is; without one there are no spans.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// For one batch, connecting included (`OTEL_EXPORTER_OTLP_TIMEOUT` may only shorten it).
const SEND_TIME: Duration = Duration::from_secs(10);
/// For what is left at the end of the process.
const LAST_SEND_TIME: Duration = Duration::from_secs(3);
/// The largest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Why spans cannot be sent.
#[derive(Debug, Error)]
pub enum TracesError {
    /// An `OTEL_*` variable means nothing.
    #[error("the OTEL_* variables cannot be used")]
    Exporter(#[from] ExporterBuildError),
    /// The machine has no room for a runtime.
    #[error("traces cannot be set up")]
    Runtime(#[from] std::io::Error),
}

/// Spans are being sent; to be ended with the process.
pub struct Traces(SdkTracerProvider);

/// Begins sending spans, if a collector is configured.
///
/// # Errors
/// [`TracesError`].
pub fn start() -> Result<Option<Traces>, TracesError> {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !ENDPOINTS.iter().any(set) {
        return Ok(None);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let exporter = SpanExporter::builder().with_http().with_http_client(Collector(runtime));
    let mut resource = Resource::builder();
    if !set(&"OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("bearerd");
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter.build()?)
        .with_resource(resource.build())
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Some(Traces(provider)))
}

impl Traces {
    /// Sends what is left. Blocks, for three seconds at most.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SEND_TIME) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Sends batches, each on a connection of its own: there is one every few seconds.
#[derive(Debug)]
struct Collector(Runtime);

/// Why a batch was not taken.
#[derive(Debug, Error)]
enum SendError {
    #[error("the collector's URL is not http:// or https:// with a host")]
    Url,
    #[error("the collector did not answer in time")]
    Timeout,
}

#[async_trait]
impl HttpClient for Collector {
    /// Called on the SDK's own thread, which has no runtime.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.0.block_on(async {
            timeout(SEND_TIME, send(request)).await.map_err(|_| SendError::Timeout)?
        })
    }
}

async fn send(mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let uri = std::mem::take(request.uri_mut());
    let authority = uri.authority().ok_or(SendError::Url)?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    let stream = peer(&uri)?.connect(monotonic() + SEND_TIME).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection may end first: what it delivered is still to be read.
        _ = connection => exchange.await,
    }
}

fn peer(uri: &Uri) -> Result<Peer, HttpError> {
    let host = uri.host().ok_or(SendError::Url)?.trim_matches(['[', ']']).to_owned();
    let (tls, port) = match uri.scheme_str() {
        Some("https") => {
            (Some((tls::client(&TlsSettings::default())?, host.clone().try_into()?)), 443)
        }
        Some("http") => (None, 80),
        _ => return Err(SendError::Url.into()),
    };
    Ok(Peer::new(Address::Tcp(host, uri.port_u16().unwrap_or(port)), tls))
}
