//! The wall clock of this machine, for what carries a date that others read: credentials, tokens, entries of the audit log.
//!
//! What the fleet decides by time goes by the clock of [`crate::reconcile`], which a simulation can turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since the beginning of 1970; nothing where the clock stands before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
