//! What the network says about datagrams to peers (RFC 8656 §11.5), and whether they may be fragmented (§7.2, §11.2).

use std::time::Duration;

use super::Server;
use super::request::Request;
use crate::addr::{AddressFamily, FiveTuple, PeerAddr, Transport};
use crate::command::RelayedId;
use crate::decision::DropReason;
use crate::request_method::RequestMethod;
use crate::time::Instant;
use crate::wire::{AttributeType, Class, Icmp, Message, MessageWriter, Method, TransactionId};

/// ICMP messages about one relayed address that are passed on at once.
const BURST: u32 = 10;
/// After a burst, one is passed on in this time.
const INTERVAL: Duration = Duration::from_millis(100);

impl Server {
    /// RFC 8656 §11.5. Writes a Data indication with an ICMP attribute to `out`, and says to which client.
    pub(super) fn relay_error(
        &mut self,
        now: Instant,
        on: RelayedId,
        to: PeerAddr,
        icmp: Icmp,
        out: &mut Vec<u8>,
    ) -> Result<FiveTuple, DropReason> {
        let peer = self.public_form(to.0);
        let family = AddressFamily::of(peer.ip());
        let icmp = icmp.for_client(family).ok_or(DropReason::IcmpType)?;
        let allocation = self.table.live_on(on, now);
        let allocation = allocation.ok_or(DropReason::NotAllocated)?;
        // The permission is that of whom the datagram was for, not of whoever says that it was dropped.
        if !allocation.permissions.allow(peer.ip(), now) {
            return Err(DropReason::NoPermission);
        }
        let client = allocation.client;
        let socket = self.table.relayed_mut(on);
        if !socket.is_some_and(|socket| socket.errors.admit(now, BURST, INTERVAL)) {
            return Err(DropReason::IcmpRate);
        }
        let id = TransactionId(self.random.bytes());
        let mut writer = MessageWriter::new(out, Class::Indication, Method::Data, id);
        writer.xor_peer_address(PeerAddr(peer)).icmp(icmp);
        writer.finish();
        self.counters.icmp_indications += 1;
        Ok(client)
    }

    /// The comprehension-required attributes of an indication that are unknown here; DONT-FRAGMENT is one of them where the
    /// driver cannot set the bit (§11.2).
    pub(super) fn unknown_in<'a>(&self, message: &Message<'a>) -> impl Iterator<Item = u16> + 'a {
        let known = self.config.dont_fragment;
        without_dont_fragment(message, known)
    }

    /// The same for a request.
    pub(super) fn unknown_in_request<'a>(
        &self,
        request: &Request<'a>,
    ) -> impl Iterator<Item = u16> + use<'a> {
        let known = self.config.dont_fragment && !wants_translation(request);
        without_dont_fragment(&request.message, known)
    }
}

/// Whether an allocation is asked for whose datagrams from the client are translated from IPv4 to IPv6. No platform says
/// whether such a datagram came with DF, and then DONT-FRAGMENT is to be refused (RFC 8656 §3.7).
fn wants_translation(request: &Request<'_>) -> bool {
    let message = &request.message;
    let families = [
        message.requested_address_family(),
        message.additional_address_family(),
    ];
    request.method == RequestMethod::Allocate
        && request.from.transport == Transport::Udp
        && request.from.client.is_ipv4()
        && families.contains(&Some(Ok(AddressFamily::V6)))
}

fn without_dont_fragment<'a>(
    message: &Message<'a>,
    known: bool,
) -> impl Iterator<Item = u16> + use<'a> {
    message
        .unknown_required()
        .filter(move |kind| !known || *kind != AttributeType::DONT_FRAGMENT.0)
}
