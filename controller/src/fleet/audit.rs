//! Who changed what: an entry for each change that somebody asked for, written in the transaction of the change.

use std::net::IpAddr;
use std::time::Duration;

/// A change that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Unix milliseconds.
    pub at_milliseconds: u64,
    /// Keeps two entries of one millisecond apart, and in their order: the nanosecond within it, and what is random.
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

/// The id of an entry made at `since_epoch`.
#[must_use]
pub fn entry_id(since_epoch: Duration, random: [u8; 4]) -> [u8; 8] {
    let mut id = [0; 8];
    id[..4].copy_from_slice(&(since_epoch.subsec_nanos() % 1_000_000).to_be_bytes());
    id[4..].copy_from_slice(&random);
    id
}
