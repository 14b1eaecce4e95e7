//! The TLS side of the listeners: a certificate and its key from PEM files, TLS 1.2 and 1.3.
//!
//! The files are read when the controller starts, and nothing of a key is logged.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::StartError;
use crate::config::TlsFiles;

/// ALPN name of HTTP/2 (RFC 9113 §3.1).
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1 (RFC 7301 §6).
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A server configuration that presents the certificate of `files` and offers `alpn`, the preferred protocol first. `key` is
/// the configuration's name for the files.
///
/// # Errors
/// When a file cannot be read, holds no PEM of its kind, or the key does not belong to the certificate.
pub(crate) fn server_config(
    files: &TlsFiles,
    key: &'static str,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, StartError> {
    let failed = |path: &Path, reason: String| StartError::Tls {
        key,
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| failed(&files.certificate, cause.to_string()))?;
    if chain.is_empty() {
        let reason = "no certificate in it, expected a PEM chain with the server's own first";
        return Err(failed(&files.certificate, reason.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|cause| failed(&files.key, cause.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(|cause| {
            let reason = format!("does not serve with {}: {cause}", files.key.display());
            failed(&files.certificate, reason)
        })?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
