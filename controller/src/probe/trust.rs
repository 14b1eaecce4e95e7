//! Whom the probe believes on a `tls` listener.
//!
//! With `probe.ca` the certificate must lead to that authority and carry the relay's name. Without, the probe checks that
//! the handshake and TURN work, and not who answers: what it sends is worthless to a stranger, because a password never
//! crosses the wire and the credential lives for two minutes.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use turnfleet_proto::DangerAnybody;

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
