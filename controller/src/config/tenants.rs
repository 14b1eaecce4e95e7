//! `[[tenants]]`: the tenants that a configuration names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::record::Quotas;

/// Whoever has users of their own. Those of the API stand beside these; one that is taken out here stays, and is the API's from
/// then on.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawNamedTenant {
    /// What usernames carry, as in `<expiry>:NAME/<user>`: lower-case letters, digits, `-`, `_` and `.`. Of `default`, the tenant
    /// of everybody else, only the quotas can stand here.
    pub name: String,
    /// What its clients may be challenged with instead of the fleet's realm. No other tenant can have it.
    pub realm: Option<String>,
    /// The server names that its TLS clients ask for, such as `turn.acme.example`. No other tenant can have them.
    pub tls_names: Vec<String>,
    /// Networks of peers that its users may reach although the fleet's rules refuse them.
    pub allow_peers: Vec<String>,
    /// Networks of peers that they may not reach, in addition to the fleet's.
    pub deny_peers: Vec<String>,
    /// Its clients on TCP and TLS may have TCP relayed transport addresses (RFC 6062).
    pub tcp_relaying: bool,
    /// Lets none of its users in, and ends what they have.
    pub suspended: bool,
    /// What its users may take of the whole fleet.
    pub quotas: Quotas,
}
