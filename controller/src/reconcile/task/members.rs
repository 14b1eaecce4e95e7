//! What the task does for one member after another: the region that it is bound to, the credential that follows the one
//! that it has, and the steps of a rollout.

use turnfleet_proto::NodeId;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_turn::Now;

use super::{Random, Reconciler, random_bytes, random_text};
use crate::error::FleetError;
use crate::fleet::record::token_hash;
use crate::fleet::{Certified, Fresh, Registration};

/// Credentials that are renewed in one round of the upkeep: each is a transaction.
const RENEWALS: usize = 64;

impl Reconciler {
    /// Puts a node where its join token or its certificate says that it is.
    pub(super) fn bind(&self, registration: &mut Registration) {
        let bound = self.mirror.fleet().bound_region(&registration.id);
        if let Some(region) = bound
            && registration.identity.region != region
        {
            tracing::warn!(
                node = %registration.id, says = registration.identity.region, region,
                "a node names another region than its join token or certificate"
            );
            registration.identity.region = region.to_owned();
        }
    }

    /// A session is opened with `credential`: the one before it ends, and what the certificate says holds.
    pub(super) async fn admitted(
        &mut self,
        credential: &str,
        certified: Option<&Certified>,
        node: &NodeId,
        now: Now,
    ) -> Result<(), FleetError> {
        let used = token_hash(credential);
        self.mirror
            .carry_out(now, |fleet| {
                Ok(fleet.plan_admitted(node, used, certified, now.unix))
            })
            .await
    }

    /// Gives nodes whose credential is a day old another one. What fails is tried again in the next round.
    pub(super) async fn renew_credentials(&mut self, now: Now) {
        let fleet = self.mirror.fleet();
        let due = self.sessions.iter().filter(|(node, channels)| {
            channels.takes_deltas
                && !channels.orderer.has_credential()
                && fleet.is_credential_due(node, now.unix)
        });
        let due: Vec<NodeId> = due.map(|(node, _)| node.clone()).take(RENEWALS).collect();
        for node in due {
            if let Err(error) = self.renew_credential(&node, now).await {
                tracing::warn!(%node, %error, "a node's credential could not be renewed");
            }
        }
    }

    async fn renew_credential(&mut self, node: &NodeId, now: Now) -> Result<(), FleetError> {
        let credential = random_text(&*self.random)?;
        let next = token_hash(&credential);
        self.mirror
            .carry_out(now, |fleet| fleet.plan_next_credential(node, next))
            .await?;
        if let Some(channels) = self.sessions.get(node) {
            channels.orderer.credential(credential);
        }
        Ok(())
    }

    /// Takes the next step of a rollout, if there is one to take.
    pub(super) async fn roll_out(&mut self, now: Now) {
        if self.mirror.fleet().plan_rollout(now).is_empty() {
            return;
        }
        let step = self
            .mirror
            .carry_out(now, |fleet| Ok(fleet.plan_rollout(now)))
            .await;
        match step {
            Ok(()) => self.urgent = true,
            Err(error) => tracing::warn!(%error, "the rollout of the policy could not go on"),
        }
    }

    /// Sends a node to another controller.
    pub(super) fn redirect(&self, node: NodeId, endpoint: String) -> Result<(), FleetError> {
        let Some(channels) = self.sessions.get(&node) else {
            return Err(FleetError::NoSession(node));
        };
        channels.orderer.redirect(endpoint);
        Ok(())
    }
}

impl Fresh {
    /// Draws everything that may be needed.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(crate) fn draw(random: &dyn Random) -> Result<Self, FleetError> {
        Ok(Self {
            shared_secret: SharedSecret::new(random_text(random)?),
            api_token: random_text(random)?,
            join_token: random_text(random)?,
            nonce_key: random_bytes(random)?,
        })
    }
}
