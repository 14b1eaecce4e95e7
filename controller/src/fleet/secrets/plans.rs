//! What the fleet writes for a step of a secret's life, and who has to know of it before: the relays that lists name.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_turn::{Instant, Now};

use super::life::{Changes, Moment};
use super::{Pin, Revocation, SecretError, SecretScope, SecretState, secret_text};
use crate::fleet::registry::NodeState;
use crate::fleet::{Fleet, LAG, Plan};

/// How long a relay without a control session, which lists name for its probe, is waited for. After that it is left out of
/// them until it has a session.
const SILENT: Duration = Duration::from_secs(60);

/// Who runs a generation of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    /// Relays of the scope that serve and run it.
    pub(super) by: usize,
    /// Relays of the scope that serve.
    pub(super) of: usize,
    /// Whether one that does not run it is waited for.
    waits: bool,
}

impl Fleet {
    /// Begins a rotation of `scope`: credentials are minted with `secret` as soon as every relay of the lists accepts it.
    /// Gives its id.
    ///
    /// # Errors
    /// When a rotation of the scope is not through, it holds as much as relays accept, the secret is known, or its tenant is not.
    pub fn plan_rotation(
        &self,
        unix: u64,
        scope: &SecretScope,
        secret: &SharedSecret,
    ) -> Result<(u32, Plan), SecretError> {
        self.require_owner(scope)?;
        let (id, changes) = self
            .secrets
            .rotate(self.moment(unix), scope, secret.clone())?;
        Ok((id, self.plan(changes.puts, changes.deletes)))
    }

    /// Pins a generation, or a secret that an application has. Gives its id.
    ///
    /// # Errors
    /// When there is no such generation, or as many are pinned or accepted as there may be.
    pub fn plan_pin(&self, unix: u64, pin: &Pin) -> Result<(u32, Plan), SecretError> {
        if let Pin::Secret(scope, _) = pin {
            self.require_owner(scope)?;
        }
        let (id, changes) = self.secrets.pin(self.moment(unix), pin)?;
        Ok((id, self.plan(changes.puts, changes.deletes)))
    }

    /// Lets a pinned generation retire.
    ///
    /// # Errors
    /// When it is not pinned, or nothing else is there to mint with.
    pub fn plan_unpin(&self, unix: u64, id: u32) -> Result<Plan, SecretError> {
        let changes = self.secrets.unpin(self.moment(unix), id)?;
        Ok(self.plan(changes.puts, changes.deletes))
    }

    /// Has relays refuse a generation from now on. Gives the id of its replacement, where there is one.
    ///
    /// # Errors
    /// When there is no such generation, it was revoked before, or nothing would be left to mint with.
    pub fn plan_revocation(
        &self,
        unix: u64,
        id: u32,
        revocation: &Revocation,
    ) -> Result<(Option<u32>, Plan), SecretError> {
        let (replaced, changes) = self.secrets.revoke(self.moment(unix), id, revocation)?;
        Ok((replaced, self.plan(changes.puts, changes.deletes)))
    }

    /// Whether the tenant of a scope is known.
    fn require_owner(&self, scope: &SecretScope) -> Result<(), SecretError> {
        match scope {
            SecretScope::Fleet | SecretScope::Region(_) => Ok(()),
            SecretScope::Tenant(name) => Ok(self.require_tenant(name)?),
        }
    }

    /// A step that is taken at `unix`.
    pub(in crate::fleet) fn moment(&self, unix: u64) -> Moment {
        Moment {
            unix,
            generation: self.generation + 1,
        }
    }

    /// What is due by itself: staged secrets that are known everywhere become active, retiring ones end, and a rotation
    /// begins where the configuration wants one.
    pub(in crate::fleet) fn secret_upkeep(&self, now: Now, random: [u8; 32]) -> Changes {
        let at = self.moment(now.unix);
        let mut changes = self.secrets.end(now.unix);
        for (id, since) in &self.secrets.staged_since {
            if let Some(staged) = self.secrets.find(*id)
                && self.is_acknowledged(
                    now.instant,
                    &staged.scope,
                    self.secrets.since(staged),
                    *since,
                )
            {
                changes.puts.extend(self.secrets.promote(at, staged).puts);
            }
        }
        // One at a time: what else is due is found again.
        if changes.is_empty()
            && let Some(scope) = self.scope_to_rotate(now.unix)
        {
            let drawn = Sha256::new_with_prefix(random).chain_update("shared secret");
            let secret = SharedSecret::new(secret_text(drawn.finalize().into()));
            // One that cannot be rotated waits until one that retires has ended.
            if let Ok((_, rotation)) = self.secrets.rotate(at, &scope, secret) {
                return rotation;
            }
        }
        changes
    }

    /// A scope whose active secret is older than the configuration wants.
    fn scope_to_rotate(&self, unix: u64) -> Option<SecretScope> {
        let every = self.settings.rotate_secrets_every?.as_secs();
        let staged = |scope: &SecretScope| {
            self.secrets
                .of(scope)
                .any(|it| it.state == SecretState::Staged)
        };
        let old = self.secrets.by_id.values().find(|it| {
            it.state == SecretState::Active
                && unix >= it.created_at.saturating_add(every)
                && !staged(&it.scope)
        });
        old.map(|old| old.scope.clone())
    }

    /// Whether nobody is waited for any more: every relay that lists may name runs `generation`, but for those that lists
    /// leave out for not doing so.
    fn is_acknowledged(
        &self,
        now: Instant,
        scope: &SecretScope,
        generation: u64,
        since: Instant,
    ) -> bool {
        let found = self.acknowledgement(now, scope, generation, since);
        if found.of > 0 {
            return found.by > 0 && !found.waits;
        }
        // Nodes that are known and do not serve may have been heard last by an earlier run of the controller.
        self.nodes_of(scope).next().is_none() || now.since(since) >= SILENT
    }

    /// Who runs `generation`, which is known here since `since`.
    pub(super) fn acknowledgement(
        &self,
        now: Instant,
        scope: &SecretScope,
        generation: u64,
        since: Instant,
    ) -> Acknowledgement {
        let mut found = Acknowledgement::default();
        for node in self.nodes_of(scope).filter(|node| node.serves()) {
            found.of += 1;
            if node.applied_generation >= generation {
                found.by += 1;
            } else if node.liveness.is_connected() {
                found.waits |= node.refusal.is_none() && now.since(since) < LAG;
            } else {
                found.waits |= now.since(since) < SILENT;
            }
        }
        found
    }

    pub(super) fn nodes_of<'a>(
        &'a self,
        scope: &'a SecretScope,
    ) -> impl Iterator<Item = &'a NodeState> {
        let is_carried = self.secrets.is_carried(scope);
        let told = move |node: &&NodeState| {
            node.identity().is_some() && (is_carried || scope.covers(node.place()))
        };
        self.nodes.values().filter(told)
    }
}
