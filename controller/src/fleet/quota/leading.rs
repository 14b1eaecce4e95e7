//! The leader's part: from what all relays say to what each of them is told.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use turnfleet_proto::NodeId;
use turnfleet_turn::Instant;

use super::balance::{May, Next, Reach, next};
use super::targets::{Kind, Taken};
use super::{Amounts, CALM, Leading, MAX_USERS, PATIENCE, Quotas, Share, Subject, Told, Wanted};

const KINDS: [Kind; 3] = [Kind::Allocations, Kind::Bandwidth, Kind::Bandwidth];

impl Quotas {
    /// Computes what there is to compute; `leads` says whether this controller is to. `unix_millis` is only read when it
    /// begins to. Says whether there is something to tell, to relays or to other controllers.
    pub fn look(&mut self, now: Instant, unix_millis: u64, leads: bool, wanted: &Wanted) -> bool {
        self.take_nodes(&wanted.nodes);
        let seen = self.nodes.values().map(|node| node.demand.holds().0).max();
        let seen = seen.unwrap_or(0);
        if !leads {
            let led = self.leading.take().is_some();
            if led {
                // What no relay has heard of this one's term is nothing to another leader.
                self.term = seen;
            }
            return led;
        }
        // A relay that holds shares of a later term takes none of this one.
        let begins = self.leading.is_none() || seen > self.term;
        if begins {
            self.term = unix_millis.max(self.term.max(seen) + 1);
        }
        let term = self.term;
        let has_answered = |id: &NodeId| {
            let node = self.nodes.get(id);
            node.is_some_and(|node| node.demand.holds().0 == term)
        };
        let mut connected = wanted.nodes.iter().filter(|(_, connected)| **connected);
        let all_answered = !wanted.nodes.is_empty() && connected.all(|(id, _)| has_answered(id));
        let hash = hash_of(wanted);
        let leading = self.leading.get_or_insert_with(Leading::default);
        if begins {
            *leading = Leading {
                since: now,
                ..Leading::default()
            };
        }
        let settles = !leading.is_settled && (all_answered || now.since(leading.since) >= PATIENCE);
        leading.is_settled |= settles;
        let others = leading.shrunk.len();
        leading.shrunk.retain(|_, at| now.since(*at) < CALM);
        let is_due = begins
            || settles
            || leading.shrunk.len() != others
            || leading.wanted_hash != hash
            || self.is_stale;
        leading.wanted_hash = hash;
        self.is_stale = false;
        is_due && (self.share_out(now, wanted) | begins)
    }

    /// Forgets relays that are gone, with what they had.
    fn take_nodes(&mut self, wanted: &BTreeMap<NodeId, bool>) {
        let before = self.nodes.len();
        self.nodes.retain(|id, _| wanted.contains_key(id));
        self.is_stale |= self.nodes.len() != before;
        for (id, node) in &mut self.nodes {
            let is_connected = wanted.get(id).copied().unwrap_or(false);
            self.is_stale |=
                std::mem::replace(&mut node.is_connected, is_connected) != is_connected;
        }
    }

    fn share_out(&mut self, now: Instant, wanted: &Wanted) -> bool {
        let limits = self.limits(wanted);
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let term = self.term;
        let reach: Vec<Reach> = self
            .nodes
            .values()
            .map(|node| match (node.is_connected, &node.told) {
                (false, _) => Reach::Away,
                (true, Some(told)) if told.term == term && !node.has_confirmed() => Reach::Waiting,
                (true, _) => Reach::Open,
            })
            .collect();
        let mut shares: Vec<BTreeMap<Subject, Share>> = vec![BTreeMap::new(); ids.len()];
        for (subject, limit) in &limits {
            let exhausted = wanted.exhausted.contains(subject);
            let held_back = exhausted || wanted.throttled.contains(subject);
            let amounts = self.subject_amounts(now, subject, *limit, &reach);
            for (place, amounts) in amounts.into_iter().enumerate() {
                let share = Share {
                    amounts,
                    exhausted: held_back,
                };
                shares[place].insert(subject.clone(), share);
            }
        }
        self.tell(&ids, &reach, shares)
    }

    /// The limits of tenants, and of users that come near to theirs.
    fn limits(&mut self, wanted: &Wanted) -> BTreeMap<Subject, Amounts> {
        let mut limits = BTreeMap::new();
        for (&tenant, of) in &wanted.limits {
            limits.insert(Subject { tenant, user: None }, of.of_all());
        }
        let mut sums: BTreeMap<&Subject, Amounts> = BTreeMap::new();
        let uses = self.nodes.values().flat_map(|node| &node.demand.uses);
        for (subject, it) in uses.filter(|(subject, _)| subject.user.is_some()) {
            let sum = sums.entry(subject).or_default();
            *sum = std::array::from_fn(|kind| sum[kind].saturating_add(it.used[kind]));
        }
        let mut users = BTreeSet::new();
        for (subject, sum) in sums {
            let of_user = wanted.limits.get(&subject.tenant);
            let of_user = of_user.map_or([0; 3], |limits| limits.of_user());
            let part = if self.users.contains(subject) { 4 } else { 2 };
            let is_near = (0..3)
                .any(|kind| of_user[kind] > 0 && sum[kind].saturating_mul(part) >= of_user[kind]);
            if is_near && users.len() < MAX_USERS {
                users.insert(subject.clone());
                limits.insert(subject.clone(), of_user);
            }
        }
        self.users = users;
        for subject in wanted.exhausted.iter().chain(wanted.throttled.iter()) {
            limits.entry(subject.clone()).or_default();
        }
        limits
    }

    fn subject_amounts(
        &mut self,
        now: Instant,
        subject: &Subject,
        limit: Amounts,
        reach: &[Reach],
    ) -> Vec<[Option<u64>; 3]> {
        let term = self.term;
        let counted: Vec<Amounts> = self
            .nodes
            .values()
            .map(|node| node.counted(subject))
            .collect();
        let Some(leading) = &mut self.leading else {
            return Vec::new();
        };
        let mut amounts = vec![[None; 3]; counted.len()];
        let may = May {
            grow: leading.is_settled,
            shrink: leading.is_settled && !leading.shrunk.contains_key(subject),
        };
        let mut shrinks = false;
        for (kind, measured) in KINDS
            .into_iter()
            .enumerate()
            .filter(|(kind, _)| limit[*kind] > 0)
        {
            let relays: Vec<(Taken, Reach)> = self
                .nodes
                .values()
                .zip(&counted)
                .zip(reach)
                .map(|((node, counted), &reach)| {
                    let used = node.used(subject).copied().unwrap_or_default();
                    let taken = Taken {
                        counted: counted[kind],
                        used: used.used[kind],
                        refused: used.refused && measured == Kind::Allocations,
                    };
                    // The first word of a term takes over what there is.
                    let is_new = node.told.as_ref().is_none_or(|told| told.term != term);
                    let is_held = is_new && !may.grow && reach == Reach::Open;
                    (taken, if is_held { Reach::Waiting } else { reach })
                })
                .collect();
            let next: Next = next(measured, limit[kind], &relays, may);
            shrinks |= next.shrinks;
            for (amounts, next) in amounts.iter_mut().zip(next.amounts) {
                amounts[kind] = Some(next);
            }
        }
        if shrinks {
            leading.shrunk.insert(subject.clone(), now);
        }
        amounts
    }

    /// Tells those that can be told what is not what they were told before.
    fn tell(
        &mut self,
        ids: &[NodeId],
        reach: &[Reach],
        shares: Vec<BTreeMap<Subject, Share>>,
    ) -> bool {
        let term = self.term;
        let Some(leading) = &mut self.leading else {
            return false;
        };
        let mut changed = false;
        for ((id, reach), shares) in ids.iter().zip(reach).zip(shares) {
            let Some(node) = self.nodes.get_mut(id) else {
                continue;
            };
            let told = node.told.as_ref();
            let known = told.is_some_and(|told| told.term == term && told.shares == shares);
            if *reach != Reach::Open || known {
                continue;
            }
            leading.number += 1;
            node.told = Some(Told {
                term,
                number: leading.number,
                shares,
            });
            changed = true;
        }
        changed
    }
}

fn hash_of(wanted: &Wanted) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (tenant, limits) in &wanted.limits {
        tenant.hash(&mut hasher);
        limits.of_all().hash(&mut hasher);
        limits.of_user().hash(&mut hasher);
    }
    wanted.exhausted.hash(&mut hasher);
    wanted.throttled.hash(&mut hasher);
    hasher.finish()
}
