//! The part of the ledger that quotas of the fleet need: shares, the shapers that go with them, and what is used of each.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use super::Ledger;
use crate::quota::{QuotaUse, Quotas};
use crate::shaper::Shapers;
use crate::tenant::TenantId;

/// A user with what it uses.
pub type UserUse = (TenantId, Box<str>, QuotaUse);

impl Ledger {
    /// Replaces the shares of tenants and users; says whether shards have to renew the shapers of allocations
    /// ([`crate::Server::renew_shapers`]).
    pub fn set_quotas(&self, quotas: Quotas) -> bool {
        let mut books = self.lock();
        let changed = books.quotas.set(quotas);
        if changed {
            self.shapers_version.fetch_add(1, Ordering::Release);
        }
        changed
    }

    pub(crate) fn shapers_version(&self) -> u64 {
        self.shapers_version.load(Ordering::Acquire)
    }

    /// What bounds the allocations of a user that holds one; `None` for no bound.
    pub(crate) fn shapers(&self, tenant: TenantId, user: Option<&str>) -> Option<Box<Shapers>> {
        self.lock().quotas.shapers(tenant, user)
    }

    /// What each limited tenant uses.
    #[must_use]
    pub fn tenant_uses(&self) -> Vec<(TenantId, QuotaUse)> {
        let books = self.lock();
        let used = |tenant| {
            let account = books.accounts.get(&tenant);
            let allocations = account.map_or(0, |account| account.allocations);
            (tenant, books.quotas.tenant_use(tenant, allocations))
        };
        books.quotas.tenants().map(used).collect()
    }

    /// What users of limited tenants use: `most` of those behind `after`, and all that have a share of their own. With the
    /// last one that was looked at, where there are others behind it.
    #[must_use]
    pub fn user_uses(
        &self,
        after: Option<(TenantId, &str)>,
        most: usize,
    ) -> (Vec<UserUse>, Option<(TenantId, Box<str>)>) {
        let books = self.lock();
        let mut uses = Vec::new();
        let mut last = None;
        let tenants = books.quotas.tenants();
        for tenant in tenants.filter(|tenant| after.is_none_or(|(first, _)| *tenant >= first)) {
            let Some(account) = books.accounts.get(&tenant) else {
                continue;
            };
            let from = after.filter(|(first, _)| *first == tenant);
            let from = from.map_or(Bound::Unbounded, |(_, user)| Bound::Excluded(user));
            let users = account.users.range::<str, _>((from, Bound::Unbounded));
            for (user, held) in users {
                if uses.len() == most {
                    return (uses, last);
                }
                let used = books.quotas.user_use(tenant, user, held.allocations);
                uses.push((tenant, user.clone(), used));
                last = Some((tenant, user.clone()));
            }
        }
        // Those without an allocation may have been refused one.
        for (tenant, user) in books.quotas.users() {
            let account = books.accounts.get(&tenant);
            if account.is_none_or(|account| !account.users.contains_key(user)) {
                let used = books.quotas.user_use(tenant, user, 0);
                uses.push((tenant, user.into(), used));
            }
        }
        (uses, None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::{Holder, Refused};
    use crate::policy::Limits;
    use crate::quota::{Share, TenantQuota};

    const ACME: TenantId = TenantId(7);

    fn of_acme(share: Share) -> Quotas {
        let quota = TenantQuota {
            share,
            user_rates: [0; 2],
        };
        Quotas {
            tenants: BTreeMap::from([(ACME, quota)]),
            users: BTreeMap::new(),
        }
    }

    fn holder(tenant: TenantId, user: &str) -> Holder<'_> {
        Holder {
            tenant,
            user: Some(user),
        }
    }

    #[test]
    fn a_tenant_has_its_share_and_another_one_is_free() {
        let ledger = Ledger::new([0; 32]);
        ledger.set_quotas(of_acme(Share {
            allocations: Some(2),
            ..Share::default()
        }));
        let admit = |tenant, user| ledger.admit(holder(tenant, user), &Limits::default());
        for user in ["alice", "bob"] {
            assert_eq!(admit(ACME, user), Ok(()));
        }
        assert_eq!(admit(ACME, "carol"), Err(Refused::TenantQuota));
        assert_eq!(admit(TenantId::DEFAULT, "carol"), Ok(()));
        let used = ledger.tenant_uses();
        assert_eq!((used[0].1.allocations, used[0].1.refused), (2, 1));
        ledger.leave(holder(ACME, "alice"));
        assert_eq!(admit(ACME, "carol"), Ok(()));
    }

    #[test]
    fn users_are_looked_at_in_slices() {
        let ledger = Ledger::new([0; 32]);
        ledger.set_quotas(of_acme(Share::default()));
        for user in ["a", "b", "c"] {
            let admitted = ledger.admit(holder(ACME, user), &Limits::default());
            assert_eq!(admitted, Ok(()));
        }
        let (first, last) = ledger.user_uses(None, 2);
        assert_eq!(first.len(), 2);
        let (tenant, user) = last.unwrap();
        let (second, last) = ledger.user_uses(Some((tenant, &user)), 2);
        assert_eq!((&*second[0].1, second.len(), last), ("c", 1, None));
    }
}
