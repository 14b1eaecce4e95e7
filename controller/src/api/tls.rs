//! The TLS side of the listeners: a certificate and its key from PEM files, TLS 1.2 and 1.3.
//!
//! Files that change are used for the handshakes after that, and nothing of a key is logged.

use std::sync::Arc;

use rustls::ServerConfig;
use turnfleet_proto::certificate::{Certificate, CertificateError};
use turnfleet_proto::file_watch::FileWatcher;

use super::client_ca::ClientCa;
use crate::StartError;
use crate::config::TlsFiles;

/// ALPN name of HTTP/2 (RFC 9113 §3.1).
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1 (RFC 7301 §6).
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The TLS of one listener.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// Looks for other files as long as it lives.
    pub(crate) watcher: Option<FileWatcher>,
}

impl Tls {
    /// Presents the certificate of `files` and offers `alpn`, the preferred protocol first. `key` is the configuration's
    /// name for the files. Callers may show certificates where there is a `client_ca`.
    ///
    /// # Errors
    /// When a file cannot be read, holds no PEM of its kind, or the key does not belong to the certificate.
    pub(crate) fn new(
        files: &TlsFiles,
        key: &'static str,
        alpn: &[&[u8]],
        client_ca: Option<&Arc<ClientCa>>,
    ) -> Result<Self, StartError> {
        let certificate = Arc::new(load(files, key)?);
        let watcher = certificate.watch().map_err(StartError::System)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the cipher suites of TLS 1.2 and 1.3");
        let builder = match client_ca {
            Some(ca) => builder.with_client_cert_verifier(Arc::clone(ca) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificate);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let config = Arc::new(config);
        Ok(Self { config, watcher })
    }
}

/// Reads the certificate of `files`.
///
/// # Errors
/// As [`Tls::new`].
pub(crate) fn load(files: &TlsFiles, key: &'static str) -> Result<Certificate, StartError> {
    Certificate::load(&files.certificate, &files.key).map_err(|error| {
        let (path, reason) = match error {
            CertificateError::File { path, source } => (path, source.to_string()),
            CertificateError::Empty { path } => {
                let reason =
                    "no certificate in it, expected a PEM chain with the server's own first";
                (path, reason.to_owned())
            }
            CertificateError::Key { path, source } => {
                (path, format!("does not fit the certificate: {source}"))
            }
        };
        StartError::Tls { key, path, reason }
    })
}
