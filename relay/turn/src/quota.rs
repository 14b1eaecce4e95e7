//! What tenants and users may have on this relay, where they are limited: a share of what they may have in the fleet.
//!
//! The [`crate::Ledger`] keeps it beside the allocations that count. Who has no limit has no entry here, and costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::shaper::{Shaper, Shapers};
use crate::tenant::TenantId;

/// What each user of a tenant may send and receive in bits a second when its bytes of the day are used up: a voice call goes
/// on.
pub const EXHAUSTED_RATE: u64 = 100_000;

/// What a tenant or a user may have on this relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Allocations; `None` for no limit.
    pub allocations: Option<u32>,
    /// Bits of application data a second, by [`crate::shaper::Direction`]; zero for no limit.
    pub rates: [u64; 2],
    /// The bytes of the day are used up: no further allocation, and [`EXHAUSTED_RATE`] for those that live.
    pub exhausted: bool,
}

/// What holds for a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantQuota {
    /// All of its users together.
    pub share: Share,
    /// The rates of each user for whom nothing else is said, as in [`Share`].
    pub user_rates: [u64; 2],
}

/// Everybody who is limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Tenants.
    pub tenants: BTreeMap<TenantId, TenantQuota>,
    /// Users that come near to what they may have in the fleet.
    pub users: BTreeMap<TenantId, BTreeMap<Box<str>, Share>>,
}

/// Which share an allocation would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The tenant's.
    Tenant,
    /// The user's.
    User,
}

/// What a limited tenant uses, or one of its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUse {
    /// Allocations that live.
    pub allocations: u32,
    /// Allocations refused by this share since the start.
    pub refused: u64,
    /// Bytes that somebody wanted to send since the start, by [`crate::shaper::Direction`].
    pub offered: [u64; 2],
}

/// The quotas in force, and what there is of each.
#[derive(Debug, Default)]
pub(crate) struct QuotaBooks {
    quotas: Quotas,
    tenants: BTreeMap<TenantId, Entry>,
    /// Users with a rate and an allocation, and those that were refused one by a share of their own.
    users: BTreeMap<TenantId, BTreeMap<Box<str>, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    shaper: Option<Arc<Shaper>>,
    refused: u64,
}

impl Entry {
    fn take(&mut self, rates: [u64; 2]) {
        match &self.shaper {
            Some(shaper) => shaper.set_rates(rates),
            None => self.shaper = Some(Arc::new(Shaper::new(rates))),
        }
    }

    fn used(&self, allocations: u32) -> QuotaUse {
        let offered = self.shaper.as_ref().map(|shaper| shaper.offered());
        QuotaUse {
            allocations,
            refused: self.refused,
            offered: offered.unwrap_or_default(),
        }
    }
}

impl Quotas {
    fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.users.is_empty()
    }

    fn user(&self, tenant: TenantId, user: &str) -> Option<&Share> {
        self.users.get(&tenant)?.get(user)
    }

    fn is_exhausted(&self, tenant: TenantId) -> bool {
        let of_tenant = self.tenants.get(&tenant);
        of_tenant.is_some_and(|quota| quota.share.exhausted)
    }

    /// The rates of a user, where it has any.
    fn user_rates(&self, tenant: TenantId, user: &str) -> Option<[u64; 2]> {
        let of_tenant = self.tenants.get(&tenant);
        let own = self.user(tenant, user);
        let rates = match own.map(|own| own.rates) {
            Some(rates) if is_limited(rates) => rates,
            Some(_) | None => of_tenant.map_or([0; 2], |quota| quota.user_rates),
        };
        let is_exhausted = self.is_exhausted(tenant) || own.is_some_and(|own| own.exhausted);
        let rates = match is_exhausted {
            true => rates.map(|rate| match rate {
                0 => EXHAUSTED_RATE,
                rate => rate.min(EXHAUSTED_RATE),
            }),
            false => rates,
        };
        is_limited(rates).then_some(rates)
    }

    /// Who has a rate, whatever it is: allocations look their shapers up again when that changes.
    fn has_same_rated(&self, other: &Self) -> bool {
        let rated = |quotas: &Self| {
            let tenants = quotas.tenants.iter().map(|(&tenant, quota)| {
                let all = is_limited(quota.share.rates);
                (
                    tenant,
                    all,
                    is_limited(quota.user_rates),
                    quota.share.exhausted,
                )
            });
            let tenants = tenants.filter(|(_, all, users, exhausted)| *all || *users || *exhausted);
            let of_users = quotas.users.iter().flat_map(|(&tenant, users)| {
                let rated = |share: &Share| is_limited(share.rates) || share.exhausted;
                let users = users.iter().filter(move |(_, share)| rated(share));
                users.map(move |(user, _)| (tenant, user.clone()))
            });
            (tenants.collect::<Vec<_>>(), of_users.collect::<Vec<_>>())
        };
        rated(self) == rated(other)
    }
}

fn is_limited(rates: [u64; 2]) -> bool {
    rates != [0; 2]
}

impl QuotaBooks {
    /// Replaces the quotas; says whether allocations have to look for their shapers.
    pub(crate) fn set(&mut self, quotas: Quotas) -> bool {
        let same = self.quotas.has_same_rated(&quotas);
        self.quotas = quotas;
        let quotas = &self.quotas;
        self.tenants
            .retain(|tenant, _| quotas.tenants.contains_key(tenant));
        for (&tenant, quota) in &quotas.tenants {
            let entry = self.tenants.entry(tenant).or_default();
            match is_limited(quota.share.rates) {
                true => entry.take(quota.share.rates),
                false => entry.shaper = None,
            }
        }
        self.users.retain(|&tenant, users| {
            users.retain(|user, entry| {
                let rates = quotas.user_rates(tenant, user);
                match rates {
                    Some(rates) => entry.take(rates),
                    None => entry.shaper = None,
                }
                rates.is_some() || quotas.user(tenant, user).is_some()
            });
            !users.is_empty()
        });
        !same
    }

    /// Whether one more allocation is within the shares of a tenant and a user that have so many. A refusal is counted.
    pub(crate) fn check(
        &mut self,
        (tenant, of_tenant): (TenantId, u32),
        user: Option<(&str, u32)>,
    ) -> Result<(), Exceeded> {
        if self.quotas.is_empty() {
            return Ok(());
        }
        let is_full = |share: &Share, has: u32| {
            share.exhausted || share.allocations.is_some_and(|share| has >= share)
        };
        if let Some((user, of_user)) = user
            && let Some(share) = self.quotas.user(tenant, user)
            && is_full(share, of_user)
        {
            self.refused(tenant, user);
            return Err(Exceeded::User);
        }
        let quota = self.quotas.tenants.get(&tenant);
        if quota.is_some_and(|quota| is_full(&quota.share, of_tenant)) {
            self.tenants.entry(tenant).or_default().refused += 1;
            return Err(Exceeded::Tenant);
        }
        Ok(())
    }

    /// What bounds the allocations of a user who has one; `None` for no bound.
    pub(crate) fn shapers(&mut self, tenant: TenantId, user: Option<&str>) -> Option<Box<Shapers>> {
        if self.quotas.is_empty() {
            return None;
        }
        let of_tenant = self.tenants.get(&tenant);
        let of_tenant = of_tenant.and_then(|entry| entry.shaper.clone());
        let of_user = match user {
            Some(user) => self.user_shaper(tenant, user),
            // Nobody knows which of them belong together.
            None => {
                let alone = || Arc::new(Shaper::new([EXHAUSTED_RATE; 2]));
                self.quotas.is_exhausted(tenant).then(alone)
            }
        };
        (of_tenant.is_some() || of_user.is_some()).then(|| {
            Box::new(Shapers {
                tenant: of_tenant,
                user: of_user,
            })
        })
    }

    fn user_shaper(&mut self, tenant: TenantId, user: &str) -> Option<Arc<Shaper>> {
        let rates = self.quotas.user_rates(tenant, user)?;
        let users = self.users.entry(tenant).or_default();
        if !users.contains_key(user) {
            users.insert(user.into(), Entry::default());
        }
        let entry = users.get_mut(user)?;
        if entry.shaper.is_none() {
            entry.take(rates);
        }
        entry.shaper.clone()
    }

    /// Counts a refusal of a user with a share of its own that has as much as one may have on any relay.
    pub(crate) fn refused(&mut self, tenant: TenantId, user: &str) {
        if self.quotas.user(tenant, user).is_some() {
            let users = self.users.entry(tenant).or_default();
            users.entry(user.into()).or_default().refused += 1;
        }
    }

    /// The last allocation of a user has ended.
    pub(crate) fn left(&mut self, tenant: TenantId, user: &str) {
        let Some(users) = self.users.get_mut(&tenant) else {
            return;
        };
        if self.quotas.user(tenant, user).is_none() {
            users.remove(user);
        }
        if users.is_empty() {
            self.users.remove(&tenant);
        }
    }

    /// What a limited tenant uses, which has so many allocations.
    pub(crate) fn tenant_use(&self, tenant: TenantId, allocations: u32) -> QuotaUse {
        let entry = self.tenants.get(&tenant);
        entry.map_or_else(
            || Entry::default().used(allocations),
            |e| e.used(allocations),
        )
    }

    /// What a user uses, which has so many allocations.
    pub(crate) fn user_use(&self, tenant: TenantId, user: &str, allocations: u32) -> QuotaUse {
        let entry = self.users.get(&tenant).and_then(|users| users.get(user));
        entry.map_or_else(
            || Entry::default().used(allocations),
            |e| e.used(allocations),
        )
    }

    /// The limited tenants.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.quotas.tenants.keys().copied()
    }

    /// The users with a share of their own.
    pub(crate) fn users(&self) -> impl Iterator<Item = (TenantId, &str)> {
        let users = self.quotas.users.iter();
        users.flat_map(|(&tenant, users)| users.keys().map(move |user| (tenant, &**user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: TenantId = TenantId(7);

    fn quotas(share: Share, user_rates: [u64; 2]) -> Quotas {
        let quota = TenantQuota { share, user_rates };
        Quotas {
            tenants: BTreeMap::from([(ACME, quota)]),
            users: BTreeMap::new(),
        }
    }

    fn share(allocations: u32, rate: u64) -> Share {
        Share {
            allocations: Some(allocations),
            rates: [rate; 2],
            exhausted: false,
        }
    }

    #[test]
    fn a_share_is_a_bound_and_whoever_has_none_is_free() {
        let mut books = QuotaBooks::default();
        books.set(quotas(share(2, 0), [0; 2]));
        let mut check = |tenant, has| books.check((tenant, has), Some(("alice", has)));
        assert_eq!(check(ACME, 1), Ok(()));
        assert_eq!(check(ACME, 2), Err(Exceeded::Tenant));
        assert_eq!(check(TenantId::DEFAULT, 1000), Ok(()));
        assert_eq!(books.tenant_use(ACME, 2).refused, 1);
    }

    #[test]
    fn a_user_that_nears_its_limit_in_the_fleet_has_a_share_of_its_own() {
        let mut books = QuotaBooks::default();
        let mut both = quotas(share(100, 0), [0; 2]);
        let alice = BTreeMap::from([("alice".into(), share(1, 0))]);
        both.users.insert(ACME, alice);
        books.set(both);
        assert_eq!(books.check((ACME, 1), Some(("bob", 1))), Ok(()));
        let refused = books.check((ACME, 1), Some(("alice", 1)));
        assert_eq!(refused, Err(Exceeded::User));
        assert_eq!(books.user_use(ACME, "alice", 1).refused, 1);
    }

    #[test]
    fn allocations_look_for_shapers_when_somebody_gets_or_loses_a_rate_and_not_when_one_changes() {
        let mut books = QuotaBooks::default();
        assert!(!books.set(quotas(share(1, 0), [0; 2])));
        assert!(books.shapers(ACME, Some("alice")).is_none());
        assert!(books.set(quotas(share(1, 1000), [0; 2])));
        let shapers = books.shapers(ACME, Some("alice")).unwrap();
        assert!(shapers.user.is_none());
        assert!(!books.set(quotas(share(1, 2000), [0; 2])));
        assert_eq!(shapers.tenant.unwrap().rates(), [2000; 2]);
        assert!(books.set(quotas(share(1, 2000), [500; 2])));
        let shapers = books.shapers(ACME, Some("alice")).unwrap();
        assert_eq!(shapers.user.unwrap().rates(), [500; 2]);
        assert!(books.set(Quotas::default()));
        assert!(books.shapers(ACME, Some("alice")).is_none());
        assert!(books.users.is_empty());
    }

    #[test]
    fn the_allocations_of_one_user_share_a_shaper_until_the_last_has_ended() {
        let mut books = QuotaBooks::default();
        books.set(quotas(Share::default(), [500; 2]));
        let mut user = |name| books.shapers(ACME, Some(name)).unwrap().user.unwrap();
        let (one, other, bob) = (user("alice"), user("alice"), user("bob"));
        assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &bob));
        books.left(ACME, "alice");
        assert_eq!(books.users[&ACME].len(), 1);
    }

    #[test]
    fn what_lives_goes_on_slowly_when_the_bytes_of_the_day_are_used_up() {
        let mut books = QuotaBooks::default();
        let used_up = Share {
            exhausted: true,
            ..Share::default()
        };
        assert!(books.set(quotas(used_up, [0, 50_000])));
        let refused = books.check((ACME, 0), Some(("alice", 0)));
        assert_eq!(refused, Err(Exceeded::Tenant));
        let shapers = books.shapers(ACME, Some("alice")).unwrap();
        assert_eq!(shapers.user.unwrap().rates(), [EXHAUSTED_RATE, 50_000]);
        let mut nobody = || books.shapers(ACME, None).unwrap().user.unwrap();
        let (one, other) = (nobody(), nobody());
        assert_eq!(one.rates(), [EXHAUSTED_RATE; 2]);
        assert!(!Arc::ptr_eq(&one, &other), "each has the rate of its own");
        assert!(
            books.set(quotas(Share::default(), [0, 50_000])),
            "the next day has begun"
        );
        assert!(books.shapers(ACME, None).is_none());
        let shapers = books.shapers(ACME, Some("alice")).unwrap();
        assert_eq!(shapers.user.unwrap().rates(), [0, 50_000]);
    }

    #[test]
    fn a_user_whose_bytes_are_used_up_is_alone_in_it() {
        let mut books = QuotaBooks::default();
        let mut both = quotas(Share::default(), [0; 2]);
        let used_up = Share {
            exhausted: true,
            ..Share::default()
        };
        let alice = BTreeMap::from([("alice".into(), used_up)]);
        both.users.insert(ACME, alice);
        assert!(books.set(both));
        let refused = books.check((ACME, 1), Some(("alice", 1)));
        assert_eq!(refused, Err(Exceeded::User));
        assert_eq!(books.check((ACME, 1), Some(("bob", 1))), Ok(()));
        let shapers = books.shapers(ACME, Some("alice")).unwrap();
        assert_eq!(shapers.user.unwrap().rates(), [EXHAUSTED_RATE; 2]);
        assert!(books.shapers(ACME, Some("bob")).is_none());
    }
}
