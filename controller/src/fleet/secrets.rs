//! The generations of the shared secret: for whom each is, what it is good for, and in what order relays try them.
//!
//! A generation is staged (relays accept it, nobody mints with it), active (credentials are minted with it), retiring
//! (accepted until every credential made with it has ended) and gone. A pinned one is accepted without an end, for
//! applications that mint by themselves. What was revoked leaves a tombstone, by which relays find the allocations made
//! with it. [`life`] has the steps between the states, [`plans`] what they rest on and the transactions, [`minted`] what
//! credentials are minted with at one moment.

mod life;
mod minted;
mod plans;
mod shown;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::fleet as wire;
use turnfleet_turn::Instant;

pub(super) use life::Changes;
pub use life::{Pin, Revocation, SecretError, WEAK_SECRET_BYTES};
pub(super) use minted::{Minted, Minting};
pub use shown::SecretView;

/// The longest name of a region or a tenant.
const MAX_NAME: usize = 253;

/// A secret of 255 bits in base64url, for people and programs to carry about. It begins with a letter: a command takes what
/// begins with `-` for a flag.
pub(crate) fn secret_text(mut random: [u8; 32]) -> String {
    random[0] &= 0x7f;
    URL_SAFE_NO_PAD.encode(random)
}

/// Whose relays accept a generation. Its text is `fleet`, `region:NAME` or `tenant:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretScope {
    /// Every relay.
    Fleet,
    /// The relays of one region.
    Region(Box<str>),
    /// The relays that are bound to one tenant.
    Tenant(Box<str>),
}

/// Where a relay is and whose it is: which secrets it accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) region: &'a str,
    /// `None` for a relay of everybody's.
    pub(super) tenant: Option<&'a str>,
}

impl SecretScope {
    /// Whether a relay there accepts what is of this scope.
    pub(super) fn covers(&self, place: Place<'_>) -> bool {
        match self {
            Self::Fleet => true,
            Self::Region(name) => **name == *place.region,
            Self::Tenant(name) => place.tenant == Some(&**name),
        }
    }
}

impl fmt::Display for SecretScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("fleet"),
            Self::Region(name) => write!(f, "region:{name}"),
            Self::Tenant(name) => write!(f, "tenant:{name}"),
        }
    }
}

impl FromStr for SecretScope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = |name: &str| {
            !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
        };
        match text.split_once(':') {
            None if text == "fleet" => Ok(Self::Fleet),
            Some(("region", name)) if fits(name) => Ok(Self::Region(name.into())),
            Some(("tenant", name)) if fits(name) => Ok(Self::Tenant(name.into())),
            Some(_) | None => Err(()),
        }
    }
}

/// One generation of the shared secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretGeneration {
    /// Rises with each generation of whatever scope.
    pub id: u32,
    /// Whose relays accept it.
    pub scope: SecretScope,
    /// The secret; empty where it was revoked.
    pub secret: SharedSecret,
    /// What it is good for.
    pub state: SecretState,
    /// Unix seconds.
    pub created_at: u64,
    /// The fleet generation that brought it to the relays, or its revocation.
    pub since_generation: u64,
}

/// What a secret generation is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// Accepted; credentials are minted with it once every relay of the lists does so.
    Staged,
    /// Credentials are minted with it, and accepted.
    Active,
    /// Accepted without an end; minted with only where there is no active one.
    Pinned,
    /// Credentials made with it are accepted until `accept_until` (Unix seconds).
    Retiring {
        /// The first second at which it is refused.
        accept_until: u64,
    },
    /// Refused.
    Revoked {
        /// Unix seconds.
        at: u64,
        /// Whether the allocations that were made with it end.
        cut: bool,
    },
}

impl SecretState {
    /// The name in API and log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Active => "active",
            Self::Pinned => "pinned",
            Self::Retiring { .. } => "retiring",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// Whether relays accept credentials that were made with it.
    #[must_use]
    pub fn is_accepted(self) -> bool {
        !matches!(self, Self::Revoked { .. })
    }

    /// The order in which relays try.
    fn rank(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Pinned => 1,
            Self::Retiring { .. } => 2,
            Self::Staged => 3,
            Self::Revoked { .. } => 4,
        }
    }
}

/// Every generation that the store holds, and what is known of it besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    by_id: BTreeMap<u32, SecretGeneration>,
    by_scope: BTreeMap<SecretScope, BTreeSet<u32>>,
    /// The tenants whose secrets every relay has, each with the fleet generation since which that is so.
    carried: BTreeMap<Box<str>, u64>,
    /// Since when staged ones are known here.
    staged_since: BTreeMap<u32, Instant>,
    /// When relays saw a credential of each last, in Unix seconds.
    last_used: BTreeMap<u32, u64>,
}

impl Secrets {
    pub(super) fn insert(&mut self, now: Instant, generation: SecretGeneration) {
        if generation.state == SecretState::Staged {
            self.staged_since.entry(generation.id).or_insert(now);
        } else {
            self.staged_since.remove(&generation.id);
        }
        self.unscope(generation.id);
        let scope = self.by_scope.entry(generation.scope.clone());
        scope.or_default().insert(generation.id);
        self.by_id.insert(generation.id, generation);
    }

    fn unscope(&mut self, id: u32) {
        let scope = self.by_id.get(&id).map(|it| it.scope.clone());
        if let Some(scope) = scope
            && let Some(ids) = self.by_scope.get_mut(&scope)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_scope.remove(&scope);
            }
        }
    }

    /// Every relay has the secrets of `tenant` since `generation`; none but its own where that is `None`.
    pub(super) fn carry(&mut self, tenant: &str, generation: Option<u64>) {
        match generation {
            Some(generation) => drop(self.carried.insert(tenant.into(), generation)),
            None => drop(self.carried.remove(tenant)),
        }
    }

    /// Whether a scope is that of a tenant whose secrets every relay has.
    fn is_carried(&self, scope: &SecretScope) -> bool {
        self.carried_since(scope).is_some()
    }

    fn carried_since(&self, scope: &SecretScope) -> Option<u64> {
        match scope {
            SecretScope::Tenant(name) => self.carried.get(name).copied(),
            SecretScope::Fleet | SecretScope::Region(_) => None,
        }
    }

    /// Whether a relay there is told of what is of `scope`.
    fn reaches(&self, scope: &SecretScope, place: Place<'_>) -> bool {
        scope.covers(place) || self.is_carried(scope)
    }

    /// The fleet generation that brought a secret to every relay that is told of it.
    fn since(&self, secret: &SecretGeneration) -> u64 {
        let carried = self.carried_since(&secret.scope).unwrap_or(0);
        secret.since_generation.max(carried)
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.unscope(id);
        self.by_id.remove(&id);
        self.staged_since.remove(&id);
        self.last_used.remove(&id);
    }

    /// A relay saw a credential of generation `id` at `unix`.
    pub(super) fn used(&mut self, id: u32, unix: u64) {
        if self.by_id.contains_key(&id) {
            let last = self.last_used.entry(id).or_default();
            *last = unix.max(*last);
        }
    }

    pub(super) fn find(&self, id: u32) -> Option<&SecretGeneration> {
        self.by_id.get(&id)
    }

    /// Oldest first.
    pub(super) fn of<'a>(
        &'a self,
        scope: &SecretScope,
    ) -> impl DoubleEndedIterator<Item = &'a SecretGeneration> + use<'a> {
        let ids = self.by_scope.get(scope).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    fn in_state(&self, scope: &SecretScope, state: SecretState) -> Option<&SecretGeneration> {
        let ids = self.by_scope.get(scope)?.iter().rev();
        let mut newest_first = ids.filter_map(|id| self.by_id.get(id));
        newest_first.find(|it| it.state == state)
    }

    /// What credentials for the relays of `scope` are minted with, where there is such a thing.
    pub(super) fn minting(&self, scope: &SecretScope) -> Option<&SecretGeneration> {
        let active = self.in_state(scope, SecretState::Active);
        match scope {
            // Somebody has to mint for those who have nothing of their own.
            SecretScope::Fleet => active.or_else(|| self.in_state(scope, SecretState::Pinned)),
            SecretScope::Region(_) | SecretScope::Tenant(_) => active,
        }
    }

    /// What a relay there accepts, in the order in which it tries.
    pub(super) fn accepted(&self, place: Place<'_>) -> Vec<&SecretGeneration> {
        let covers = |it: &&SecretGeneration| it.scope.covers(place) && it.state.is_accepted();
        let mut accepted: Vec<_> = self.by_id.values().filter(covers).collect();
        accepted.sort_by_key(|it| (it.state.rank(), Reverse(it.id)));
        accepted
    }

    /// Every scope of some relays alone that credentials are minted for.
    pub(super) fn parts(&self) -> impl Iterator<Item = &SecretScope> {
        let parts = self.by_scope.keys();
        parts.filter(|scope| {
            **scope != SecretScope::Fleet && self.in_state(scope, SecretState::Active).is_some()
        })
    }

    /// Whether relays of the two places are sent different secrets.
    pub(super) fn differ(&self, one: Place<'_>, other: Place<'_>) -> bool {
        one != other
            && self
                .by_id
                .values()
                .any(|it| it.scope.covers(one) != it.scope.covers(other))
    }

    /// The secrets of a snapshot for a relay there.
    pub(super) fn wire(&self, place: Place<'_>) -> Vec<wire::SecretGeneration> {
        self.accepted(place).into_iter().map(told).collect()
    }

    /// What every relay is told of the secrets of a tenant, in the order in which it tries them.
    pub(super) fn wire_of(&self, scope: &SecretScope) -> Vec<wire::SecretGeneration> {
        let mut accepted: Vec<_> = self.of(scope).filter(|it| it.state.is_accepted()).collect();
        accepted.sort_by_key(|it| (it.state.rank(), Reverse(it.id)));
        accepted.into_iter().map(told).collect()
    }

    /// What a snapshot says of revoked secrets.
    pub(super) fn wire_revoked(&self, place: Place<'_>) -> Vec<wire::RevokedSecret> {
        let revoked = |it: &SecretGeneration| match it.state {
            SecretState::Revoked { cut, .. } if self.reaches(&it.scope, place) => {
                Some(wire::RevokedSecret { id: it.id, cut })
            }
            SecretState::Revoked { .. }
            | SecretState::Staged
            | SecretState::Active
            | SecretState::Pinned
            | SecretState::Retiring { .. } => None,
        };
        self.by_id.values().filter_map(revoked).collect()
    }
}

fn told(generation: &SecretGeneration) -> wire::SecretGeneration {
    use wire::secret_generation::State;
    let (state, accept_until) = match generation.state {
        SecretState::Staged => (State::Staged, 0),
        SecretState::Active => (State::Active, 0),
        SecretState::Pinned => (State::Pinned, 0),
        SecretState::Retiring { accept_until } => (State::Retiring, accept_until),
        SecretState::Revoked { .. } => (State::Unspecified, 0),
    };
    wire::SecretGeneration {
        id: generation.id,
        secret: generation.secret.as_bytes().to_vec(),
        accept_until,
        state: state.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_begins_with_a_letter() {
        for first in 0..=u8::MAX {
            let mut random = [0xff; 32];
            random[0] = first;
            let text = secret_text(random);
            assert!(
                text.starts_with(|first: char| first.is_ascii_alphabetic()),
                "{text}"
            );
            assert_eq!(text.len(), 43);
        }
    }

    #[test]
    fn a_scope_reads_as_it_is_written() {
        for text in ["fleet", "region:north", "region:a/b:c", "tenant:acme"] {
            let scope: SecretScope = text.parse().unwrap();
            assert_eq!(scope.to_string(), text);
        }
        for text in ["", "Fleet", "region", "region:", "zone:a", "region:a\nb"] {
            assert_eq!(text.parse::<SecretScope>(), Err(()), "{text:?}");
        }
    }
}
