//! TLS 1.2 and 1.3 for streams: rustls as a value that is fed bytes, with ring's cryptography chosen by name.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use turnfleet_proto::certificate::{Certificate, Challenged};

/// The settings that all TLS streams of a relay share.
#[derive(Clone)]
pub(crate) struct TlsSettings {
    /// Whatever protocols a client offers are let be: most TURN clients offer none.
    plain: Arc<ServerConfig>,
    /// Protocols are negotiated (RFC 7443).
    negotiating: Arc<ServerConfig>,
    /// A certificate authority is answered (RFC 8737).
    challenged: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

/// What a client wants inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// It has offered no protocol that is known here.
    Anything,
    /// A protocol that is spoken here.
    Negotiated,
    /// The answer to a challenge.
    Answer,
}

impl TlsSettings {
    /// Sessions are resumed by tickets, so that no state is kept for clients that left; those of authorities are not.
    pub(crate) fn new(certificate: Arc<Certificate>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let mut challenged = config.clone();
        challenged.alpn_protocols = vec![b"acme-tls/1".into()];
        challenged.cert_resolver = Arc::new(Challenged(Arc::clone(&certificate)));
        config.ticketer = ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        let mut negotiating = config.clone();
        negotiating.alpn_protocols = vec![b"stun.turn".into(), b"stun.nat-discovery".into()];
        Ok(Self {
            plain: Arc::new(config),
            negotiating: Arc::new(negotiating),
            challenged: Arc::new(challenged),
            certificate,
        })
    }

    /// A session with a client. Where nobody is challenged, the negotiation of one that wants an answer fails.
    pub(crate) fn session(&self, inside: Inside) -> Option<ServerConnection> {
        let config = match inside {
            Inside::Anything => &self.plain,
            Inside::Answer if self.certificate.is_challenged() => &self.challenged,
            Inside::Negotiated | Inside::Answer => &self.negotiating,
        };
        ServerConnection::new(Arc::clone(config)).ok()
    }
}
