//! The TLS side of the listeners: a certificate and its key from PEM files, TLS 1.2 and 1.3.
//!
//! It reads files only when it is asked to build a configuration, and logs nothing of a key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// ALPN name of HTTP/2 (RFC 9113 §3.1).
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A server configuration that presents the certificate chain of one file with the key of the other and offers `alpn`, the
/// preferred protocol first.
///
/// # Errors
/// When a file cannot be read, holds no PEM of its kind, or the key does not belong to the certificate.
pub(crate) fn server_config(
    certificate: &Path,
    key: &Path,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| TlsError::file(certificate, cause))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::file(key, cause))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(|cause| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            cause,
        })?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Why a certificate and key cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or is no PEM of the kind that was expected.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: rustls::pki_types::pem::Error,
    },
    /// The file has no certificate.
    #[error("{}: no certificate in it, expected a PEM chain with the server's own first", .0.display())]
    NoCertificate(PathBuf),
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("{} and {} do not serve together: {cause}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        cause: rustls::Error,
    },
}

impl TlsError {
    fn file(path: &Path, cause: rustls::pki_types::pem::Error) -> Self {
        let path = path.to_owned();
        Self::File { path, cause }
    }
}
