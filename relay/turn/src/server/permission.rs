//! CreatePermission (RFC 8656 §10): lets peers of some IP addresses reach the client.

use std::net::{IpAddr, SocketAddr};

use super::Server;
use super::request::Request;
use crate::addr::AddressFamily;
use crate::allocation::PERMISSION_LIFETIME;
use crate::bans::BanKind;
use crate::counters::Limit;
use crate::decision::Decision;
use crate::event::Event;
use crate::peer_filter::PeerDenied;
use crate::reject::Reject;
use crate::table::AllocationId;
use crate::time::Instant;
use crate::wire::LongTermKey;

impl Server {
    /// RFC 8656 §10.2. The request is authentic, and the allocation its sender's. Either every permission asked for is
    /// installed, or none.
    pub(super) fn handle_create_permission(
        &mut self,
        request: &Request<'_>,
        id: AllocationId,
        key: &LongTermKey,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        let now = request.now.instant;
        let allocation = self
            .table
            .allocation(id)
            .ok_or(Reject::AllocationMismatch)?;
        // At least one XOR-PEER-ADDRESS, and all of them valid: otherwise 400.
        let mut peers = Vec::with_capacity(8);
        for peer in request.message.xor_peer_addresses() {
            peers.push(peer.map_err(|_| Reject::BadRequest)?.0);
        }
        if peers.is_empty() {
            return Err(Reject::BadRequest);
        }
        let asked = peers;
        let mut peers: Vec<IpAddr> = asked.iter().map(SocketAddr::ip).collect();
        peers.sort_unstable();
        peers.dedup();
        // A family without a relayed address gets 443.
        if peers
            .iter()
            .any(|ip| allocation.relayed(AddressFamily::of(*ip), now).is_none())
        {
            return Err(Reject::PeerAddressFamilyMismatch);
        }
        // A peer that the policy does not allow gets 403.
        let (tenant, unix) = (allocation.owner.tenant, request.now.unix);
        for ip in &peers {
            let checked = self.policy.check_peer_ip(tenant, *ip, unix);
            checked.map_err(|rule| self.forbid(id, *ip, rule))?;
        }
        let installed = self.install_permissions(id, &peers, now)?;
        self.note_peers(id, &asked, installed);

        let answer = request.answer();
        let writer = answer.success(reply);
        answer.finish(writer, Some(key));
        Ok(Decision::Reply)
    }

    /// Tells the log which peer `rule` refuses, and the client that it is refused.
    pub(super) fn forbid(&mut self, id: AllocationId, peer: IpAddr, rule: PeerDenied) -> Reject {
        if rule == PeerDenied::Banned {
            self.counters.count_ban(BanKind::Peer);
        } else {
            self.note_denied(id);
        }
        if let Some(allocation) = self.table.allocation(id) {
            let event = Event::PeerDenied {
                allocation: allocation.number,
                client: allocation.client,
                username: allocation.owner.username.clone(),
                tenant: allocation.owner.tenant,
                peer,
                rule,
            };
            self.push_event(event);
        }
        Reject::Forbidden
    }

    /// Installs or refreshes the permissions of distinct `peers`, and gives the number of the former; 508 and none of them where
    /// that would be too many.
    pub(super) fn install_permissions(
        &mut self,
        id: AllocationId,
        peers: &[IpAddr],
        now: Instant,
    ) -> Result<u64, Reject> {
        let allocation = self
            .table
            .allocation_mut(id)
            .ok_or(Reject::AllocationMismatch)?;
        let permissions = &mut allocation.permissions;
        self.counters.permissions -= permissions.sweep(now) as u64;
        let missing = peers.iter().filter(|ip| !permissions.contain(**ip)).count();
        let limit = usize::from(self.policy.limits.permissions_per_allocation);
        if permissions.len() + missing > limit && missing > 0 {
            self.counters.count_limit(Limit::Permissions);
            return Err(Reject::InsufficientCapacity);
        }
        let mut installed = 0;
        for ip in peers {
            let expires_at = now.after(PERMISSION_LIFETIME);
            installed += u64::from(permissions.install(*ip, expires_at, &self.hash));
        }
        self.counters.permissions += installed;
        self.arm(id);
        Ok(installed)
    }
}
