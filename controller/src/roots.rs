//! Certificate authorities from PEM files, for connections that the controller opens.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::StartError;

/// The authorities in the PEM file `ca`, which the configuration calls `key`.
///
/// # Errors
/// When the file cannot be read or holds no certificate that can be an authority.
pub(crate) fn roots(ca: &Path, key: &'static str) -> Result<RootCertStore, StartError> {
    let failed = |reason: String| StartError::Tls {
        key,
        path: ca.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(ca)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| failed(cause.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|cause| failed(cause.to_string()))?;
    }
    if roots.is_empty() {
        let reason = "no certificate in it, expected that of an authority";
        return Err(failed(reason.to_owned()));
    }
    Ok(roots)
}
