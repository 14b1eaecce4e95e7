//! Whom the probe believes on a `tls` listener.
//!
//! With `probe.ca` the certificate must lead to that authority and carry the relay's name. Without, the probe checks that
//! the handshake and TURN work, and not who answers: what it sends is worthless to a stranger, because a password never
//! crosses the wire and the credential lives for two minutes.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// A client configuration that trusts the authorities in the PEM file `ca`, or anybody where there is none.
///
/// # Errors
/// When the file cannot be read or holds no certificate that can be an authority.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Authority)?;
    let Some(ca) = ca else {
        let anybody = Arc::new(DangerAnybody(provider));
        return Ok(Arc::new(
            builder
                .dangerous()
                .with_custom_certificate_verifier(anybody)
                .with_no_client_auth(),
        ));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(TrustError::File)? {
        let certificate = certificate.map_err(TrustError::File)?;
        roots.add(certificate).map_err(TrustError::Authority)?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty);
    }
    let config = builder.with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Why `probe.ca` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// Not readable, or no PEM.
    #[error("{0}")]
    File(rustls::pki_types::pem::Error),
    /// No certificate in it.
    #[error("no certificate in it, expected the PEM of the authority that signs the relays' certificates")]
    Empty,
    /// A certificate that cannot be an authority.
    #[error("{0}")]
    Authority(rustls::Error),
}

/// Believes every certificate, but still has the handshake prove possession of its key.
#[derive(Debug)]
struct DangerAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for DangerAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
