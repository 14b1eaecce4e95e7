//! What another policy ends: allocations whose credentials it revokes, those of whoever it bans, and what leads to peers that
//! it bans or refuses.
//!
//! Nothing on the path of packets asks whether its allocation may still be: every allocation is looked at once after the
//! policy has changed, a few at a time between packets. What is made in the meantime is made under the new policy.

use super::{ENDED_AT_ONCE, Server};
use crate::event::CloseReason;
use crate::peer_filter::PeerDenied;
use crate::table::AllocationId;
use crate::time::Now;

/// How far the allocations have been looked at.
#[derive(Debug, Default)]
pub(super) struct Review {
    /// The place that is looked at next; `None` while there is nothing to look for.
    next: Option<u32>,
    /// The policy has changed meanwhile: once more from the beginning. A policy that changes all the time would never get
    /// to the end otherwise.
    again: bool,
}

impl Review {
    pub(super) fn begin(&mut self) {
        match self.next {
            None => self.next = Some(0),
            Some(_) => self.again = true,
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.is_some()
    }
}

impl Server {
    /// Looks at a bounded number of allocations.
    pub(super) fn enforce_some(&mut self, now: Now) {
        let Some(mut place) = self.review.next else {
            return;
        };
        let places = self.table.places();
        for _ in 0..ENDED_AT_ONCE {
            if place >= places {
                let again = std::mem::take(&mut self.review.again);
                self.review.next = again.then_some(0);
                return;
            }
            if let Some(id) = self.table.id_at(place) {
                self.enforce(now, id);
            }
            place += 1;
        }
        self.review.next = Some(place);
    }

    fn enforce(&mut self, now: Now, id: AllocationId) {
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        let owner = &allocation.owner;
        let client = allocation.client.client.ip();
        let bans = |tenant| self.policy.bans_user(tenant, owner.user(), now.unix);
        if self.policy.revoked_keys.contains(&owner.key.id) {
            self.end(now.instant, id, CloseReason::Revoked);
        } else if self.policy.bans.of_source(client, now.unix)
            || bans(owner.tenant).is_some()
            || bans(owner.key.home).is_some()
        {
            self.end(now.instant, id, CloseReason::Banned);
        } else {
            self.close_refused_connections(now, id);
            self.end_banned_peers(now, id);
        }
    }

    /// Ends the permissions and channels that lead to banned peers; the allocation stays.
    fn end_banned_peers(&mut self, now: Now, id: AllocationId) {
        let policy = &self.policy;
        let Some(allocation) = self.table.allocation_mut(id) else {
            return;
        };
        let tenant = allocation.owner.tenant;
        let banned = Err(PeerDenied::Banned);
        let permissions = allocation
            .permissions
            .retain(|ip| policy.check_peer_ip(tenant, ip, now.unix) != banned);
        let channels = allocation
            .channels
            .retain(|channel| policy.check_peer(tenant, channel.peer, now.unix) != banned);
        self.counters.permissions -= permissions as u64;
        self.counters.channels -= channels as u64;
        if permissions + channels > 0 {
            self.arm(id);
        }
    }
}
