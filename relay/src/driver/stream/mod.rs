//! Clients' streams: where they are kept, how long they may live, and what waits to be written to them.
//!
//! A stream without an allocation is a stranger: strangers share one pool of bounded size whose oldest member goes when
//! a newcomer needs its place, each may stay for a bounded time and make the relay keep a few kilobytes. A stream with
//! an allocation lives as long as that. Idle streams hold no buffer.
//!
//! What a stream is shows in its first bytes (`opening`): until then it has no five-tuple, and one that is for an HTTPS
//! server leaves for [`https`].
//!
//! A client that reads slowly loses data messages, whole ones; it is closed when even answers do not fit any more.

mod client_hello;
mod connection;
pub(crate) mod https;
#[cfg(test)]
mod noise;
mod opening;
mod outgoing;
mod proxy_protocol;
mod strangers;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use turnfleet_turn::peer_filter::Cidr;
use turnfleet_turn::wire::MAX_FRAME_LEN;
use turnfleet_turn::{FiveTuple, Instant};

pub(crate) use connection::{Arrived, Carrier, Connection, StreamEnd, read_some};
pub(crate) use outgoing::{BufferPool, Outgoing};

use super::counters::DriverCounters;
use super::entrance::Accepted;
use super::places::Places;
use super::tcp::Acceptor;
use super::tls::TlsSettings;
use crate::listeners::Listener;
use crate::shard::token::Source;
use https::Forwards;
use opening::Opening;
use strangers::{Stranger, Strangers, StreamSource};

/// Bytes for unread messages: the longest partial one, and room for a read behind it.
pub(crate) const UNREAD_LEN: usize = MAX_FRAME_LEN + (64 << 10);
/// Bytes of ciphertext that one read takes; with a record held back they fit the room behind a partial message. The
/// longest beginning of a stream that is looked at.
const SCRATCH_LEN: usize = 32 << 10;
/// Connections accepted at one listener before others have their turn.
const ACCEPTED_AT_ONCE: usize = 32;

/// Bounds on streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Streams without an allocation, over all shards; beyond it the oldest is closed.
    pub without_allocation: usize,
    /// How many of these may come from one source, an IPv4 address or an IPv6 /64; beyond it its own oldest is closed.
    pub of_one_source: usize,
    /// How long a stream may take to show what it is: a PROXY protocol header, a ClientHello, the head of a message.
    pub opening: Duration,
    /// How long a stream may live before its first allocation and after its last.
    pub idle: Duration,
    /// Bytes of the longest message before an allocation.
    pub unauthenticated_message: usize,
    /// Bytes that may wait to be written to one stream.
    pub outgoing: usize,
    /// Streams that are passed on to an HTTPS server at a time, over all shards; beyond it the one that is silent for
    /// longest is closed.
    pub forwarded: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            without_allocation: 4096,
            of_one_source: 1024,
            opening: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            unauthenticated_message: 4096,
            outgoing: 256 << 10,
            forwarded: 1024,
        }
    }
}

impl StreamLimits {
    /// The share of one shard.
    pub(crate) fn per_shard(mut self, shards: u8) -> Self {
        let share = |all: usize| (all / usize::from(shards.max(1))).max(1);
        self.without_allocation = share(self.without_allocation);
        self.of_one_source = share(self.of_one_source);
        self.forwarded = share(self.forwarded);
        self.opening = self.opening.min(self.idle);
        self
    }

    /// Data leaves an eighth of the queue to answers, so that a slow reader can still refresh its allocation.
    fn data_bound(&self) -> usize {
        self.outgoing - self.outgoing / 8
    }
}

/// The streams of one shard.
pub(crate) struct Streams {
    acceptors: Vec<Acceptor>,
    /// Streams that are no TURN.
    pub(crate) forwards: Forwards,
    tls: Option<TlsSettings>,
    limits: StreamLimits,
    /// Sources that stand for many clients: balancers that hide them.
    trusted_sources: Vec<Cidr>,
    connections: Places<Connection>,
    by_client: HashMap<FiveTuple, usize>,
    /// Streams without an allocation.
    strangers: Strangers,
    /// Streams that something was queued for since the last flush.
    dirty: Vec<usize>,
    /// Clients whose streams are gone; the core has to hear of them.
    closed: Vec<FiveTuple>,
    pool: BufferPool,
    /// Ciphertext, or the beginning of a stream, for the length of one call.
    scratch: Box<[u8]>,
}

impl Streams {
    /// Takes over listening sockets that are registered already. Those for TLS need `tls`.
    pub(crate) fn new(
        sockets: Vec<(TcpListener, Listener)>,
        tls: Option<TlsSettings>,
        limits: StreamLimits,
        trusted_sources: Vec<Cidr>,
    ) -> Self {
        Self {
            acceptors: sockets
                .into_iter()
                .map(|(socket, listener)| Acceptor::new(socket, listener))
                .collect(),
            forwards: Forwards::new(limits.forwarded),
            tls,
            limits,
            trusted_sources,
            connections: Places::new(),
            by_client: HashMap::new(),
            strangers: Strangers::default(),
            dirty: Vec::new(),
            closed: Vec::new(),
            pool: BufferPool::default(),
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        }
    }

    /// The place of the listener that is opened next.
    pub(crate) fn next_acceptor(&self) -> usize {
        self.acceptors.len()
    }

    /// Takes over one more listening socket, registered for [`Streams::next_acceptor`].
    pub(crate) fn listen(&mut self, socket: TcpListener, listener: Listener) {
        self.acceptors.push(Acceptor::new(socket, listener));
    }

    /// Takes streams from here on as `listener` says, at the listener with its address.
    pub(crate) fn alter_listener(&mut self, listener: Listener) {
        if let Some(acceptor) = self.acceptor_at(listener.address) {
            acceptor.listener = listener;
        }
    }

    /// Closes the listener with this address; its streams go on.
    pub(crate) fn close_listener(&mut self, address: SocketAddr) {
        if let Some(acceptor) = self.acceptor_at(address) {
            acceptor.close();
        }
    }

    fn acceptor_at(&mut self, address: SocketAddr) -> Option<&mut Acceptor> {
        let open = self.acceptors.iter_mut().filter(|it| it.is_open());
        open.into_iter().find(|it| it.listener.address == address)
    }

    /// Accepts what waits at a listener, some at most; `true` where more may wait.
    pub(crate) fn accept(
        &mut self,
        index: usize,
        registry: &Registry,
        now: Instant,
        counters: &mut DriverCounters,
    ) -> bool {
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.acceptors[index].accept(now) {
                Accepted::Stream(socket, client) => {
                    counters.streams_accepted += 1;
                    self.admit(socket, client, index, registry, now, counters);
                }
                Accepted::Nothing => return false,
                Accepted::Exhausted => {
                    counters.accept_pauses += 1;
                    return false;
                }
            }
        }
        true
    }

    fn admit(
        &mut self,
        socket: TcpStream,
        client: SocketAddr,
        acceptor: usize,
        registry: &Registry,
        now: Instant,
        counters: &mut DriverCounters,
    ) {
        let listener = &self.acceptors[acceptor].listener;
        if !listener.front.admits(client.ip()) {
            counters.streams_untrusted += 1;
            return;
        }
        let client = FiveTuple {
            transport: listener.transport,
            client,
            server: listener.address,
        };
        let opening = Opening {
            acceptor,
            awaits_header: listener.front.has_proxy_header(),
        };
        // Before its header a stream is the balancer's.
        let source = (!opening.awaits_header)
            .then(|| self.source_of(client.client))
            .flatten();
        self.make_room(source, counters);
        let stranger = Stranger {
            since: now,
            until: now.after(self.limits.opening),
            source,
        };
        let connection = Box::new(Connection::new(socket, client, opening, stranger));
        self.insert(registry, connection, stranger);
    }

    /// Makes room among those without an allocation for one more of `source`.
    fn make_room(&mut self, source: Option<StreamSource>, counters: &mut DriverCounters) {
        let crowd =
            source.filter(|source| self.strangers.len_from(*source) >= self.limits.of_one_source);
        let leaving = if let Some(source) = crowd {
            counters.streams_crowded += 1;
            self.strangers.oldest_from(source)
        } else if self.strangers.len() >= self.limits.without_allocation {
            counters.streams_evicted += 1;
            self.strangers.oldest()
        } else {
            None
        };
        if let Some(index) = leaving {
            self.close(index);
        }
    }

    /// Whom a stream of `client` is counted by.
    fn source_of(&self, client: SocketAddr) -> Option<StreamSource> {
        let ip = client.ip();
        let trusted = self.trusted_sources.iter().any(|cidr| cidr.contains(ip));
        (!trusted).then(|| StreamSource::of(ip))
    }

    /// Gives a stream without an allocation its place, and says which.
    fn insert(
        &mut self,
        registry: &Registry,
        mut connection: Box<Connection>,
        stranger: Stranger,
    ) -> Option<usize> {
        let index = self.connections.next();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Source::Stream(index).token();
        if registry
            .register(&mut connection.socket, token, interest)
            .is_err()
        {
            return None;
        }
        self.strangers.insert(index, stranger);
        self.connections.insert(connection);
        Some(index)
    }

    /// Takes a stream that another shard has given up, as a stranger, and returns its place.
    pub(crate) fn adopt(
        &mut self,
        registry: &Registry,
        mut connection: Box<Connection>,
        now: Instant,
        counters: &mut DriverCounters,
    ) -> Option<usize> {
        let fresh = self.stranger_from(connection.client, now);
        let stranger = *connection.stranger.get_or_insert(fresh);
        self.make_room(stranger.source, counters);
        connection.dirty = false;
        connection.queued = false;
        let client = connection.client;
        let index = self.insert(registry, connection, stranger)?;
        self.name(index, client);
        Some(index)
    }

    /// Gives up a stream, with what waits to be written to it, without a goodbye: somebody else goes on with it. `None` where
    /// it is gone.
    pub(crate) fn release(&mut self, registry: &Registry, index: usize) -> Option<Box<Connection>> {
        let mut connection = self.connections.take(index)?;
        if let Some(stranger) = connection.stranger {
            self.strangers.remove(index, stranger);
        }
        self.by_client.remove(&connection.client);
        registry.deregister(&mut connection.socket).ok()?;
        Some(connection)
    }

    /// Makes the stream at `index` the one of `client`.
    fn name(&mut self, index: usize, client: FiveTuple) {
        if let Some(&stale) = self.by_client.get(&client) {
            // The kernel has forgotten the earlier connection, and its event is still on the way here.
            self.close(stale);
        }
        self.by_client.insert(client, index);
    }

    /// The client at `index`.
    pub(crate) fn client(&self, index: usize) -> Option<FiveTuple> {
        Some(self.connections.at(index)?.client)
    }

    /// The name of the server that the client at `index` has asked for in its TLS handshake, in lower case; at most what DNS
    /// allows.
    pub(crate) fn server_name(&self, index: usize) -> Option<&str> {
        match &self.connections.at(index)?.carrier {
            Carrier::Plain => None,
            Carrier::Tls(tls) => tls.server_name(),
        }
    }

    /// The longest message that the stream at `index` may send.
    pub(crate) fn message_limit(&self, index: usize) -> usize {
        match self.connections.at(index) {
            Some(connection) if connection.stranger.is_none() => MAX_FRAME_LEN,
            _ => self.limits.unauthenticated_message,
        }
    }

    /// Reads from the stream at `index` into `unread`. `None` where the stream is gone, or goes with this read.
    pub(crate) fn read(
        &mut self,
        index: usize,
        unread: &mut [u8],
        counters: &mut DriverCounters,
    ) -> Option<Arrived> {
        let connection = self.connections.at_mut(index)?;
        let arrived = connection.read(unread, &mut self.scratch);
        self.mark_dirty(index);
        match arrived {
            Ok(arrived) => Some(arrived),
            Err(end) => {
                counters.tls_failures += u64::from(end == StreamEnd::Tls);
                self.close(index);
                None
            }
        }
    }

    /// Keeps the beginning of a message until its rest arrives.
    pub(crate) fn keep(&mut self, index: usize, partial: &[u8]) {
        if let Some(connection) = self.connections.at_mut(index) {
            connection.keep(partial);
        }
    }

    /// Notes that the kernel takes more from the stream at `index`, or that its client has closed its side.
    pub(crate) fn note_event(&mut self, index: usize, writable: bool, hung_up: bool) {
        if let Some(connection) = self.connections.at_mut(index) {
            connection.hung_up |= hung_up;
            connection.blocked &= !writable;
        }
        if writable {
            self.mark_dirty(index);
        }
    }

    /// Queues a STUN message for the stream at `index`. A stream that has no room even for that, once the kernel has what
    /// it takes, is closed. Over TLS what waits is written first: there are clients that take a record for a message.
    pub(crate) fn push_message(
        &mut self,
        index: usize,
        message: &[u8],
        counters: &mut DriverCounters,
    ) {
        let Some(connection) = self.connections.at_mut(index) else {
            return;
        };
        let bound = connection.outgoing_bound;
        let in_records = match connection.carrier {
            Carrier::Plain => false,
            Carrier::Tls(_) => !connection.outgoing.is_empty(),
        };
        let is_full = connection.outgoing.len() + message.len() > bound;
        if (in_records || is_full) && connection.flush(&mut self.pool).is_err() {
            return self.close(index);
        }
        if connection.outgoing.push(message, bound, &mut self.pool) {
            self.mark_dirty(index);
        } else {
            counters.streams_overflowed += 1;
            self.close(index);
        }
    }

    /// Queues peer data for a client; without room it is dropped, as a datagram would be.
    pub(crate) fn push_data(
        &mut self,
        client: FiveTuple,
        message: &[u8],
        counters: &mut DriverCounters,
    ) {
        let bound = self.limits.data_bound();
        let Some(index) = self.find(client) else {
            return;
        };
        let Some(connection) = self.connections.at_mut(index) else {
            return;
        };
        if connection.outgoing.push(message, bound, &mut self.pool) {
            self.mark_dirty(index);
        } else {
            counters.stream_data_dropped += 1;
        }
    }

    /// The place of `client`'s stream.
    pub(crate) fn find(&self, client: FiveTuple) -> Option<usize> {
        self.by_client.get(&client).copied()
    }

    /// Writes what was queued, one write for each stream.
    pub(crate) fn flush(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let Some(connection) = self.connections.at_mut(index) else {
                continue;
            };
            connection.dirty = false;
            if connection.flush(&mut self.pool).is_err() {
                self.close(index);
            }
        }
    }

    /// The client at `client` has an allocation: its stream lives as long as that.
    pub(crate) fn allocation_opened(&mut self, client: FiveTuple) {
        let Some(index) = self.find(client) else {
            return;
        };
        let bound = self.limits.outgoing;
        if let Some(connection) = self.connections.at_mut(index) {
            connection.outgoing_bound = bound;
            if let Some(stranger) = connection.stranger.take() {
                self.strangers.remove(index, stranger);
            }
        }
    }

    /// The client's allocation has ended: its stream may make another one within the time of a stranger.
    pub(crate) fn allocation_closed(&mut self, client: FiveTuple, now: Instant) {
        let stranger = self.stranger_from(client, now);
        let Some(index) = self.find(client) else {
            return;
        };
        if let Some(connection) = self.connections.at_mut(index)
            && connection.stranger.is_none()
        {
            connection.stranger = Some(stranger);
            self.strangers.insert(index, stranger);
        }
    }

    /// When [`Streams::handle_timeout`] is next due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let paused = self.acceptors.iter().filter_map(Acceptor::paused_until);
        let stranger = self.strangers.poll_timeout();
        let forward = self.forwards.poll_timeout();
        paused.chain(stranger).chain(forward).min()
    }

    /// Closes strangers whose time is over, and names the listeners whose pause is.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        counters: &mut DriverCounters,
    ) -> Vec<usize> {
        while let Some(index) = self.strangers.due(now) {
            counters.streams_timed_out += 1;
            self.close(index);
        }
        self.forwards.handle_timeout(now, counters);
        let acceptors = self.acceptors.iter_mut().enumerate();
        acceptors
            .filter_map(|(index, acceptor)| acceptor.resume(now).then_some(index))
            .collect()
    }

    /// Closes the stream at `index`.
    pub(crate) fn close(&mut self, index: usize) {
        let Some(mut connection) = self.connections.take(index) else {
            return;
        };
        connection.say_goodbye(&mut self.pool);
        if let Some(stranger) = connection.stranger {
            self.strangers.remove(index, stranger);
        }
        if connection.opening.is_none() {
            self.by_client.remove(&connection.client);
            self.closed.push(connection.client);
        }
    }

    /// Closes every stream.
    pub(crate) fn close_all(&mut self) {
        for index in 0..self.connections.end() {
            self.close(index);
        }
    }

    /// The next client whose stream is gone.
    pub(crate) fn poll_closed(&mut self) -> Option<FiveTuple> {
        self.closed.pop()
    }

    /// Whether [`Streams::poll_closed`] has something to say.
    pub(crate) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Notes that the stream stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        self.connections
            .at_mut(index)
            .is_some_and(|connection| !std::mem::replace(&mut connection.queued, true))
    }

    /// Notes that the stream was taken off the ready list.
    pub(crate) fn clear_queued(&mut self, index: usize) {
        if let Some(connection) = self.connections.at_mut(index) {
            connection.queued = false;
        }
    }

    /// Notes that the listener stands in the ready list; `false` where it stood there already.
    pub(crate) fn set_acceptor_queued(&mut self, index: usize, queued: bool) -> bool {
        std::mem::replace(&mut self.acceptors[index].queued, queued) != queued
    }

    /// What a stream of `client` is that has no allocation from here on.
    fn stranger_from(&self, client: FiveTuple, now: Instant) -> Stranger {
        Stranger {
            since: now,
            until: now.after(self.limits.idle),
            source: self.source_of(client.client),
        }
    }

    fn mark_dirty(&mut self, index: usize) {
        if let Some(connection) = self.connections.at_mut(index)
            && !connection.dirty
            && connection.has_output()
        {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }
}
