//! The audit log in the store: outside of what controllers mirror in memory, read and trimmed on request.

use std::sync::Arc;

use prost::Message as _;
use turnfleet_proto::store as wire;

use super::{Entry, Put, Store, StoreError, Txn};
use crate::fleet::audit::AuditEntry;

/// Every key of the audit log begins with it; `{unix milliseconds:016}-{16 hex digits}` follows.
pub const PREFIX: &str = "/tf/audit/v1/";
/// Entries beyond so many go, the oldest first.
const MAX_ENTRIES: usize = 10_000;
/// Entries older than this go: 30 days.
const MAX_AGE_MILLISECONDS: u64 = 30 * 86_400 * 1000;
/// Deletions of one transaction: fewer than any back end takes.
const DELETIONS: usize = 64;

/// The put that keeps `entry`.
#[must_use]
pub fn encode(entry: &AuditEntry) -> Put {
    let id = u64::from_be_bytes(entry.id);
    let message = wire::AuditRecord {
        at_milliseconds: entry.at_milliseconds,
        by: entry.by.clone(),
        from: entry.from.map_or_else(String::new, |from| from.to_string()),
        action: entry.action.clone(),
        target: entry.target.clone(),
        detail: entry.detail.clone(),
    };
    Put {
        key: format!("{PREFIX}{:016}-{id:016x}", entry.at_milliseconds),
        value: message.encode_to_vec(),
        lease: None,
    }
}

fn decode(entry: &Entry) -> Option<AuditEntry> {
    let (_, id) = entry.key.strip_prefix(PREFIX)?.split_once('-')?;
    let message = wire::AuditRecord::decode(entry.value.as_slice()).ok()?;
    Some(AuditEntry {
        at_milliseconds: message.at_milliseconds,
        id: u64::from_str_radix(id, 16).ok()?.to_be_bytes(),
        by: message.by,
        from: message.from.parse().ok(),
        action: message.action,
        target: message.target,
        detail: message.detail,
    })
}

/// Reads the audit log, and keeps it within its bounds. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").finish_non_exhaustive()
    }
}

impl AuditLog {
    /// The log of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// At most `limit` entries from before `before` (Unix milliseconds), the latest first. What a later version wrote and
    /// this one cannot read is left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn page(&self, before: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let range = self.store.range(PREFIX).await?;
        let entries = range.entries.iter().rev().filter_map(decode);
        let before = entries.filter(|entry| entry.at_milliseconds < before);
        Ok(before.take(limit).collect())
    }

    /// Keeps `entry` by itself, for what changes nothing else.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn add(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let txn = Txn {
            puts: vec![encode(entry)],
            ..Txn::default()
        };
        self.store.commit(txn).await?;
        Ok(())
    }

    /// Deletes what is too old or too much.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn trim(&self, now_milliseconds: u64) -> Result<(), StoreError> {
        let range = self.store.range(PREFIX).await?;
        let oldest = now_milliseconds.saturating_sub(MAX_AGE_MILLISECONDS);
        let end = format!("{PREFIX}{oldest:016}");
        let surplus = range.entries.len().saturating_sub(MAX_ENTRIES);
        let keys = range.entries.into_iter().map(|entry| entry.key);
        let going = keys
            .enumerate()
            .take_while(|(place, key)| *place < surplus || *key < end);
        let going: Vec<_> = going.map(|(_, key)| key).collect();
        for keys in going.chunks(DELETIONS) {
            let deletes = keys.to_vec();
            let txn = Txn {
                deletes,
                ..Txn::default()
            };
            self.store.commit(txn).await?;
        }
        Ok(())
    }
}
