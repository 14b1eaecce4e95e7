//! One shard of a TURN server (RFC 8656).
//!
//! The handlers stand in one file for each method, and list the RFC's checks in the RFC's order. This file holds the
//! server itself: what it owns, how a packet finds its handler, and what the driver asks of it.

mod allocate;
mod auth;
mod binding;
mod channel;
mod connections;
mod ending;
mod enforcing;
mod evicting;
mod granting;
mod icmp;
pub mod nonce;
mod opening;
mod permission;
mod redirecting;
pub mod reflection;
mod refresh;
mod refusing;
mod relaying;
mod request;
mod reservation;
mod shaping;
mod tcp;
mod usage;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use self::connections::Connections;
use self::enforcing::Review;
use self::evicting::Evicting;
use self::nonce::NonceKeys;
use self::reflection::ReflectionBudget;
use self::request::Request;
use self::reservation::Reservations;
use self::shaping::Renewal;
pub use self::shaping::Room;
use crate::addr::{FiveTuple, PeerAddr};
use crate::alternates::Alternates;
use crate::bans::BanKind;
use crate::command::{Command, ConnectError, OpenError, RelayedId};
use crate::context::{Candidates, Context};
use crate::counters::{Counters, Limit};
use crate::decision::{Decision, DropReason};
use crate::event::{CloseReason, Event};
use crate::expiry::ExpiryQueue;
use crate::ip::IpMeta;
use crate::ledger::Ledger;
use crate::policy::{Config, Policy, RelayedHost};
use crate::random::{KeyedHash, Random};
use crate::reject::Reject;
use crate::request_method::RequestMethod;
use crate::table::{AllocationId, Table};
use crate::time::{Instant, Now};
use crate::usage::Tally;
use crate::wire::{Class, ConnectionId, Fingerprint, Icmp, Message, Method, ReservationToken};

/// Events that wait for the driver; beyond them they are dropped and counted.
const MAX_EVENTS: usize = 4096;

/// Allocations that one call ends: fewer than there is room for events, so that the end of each can be told.
const ENDED_AT_ONCE: usize = 1024;

/// One shard: every allocation whose client reaches this shard, and nothing else.
///
/// The methods come in four kinds. Getters look. `handle_*` say that something happened. `apply_policy`, `set_draining`,
/// `set_alternates`, `close_some`, `begin_evicting` and `tell_evicting` carry the operator's will. `poll_*` ask
/// what is to be done, and are called after any of the others.
pub struct Server {
    config: Config,
    policy: Arc<Policy>,
    nonces: NonceKeys,
    ledger: Arc<Ledger>,
    /// The relayed hosts behind 1:1 NAT.
    mapped: Vec<RelayedHost>,
    table: Table,
    reservations: Reservations,
    connections: Connections,
    /// When something of an allocation ends next, by the allocation's place.
    expiry: ExpiryQueue,
    reflection: ReflectionBudget,
    random: Random,
    hash: KeyedHash,
    candidates: Candidates,
    /// Drained by the driver after each input, which adds a few for each socket and connection of the allocations that it
    /// ends.
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
    counters: Counters,
    /// What was counted since the driver took it last.
    usage: Tally,
    /// The place of the allocation that the sweep of usage looks at next.
    swept: u32,
    next_number: u64,
    draining: bool,
    evicting: Evicting,
    alternates: Arc<Alternates>,
    /// Whether clients have ever been allowed TCP relayed transport addresses: some may have them.
    speaks_tcp: bool,
    /// How far what lives has been compared with the policy.
    review: Review,
    renewal: Renewal,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("shard", &self.config.shard)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without allocations. `seed` must be unpredictable and different for each shard.
    ///
    /// # Panics
    /// With more than 255 relayed hosts: a machine has fewer addresses.
    #[must_use]
    pub fn new(config: Config, policy: Arc<Policy>, ledger: Arc<Ledger>, seed: [u8; 32]) -> Self {
        assert!(
            config.relayed_hosts.len() <= 255,
            "hosts are numbered in a byte"
        );
        let mut random = Random::new(seed);
        let hash = KeyedHash::with_seed(random.u64());
        let trusted = config.trusted_sources.clone();
        let mapped = |host: &&RelayedHost| host.local != host.public;
        Self {
            nonces: NonceKeys::new(&policy.nonce_keys, policy.nonce_lifetime),
            mapped: config
                .relayed_hosts
                .iter()
                .filter(mapped)
                .copied()
                .collect(),
            table: Table::new(hash.clone()),
            reservations: Reservations::new(hash.clone()),
            connections: Connections::new(hash.clone()),
            expiry: ExpiryQueue::new(),
            reflection: ReflectionBudget::new(config.shards, trusted, random.bytes()),
            random,
            hash,
            candidates: Candidates::default(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            usage: Tally::default(),
            swept: 0,
            next_number: 0,
            draining: false,
            evicting: Evicting::default(),
            alternates: Arc::default(),
            speaks_tcp: policy.relays_tcp(),
            review: Review::default(),
            renewal: Renewal::default(),
            config,
            policy,
            ledger,
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A datagram from a client, or one message deframed from its stream, and what its IP header says. `reply` is cleared,
    /// and holds the answer when the decision is [`Decision::Reply`].
    pub fn handle_client(
        &mut self,
        now: Now,
        from: FiveTuple,
        ip: IpMeta,
        packet: &[u8],
        context: &Context<'_>,
        reply: &mut Vec<u8>,
    ) -> Decision {
        reply.clear();
        // RFC 8656 §12: the first byte tells the protocols on one port apart.
        let decision = match packet.first() {
            Some(0x00..=0x3F) => self.handle_message(now, from, ip, packet, context, reply),
            Some(0x40..=0x7F) => self.handle_channel_data(now.instant, from, ip, packet),
            Some(_) | None => Decision::Drop(DropReason::Malformed),
        };
        self.counted(decision)
    }

    /// A datagram of `len` bytes from `from` on a relayed socket, and what its IP header says.
    pub fn handle_peer(
        &mut self,
        now: Now,
        on: RelayedId,
        from: PeerAddr,
        ip: IpMeta,
        len: usize,
    ) -> Decision {
        let decision = self.relay_to_client(now, on, from, ip, len);
        self.counted(decision)
    }

    /// An ICMP message about a datagram from a relayed socket to `to`, whose port is zero where the platform cannot tell;
    /// also where the system itself found the datagram too big ([`Icmp::too_big`]). Where a client is to hear of it, that
    /// client is returned, and `message`, which is cleared, holds what it is told.
    pub fn handle_peer_error(
        &mut self,
        now: Now,
        on: RelayedId,
        to: PeerAddr,
        icmp: Icmp,
        message: &mut Vec<u8>,
    ) -> Option<FiveTuple> {
        message.clear();
        match self.relay_error(now.instant, on, to, icmp, message) {
            Ok(client) => Some(client),
            Err(reason) => {
                self.counters.count_drop(reason);
                None
            }
        }
    }

    /// The driver's answer to [`Command::OpenRelayed`], [`Command::ListenRelayed`] and [`Command::ClaimReserved`]. The
    /// address is the local one.
    pub fn handle_relayed_opened(
        &mut self,
        now: Now,
        id: RelayedId,
        result: Result<SocketAddr, OpenError>,
    ) {
        self.relayed_opened(now, id, result);
    }

    /// The other shard has given up the reserved socket of a [`Command::ClaimReserved`], bound to `local`, and it did not
    /// arrive: the allocation is refused, and the port goes back.
    pub fn handle_claim_lost(&mut self, now: Now, id: RelayedId, local: SocketAddr) {
        self.claim_lost(now, id, local);
    }

    /// A relayed socket failed for good: its allocation ends, and the socket is closed by a command like any other.
    pub fn handle_relayed_failed(&mut self, now: Now, id: RelayedId) {
        self.relayed_failed(now.instant, id);
    }

    /// A peer has opened a connection to a listening relayed socket: the connection's name, or `None` where it is to be
    /// closed (RFC 6062 §5.3). Nothing is read from it before [`Decision::Splice`]; what waits, the kernel holds.
    pub fn handle_peer_accepted(
        &mut self,
        now: Now,
        on: RelayedId,
        from: PeerAddr,
    ) -> Option<ConnectionId> {
        match self.peer_accepted(now, on, from) {
            Ok(connection) => Some(connection),
            Err(reason) => {
                self.counters.count_drop(reason);
                None
            }
        }
    }

    /// The driver's answer to [`Command::ConnectPeer`].
    pub fn handle_peer_connected(
        &mut self,
        now: Now,
        connection: ConnectionId,
        result: Result<(), ConnectError>,
    ) {
        self.peer_connected(now.instant, connection, result);
    }

    /// So many bytes went over a spliced connection since the last call.
    pub fn handle_spliced_data(
        &mut self,
        now: Now,
        connection: ConnectionId,
        to_peer: usize,
        to_client: usize,
    ) {
        self.count_spliced(now.instant, connection, to_peer, to_client);
    }

    /// Both sides of a spliced connection are closed, or one of them failed.
    pub fn handle_connection_closed(&mut self, connection: ConnectionId) {
        self.give_up_connection(connection);
    }

    /// A client's stream was closed: its allocation ends.
    pub fn handle_client_closed(&mut self, now: Now, client: FiveTuple) {
        if let Some(id) = self.table.find(&client) {
            self.end(now.instant, id, CloseReason::ClientGone);
        }
    }

    /// Time has passed. Ends a bounded number of allocations, and looks at a bounded number of those that another policy has
    /// to be enforced on: where more are due, [`Server::poll_timeout`] still says so.
    pub fn handle_timeout(&mut self, now: Now) {
        for _ in 0..ENDED_AT_ONCE {
            let Some(index) = self.expiry.pop_due(now.instant) else {
                break;
            };
            if let Some(id) = self.table.id_at(index) {
                self.expire(now.instant, id);
            }
        }
        self.expire_reservations(now.instant);
        self.expire_connections(now.instant);
        self.enforce_some(now);
    }

    /// Another shard redeems a reservation of this one. The caller takes the named socket out of its table, without a
    /// [`Command::CloseRelayed`], and carries it over with its local address, whose port is the other shard's from here
    /// on; `None` where there is no such reservation.
    pub fn release_reserved(
        &mut self,
        now: Now,
        token: ReservationToken,
    ) -> Option<(RelayedId, SocketAddr)> {
        let id = self.take_reservation(now.instant, token)?;
        let socket = self.table.remove_relayed(id)?;
        let host = self.config.relayed_hosts.get(usize::from(socket.host))?;
        Some((id, SocketAddr::new(host.local, socket.port)))
    }

    /// Replaces the policy. Live allocations stay but for those that it revokes or bans, which end with the next calls of
    /// [`Server::handle_timeout`], as long as [`Server::poll_timeout`] says that it is due. So do what leads to banned peers,
    /// and the connections to peers that it refuses, for nothing else ever asks about them again.
    pub fn apply_policy(&mut self, policy: Arc<Policy>) {
        self.nonces = NonceKeys::new(&policy.nonce_keys, policy.nonce_lifetime);
        self.speaks_tcp |= policy.relays_tcp();
        if policy.ends_more_than(&self.policy) {
            self.review.begin();
        }
        self.policy = policy;
    }

    /// Refuses new allocations from now on (300 where an alternate fits, else 508), or takes them again.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Replaces the servers that clients are sent to while this one drains or has no capacity.
    pub fn set_alternates(&mut self, alternates: Arc<Alternates>) {
        self.alternates = alternates;
    }

    /// Ends a bounded number of allocations, and with the last of them the reservations; `true` while there are others.
    /// The caller drains what there is to do and to tell before it goes on.
    #[must_use]
    pub fn close_some(&mut self, now: Now) -> bool {
        let ids = self.table.ids();
        for id in ids.iter().take(ENDED_AT_ONCE) {
            self.end(now.instant, *id, CloseReason::Shutdown);
        }
        let others = ids.len() > ENDED_AT_ONCE;
        if !others {
            self.close_reservations(now.instant);
        }
        others
    }

    /// Whether `client` has an allocation.
    #[must_use]
    pub fn serves(&self, client: &FiveTuple) -> bool {
        self.table.find(client).is_some()
    }

    /// Whether any allocation was made by UDP at `server`. It looks at every allocation: not for the path of packets.
    #[must_use]
    pub fn has_clients_at(&self, server: SocketAddr) -> bool {
        let ids = self.table.ids().into_iter();
        let mut clients = ids.filter_map(|id| Some(self.table.allocation(id)?.client));
        clients.any(|client| client.transport == crate::Transport::Udp && client.server == server)
    }

    /// The next thing for the driver to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next thing for the log, which may be dropped: nothing hangs on it.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let reservations = self.reservations.poll_timeout();
        let connections = self.connections.poll_timeout();
        let review = self.review.is_due().then_some(Instant(0));
        self.expiry
            .poll_timeout()
            .into_iter()
            .chain(reservations)
            .chain(connections)
            .chain(review)
            .min()
    }

    /// RFC 8489 §6.3: what is not sound, or not for a server, is silently discarded.
    fn handle_message(
        &mut self,
        now: Now,
        from: FiveTuple,
        ip: IpMeta,
        packet: &[u8],
        context: &Context<'_>,
        reply: &mut Vec<u8>,
    ) -> Decision {
        let Ok(message) = Message::parse(packet) else {
            return Decision::Drop(DropReason::Malformed);
        };
        if message.fingerprint() == Fingerprint::Invalid {
            return Decision::Drop(DropReason::BadFingerprint);
        }
        let method = message.method();
        match message.class() {
            Class::Request => match method.and_then(|method| self.request_method(method)) {
                Some(method) => {
                    let allocation = self.current(now.instant, &from);
                    let request = Request {
                        now,
                        from,
                        method,
                        message,
                        allocation,
                        context: *context,
                    };
                    self.handle_request(&request, reply)
                }
                None => Decision::Drop(DropReason::Unexpected),
            },
            Class::Indication if method == Some(Method::Send) => {
                self.handle_send(now, from, ip, &message)
            }
            Class::Indication if method == Some(Method::Binding) => {
                Decision::Drop(DropReason::Keepalive)
            }
            Class::Indication | Class::SuccessResponse | Class::ErrorResponse => {
                Decision::Drop(DropReason::Unexpected)
            }
        }
    }

    /// What requests of `method` ask for; those of RFC 6062 are unknown here where TCP has never been relayed.
    fn request_method(&self, method: Method) -> Option<RequestMethod> {
        let method = RequestMethod::of(method)?;
        let of_tcp = matches!(
            method,
            RequestMethod::Connect | RequestMethod::ConnectionBind
        );
        (!of_tcp || self.speaks_tcp).then_some(method)
    }

    fn handle_request(&mut self, request: &Request<'_>, reply: &mut Vec<u8>) -> Decision {
        // What concerns a connection of another shard is decided there, where the key and the nonce of its allocation are.
        if let Some(owner) = self.other_owner(request) {
            return Decision::ToShard { owner };
        }
        self.counters.count_request(request.method);
        let (ip, unix) = (request.from.client.ip(), request.now.unix);
        if self.policy.bans.of_source(ip, unix) {
            self.counters.count_ban(BanKind::Source);
            return self.refuse(request, Reject::Forbidden, None, reply);
        }
        // RFC 8489 §12: asking for one's address takes no credentials.
        if request.method == RequestMethod::Binding {
            return self.handle_binding(request, reply);
        }
        let credential = match self.authenticate(request) {
            Ok(credential) => credential,
            Err(reject) => return self.refuse(request, reject, None, reply),
        };
        self.pay_back(request);
        if let Some(kind) = self.ban_of(request, &credential) {
            self.counters.count_ban(kind);
            if request.method == RequestMethod::Allocate {
                self.note_refused(credential.tenant);
            }
            return self.refuse(request, Reject::Forbidden, Some(&credential.key), reply);
        }
        match self.handle_authentic(request, &credential, reply) {
            Ok(decision) => decision,
            Err(reject) => {
                if request.method == RequestMethod::Allocate {
                    self.note_refused(credential.tenant);
                }
                self.refuse(request, reject, Some(&credential.key), reply)
            }
        }
    }

    /// A request whose sender is known (RFC 8489 §6.3.1, RFC 8656 §5).
    fn handle_authentic(
        &mut self,
        request: &Request<'_>,
        credential: &auth::Credential<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        // With an allocation on the five-tuple there is 437 before anything of the request is looked at.
        if request.allocation.is_none() {
            self.check_tcp_attributes(request, credential.tenant)?;
        }
        // RFC 8489 §6.3.1: unknown comprehension-required attributes get 420, once the sender is known.
        if self.unknown_in_request(request).next().is_some() {
            return Err(Reject::UnknownAttribute);
        }
        let key = &credential.key;
        match request.method {
            RequestMethod::Binding => Ok(self.handle_binding(request, reply)),
            RequestMethod::Allocate => self.handle_allocate(request, credential, reply),
            RequestMethod::Refresh => {
                let id = self.own_allocation(request, credential)?;
                self.handle_refresh(request, id, key, reply)
            }
            RequestMethod::CreatePermission => {
                let id = self.own_allocation(request, credential)?;
                self.handle_create_permission(request, id, key, reply)
            }
            RequestMethod::ChannelBind => {
                let id = self.own_allocation(request, credential)?;
                self.handle_channel_bind(request, id, key, reply)
            }
            RequestMethod::Connect => {
                let id = self.own_allocation(request, credential)?;
                self.handle_connect(request, id)
            }
            RequestMethod::ConnectionBind => {
                self.handle_connection_bind(request, credential, reply)
            }
        }
    }

    /// RFC 8656 §5: without an allocation, or before it is granted, there is 437; for somebody else's there is 441.
    fn own_allocation(
        &self,
        request: &Request<'_>,
        credential: &auth::Credential<'_>,
    ) -> Result<AllocationId, Reject> {
        let id = request.allocation.ok_or(Reject::AllocationMismatch)?;
        match self.table.allocation(id) {
            Some(allocation) if allocation.pending.is_none() => {
                if credential.owns(&allocation.owner) {
                    Ok(id)
                } else {
                    Err(Reject::WrongCredentials)
                }
            }
            Some(_) | None => Err(Reject::AllocationMismatch),
        }
    }

    /// What the five-tuple identifies. An allocation whose lifetime is over ends here, should its timer be late.
    fn current(&mut self, now: Instant, from: &FiveTuple) -> Option<AllocationId> {
        let id = self.table.find(from)?;
        let allocation = self.table.allocation(id)?;
        if allocation.pending.is_none() && !allocation.is_live(now) {
            self.end(now, id, CloseReason::Expired);
            return None;
        }
        Some(id)
    }

    /// Arms the allocation's timer for whatever of it ends next.
    fn arm(&mut self, id: AllocationId) {
        if let Some(allocation) = self.table.allocation(id) {
            self.expiry.arm(id.index(), allocation.next_expiry());
        }
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.counters.count_limit(Limit::Events);
        }
    }

    fn counted(&mut self, decision: Decision) -> Decision {
        if let Decision::Drop(reason) = decision {
            self.counters.count_drop(reason);
        }
        decision
    }
}
