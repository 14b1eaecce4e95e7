//! What a relay says of quotas.

use std::collections::BTreeMap;

use turnfleet_proto::fleet as wire;

use super::{Amounts, Subject};

/// Entries of one word that are kept: as many as there can be tenants, and users of one relay that take much.
const MAX_USES: usize = 2_000;

/// A relay's word, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    term: u64,
    number: u64,
    pub(super) uses: BTreeMap<Subject, Use>,
}

/// What one tenant or user has and takes on one relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) held: Amounts,
    pub(super) used: Amounts,
    pub(super) refused: bool,
}

impl Demand {
    /// Takes what came over a session, or from another controller.
    #[must_use]
    pub fn read(demand: &wire::Demand) -> Self {
        let uses = demand.uses.iter().take(MAX_USES).map(|it| {
            let used = Use {
                held: [it.held_allocations, it.held_to_peers, it.held_to_clients],
                used: [it.allocations, it.to_peers, it.to_clients],
                refused: it.refused,
            };
            (subject(it.tenant, &it.user), used)
        });
        Self {
            term: demand.term,
            number: demand.number,
            uses: uses.collect(),
        }
    }

    pub(super) fn wire(&self) -> wire::Demand {
        let share_use = |(subject, it): (&Subject, &Use)| {
            let [held_allocations, held_to_peers, held_to_clients] = it.held;
            let [allocations, to_peers, to_clients] = it.used;
            wire::ShareUse {
                tenant: subject.tenant,
                user: subject.user.as_deref().unwrap_or_default().to_owned(),
                held_allocations,
                held_to_peers,
                held_to_clients,
                allocations,
                to_peers,
                to_clients,
                refused: it.refused,
            }
        };
        wire::Demand {
            term: self.term,
            number: self.number,
            uses: self.uses.iter().map(share_use).collect(),
        }
    }

    /// The term and the number of what the relay holds.
    pub(super) fn holds(&self) -> (u64, u64) {
        (self.term, self.number)
    }
}

pub(super) fn subject(tenant: u32, user: &str) -> Subject {
    Subject {
        tenant,
        user: Some(user).filter(|user| !user.is_empty()).map(Into::into),
    }
}
