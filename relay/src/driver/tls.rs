//! TLS 1.2 and 1.3 for streams: rustls as a value that is fed bytes, with ring's cryptography chosen by name.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use turnfleet_proto::certificate::Certificate;

/// The settings that all TLS streams of a relay share.
#[derive(Clone)]
pub(crate) struct TlsSettings {
    /// Whatever protocols a client offers are let be: most TURN clients offer none.
    plain: Arc<ServerConfig>,
    /// Protocols are negotiated (RFC 7443).
    negotiating: Arc<ServerConfig>,
}

impl TlsSettings {
    /// Sessions are resumed by tickets, so that no state is kept for clients that left.
    pub(crate) fn new(certificate: Arc<Certificate>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        let mut negotiating = config.clone();
        negotiating.alpn_protocols = vec![b"stun.turn".into(), b"stun.nat-discovery".into()];
        Ok(Self {
            plain: Arc::new(config),
            negotiating: Arc::new(negotiating),
        })
    }

    /// A session with a client; `negotiates` where it has offered a protocol that is spoken here.
    pub(crate) fn session(&self, negotiates: bool) -> Option<ServerConnection> {
        let config = if negotiates {
            &self.negotiating
        } else {
            &self.plain
        };
        ServerConnection::new(Arc::clone(config)).ok()
    }
}
