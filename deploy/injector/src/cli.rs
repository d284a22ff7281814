//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bearerd::telemetry::{self, chain};
use bearerd::tls::TlsIdentity;
use clap::Parser;

use crate::decision::Defaults;
use crate::server::{self, Options};
use crate::version::{ApiServer, Version};

/// Bad usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// A fault of our own or of the machine (`EX_SOFTWARE`).
const SOFTWARE: u8 = 70;

/// A Kubernetes admission webhook that puts bearerd into pods with the label bearerd/inject: "true".
#[derive(Parser)]
#[command(name = "bearerd-injector", version)]
struct Arguments {
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
    /// A namespace whose pods are left alone, such as the injector's own; may be repeated. Those of
    /// the cluster itself (kube-system, …) always are
    #[arg(long, value_name = "NAMESPACE")]
    exclude_namespace: Vec<String>,
    /// The cluster's version, such as 1.31; else the API server is asked
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<Version>,
    /// The API server to ask
    #[arg(long, value_name = "HOST:PORT", default_value = "kubernetes.default.svc:443")]
    api_server: String,
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

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { USAGE } else { 0 });
        }
    };
    telemetry::init();
    let Some(options) = options(arguments) else {
        tracing::error!("--api-server is not HOST:PORT");
        return ExitCode::from(USAGE);
    };
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "bearerd-injector ends");
            ExitCode::from(SOFTWARE)
        }
    }
}

fn options(arguments: Arguments) -> Option<Options> {
    let (host, port) = arguments.api_server.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let credentials = arguments.api_server_credentials;
    let api_server = ApiServer { host, port: port.parse().ok()?, credentials };
    Some(Options {
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
        },
        version: arguments.kubernetes_version,
        api_server,
        linger: Duration::from_secs(arguments.linger.into()),
    })
}
