//! How tenants and users stand, by what relays say: every controller knows it.

use std::collections::BTreeMap;

use super::{Amounts, MAX_USERS, Quotas, Subject, Wanted};

/// One tenant or user over the whole fleet, as operators see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaState {
    /// What it may have; zero is no limit.
    pub limit: Amounts,
    /// What it takes; of bandwidth what somebody wants to send.
    pub used: Amounts,
    /// What it has come to the end of: a relay has refused it an allocation, or drops some of its data.
    pub exceeded: [bool; 3],
    /// Whether its bytes of the day are used up.
    pub exhausted: bool,
}

impl QuotaState {
    fn of(limit: Amounts) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// What is refused because of the bytes of the day is not because of a limit of allocations.
    fn settle(&mut self) {
        let [allocations, rates @ ..] = &mut self.exceeded;
        let is_full = self.used[0] >= self.limit[0];
        *allocations &= self.limit[0] > 0 && (is_full || !self.exhausted);
        for (exceeded, kind) in rates.iter_mut().zip(1..) {
            *exceeded = self.limit[kind] > 0 && self.used[kind] > self.limit[kind];
        }
    }
}

impl Quotas {
    /// Every limited tenant, those of its users that have come to the end of something, and all whose bytes of the day are used
    /// up.
    #[must_use]
    pub fn states(&self, wanted: &Wanted) -> BTreeMap<Subject, QuotaState> {
        let tenant = |(&tenant, of): (&u32, &super::Limits)| {
            let subject = Subject { tenant, user: None };
            (subject, QuotaState::of(of.of_all()))
        };
        let mut states: BTreeMap<_, _> = wanted.limits.iter().map(tenant).collect();
        let mut users: BTreeMap<&Subject, QuotaState> = BTreeMap::new();
        for node in self.nodes.values() {
            for (subject, it) in &node.demand.uses {
                let Some(limits) = wanted.limits.get(&subject.tenant) else {
                    continue;
                };
                let of_user = || QuotaState::of(limits.of_user());
                let state = match states.get_mut(subject) {
                    Some(state) => state,
                    None => users.entry(subject).or_insert_with(of_user),
                };
                state.used[0] = state.used[0].saturating_add(it.used[0]);
                // Of all else the last word of a relay that is cut off says nothing of this moment.
                if node.is_connected {
                    state.exceeded[0] |= it.refused;
                    for kind in 1..3 {
                        state.used[kind] = state.used[kind].saturating_add(it.used[kind]);
                    }
                }
            }
        }
        for subject in wanted.exhausted.iter() {
            let state = match users.get_mut(subject) {
                Some(state) => state,
                None => states.entry(subject.clone()).or_default(),
            };
            state.exhausted = true;
        }
        let all = states.values_mut().chain(users.values_mut());
        all.for_each(QuotaState::settle);
        let at_an_end =
            |(_, state): &(&Subject, QuotaState)| state.exhausted || state.exceeded != [false; 3];
        let users = users.into_iter().filter(at_an_end).take(MAX_USERS);
        states.extend(users.map(|(subject, state)| (subject.clone(), state)));
        states
    }
}
