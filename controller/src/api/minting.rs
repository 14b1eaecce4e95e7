//! How many credentials a minute are minted for a tenant. Each controller that lives gives out its part of the limit by
//! itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rate::TokenBucket;
use crate::events::Overruns;
use crate::fleet::FleetView;
use crate::fleet::tenants::{DEFAULT_TENANT, MAX_TENANTS, Tenants};

/// See the module.
pub(crate) struct Minting {
    /// By tenant, with the credentials a minute that they are for.
    buckets: Mutex<HashMap<u32, (u64, TokenBucket)>>,
    overruns: Arc<Overruns>,
}

impl Minting {
    pub(crate) fn new(overruns: Arc<Overruns>) -> Self {
        Self {
            buckets: Mutex::default(),
            overruns,
        }
    }

    /// Takes one credential for `user`, whose API token may be bound to `tenant`.
    ///
    /// # Errors
    /// How long until there is another one, beyond the tenant's limit.
    pub(crate) fn take(
        &self,
        view: &FleetView,
        tenant: Option<&str>,
        user: &str,
    ) -> Result<(), Duration> {
        if view.tenants.is_empty() {
            return Ok(());
        }
        let tenant = whose(&view.tenants, tenant, user);
        let limit = view.tenants.quotas(tenant).credentials_per_minute;
        if limit == 0 {
            return Ok(());
        }
        let controllers = u64::try_from(view.controllers.len()).unwrap_or(u64::MAX);
        let taken = self.take_of(tenant, (limit / controllers.max(1)).max(1), Instant::now());
        taken.inspect_err(|_| self.overruns.refused_credential(&view.tenants, tenant))
    }

    fn take_of(&self, tenant: u32, count: u64, now: Instant) -> Result<(), Duration> {
        // No operation leaves the buckets half changed.
        let buckets = self.buckets.lock();
        let mut buckets = buckets.unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MAX_TENANTS && !buckets.contains_key(&tenant) {
            // Most are of tenants that are gone; the others begin anew with a full one.
            buckets.clear();
        }
        let fresh = || (count, TokenBucket::a_minute(count, now));
        let (made_for, bucket) = buckets.entry(tenant).or_insert_with(fresh);
        if *made_for != count {
            (*made_for, *bucket) = (count, bucket.with_count(count));
        }
        bucket.take(now)
    }
}

/// The tenant that relays take the user for: that of the token, or the one that the user's name begins with.
fn whose(tenants: &Tenants, bound: Option<&str>, user: &str) -> u32 {
    let named = bound.or_else(|| Some(user.split_once('/')?.0));
    let tenant = named.and_then(|name| tenants.named(name));
    tenant.map_or(DEFAULT_TENANT, |tenant| tenant.id)
}
