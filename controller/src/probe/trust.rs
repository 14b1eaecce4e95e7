//! Whom the probe believes on a `tls` listener.
//!
//! With `probe.ca` the certificate must lead to that authority and carry the relay's name. Without, the probe checks that
//! the handshake and TURN work, and not who answers: what it sends is worthless to a stranger, because a password never
//! crosses the wire and the credential lives for two minutes.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::StartError;
use crate::roots::roots;

/// A client configuration that trusts the authorities in the PEM file `ca`, or anybody where there is none.
///
/// # Errors
/// When the file cannot be read or holds no certificate that can be an authority.
pub(super) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of TLS 1.2 and 1.3");
    let config = match ca {
        Some(ca) => builder.with_root_certificates(roots(ca, "probe.ca")?),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(DangerAnybody(provider))),
    };
    Ok(Arc::new(config.with_no_client_auth()))
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
