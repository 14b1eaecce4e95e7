//! TCP relaying (RFC 6062): Connect, ConnectionBind, and what peers and drivers have to say about connections.
//!
//! The first byte of a CONNECTION-ID is the shard that has the connection: a client data connection that reaches another
//! shard goes there. Bytes never pass through the core: it says which two streams are one, and is told how much went by.

use std::net::SocketAddr;

use super::Server;
use super::auth::Credential;
use super::connections::Stage;
use super::request::Request;
use super::usage::count_peer;
use crate::addr::{AddressFamily, PeerAddr};
use crate::allocation::Allocation;
use crate::command::{Command, ConnectError, RelayedId, ShardId};
use crate::counters::Limit;
use crate::decision::{Decision, DropReason};
use crate::event::{ConnectionOrigin, Event};
use crate::ledger::Refused;
use crate::peer_filter::PeerDenied;
use crate::policy::TcpRelaying;
use crate::reject::Reject;
use crate::request_method::RequestMethod;
use crate::shaper::Direction;
use crate::table::{AllocationId, RelayedUse};
use crate::tenant::TenantId;
use crate::time::{Instant, Now};
use crate::usage::Bytes;
use crate::wire::{Class, ConnectionId, MessageWriter, Method, TransactionId};

/// Ports below this one belong to services that were not made for strangers (RFC 6335 §6).
const FIRST_USER_PORT: u16 = 1024;

impl Server {
    /// RFC 6062 §5.2. The request is authentic, and the allocation its sender's.
    pub(super) fn handle_connect(
        &mut self,
        request: &Request<'_>,
        id: AllocationId,
    ) -> Result<Decision, Reject> {
        let now = request.now.instant;
        let allocation = self
            .table
            .allocation(id)
            .ok_or(Reject::AllocationMismatch)?;
        let tenant = allocation.owner.tenant;
        // Connections leave from TCP relayed transport addresses only.
        if !allocation.tcp {
            return Err(Reject::Forbidden);
        }
        // XOR-PEER-ADDRESS is there, and valid: otherwise 400.
        let Some(Ok(PeerAddr(peer))) = request.message.xor_peer_address() else {
            return Err(Reject::BadRequest);
        };
        // One connection to a peer, being opened, pending or active: otherwise 446.
        let is_to = |id: &ConnectionId| {
            let connection = self.connections.find(*id);
            connection.is_some_and(|connection| connection.peer == peer)
        };
        let connections = self.connections.of(id);
        if connections.iter().any(is_to) {
            return Err(Reject::ConnectionExists);
        }
        // A family without a relayed address gets 443, as it does for permissions and channels.
        let relayed = allocation.relayed(AddressFamily::of(peer.ip()), now);
        let relayed = *relayed.ok_or(Reject::PeerAddressFamilyMismatch)?;
        // What the policy does not allow gets 403; neither does a connection lead back to where it begins.
        if peer == relayed.address {
            return Err(Reject::Forbidden);
        }
        let checked = self.check_tcp_peer(tenant, peer, request.now.unix);
        checked.map_err(|rule| self.forbid(id, peer.ip(), rule))?;
        self.admit_connection(id)?;
        self.note_peers(id, &[peer], 1);
        let stage = Stage::Connecting(request.answer());
        let connection = self.add_connection(now, id, peer, stage);
        self.commands.push_back(Command::ConnectPeer {
            connection,
            via: relayed.id,
            peer: PeerAddr(self.local_form(peer)),
        });
        Ok(Decision::Pending)
    }

    /// RFC 6062 §5.4. The request is authentic; it leaves everything as it is unless it succeeds.
    pub(super) fn handle_connection_bind(
        &mut self,
        request: &Request<'_>,
        credential: &Credential<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        // The transport is TCP or TLS, and the stream not a control connection, which has an allocation.
        if !request.from.transport.is_stream() || request.allocation.is_some() {
            return Err(Reject::BadRequest);
        }
        // CONNECTION-ID is there, and names a pending connection: otherwise 400.
        let Some(Ok(id)) = request.message.connection_id() else {
            return Err(Reject::BadRequest);
        };
        let now = request.now.instant;
        let connection = self.connections.find(id);
        let connection = connection.filter(|connection| connection.is_claimable(now));
        let allocation = connection.and_then(|found| self.table.allocation(found.allocation));
        let allocation = allocation.filter(|allocation| allocation.is_live(now));
        let allocation = allocation.ok_or(Reject::BadRequest)?;
        // §4.3: the credentials are those of the control connection.
        if !credential.owns(&allocation.owner) {
            return Err(Reject::WrongCredentials);
        }
        self.connections.splice(id);
        let answer = request.answer();
        let writer = answer.success(reply);
        answer.finish(writer, Some(&credential.key));
        Ok(Decision::Splice { connection: id })
    }

    /// The shard that a ConnectionBind request, with its stream, belongs to, where that is another one. One without
    /// credentials is challenged where it is.
    pub(super) fn other_owner(&self, request: &Request<'_>) -> Option<ShardId> {
        if request.method != RequestMethod::ConnectionBind
            || !request.from.transport.is_stream()
            || request.allocation.is_some()
            || !request.message.has_integrity()
        {
            return None;
        }
        let owner = owner_of(request.message.connection_id()?.ok()?);
        (owner != self.config.shard && owner.0 < self.config.shards).then_some(owner)
    }

    /// The allocation whose connection a ConnectionBind request names, where this shard has it.
    pub(super) fn claimed_allocation(&self, request: &Request<'_>) -> Option<&Allocation> {
        if request.method != RequestMethod::ConnectionBind {
            return None;
        }
        let id = request.message.connection_id()?.ok()?;
        self.table.allocation(self.connections.find(id)?.allocation)
    }

    /// RFC 6062 §5.3: whether a connection that a peer has opened may stay, and its name.
    pub(super) fn peer_accepted(
        &mut self,
        now: Now,
        on: RelayedId,
        from: PeerAddr,
    ) -> Result<ConnectionId, DropReason> {
        let Now { instant: now, unix } = now;
        let used = self.table.relayed(on).map(|socket| socket.used);
        let Some(RelayedUse::Allocated(id)) = used else {
            return Err(DropReason::NotAllocated);
        };
        let peer = self.public_form(from.0);
        let allocation = self.table.allocation(id);
        let allocation = allocation.ok_or(DropReason::NotAllocated)?;
        if !allocation.live(now).any(|relayed| relayed.id == on) {
            return Err(DropReason::NotAllocated);
        }
        if !allocation.permissions.allow(peer.ip(), now) {
            return Err(DropReason::NoPermission);
        }
        let tenant = allocation.owner.tenant;
        if self.policy.check_peer(tenant, peer, unix).is_err() {
            return Err(DropReason::PeerDenied);
        }
        // Peers alone take half of the places at most, so that the client's own requests find some.
        let limit = usize::from(self.policy.limits.connections_per_allocation);
        if self.connections.unclaimed(id) >= limit.div_ceil(2) {
            self.counters.count_limit(Limit::Connections);
            return Err(DropReason::TooManyConnections);
        }
        self.admit_connection(id)
            .map_err(|_| DropReason::TooManyConnections)?;
        let connection = self.add_connection(now, id, peer, Stage::Unclaimed);
        self.announce(id, connection, peer);
        self.note_connected(id, peer, ConnectionOrigin::Peer);
        Ok(connection)
    }

    /// §5.3: the ConnectionAttempt indication.
    fn announce(&mut self, id: AllocationId, connection: ConnectionId, peer: SocketAddr) {
        let transaction_id = TransactionId(self.random.bytes());
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        let to = allocation.client;
        let mut message = Vec::with_capacity(64);
        let method = Method::ConnectionAttempt;
        let mut writer =
            MessageWriter::new(&mut message, Class::Indication, method, transaction_id);
        writer
            .xor_peer_address(PeerAddr(peer))
            .connection_id(connection);
        writer.finish();
        self.commands.push_back(Command::Send { to, message });
    }

    /// The answer to a Connect request whose peer has accepted, or has not (§5.2).
    pub(super) fn peer_connected(
        &mut self,
        now: Instant,
        id: ConnectionId,
        result: Result<(), ConnectError>,
    ) {
        if let Err(error) = result {
            if error == ConnectError::Exhausted {
                self.counters.count_limit(Limit::Sockets);
            }
            self.give_up_connection(id);
            return;
        }
        let Some(answer) = self.connections.opened(now, id) else {
            return;
        };
        let connection = self.connections.find(id).copied();
        let Some(connection) = connection else { return };
        if let Some(allocation) = self.table.allocation(connection.allocation) {
            let mut message = Vec::with_capacity(64);
            let mut writer = answer.success(&mut message);
            writer.connection_id(id);
            answer.finish(writer, Some(allocation.owner.key()));
            let to = allocation.client;
            self.commands.push_back(Command::Send { to, message });
        }
        self.note_connected(
            connection.allocation,
            connection.peer,
            ConnectionOrigin::Client,
        );
    }

    /// Counts what went over a spliced connection.
    pub(super) fn count_spliced(
        &mut self,
        now: Instant,
        id: ConnectionId,
        to_peer: usize,
        to_client: usize,
    ) {
        let moved = Bytes {
            to_peers: to_peer as u64,
            to_clients: to_client as u64,
        };
        let allocation = self.connections.count(id, moved);
        let Some(allocation) = allocation.and_then(|id| self.table.allocation_mut(id)) else {
            return;
        };
        let transport = allocation.client.transport;
        if let Some(shapers) = &allocation.shapers {
            shapers.charge(Direction::ToPeers, now, to_peer);
            shapers.charge(Direction::ToClient, now, to_client);
        }
        if to_peer > 0 {
            allocation.to_peers.count(to_peer);
            self.counters.count_to_peer(transport, to_peer);
        }
        if to_client > 0 {
            allocation.to_client.count(to_client);
            self.counters.count_to_client(transport, to_client);
        }
    }

    /// Forgets a connection that the driver has closed, or has never opened: a Connect request that waits gets 447.
    pub(super) fn give_up_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else {
            return;
        };
        self.counters.connections -= 1;
        count_peer(&mut self.usage, connection.peer.ip(), connection.moved);
        let allocation = self.table.allocation(connection.allocation);
        let holder = allocation.map(|allocation| allocation.owner.holder());
        self.ledger.leave_connection(holder.unwrap_or_default());
        let Some(allocation) = allocation else { return };
        if let Some(answer) = connection.waiting_answer() {
            self.counters
                .count_reject(RequestMethod::Connect, Reject::ConnectionFailed);
            let mut message = Vec::with_capacity(96);
            let key = allocation.owner.key();
            answer.error(Reject::ConnectionFailed, Some(key), &mut message, |_| {});
            let to = allocation.client;
            self.commands.push_back(Command::Send { to, message });
        }
    }

    /// Closes the connections that no peer has accepted and no client has claimed in time.
    pub(super) fn expire_connections(&mut self, now: Instant) {
        while let Some(id) = self.connections.due(now) {
            self.close_connection(id);
        }
    }

    /// §5.5: the connections of an allocation end before it does, all of them or those of one family.
    pub(super) fn close_connections(&mut self, id: AllocationId, family: Option<AddressFamily>) {
        let connections = self.connections.of(id).to_vec();
        for id in connections {
            let peer = self.connections.find(id).map(|connection| connection.peer);
            let concerned = family
                .is_none_or(|family| peer.is_some_and(|it| AddressFamily::of(it.ip()) == family));
            if concerned {
                self.close_connection(id);
            }
        }
    }

    /// Closes the connections of an allocation with peers that the policy does not allow.
    pub(super) fn close_refused_connections(&mut self, now: Now, id: AllocationId) {
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        let tenant = allocation.owner.tenant;
        let refuses = |peer| self.policy.check_peer(tenant, peer, now.unix).is_err();
        let is_refused = |id: &&ConnectionId| {
            let connection = self.connections.find(**id);
            connection.is_some_and(|connection| refuses(connection.peer))
        };
        let connections = self.connections.of(id).iter();
        let refused: Vec<ConnectionId> = connections.filter(is_refused).copied().collect();
        for id in refused {
            self.close_connection(id);
        }
    }

    fn close_connection(&mut self, connection: ConnectionId) {
        self.commands
            .push_back(Command::CloseConnection { connection });
        self.give_up_connection(connection);
    }

    /// Counts a connection against the limits of its allocation, its user and the relay; it leaves when it is given up.
    fn admit_connection(&mut self, id: AllocationId) -> Result<(), Reject> {
        let Some(allocation) = self.table.allocation(id) else {
            return Err(Reject::AllocationMismatch);
        };
        let limits = &self.policy.limits;
        if self.connections.of(id).len() >= usize::from(limits.connections_per_allocation) {
            self.counters.count_limit(Limit::Connections);
            return Err(Reject::InsufficientCapacity);
        }
        let holder = allocation.owner.holder();
        let (limit, reject) = match self.ledger.admit_connection(holder, limits) {
            Ok(()) => return Ok(()),
            Err(Refused::UserQuota | Refused::TenantQuota) => {
                (Limit::ConnectionsPerUser, Reject::AllocationQuotaReached)
            }
            Err(Refused::Total) => (Limit::ConnectionsTotal, Reject::InsufficientCapacity),
        };
        self.counters.count_limit(limit);
        Err(reject)
    }

    fn add_connection(
        &mut self,
        now: Instant,
        allocation: AllocationId,
        peer: SocketAddr,
        stage: Stage,
    ) -> ConnectionId {
        let id = loop {
            let mut id: [u8; 4] = self.random.bytes();
            id[0] = self.config.shard.0;
            let id = ConnectionId(u32::from_be_bytes(id));
            if self.connections.find(id).is_none() {
                break id;
            }
        };
        self.connections.insert(now, id, allocation, peer, stage);
        self.counters.connections += 1;
        id
    }

    fn note_connected(&mut self, id: AllocationId, peer: SocketAddr, opened_by: ConnectionOrigin) {
        if let Some(allocation) = self.table.allocation(id) {
            let event = Event::PeerConnected {
                allocation: allocation.number,
                client: allocation.client,
                username: allocation.owner.username.clone(),
                tenant: allocation.owner.tenant,
                peer,
                opened_by,
            };
            self.push_event(event);
        }
    }

    fn check_tcp_peer(
        &self,
        tenant: TenantId,
        peer: SocketAddr,
        unix: u64,
    ) -> Result<(), PeerDenied> {
        self.policy.check_peer(tenant, peer, unix)?;
        match self.policy.tcp_relaying_of(tenant) {
            TcpRelaying::OnWithLowPorts => Ok(()),
            TcpRelaying::On | TcpRelaying::Off if peer.port() < FIRST_USER_PORT => {
                Err(PeerDenied::LowPort)
            }
            TcpRelaying::On | TcpRelaying::Off => Ok(()),
        }
    }
}

/// The shard that gave `id` to a connection.
fn owner_of(id: ConnectionId) -> ShardId {
    ShardId(id.0.to_be_bytes()[0])
}
