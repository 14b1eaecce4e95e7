//! Who has come to the end of what it may use: told once, and again when it has kept within it for a minute.
//!
//! Every controller remembers who is there; what all of them see is told by the one that leads, and what one of them refused
//! by that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::bus::{About, EventBus};
use super::event::Username;
use super::kinds::What;
use crate::fleet::FleetView;
use crate::fleet::quota::{QuotaState, Subject};
use crate::fleet::tenants::{DEFAULT_TENANT, Quotas, Tenants};
use crate::metrics::Metrics;
use crate::reconcile::Handle;

/// Who has kept within a quota for so long is told of again.
const REST: Duration = Duration::from_secs(60);
/// The most that is remembered; what is beyond it is not told.
const MAX_REMEMBERED: usize = 10_000;

/// What somebody may come to the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quota {
    /// Allocations, of a tenant or of a user.
    Allocations,
    /// Bits a second.
    Bandwidth,
    /// Bytes a day.
    Bytes,
    /// Credentials a minute.
    Credentials,
}

impl Quota {
    /// What tenants' quotas call it, and its size.
    fn of(self, quotas: &Quotas, is_users: bool) -> (&'static str, u64) {
        match (self, is_users) {
            (Self::Allocations, false) => ("allocations", quotas.allocations),
            (Self::Allocations, true) => ("allocations_per_user", quotas.allocations_per_user),
            (Self::Bandwidth, false) => ("bits_per_second", quotas.bits_per_second),
            (Self::Bandwidth, true) => ("user_bits_per_second", quotas.user_bits_per_second),
            (Self::Bytes, false) => ("bytes_per_day", quotas.bytes_per_day),
            (Self::Bytes, true) => ("user_bytes_per_day", quotas.user_bytes_per_day),
            (Self::Credentials, _) => ("credentials_per_minute", quotas.credentials_per_minute),
        }
    }
}

/// See the module.
pub(crate) struct Overruns {
    bus: EventBus,
    metrics: Arc<Metrics>,
    /// When each was last at its end.
    seen: Mutex<BTreeMap<(Subject, Quota), Instant>>,
}

impl Overruns {
    pub(crate) fn new(bus: EventBus, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            bus,
            metrics,
            seen: Mutex::default(),
        })
    }

    /// Looks at every view, until the controller stops.
    pub(crate) async fn follow(self: Arc<Self>, handle: Handle) {
        let mut views = handle.changes();
        let mut looked_at = None;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            if looked_at
                .as_ref()
                .is_none_or(|before| !Arc::ptr_eq(before, &view.quotas))
            {
                self.look(&view, Instant::now());
                looked_at = Some(Arc::clone(&view.quotas));
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    fn look(&self, view: &FleetView, now: Instant) {
        self.seen().retain(|_, last| now - *last < REST);
        for (subject, state) in view.quotas.iter() {
            for quota in at_an_end(state) {
                self.note(&view.tenants, (subject, quota), view.leads, now);
            }
        }
    }

    /// A tenant was refused a credential by this controller.
    pub(crate) fn refused_credential(&self, tenants: &Tenants, tenant: u32) {
        let subject = Subject { tenant, user: None };
        self.note(
            tenants,
            (&subject, Quota::Credentials),
            true,
            Instant::now(),
        );
    }

    /// Somebody is at the end of a quota, which is told where it was not before.
    fn note(
        &self,
        tenants: &Tenants,
        (subject, quota): (&Subject, Quota),
        tells: bool,
        now: Instant,
    ) {
        let is_told = is_new(&mut self.seen(), (subject.clone(), quota), now) && tells;
        if !is_told {
            return;
        }
        let Some(tenant) = tenants.name(subject.tenant) else {
            return;
        };
        let quotas = tenants.quotas(subject.tenant);
        let (name, limit) = quota.of(&quotas, subject.user.is_some());
        let is_default = subject.tenant == DEFAULT_TENANT;
        let username = subject.user.as_deref().map(|user| match is_default {
            true => user.to_owned(),
            false => format!("{tenant}/{user}"),
        });
        let about = match is_default {
            true => About::default(),
            false => About::tenant(tenant),
        };
        let what = What::QuotaExceeded {
            quota: name.to_owned(),
            limit,
            username: username.map(Username),
        };
        self.bus.publish(about, what);
        self.metrics.quotas.exceeded(tenant, name);
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<(Subject, Quota), Instant>> {
        // No operation leaves it half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn at_an_end(state: &QuotaState) -> impl Iterator<Item = Quota> {
    let [allocations, to_peers, to_clients] = state.exceeded;
    let all = [
        (allocations, Quota::Allocations),
        (to_peers || to_clients, Quota::Bandwidth),
        (state.exhausted, Quota::Bytes),
    ];
    let at_an_end = all.into_iter().filter(|(is_there, _)| *is_there);
    at_an_end.map(|(_, quota)| quota)
}

/// Whether `key` has not been seen within a minute before `now`, at which it is.
fn is_new(
    seen: &mut BTreeMap<(Subject, Quota), Instant>,
    key: (Subject, Quota),
    now: Instant,
) -> bool {
    if let Some(last) = seen.get_mut(&key) {
        return now - std::mem::replace(last, now) >= REST;
    }
    let has_room = seen.len() < MAX_REMEMBERED;
    if has_room {
        seen.insert(key, now);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> (Subject, Quota) {
        let subject = Subject {
            tenant: 7,
            user: Some("alice".into()),
        };
        (subject, Quota::Bytes)
    }

    #[test]
    fn who_stays_at_its_end_is_told_once_and_again_after_a_minute_within_it() {
        let mut seen = BTreeMap::new();
        let begun = Instant::now();
        let mut is_told = |second| is_new(&mut seen, alice(), begun + Duration::from_secs(second));
        assert!(is_told(0));
        assert!(!is_told(59));
        assert!(!is_told(118));
        assert!(is_told(178));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        let (subject, quota) = alice();
        for tenant in 0..20_000 {
            let subject = Subject {
                tenant,
                ..subject.clone()
            };
            let is_told = is_new(&mut seen, (subject, quota), now);
            assert_eq!(is_told, seen.len() <= MAX_REMEMBERED && tenant < 10_000);
        }
        assert_eq!(seen.len(), MAX_REMEMBERED);
    }

    #[test]
    fn each_end_is_one_of_its_own() {
        let state = QuotaState {
            exceeded: [true, false, true],
            exhausted: true,
            ..QuotaState::default()
        };
        let all = [Quota::Allocations, Quota::Bandwidth, Quota::Bytes];
        assert_eq!(at_an_end(&state).collect::<Vec<_>>(), all);
        assert_eq!(at_an_end(&QuotaState::default()).count(), 0);
    }
}
