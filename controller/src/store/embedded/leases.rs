//! The leases of the embedded store: in memory, for a lease lasts no longer than the process that keeps it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::store::LeaseId;

/// The shortest lease, as etcd has it.
const SHORTEST: Duration = Duration::from_secs(1);

/// Which leases there are, and when they end.
#[derive(Debug, Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<LeaseId, Lease>>,
    /// Told when a lease may end earlier than the earliest one before.
    pub(super) changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

impl Leases {
    /// Makes a lease; `None` where the system gives no random bytes.
    pub(super) fn grant(&self, ttl: Duration) -> Option<LeaseId> {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let id = LeaseId(i64::from_be_bytes(bytes) & i64::MAX);
        let ttl = ttl.max(SHORTEST);
        let ends = Instant::now() + ttl;
        self.lock().insert(id, Lease { ttl, ends });
        self.changed.notify_one();
        Some(id)
    }

    /// Lets a lease begin anew; false where it has ended.
    pub(super) fn keep(&self, id: LeaseId) -> bool {
        let now = Instant::now();
        let mut open = self.lock();
        let lease = open.get_mut(&id).filter(|lease| lease.ends > now);
        if let Some(lease) = lease {
            lease.ends = now + lease.ttl;
            return true;
        }
        false
    }

    /// Whether something may still be written with the lease.
    pub(super) fn is_open(&self, id: LeaseId) -> bool {
        let now = Instant::now();
        self.lock().get(&id).is_some_and(|lease| lease.ends > now)
    }

    /// Forgets a lease: nothing is written with it from here on.
    pub(super) fn end(&self, id: LeaseId) {
        self.lock().remove(&id);
    }

    /// Forgets the leases whose time is over, and names them.
    pub(super) fn end_due(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let mut open = self.lock();
        let due: Vec<_> = open
            .iter()
            .filter(|(_, lease)| lease.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &due {
            open.remove(id);
        }
        due
    }

    /// When the next lease ends; `None` where there is none.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.lock().values().map(|lease| lease.ends).min()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Lease>> {
        // Every change is one step, so a panic elsewhere leaves a whole table.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
