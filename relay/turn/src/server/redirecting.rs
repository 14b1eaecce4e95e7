//! Sends clients elsewhere: 300 in the place of 508, where another server of the fleet may have what this one has not
//! (RFC 8489 §10, RFC 8656 §7.2).

use std::hash::BuildHasher as _;

use super::Server;
use super::allocate::Asked;
use crate::addr::FiveTuple;
use crate::alternates::Alternate;
use crate::counters::RedirectReason;
use crate::reject::Reject;
use crate::wire::IntegrityKind;

impl Server {
    /// Why an authentic Allocate request is refused that this relay is too full or too busy leaving for. What is reserved
    /// here, nobody else has.
    pub(super) fn beyond_capacity(
        &self,
        from: &FiveTuple,
        integrity: IntegrityKind,
        asked: Asked,
    ) -> Reject {
        match asked {
            Asked::Drawn { .. } if self.alternate_for(from, integrity).is_some() => {
                Reject::TryAlternate
            }
            Asked::Drawn { .. } | Asked::Reserved(_) => Reject::InsufficientCapacity,
        }
    }

    /// Where the client of `from` is sent; the same one each time as long as nothing changes.
    pub(super) fn alternate_for(
        &self,
        from: &FiveTuple,
        integrity: IntegrityKind,
    ) -> Option<&Alternate> {
        let hash = self.hash.hash_one(from.client);
        self.alternates.choose(from, integrity, hash)
    }

    pub(super) fn count_redirect(&mut self) {
        self.counters.count_redirect(if self.draining {
            RedirectReason::Draining
        } else {
            RedirectReason::Capacity
        });
    }
}
