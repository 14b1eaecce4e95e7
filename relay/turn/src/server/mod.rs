//! One shard of a TURN server (RFC 8656).

pub mod nonce;
pub mod reflection;

use std::sync::Arc;

use crate::addr::{FiveTuple, PeerAddr};
use crate::command::{Command, OpenError, RelayedId};
use crate::context::Context;
use crate::counters::Counters;
use crate::decision::Decision;
use crate::event::Event;
use crate::ledger::Ledger;
use crate::policy::{Config, Policy};
use crate::time::{Instant, Now};
use crate::wire::ReservationToken;

/// One shard: every allocation whose client reaches this shard, and nothing else.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// A server without allocations. `seed` must be unpredictable and different for each shard.
    #[must_use]
    pub fn new(
        _config: Config,
        _policy: Arc<Policy>,
        _ledger: Arc<Ledger>,
        _seed: [u8; 32],
    ) -> Self {
        Self {}
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        unimplemented!()
    }

    /// A datagram from a client, or one message deframed from its stream. `reply` is cleared, and holds the answer when
    /// the decision is [`Decision::Reply`].
    pub fn handle_client(
        &mut self,
        _now: Now,
        _from: FiveTuple,
        _packet: &[u8],
        _context: &Context<'_>,
        _reply: &mut Vec<u8>,
    ) -> Decision {
        unimplemented!()
    }

    /// A datagram of `len` bytes from `from` on a relayed socket.
    pub fn handle_peer(
        &mut self,
        _now: Now,
        _on: RelayedId,
        _from: PeerAddr,
        _len: usize,
    ) -> Decision {
        unimplemented!()
    }

    /// The driver's answer to [`Command::OpenRelayed`] and [`Command::ClaimReserved`]. The address is the local one.
    pub fn handle_relayed_opened(
        &mut self,
        _now: Now,
        _id: RelayedId,
        _result: Result<std::net::SocketAddr, OpenError>,
    ) {
    }

    /// A relayed socket failed for good: its allocation ends.
    pub fn handle_relayed_failed(&mut self, _now: Now, _id: RelayedId) {}

    /// A client's stream was closed: its allocation ends.
    pub fn handle_client_closed(&mut self, _now: Now, _client: FiveTuple) {}

    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// Another shard redeems a reservation of this one. The caller takes the named socket out of its table, without a
    /// [`Command::CloseRelayed`], and carries it over; `None` where there is no such reservation.
    pub fn release_reserved(&mut self, _now: Now, _token: ReservationToken) -> Option<RelayedId> {
        None
    }

    /// Replaces the policy. Live allocations stay.
    pub fn apply_policy(&mut self, _policy: Arc<Policy>) {}

    /// Refuses new allocations from now on (508), or takes them again.
    pub fn set_draining(&mut self, _draining: bool) {}

    /// Ends every allocation.
    pub fn close_all(&mut self, _now: Now) {}

    /// The next thing for the driver to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        None
    }

    /// The next thing for the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When `handle_timeout` is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
