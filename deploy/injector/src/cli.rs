//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bearerd::telemetry::{self, chain};
use bearerd::tls::TlsIdentity;
use clap::{Args, Parser};
use serde_json::Value;

use crate::call::{Server, host_and_port};
use crate::check;
use crate::decision::Defaults;
use crate::server::{self, Options};
use crate::settings::{PREFIX, Settings};
use crate::version::{ApiServer, Version};

/// Bad usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// Who was asked does not do what he should (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// A fault of our own or of the machine (`EX_SOFTWARE`).
const SOFTWARE: u8 = 70;

/// A Kubernetes admission webhook that puts bearerd into pods with the label bearerd/inject: "true".
#[derive(Parser)]
#[command(name = "bearerd-injector", version)]
enum Command {
    /// Answers the API server's reviews
    Run(Box<Run>),
    /// Asks a running injector what an API server asks; exit code 0 if a pod would get its sidecar
    Check(Check),
}

#[derive(Args)]
struct Run {
    /// Where the API server asks, by TLS
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where health and metrics are, without TLS
    #[arg(long, default_value = "0.0.0.0:9902")]
    admin: SocketAddr,
    /// Certificate chain, PEM; read again when it changes
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Only callers with a certificate under these roots, PEM
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// The sidecar's image, for pods that name none
    #[arg(long)]
    image: String,
    /// What annotation bearerd/KEY says where a pod has none; may be repeated
    #[arg(long = "default", value_name = "KEY=VALUE", value_parser = annotation)]
    defaults: Vec<(String, Value)>,
    /// A namespace whose pods are left alone, such as the injector's own; may be repeated. Those of
    /// the cluster itself (kube-system, …) always are
    #[arg(long, value_name = "NAMESPACE")]
    exclude_namespace: Vec<String>,
    /// The cluster's version, such as 1.31; else the API server is asked
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<Version>,
    /// The API server to ask
    #[arg(long, value_name = "HOST:PORT", default_value = "kubernetes.default.svc:443",
        value_parser = place)]
    api_server: (String, u16),
    /// Directory with its ca.crt, and a token for it
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    api_server_credentials: PathBuf,
    /// How long it goes on answering after SIGTERM, while the API server still sends reviews here
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    linger: u16,
}

#[derive(Args)]
struct Check {
    /// The webhook's service
    #[arg(long, value_name = "HOST:PORT", value_parser = place)]
    webhook: (String, u16),
    /// Whose certificates the API server trusts, PEM: the caBundle of the webhook's configuration
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
}

fn place(text: &str) -> Result<(String, u16), &'static str> {
    host_and_port(text).ok_or("it is not HOST:PORT")
}

fn annotation(text: &str) -> Result<(String, Value), &'static str> {
    let (key, value) = text.split_once('=').ok_or("it is not KEY=VALUE")?;
    Ok((format!("{PREFIX}{key}"), value.into()))
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(told) => {
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { USAGE } else { 0 });
        }
    };
    telemetry::init();
    match command {
        Command::Run(arguments) => run(*arguments),
        Command::Check(arguments) => check(arguments),
    }
}

fn run(arguments: Run) -> ExitCode {
    let options = options(arguments);
    // Otherwise every pod would be told of a mistake that is not its own.
    if let Err(error) = Settings::read(Some(&options.defaults.annotations)) {
        tracing::error!(error = chain(&error), "--default means nothing");
        return ExitCode::from(USAGE);
    }
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "bearerd-injector ends");
            ExitCode::from(SOFTWARE)
        }
    }
}

fn check(arguments: Check) -> ExitCode {
    let (host, port) = arguments.webhook;
    let injector = Server { host, port, ca_file: arguments.ca };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the process cannot be set up");
            return ExitCode::from(SOFTWARE);
        }
    };
    match runtime.block_on(check::ask(&injector)) {
        Ok(mode) => {
            tracing::info!(?mode, "a pod that asks for a sidecar gets one");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "a pod that asks for a sidecar would get none");
            ExitCode::from(UNAVAILABLE)
        }
    }
}

fn options(arguments: Run) -> Options {
    let (host, port) = arguments.api_server;
    let credentials = arguments.api_server_credentials;
    let server = Server { host, port, ca_file: credentials.join("ca.crt") };
    Options {
        listen: arguments.listen,
        admin: arguments.admin,
        identity: TlsIdentity {
            certificate: arguments.certificate,
            key: arguments.key,
            client_ca_file: arguments.client_ca,
        },
        defaults: Defaults {
            image: arguments.image,
            excluded_namespaces: arguments.exclude_namespace.into_iter().collect(),
            annotations: arguments.defaults.into_iter().collect(),
        },
        version: arguments.kubernetes_version,
        api_server: ApiServer { server, token_file: credentials.join("token") },
        linger: Duration::from_secs(arguments.linger.into()),
    }
}
