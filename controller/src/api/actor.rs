//! Who asks for a change, by HTTP or gRPC, and the entry of the audit log that says so.

use std::net::IpAddr;

use ring::rand::SystemRandom;

use crate::FleetError;
use crate::fleet::audit::{AuditEntry, entry_id};
use crate::reconcile::{Handle, random_bytes};
use crate::wall_clock::since_epoch;

/// Who asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The name of the API token.
    pub(crate) name: String,
    pub(crate) from: Option<IpAddr>,
}

impl Actor {
    /// Writes down that this actor looks at something that not everybody may see.
    ///
    /// # Errors
    /// When the store fails: nothing may be looked at then.
    pub(crate) async fn looks(
        &self,
        handle: &Handle,
        action: &str,
        target: &str,
        detail: String,
    ) -> Result<(), FleetError> {
        tracing::info!(by = self.name, action, "a look was asked for");
        let entry = self.entry(action, target, detail)?;
        Ok(handle.audit().add(&entry).await?)
    }

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
        tracing::info!(by = self.name, from = ?self.from, action, target, detail, "a change was asked for");
        Ok(handle.asked_by(self.entry(action, target, detail)?))
    }

    fn entry(&self, action: &str, target: &str, detail: String) -> Result<AuditEntry, FleetError> {
        let at = since_epoch();
        Ok(AuditEntry {
            at_milliseconds: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            id: entry_id(at, random_bytes(&SystemRandom::new())?),
            by: self.name.clone(),
            from: self.from,
            action: action.to_owned(),
            target: target.to_owned(),
            detail,
        })
    }
}
