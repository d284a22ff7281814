//! An API server for tests in other languages. Its first line says as JSON where it is, whom to trust
//! and a token that may do everything:
//!
//! `{"url": "https://127.0.0.1:PORT", "ca": "-----BEGIN …", "token": "…"}`
//!
//! Arguments are services of webhooks, `NAMESPACE/NAME=ADDRESS:PORT`: where they really listen. It ends
//! with its standard input.

use std::error::Error;
use std::net::SocketAddr;

use emulator::Kubernetes;
use serde_json::json;
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Kubernetes::start();
    for argument in std::env::args().skip(1) {
        let (namespace, name, to) = service(&argument)
            .ok_or_else(|| format!("{argument:?} is no NAMESPACE/NAME=ADDRESS:PORT"))?;
        server.route_service(namespace, name, to);
    }
    let (url, ca, token) = (server.server().url(), server.authority(), server.admin_token());
    println!("{}", json!({ "url": url, "ca": ca, "token": token }));
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    Ok(())
}

fn service(argument: &str) -> Option<(&str, &str, SocketAddr)> {
    let (service, to) = argument.split_once('=')?;
    let (namespace, name) = service.split_once('/')?;
    Some((namespace, name, to.parse().ok()?))
}
