//! Refresh (RFC 8656 §8): sets the lifetime of an allocation anew, or ends it.

use std::time::Duration;

use super::Server;
use super::request::Request;
use crate::addr::AddressFamily;
use crate::allocation::{DEFAULT_LIFETIME, seconds};
use crate::decision::Decision;
use crate::event::CloseReason;
use crate::reject::Reject;
use crate::table::AllocationId;
use crate::time::Instant;
use crate::wire::{AttributeError, LongTermKey};

impl Server {
    /// RFC 8656 §8.2. The request is authentic, and the allocation its sender's.
    pub(super) fn handle_refresh(
        &mut self,
        request: &Request<'_>,
        id: AllocationId,
        key: &LongTermKey,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        let now = request.now.instant;
        let asked = match request.message.lifetime() {
            None => None,
            Some(Ok(seconds)) => Some(seconds),
            Some(Err(_)) => return Err(Reject::BadRequest),
        };
        // §8.2: a family that the allocation does not have gets 443.
        let family = match request.message.requested_address_family() {
            None => None,
            Some(Ok(family)) => Some(family),
            Some(Err(AttributeError::Family)) => return Err(Reject::PeerAddressFamilyMismatch),
            Some(Err(_)) => return Err(Reject::BadRequest),
        };
        let allocation = self
            .table
            .allocation(id)
            .ok_or(Reject::AllocationMismatch)?;
        if family.is_some_and(|family| allocation.relayed(family, now).is_none()) {
            return Err(Reject::PeerAddressFamilyMismatch);
        }

        // §8.2: the desired lifetime.
        let lifetime = if asked == Some(0) {
            Duration::ZERO
        } else {
            let lived = now.since(allocation.opened_at);
            self.within_session(self.granted_lifetime(asked), lived)
        };
        let answer = request.answer();
        let mut writer = answer.success(reply);
        writer.lifetime(seconds(lifetime));
        answer.finish(writer, Some(key));

        if lifetime.is_zero() {
            self.delete(now, id, family);
        } else if let Some(allocation) = self.table.allocation_mut(id) {
            for relayed in allocation.relayed.iter_mut().flatten() {
                let of_family = AddressFamily::of(relayed.address.ip());
                // What is over stays over, should its timer be late.
                if relayed.expires_at > now && family.is_none_or(|family| family == of_family) {
                    relayed.expires_at = now.after(lifetime);
                }
            }
            self.arm(id);
        }
        Ok(Decision::Reply)
    }

    /// §7.2 and §8.2: between the default and the largest lifetime that the policy allows.
    pub(super) fn granted_lifetime(&self, asked: Option<u32>) -> Duration {
        let asked = asked.map_or(DEFAULT_LIFETIME, |seconds| {
            Duration::from_secs(u64::from(seconds))
        });
        asked
            .min(self.policy.limits.max_lifetime)
            .max(DEFAULT_LIFETIME)
    }

    /// `lifetime`, as far as an allocation that has `lived` so long may go on. A session that is over has a second left, for
    /// a lifetime of zero would say that the client ended it.
    pub(super) fn within_session(&self, lifetime: Duration, lived: Duration) -> Duration {
        let end = self.policy.limits.max_session;
        end.map_or(lifetime, |end| {
            let rest = end.saturating_sub(lived);
            lifetime.min(rest.max(Duration::from_secs(1)))
        })
    }

    /// §8.1: deleting one family of a dual allocation leaves the other one alone.
    fn delete(&mut self, now: Instant, id: AllocationId, family: Option<AddressFamily>) {
        let other_lives = self.table.allocation(id).is_some_and(|allocation| {
            let mut live = allocation.live(now);
            live.any(|relayed| family.is_some_and(|f| f != AddressFamily::of(relayed.address.ip())))
        });
        match family {
            Some(family) if other_lives => self.end_family(now, id, family),
            Some(_) | None => self.end(now, id, CloseReason::Refreshed),
        }
    }
}
