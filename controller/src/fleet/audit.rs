//! Who changed what: an entry for each change that somebody asked for, written in the transaction of the change.

use std::net::IpAddr;

/// A change that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Unix milliseconds.
    pub at_milliseconds: u64,
    /// Keeps two entries of one millisecond apart.
    pub id: [u8; 8],
    /// The name of the API token.
    pub by: String,
    /// Where the request came from, where that is known.
    pub from: Option<IpAddr>,
    /// What was done, such as `drain`.
    pub action: String,
    /// What it was done to, such as the name of a node.
    pub target: String,
    /// With what, as text; never a secret.
    pub detail: String,
}
