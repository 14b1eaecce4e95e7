//! The book of the day: what tenants, and users of tenants that limit each of theirs, have carried since midnight (UTC).
//!
//! Nothing here reads a clock. Of a tenant the book knows the total with which the day began, which is taken from that of the
//! moment; of a user it adds up by how much the counters of each relay rise. What may be of another day does not count: what
//! a node has told when it is first heard, unless the book goes on with one of the same day. Relays name their largest users
//! only, so that a user's sum may miss something; it is never too much.

mod kept;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use turnfleet_proto::{NodeId, fleet as wire};

pub use kept::{KEYS, KeptDay};

use crate::fleet::quota::Subject;
use crate::fleet::tenants::Quotas as Limits;

/// Seconds of a day.
pub const SECONDS: u64 = 86_400;
/// Users with a sum, over all tenants.
const MAX_USERS: usize = 10_000;
/// Counters of relays that those sums are made of.
const MAX_COUNTERS: usize = 40_000;
/// Nodes that are told from those that were never heard.
const MAX_NODES: usize = 20_000;
/// The longest name of a user.
const MAX_NAME: usize = 520;
/// Users whose bytes are used up that relays are told of.
const MAX_EXHAUSTED: usize = 1_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct DayBook {
    /// Days since 1970; `None` until the book has begun.
    day: Option<u64>,
    /// Whether totals of nodes that were never heard are as of this day.
    goes_on: bool,
    /// What tenants had carried when the day began; nothing where it is missing.
    begun_at: BTreeMap<u32, u64>,
    /// Tenants whose users have sums.
    watched: BTreeSet<u32>,
    users: BTreeMap<u32, BTreeMap<Box<str>, User>>,
    user_count: usize,
    counter_count: usize,
    heard: BTreeMap<NodeId, Heard>,
    missed: u64,
}

/// What is known of a user.
#[derive(Clone, Debug, Default)]
struct User {
    /// Bytes of the day.
    bytes: u64,
    /// What each relay told last.
    counters: BTreeMap<NodeId, u64>,
    /// Whether a relay has told of it on this day.
    is_fresh: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// The number of the report that was heard first, which comes in several messages; zero for another controller's word.
    first: u64,
    /// Of the latest list of users.
    order: (u64, u64),
}

impl DayBook {
    /// Begins the book on `today`, with what was kept, if that is of the same day; `carried` is what tenants have carried in
    /// all. A book that has begun takes over what another leader has kept.
    pub fn begin(&mut self, today: u64, kept: Option<&KeptDay>, carried: &BTreeMap<u32, u64>) {
        let kept = kept.filter(|kept| kept.day == today);
        match self.day {
            None => {
                self.day = Some(today);
                self.begun_at.clone_from(carried);
                self.goes_on = kept.is_some();
            }
            Some(_) => self.turn_to(today, carried),
        }
        let Some(kept) = kept.filter(|_| self.day == Some(today)) else {
            return;
        };
        self.begun_at.extend(kept.tenants.iter().copied());
        for (tenant, user, bytes) in &kept.users {
            if let Some(user) = self.user(*tenant, user) {
                user.bytes = user.bytes.max(*bytes);
                user.is_fresh = true;
            }
        }
    }

    /// The next day begins at zero. Days never go back.
    pub fn turn_to(&mut self, today: u64, carried: &BTreeMap<u32, u64>) {
        if self.day.is_none_or(|day| today <= day) {
            return;
        }
        self.day = Some(today);
        self.goes_on = false;
        self.begun_at.clone_from(carried);
        for users in self.users.values_mut() {
            users.retain(|_, user| {
                user.bytes = 0;
                std::mem::take(&mut user.is_fresh)
            });
        }
        self.recount();
    }

    /// Whether what a message with that number tells of tenants may be of another day: the node was not heard before.
    #[must_use]
    pub fn is_first(&self, node: &NodeId, number: u64) -> bool {
        let heard = self.heard.get(node);
        heard.is_none_or(|heard| heard.first == number && number != 0)
    }

    /// Whether what tenants carried is passed over where [`Self::is_first`].
    #[must_use]
    pub fn passes_over(&self) -> bool {
        self.day.is_some() && !self.goes_on
    }

    /// So many bytes of a tenant may be of another day.
    pub fn pass_over(&mut self, tenant: u32, bytes: u64) {
        let begun_at = self.begun_at.entry(tenant).or_default();
        *begun_at = begun_at.saturating_add(bytes);
    }

    /// Takes the users that `node` tells of.
    pub fn hear(&mut self, node: &NodeId, usage: &wire::Usage, is_first: bool) {
        let is_full = self.heard.len() >= MAX_NODES && !self.heard.contains_key(node);
        if self.day.is_none() || is_full {
            return;
        }
        let first = Heard {
            first: usage.number,
            ..Heard::default()
        };
        let heard = self.heard.entry(node.clone()).or_insert(first);
        let order = (usage.begun_millis, usage.number);
        if usage.tenants_only || order < heard.order {
            return;
        }
        heard.order = order;
        for told in &usage.users {
            let has_name = (1..=MAX_NAME).contains(&told.user.len());
            if has_name && self.watched.contains(&told.tenant) {
                let volume = told.volume.unwrap_or_default();
                self.count(node, (told.tenant, &told.user), &volume, is_first);
            }
        }
    }

    fn count(
        &mut self,
        node: &NodeId,
        (tenant, name): (u32, &str),
        volume: &wire::Volume,
        is_first: bool,
    ) {
        let total = volume.to_peers.saturating_add(volume.to_clients);
        let has_room = self.counter_count < MAX_COUNTERS;
        let Some(user) = self.user(tenant, name) else {
            return;
        };
        user.is_fresh = true;
        if let Some(before) = user.counters.get_mut(node) {
            // A counter that went back began anew.
            let rise = total.checked_sub(*before).unwrap_or(total);
            user.bytes = user.bytes.saturating_add(rise);
            *before = total;
        } else if has_room {
            user.counters.insert(node.clone(), total);
            if !is_first {
                // Who has just come among the largest may have been watched for days.
                let lately = volume.hour_to_peers.saturating_add(volume.hour_to_clients);
                user.bytes = user.bytes.saturating_add(total.min(lately));
            }
            self.counter_count += 1;
        } else {
            self.missed += 1;
        }
    }

    /// A user, who is added where there is room.
    fn user(&mut self, tenant: u32, name: &str) -> Option<&mut User> {
        let users = self.users.entry(tenant).or_default();
        if !users.contains_key(name) {
            if self.user_count >= MAX_USERS {
                self.missed += 1;
                return None;
            }
            self.user_count += 1;
            users.insert(name.into(), User::default());
        }
        users.get_mut(name)
    }

    fn recount(&mut self) {
        self.users.retain(|_, users| !users.is_empty());
        let users = || self.users.values().flat_map(BTreeMap::values);
        self.user_count = users().count();
        self.counter_count = users().map(|user| user.counters.len()).sum();
    }

    /// What users are counted of from here on, and whose bytes of the day are used up.
    pub fn look(
        &mut self,
        limits: &BTreeMap<u32, Limits>,
        carried: &BTreeMap<u32, u64>,
    ) -> BTreeSet<Subject> {
        let each = limits
            .iter()
            .filter(|(_, limits)| limits.user_bytes_per_day > 0);
        let watched: BTreeSet<u32> = each.map(|(tenant, _)| *tenant).collect();
        if self.watched != watched {
            self.users.retain(|tenant, _| watched.contains(tenant));
            self.recount();
            self.watched = watched;
        }
        let is_used_up = |limit: u64, used: u64| limit > 0 && used >= limit;
        let tenants = limits.iter().filter(|(tenant, limits)| {
            is_used_up(limits.bytes_per_day, self.carried_by(**tenant, carried))
        });
        let tenants = tenants.map(|(&tenant, _)| Subject { tenant, user: None });
        let mut users = Vec::new();
        for (&tenant, of) in &self.users {
            let limit = limits.get(&tenant).map_or(0, |it| it.user_bytes_per_day);
            let used_up = of.iter().filter(|(_, user)| is_used_up(limit, user.bytes));
            users.extend(used_up.map(|(name, user)| (user.bytes, tenant, name)));
        }
        users.sort_by_key(|(bytes, ..)| Reverse(*bytes));
        let users = users.into_iter().take(MAX_EXHAUSTED);
        let users = users.map(|(_, tenant, name)| Subject {
            tenant,
            user: Some(name.clone()),
        });
        tenants.chain(users).collect()
    }

    /// The bytes of the day of a tenant; zero before the book has begun.
    #[must_use]
    pub fn carried_by(&self, tenant: u32, carried: &BTreeMap<u32, u64>) -> u64 {
        if self.day.is_none() {
            return 0;
        }
        let now = carried.get(&tenant).copied().unwrap_or(0);
        now.saturating_sub(self.begun_at.get(&tenant).copied().unwrap_or(0))
    }

    /// What a restart goes on from; `None` before the book has begun.
    #[must_use]
    pub fn kept(&self, carried: &BTreeMap<u32, u64>) -> Option<KeptDay> {
        let begun_at = |tenant: &u32| self.begun_at.get(tenant).copied().unwrap_or(0);
        let tenants = carried.keys();
        let mut tenants: Vec<_> = tenants.map(|tenant| (*tenant, begun_at(tenant))).collect();
        tenants.sort_by_key(|(tenant, _)| Reverse(self.carried_by(*tenant, carried)));
        let users = self.users.iter().flat_map(|(tenant, users)| {
            let named = users.iter().filter(|(_, user)| user.bytes > 0);
            named.map(|(name, user)| (*tenant, name.clone(), user.bytes))
        });
        let mut users: Vec<_> = users.collect();
        users.sort_by_key(|(.., bytes)| Reverse(*bytes));
        Some(KeptDay {
            day: self.day?,
            tenants,
            users,
        })
    }

    /// How often bytes of a user were not counted, because there were too many users.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests;
