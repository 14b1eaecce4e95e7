//! What the configuration says of the fleet's certificate, as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A certificate for the relays' TLS listeners from a certificate authority that speaks ACME (RFC 8555), such as Let's Encrypt. The
/// controller that leads orders it and renews it; relays with `tls.from_fleet` show it and answer the authority. Set it alike at
/// every controller.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAcme {
    /// The `https` URL of the authority's directory. Without it nothing is ordered.
    pub directory_url: Option<String>,
    /// Whom the authority may write to, each `mailto:turn@example.org`; at most 8.
    pub contact: Vec<String>,
    /// The names that the certificate is for, 1 to 100, or 1 to 50 by `tls-alpn-01`: those that `turns:` URIs carry. Each leads
    /// to relays alone, and every relay shows the same certificate. No wildcards.
    pub domains: Vec<String>,
    /// How relays show that the names are theirs.
    pub challenge: AcmeChallenge,
    /// A file with the CA certificates (PEM) that the authority's own server is checked against. Without it, the public ones.
    pub root_file: Option<PathBuf>,
    /// Whether the operator accepts the authority's terms of service. Nothing is ordered before.
    pub accept_terms: bool,
    /// How long answers take to reach every relay, in seconds, 0 to 300: so long waits the controller before it has the
    /// authority look.
    pub spread_seconds: u64,
}

impl Default for RawAcme {
    fn default() -> Self {
        Self {
            directory_url: None,
            contact: Vec::new(),
            domains: Vec::new(),
            challenge: AcmeChallenge::TlsAlpn01,
            root_file: None,
            accept_terms: false,
            spread_seconds: 5,
        }
    }
}

/// How relays show to a certificate authority that a name is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AcmeChallenge {
    /// By a TLS handshake: relays have a `tls` or `tcp+tls` listener at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By plain HTTP: relays have `tls.http_challenges` at port 80.
    #[serde(rename = "http-01")]
    Http01,
}

impl AcmeChallenge {
    /// The name in the configuration, and at the authority.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}
