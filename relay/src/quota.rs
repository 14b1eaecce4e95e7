//! What limited tenants and users may have on this node: shares that a controller gives, of what the policy allows them in the
//! whole fleet; and what the node says of it.
//!
//! A node that was never told a share takes an eighth of the limit, so that it serves without controllers; one that has lost
//! its controllers keeps what it has.

mod meter;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use turnfleet_proto::fleet;
use turnfleet_turn::quota::{Quotas, Share, TenantQuota};
use turnfleet_turn::{Ledger, TenantId};

use meter::Meter;

/// How often it is looked at what is used.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// How often a controller hears of it while nothing is short.
const TELL: Duration = Duration::from_secs(1);
/// How long a refusal is told of.
const REFUSED: Duration = Duration::from_secs(2);
/// The part of a limit that a node takes which was never told a share.
const UNTOLD_PART: u64 = 8;
/// A user is told of that takes at least one part in so many of what it may have in the fleet.
const USER_PART: u64 = 8;
/// Users that are told of: those that take most.
const MAX_USERS: usize = 256;
/// Users looked at in one go.
const USERS_AT_ONCE: usize = 4096;

/// A tenant, or one of its users.
type Subject = (TenantId, Option<Box<str>>);

/// See the module.
pub(crate) struct NodeQuotas {
    ledger: Arc<Ledger>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// What tenants may have in the fleet, by the running policy.
    limits: BTreeMap<TenantId, fleet::Quotas>,
    /// As a controller told it.
    told: Option<fleet::Shares>,
    meters: BTreeMap<Subject, Meter>,
    /// The user that was looked at last, where others have yet to be.
    looked_at: Option<(TenantId, Box<str>)>,
    /// What a controller heard last, and when.
    said: Option<(fleet::Demand, Instant)>,
}

impl NodeQuotas {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            books: Mutex::default(),
        }
    }

    /// Goes by the limits of `snapshot`; says whether shards have to hear of it.
    pub(crate) fn limit(&self, snapshot: &fleet::Snapshot) -> bool {
        let own = snapshot.tenant.and_then(|rules| rules.quotas);
        let own = own.map(|quotas| (TenantId::DEFAULT, quotas));
        let others = snapshot.tenants.iter().filter_map(|tenant| {
            let quotas = tenant.rules.and_then(|rules| rules.quotas)?;
            Some((TenantId(tenant.id), quotas))
        });
        let mut books = self.books();
        books.limits = own.into_iter().chain(others).collect();
        self.ledger.set_quotas(books.quotas())
    }

    /// Holds `shares` from here on, unless it holds later ones; says whether shards have to hear of it.
    pub(crate) fn take(&self, shares: fleet::Shares) -> bool {
        let mut books = self.books();
        let known = books.told.as_ref().map(|told| (told.term, told.number));
        if known.is_some_and(|known| known >= (shares.term, shares.number)) {
            return false;
        }
        books.told = Some(shares);
        self.ledger.set_quotas(books.quotas())
    }

    /// Looks at what is used, and gives what a controller should hear now, if there is anything.
    pub(crate) fn look(&self, now: Instant) -> Option<fleet::Demand> {
        let mut books = self.books();
        books.measure(&self.ledger, now);
        let demand = books.demand();
        let is_due = match &books.said {
            // A node without limits has nothing to say.
            None => !demand.uses.is_empty() || demand.term > 0,
            Some((said, _)) if *said == demand => false,
            Some((said, at)) => {
                let confirms = (said.term, said.number) != (demand.term, demand.number);
                confirms || now.duration_since(*at) >= TELL || demand.uses.iter().any(is_short)
            }
        };
        is_due.then(|| {
            books.said = Some((demand.clone(), now));
            demand
        })
    }

    /// Another session has begun: its controller has heard nothing.
    pub(crate) fn begin_session(&self) {
        self.books().said = None;
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // What is kept here is replaced whole.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether less than a quarter of a share is left.
fn is_short(used: &fleet::ShareUse) -> bool {
    let short = |held: u64, used: u64| held > 0 && held.saturating_sub(used) * 4 < held;
    used.refused
        || short(used.held_allocations, used.allocations)
        || short(used.held_to_peers, used.to_peers)
        || short(used.held_to_clients, used.to_clients)
}

impl Books {
    /// What the ledger shall enforce.
    fn quotas(&self) -> Quotas {
        let mut quotas = Quotas::default();
        for (&tenant, limits) in &self.limits {
            let share = match self.told {
                Some(_) => Share::default(),
                None => untold(limits),
            };
            let user_rates = [limits.user_bits_per_second; 2];
            quotas
                .tenants
                .insert(tenant, TenantQuota { share, user_rates });
        }
        for told in self.told.iter().flat_map(|told| &told.shares) {
            let tenant = TenantId(told.tenant);
            match told.user.is_empty() {
                true => quotas.tenants.entry(tenant).or_default().share = read(told),
                false => {
                    let users = quotas.users.entry(tenant).or_default();
                    users.insert(told.user.as_str().into(), read(told));
                }
            }
        }
        quotas
    }

    /// What there is of each tenant with limits, and of users that take much.
    fn measure(&mut self, ledger: &Ledger, now: Instant) {
        for (tenant, used) in ledger.tenant_uses() {
            let meter = self.meters.entry((tenant, None)).or_default();
            meter.take(used, now);
        }
        let after = self.looked_at.take();
        let after = after.as_ref().map(|(tenant, user)| (*tenant, &**user));
        let (users, next) = ledger.user_uses(after, USERS_AT_ONCE);
        for (tenant, user, used) in users {
            let limits = self.limits.get(&tenant).copied().unwrap_or_default();
            let is_told = self.is_told(tenant, &user);
            let key = (tenant, Some(user));
            let known = self.meters.get(&key).copied();
            let mut meter = known.unwrap_or_default();
            meter.take(used, now);
            match is_told || meter.takes_much(&limits) || (known.is_none() && meter.is_shaped()) {
                true => drop(self.meters.insert(key, meter)),
                false => drop(self.meters.remove(&key)),
            }
        }
        self.looked_at = next;
        // Whoever has nothing any more is not looked at again.
        self.meters.retain(|_, meter| meter.is_fresh(now));
    }

    fn is_told(&self, tenant: TenantId, user: &str) -> bool {
        let mut told = self.told.iter().flat_map(|told| &told.shares);
        told.any(|share| share.tenant == tenant.0 && share.user == user)
    }

    fn demand(&self) -> fleet::Demand {
        let quotas = self.quotas();
        let mut uses: Vec<fleet::ShareUse> = Vec::new();
        for (&tenant, quota) in &quotas.tenants {
            uses.push(self.share_use(&(tenant, None), &quota.share));
        }
        let mut users: Vec<&Subject> = self.meters.keys().filter(|it| it.1.is_some()).collect();
        users.sort_by_key(|it| std::cmp::Reverse(self.meters[*it].weight()));
        users.truncate(MAX_USERS);
        for subject in users {
            let (tenant, user) = subject;
            let of_tenant = quotas.users.get(tenant);
            let share = user.as_ref().and_then(|user| of_tenant?.get(user));
            let share = share.copied().unwrap_or_default();
            uses.push(self.share_use(subject, &share));
        }
        let held = self.told.as_ref();
        fleet::Demand {
            term: held.map_or(0, |told| told.term),
            number: held.map_or(0, |told| told.number),
            uses,
        }
    }

    fn share_use(&self, subject: &Subject, share: &Share) -> fleet::ShareUse {
        let meter = self.meters.get(subject).copied().unwrap_or_default();
        let allocations = u64::from(meter.allocations());
        let [to_peers, to_clients] = meter.rates();
        let [held_to_peers, held_to_clients] = share.rates;
        fleet::ShareUse {
            tenant: subject.0.0,
            user: subject.1.as_deref().unwrap_or_default().to_owned(),
            held_allocations: share
                .allocations
                .map_or(0, |share| u64::from(share).max(allocations)),
            held_to_peers,
            held_to_clients,
            allocations,
            to_peers,
            to_clients,
            refused: meter.was_refused(),
        }
    }
}

/// The share of a node that was never told one.
fn untold(limits: &fleet::Quotas) -> Share {
    let part = |limit: u64| match limit {
        0 => 0,
        limit => (limit / UNTOLD_PART).max(1),
    };
    let allocations = part(limits.allocations);
    Share {
        allocations: (allocations > 0).then(|| bounded(allocations)),
        rates: [part(limits.bits_per_second); 2],
        exhausted: false,
    }
}

fn read(share: &fleet::Share) -> Share {
    // A rate of zero would be none at all.
    let rate = |told: Option<u64>| told.map_or(0, |rate| rate.max(1));
    Share {
        allocations: share.allocations.map(bounded),
        rates: [rate(share.to_peers), rate(share.to_clients)],
        exhausted: share.exhausted,
    }
}

fn bounded(allocations: u64) -> u32 {
    u32::try_from(allocations).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
