//! The fleet's certificate on its way from the order to the relays: what is written of it, and what sessions pass on.

use std::sync::Arc;

use tokio::sync::watch;
use turnfleet_proto::fleet as wire;

use super::Handle;
use crate::error::FleetError;
use crate::fleet::record::Setting;

impl Handle {
    /// Keeps these texts about the fleet's certificate, all of them or none: the leader's work.
    ///
    /// # Errors
    /// [`FleetError::NotLeader`], or when the store fails.
    pub async fn keep_issuance(&self, texts: Vec<(Setting, String)>) -> Result<(), FleetError> {
        self.change(move |fleet, _| Ok(fleet.plan_issuance(texts.clone())))
            .await
    }

    /// What relays that take the fleet's certificate are told of it. Closed when the controller stops.
    #[must_use]
    pub fn certificates(&self) -> watch::Receiver<Arc<wire::Certificates>> {
        self.certificates.clone()
    }
}
