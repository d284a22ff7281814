//! The webhook's certificate, read again when its files change: whoever issues it renews it, and the
//! kubelet swaps the directory.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bearerd::secret::{Fingerprint, read_bytes};
use bearerd::telemetry::chain;
use bearerd::tls::{self, TlsError, TlsIdentity};
use rustls::ServerConfig;
use tokio::time::sleep;

use crate::metrics::Metrics;

/// How often the files are looked at. Content counts, not dates: a swap of `..data` changes no date
/// of a file.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A certificate in force.
pub struct Certificate {
    identity: TlsIdentity,
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// The certificate as it is now.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn read(identity: TlsIdentity) -> Result<Self, TlsError> {
        let current = RwLock::new(http1_only(&identity)?);
        Ok(Self { identity, current })
    }

    /// For the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the files for ever. A certificate that cannot be used changes nothing but the log and
    /// the metric: the former one may still be good.
    pub async fn follow(&self, metrics: &Metrics) {
        let mut seen = self.prints();
        loop {
            sleep(LOOK_EVERY).await;
            let now = self.prints();
            if now == seen {
                continue;
            }
            match http1_only(&self.identity) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                    metrics.certificate(true);
                    tracing::info!("certificate reloaded");
                }
                Err(error) => {
                    metrics.certificate(false);
                    tracing::error!(
                        error = chain(&error),
                        "the new certificate cannot be used; the former one stays"
                    );
                }
            }
            seen = now;
        }
    }

    fn prints(&self) -> Vec<Option<Fingerprint>> {
        let TlsIdentity { certificate, key, client_ca_file } = &self.identity;
        let files = [Some(certificate), Some(key), client_ca_file.as_ref()];
        let print = |path: &std::path::PathBuf| read_bytes(path).ok();
        let print = |path| print(path).map(|content| Fingerprint::of(&content));
        files.into_iter().flatten().map(print).collect()
    }
}

/// The API server speaks both; one review at a time needs no HTTP/2.
fn http1_only(identity: &TlsIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::clone(&*tls::server(identity)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
