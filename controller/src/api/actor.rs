//! Who asks for a change, by HTTP or gRPC, and the entry of the audit log that says so.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::FleetError;
use crate::fleet::audit::AuditEntry;
use crate::reconcile::Handle;
use crate::store::{SealError, StoreError};

/// Who asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The name of the API token.
    pub(crate) name: String,
    pub(crate) from: Option<IpAddr>,
}

impl Actor {
    /// A handle whose changes are written down as this actor's. `detail` says with what, and holds no secret.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn changing(
        &self,
        handle: &Handle,
        action: &str,
        target: &str,
        detail: String,
    ) -> Result<Handle, FleetError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = since.map_or(0, |since| since.as_millis());
        tracing::info!(by = self.name, from = ?self.from, action, target, detail, "a change was asked for");
        Ok(handle.asked_by(AuditEntry {
            at_milliseconds: u64::try_from(at).unwrap_or(u64::MAX),
            id: random()?,
            by: self.name.clone(),
            from: self.from,
            action: action.to_owned(),
            target: target.to_owned(),
            detail,
        }))
    }
}

/// Bytes that nobody can guess.
///
/// # Errors
/// When the system has none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], FleetError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| StoreError::from(SealError::Random))?;
    Ok(bytes)
}
