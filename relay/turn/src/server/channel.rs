//! ChannelBind (RFC 8656 §12): gives a peer a number, so that data to and from it needs four bytes of header.

use super::Server;
use super::request::Request;
use crate::addr::{AddressFamily, PeerAddr};
use crate::allocation::CHANNEL_LIFETIME;
use crate::channels::Channel;
use crate::counters::Limit;
use crate::decision::Decision;
use crate::reject::Reject;
use crate::table::AllocationId;
use crate::wire::{ChannelNumber, LongTermKey};

/// The numbers of RFC 8656 §12.
const LAST_CHANNEL: u16 = 0x4FFF;

/// The numbers of RFC 5766 §11 reach further.
const LAST_RFC5766_CHANNEL: u16 = 0x7FFF;

impl Server {
    /// RFC 8656 §12.2. The request is authentic, and the allocation its sender's.
    pub(super) fn handle_channel_bind(
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
        // Channels carry datagrams: a TCP relayed transport address has none (RFC 6062 §3).
        if allocation.tcp {
            return Err(Reject::Forbidden);
        }
        // Both CHANNEL-NUMBER and XOR-PEER-ADDRESS are there.
        let (Some(Ok(number)), Some(Ok(PeerAddr(peer)))) = (
            request.message.channel_number(),
            request.message.xor_peer_address(),
        ) else {
            return Err(Reject::BadRequest);
        };
        // The number is one for channels.
        if !self.is_channel_number(number) {
            return Err(Reject::BadRequest);
        }
        // The number is not bound to another peer, nor the peer to another number.
        let bound = allocation.channels.check(number, peer, now);
        let bound = bound.map_err(|_| Reject::BadRequest)?;
        // A family without a relayed address gets 443.
        if allocation
            .relayed(AddressFamily::of(peer.ip()), now)
            .is_none()
        {
            return Err(Reject::PeerAddressFamilyMismatch);
        }
        // A peer that the policy does not allow gets 403.
        let (tenant, unix) = (allocation.owner.tenant, request.now.unix);
        let checked = self.policy.check_peer(tenant, peer, unix);
        checked.map_err(|rule| self.forbid(id, peer.ip(), rule))?;
        // Beyond the limits of channels or permissions there is 508.
        let allocation = self
            .table
            .allocation_mut(id)
            .ok_or(Reject::AllocationMismatch)?;
        self.counters.channels -= allocation.channels.sweep(now) as u64;
        let limit = usize::from(self.policy.limits.channels_per_allocation);
        if !bound && allocation.channels.len() >= limit {
            self.counters.count_limit(Limit::Channels);
            return Err(Reject::InsufficientCapacity);
        }
        self.install_permissions(id, &[peer.ip()], now)?;
        let allocation = self
            .table
            .allocation_mut(id)
            .ok_or(Reject::AllocationMismatch)?;
        let channel = Channel {
            number,
            peer,
            expires_at: now.after(CHANNEL_LIFETIME),
        };
        let installed = allocation.channels.bind(channel, &self.hash);
        self.counters.channels += u64::from(installed);
        self.arm(id);

        let answer = request.answer();
        let writer = answer.success(reply);
        answer.finish(writer, Some(key));
        Ok(Decision::Reply)
    }

    fn is_channel_number(&self, number: ChannelNumber) -> bool {
        let last = if self.config.rfc5766_channel_numbers {
            LAST_RFC5766_CHANNEL
        } else {
            LAST_CHANNEL
        };
        (0x4000..=last).contains(&number.0)
    }
}
