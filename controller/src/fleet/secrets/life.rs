//! The steps of a secret's life, pure: what is written for each, and when it is refused.

use turnfleet_proto::credentials::SharedSecret;

use super::{SecretGeneration, SecretScope, SecretState, Secrets};
use crate::fleet::record::{Record, RecordKey};
use crate::fleet::tenants::TenantError;

/// The longest ttl of a credential, in seconds.
pub(super) const LONGEST_CREDENTIAL: u64 = 86_400;
/// Seconds that a retiring secret is still accepted: for the longest credential, and two minutes of clocks and skew.
pub(super) const RETIRING_SECONDS: u64 = LONGEST_CREDENTIAL + 120;
/// Generations of one scope that relays accept at once; each costs an HMAC for a bad password.
const MAX_ACCEPTED: usize = 32;
/// Pinned ones among them.
const MAX_PINNED: usize = 8;
/// Seconds that a tombstone is kept: a relay that was cut off for longer finds its allocations ended by others' doing.
const TOMBSTONE_SECONDS: u64 = 30 * 86_400;
/// Tombstones of one scope; the oldest makes room.
const MAX_TOMBSTONES: usize = 32;
/// A secret that the operator gives should not be shorter: 128 bits.
pub const WEAK_SECRET_BYTES: usize = 16;

/// Why a step is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No generation of that id.
    #[error("there is no secret {0}")]
    Unknown(u32),
    /// A rotation of the scope is not through.
    #[error(
        "secret {id} of {scope} is staged: it becomes active once the relays of the lists run it"
    )]
    Rotating {
        /// The scope.
        scope: SecretScope,
        /// The staged generation.
        id: u32,
    },
    /// The scope has as many generations as relays accept.
    #[error(
        "relays accept {most} secrets of {scope} at once; one that retires ends by itself, or is revoked"
    )]
    TooMany {
        /// The scope.
        scope: SecretScope,
        /// The bound.
        most: usize,
    },
    /// The scope has as many pinned generations as there may be.
    #[error("{most} secrets of {scope} are pinned, which is as many as there may be")]
    TooManyPinned {
        /// The scope.
        scope: SecretScope,
        /// The bound.
        most: usize,
    },
    /// Nothing would be left to mint with.
    #[error(
        "secret {0} is the one that credentials are minted with: rotate first, or replace it at once"
    )]
    Minting(u32),
    /// The secret is known already.
    #[error("this is secret {0} already")]
    Known(u32),
    /// Nothing knows the tenant of the scope.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The generation is in a state that does not lead there.
    #[error("secret {id} is {state}")]
    State {
        /// The generation.
        id: u32,
        /// Its state.
        state: &'static str,
    },
}

/// What is to be pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A generation that there is.
    Generation(u32),
    /// A secret that an application has; the generation of it, where there is one.
    Secret(SecretScope, SharedSecret),
}

/// How a generation is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Relays end the allocations that were made with it.
    pub cut: bool,
    /// Where credentials are minted with it, they are minted with this one from now on.
    pub replacement: Option<SharedSecret>,
}

/// Puts and deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fleet) struct Changes {
    pub(in crate::fleet) puts: Vec<Record>,
    pub(in crate::fleet) deletes: Vec<RecordKey>,
}

impl Changes {
    pub(in crate::fleet) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    fn put(&mut self, generation: SecretGeneration) {
        self.puts.push(Record::Secret(generation));
    }

    fn delete(&mut self, generation: &SecretGeneration) {
        self.deletes.push(generation.key());
    }
}

impl SecretGeneration {
    /// Where the store keeps it.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::Secret(self.scope.clone(), self.id)
    }

    fn with(&self, state: SecretState) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    fn retired(&self, unix: u64) -> Self {
        self.with(SecretState::Retiring {
            accept_until: unix + RETIRING_SECONDS,
        })
    }
}

/// When a step is taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::fleet) struct Moment {
    pub(in crate::fleet) unix: u64,
    /// The fleet generation that brings the step to the relays.
    pub(in crate::fleet) generation: u64,
}

impl Secrets {
    /// Another generation, of the next id.
    fn fresh(
        &self,
        at: Moment,
        scope: &SecretScope,
        secret: SharedSecret,
        state: SecretState,
    ) -> SecretGeneration {
        SecretGeneration {
            id: self.by_id.keys().next_back().map_or(1, |last| last + 1),
            scope: scope.clone(),
            secret,
            state,
            created_at: at.unix,
            since_generation: at.generation,
        }
    }

    fn get(&self, id: u32) -> Result<&SecretGeneration, SecretError> {
        self.find(id).ok_or(SecretError::Unknown(id))
    }

    fn accepted_of<'a>(
        &'a self,
        scope: &'a SecretScope,
    ) -> impl DoubleEndedIterator<Item = &'a SecretGeneration> {
        self.of(scope).filter(|it| it.state.is_accepted())
    }

    fn known<'a>(
        &'a self,
        scope: &'a SecretScope,
        secret: &SharedSecret,
    ) -> Option<&'a SecretGeneration> {
        self.accepted_of(scope).find(|it| it.secret == *secret)
    }

    fn has_room(&self, scope: &SecretScope) -> Result<(), SecretError> {
        if self.accepted_of(scope).count() < MAX_ACCEPTED {
            return Ok(());
        }
        Err(SecretError::TooMany {
            scope: scope.clone(),
            most: MAX_ACCEPTED,
        })
    }

    /// Begins a rotation: `secret` is staged. Gives its id.
    pub(super) fn rotate(
        &self,
        at: Moment,
        scope: &SecretScope,
        secret: SharedSecret,
    ) -> Result<(u32, Changes), SecretError> {
        if let Some(staged) = self.in_state(scope, SecretState::Staged) {
            return Err(SecretError::Rotating {
                scope: scope.clone(),
                id: staged.id,
            });
        }
        if let Some(known) = self.known(scope, &secret) {
            return Err(SecretError::Known(known.id));
        }
        self.has_room(scope)?;
        let mut changes = Changes::default();
        let staged = self.fresh(at, scope, secret, SecretState::Staged);
        let id = staged.id;
        changes.put(staged);
        Ok((id, changes))
    }

    /// Ends a rotation: credentials are minted with the staged one, and the one before it retires.
    pub(super) fn promote(&self, at: Moment, staged: &SecretGeneration) -> Changes {
        let mut changes = Changes::default();
        let active = |it: &&SecretGeneration| it.state == SecretState::Active;
        for active in self.of(&staged.scope).filter(active) {
            changes.put(active.retired(at.unix));
        }
        changes.put(staged.with(SecretState::Active));
        changes
    }

    /// Pins a generation. Gives its id.
    pub(super) fn pin(&self, at: Moment, pin: &Pin) -> Result<(u32, Changes), SecretError> {
        let (scope, found) = match pin {
            Pin::Generation(id) => {
                let found = self.get(*id)?;
                (&found.scope, Some(found))
            }
            Pin::Secret(scope, secret) => (scope, self.known(scope, secret)),
        };
        let is_pinned = |it: &&SecretGeneration| it.state == SecretState::Pinned;
        let pinned = match (found, pin) {
            (Some(found), _) => match found.state {
                SecretState::Pinned => return Ok((found.id, Changes::default())),
                SecretState::Revoked { .. } => return Err(wrong_state(found)),
                SecretState::Staged | SecretState::Active | SecretState::Retiring { .. } => {
                    found.with(SecretState::Pinned)
                }
            },
            (None, Pin::Secret(_, secret)) => {
                self.has_room(scope)?;
                self.fresh(at, scope, secret.clone(), SecretState::Pinned)
            }
            (None, Pin::Generation(id)) => return Err(SecretError::Unknown(*id)),
        };
        if self.of(scope).filter(is_pinned).count() >= MAX_PINNED {
            return Err(SecretError::TooManyPinned {
                scope: scope.clone(),
                most: MAX_PINNED,
            });
        }
        let id = pinned.id;
        let mut changes = Changes::default();
        changes.put(pinned);
        Ok((id, changes))
    }

    /// Lets a pinned generation retire.
    pub(super) fn unpin(&self, at: Moment, id: u32) -> Result<Changes, SecretError> {
        let pinned = self.get(id)?;
        if pinned.state != SecretState::Pinned {
            return Err(wrong_state(pinned));
        }
        if self.is_minted(pinned) {
            return Err(SecretError::Minting(id));
        }
        let mut changes = Changes::default();
        changes.put(pinned.retired(at.unix));
        Ok(changes)
    }

    /// Refuses a generation from now on. Gives the id of its replacement, where there is one.
    pub(super) fn revoke(
        &self,
        at: Moment,
        id: u32,
        revocation: &Revocation,
    ) -> Result<(Option<u32>, Changes), SecretError> {
        let revoked = self.get(id)?;
        let earlier = match revoked.state {
            SecretState::Revoked { at, cut: false } if revocation.cut => Some(at),
            SecretState::Revoked { .. } => return Err(wrong_state(revoked)),
            SecretState::Staged
            | SecretState::Active
            | SecretState::Pinned
            | SecretState::Retiring { .. } => None,
        };
        let mut changes = Changes::default();
        let mut replaced = None;
        if self.is_minted(revoked) {
            match (&revocation.replacement, &revoked.scope) {
                (Some(secret), scope) => {
                    let fresh = self.fresh(at, scope, secret.clone(), SecretState::Active);
                    replaced = Some(fresh.id);
                    changes.put(fresh);
                }
                (None, SecretScope::Fleet) => return Err(SecretError::Minting(id)),
                // Credentials for its relays are minted with the fleet's secret from now on.
                (None, SecretScope::Region(_) | SecretScope::Tenant(_)) => {}
            }
        }
        changes.put(SecretGeneration {
            secret: SharedSecret::new(Vec::new()),
            state: SecretState::Revoked {
                at: earlier.unwrap_or(at.unix),
                cut: revocation.cut,
            },
            since_generation: at.generation,
            ..revoked.clone()
        });
        let tombstones = || {
            self.of(&revoked.scope)
                .filter(|it| !it.state.is_accepted() && it.id != id)
        };
        let surplus = (tombstones().count() + 1).saturating_sub(MAX_TOMBSTONES);
        for tombstone in tombstones().take(surplus) {
            changes.delete(tombstone);
        }
        Ok((replaced, changes))
    }

    /// Makes `given` the active secret of the fleet at once, or keeps what there is, or makes one of `random`: for the
    /// start of a controller, whose configuration may say which.
    pub(in crate::fleet) fn adopt(
        &self,
        at: Moment,
        given: Option<&SharedSecret>,
        random: impl FnOnce() -> SharedSecret,
    ) -> Changes {
        let scope = SecretScope::Fleet;
        let current = self.minting(&scope);
        let wanted = match (current, given) {
            (Some(_), None) => return Changes::default(),
            (_, Some(given)) => given.clone(),
            (None, None) => random(),
        };
        let known = self.known(&scope, &wanted);
        let is_settled =
            |it: &SecretGeneration| matches!(it.state, SecretState::Active | SecretState::Pinned);
        if known.is_some_and(is_settled) {
            return Changes::default();
        }
        let mut changes = Changes::default();
        let active = |it: &&SecretGeneration| it.state == SecretState::Active;
        for active in self.of(&scope).filter(active) {
            changes.put(active.retired(at.unix));
        }
        // A secret that comes back while it retires is not accepted twice.
        changes.put(match known {
            Some(known) => known.with(SecretState::Active),
            None => self.fresh(at, &scope, wanted, SecretState::Active),
        });
        let more = usize::from(known.is_none());
        let surplus = (self.accepted_of(&scope).count() + more).saturating_sub(MAX_ACCEPTED);
        let retiring = |it: &&SecretGeneration| {
            matches!(it.state, SecretState::Retiring { .. })
                && known.is_none_or(|known| known.id != it.id)
        };
        for oldest in self.of(&scope).filter(retiring).take(surplus) {
            changes.delete(oldest);
        }
        changes
    }

    /// Ends retiring secrets and tombstones whose time is over.
    pub(super) fn end(&self, unix: u64) -> Changes {
        let is_over = |it: &&SecretGeneration| match it.state {
            SecretState::Staged | SecretState::Active | SecretState::Pinned => false,
            SecretState::Retiring { accept_until } => unix >= accept_until,
            SecretState::Revoked { at, .. } => unix >= at.saturating_add(TOMBSTONE_SECONDS),
        };
        let mut changes = Changes::default();
        for over in self.by_id.values().filter(is_over) {
            changes.delete(over);
        }
        changes
    }

    fn is_minted(&self, generation: &SecretGeneration) -> bool {
        let minting = self.minting(&generation.scope);
        minting.is_some_and(|minting| minting.id == generation.id)
    }
}

fn wrong_state(generation: &SecretGeneration) -> SecretError {
    SecretError::State {
        id: generation.id,
        state: generation.state.name(),
    }
}

#[cfg(test)]
mod tests;
