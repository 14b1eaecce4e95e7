//! One shard at work: waits for events, serves their sources, carries out what the core asks for.
//!
//! Events are edge-triggered. A source that may have more to give when its turn is over stays in the ready list, and the
//! loop does not sleep while that list has entries; so every source gets bounded turns and none is forgotten. The clock
//! is read once a turn of the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event as IoEvent;
use mio::{Events, Poll};
use turnfleet_turn::alternates::Alternates;
use turnfleet_turn::policy::Config;
use turnfleet_turn::{
    Command, Event, FiveTuple, Instant, Ledger, Now, OpenError, RelayedId, Server, ShardId,
    Transport,
};

use super::crossings::Crossings;
use super::event_log::{EventLog, ShardEventLog};
use super::evicting::Evicting;
use super::links::Links;
use super::listening::Departures;
use super::published::Published;
use super::slowed::Slowed;
use super::spans::ShardSpans;
use super::token::Source;
use super::turns::take_turns;
use super::{Control, RelayPolicy};
use crate::driver::batch::ReceiveBatch;
use crate::driver::counters::DriverCounters;
use crate::driver::directory::Directory;
use crate::driver::peer_connections::PeerConnections;
use crate::driver::relayed_tcp::RelayedListeners;
use crate::driver::relayed_udp::{PeerQueue, RelayedSockets};
use crate::driver::stream::{StreamLimits, Streams, UNREAD_LEN};
use crate::driver::tls::TlsSettings;
use crate::driver::udp::{BATCH, UdpListeners};
use crate::listeners::ShardListeners;
use crate::usage::UsageBook;

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Datagrams that a relayed socket may bring in one turn when many have some.
const MIN_SHARE: usize = 8;
/// Datagrams that relayed sockets bring, all together and about, before clients are heard again.
const RELAYED_AT_ONCE: usize = 4 * BATCH;
/// How often counts are published while there is something to count.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// What a shard is made of; travels to its thread.
pub(super) struct ShardParts {
    pub(super) config: Config,
    pub(super) seed: [u8; 32],
    pub(super) poll: Poll,
    pub(super) listeners: ShardListeners,
    pub(super) tls: Option<TlsSettings>,
    pub(super) streams: StreamLimits,
    pub(super) control: Arc<Control>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) events: EventLog,
    pub(super) links: Links,
    pub(super) crossings: Crossings,
    pub(super) directory: Arc<Directory>,
    pub(super) published: Arc<Published>,
    /// Where what the shard counts goes; nowhere where nobody asks.
    pub(super) usage: Option<Arc<UsageBook>>,
}

/// One thread's world.
pub(super) struct Shard {
    pub(super) server: Server,
    pub(super) policy: Arc<RelayPolicy>,
    pub(super) now: Now,
    pub(super) listeners: UdpListeners,
    departures: Departures,
    own: ShardId,
    pub(super) relayed: RelayedSockets,
    pub(super) relayed_listeners: RelayedListeners,
    pub(super) peer_connections: PeerConnections,
    pub(super) streams: Streams,
    /// Datagrams of clients, for the length of one turn of a listener.
    pub(super) from_clients: ReceiveBatch,
    /// Datagrams of peers, gathered over many relayed sockets until they are flushed to clients.
    pub(super) from_peers: ReceiveBatch,
    /// How many slots of `from_peers` are taken.
    pub(super) gathered: usize,
    /// How many datagrams relayed sockets have brought.
    pub(super) brought: usize,
    pub(super) to_peers: PeerQueue,
    /// Unread bytes of the stream whose turn it is.
    pub(super) unread: Box<[u8]>,
    pub(super) reply: Vec<u8>,
    /// The payload of a stream's message, for the length of one call.
    pub(super) copy: Vec<u8>,
    pub(super) counters: DriverCounters,
    pub(super) poll: Poll,
    /// Sources that may have something to give; each stands here once at most.
    ready: Vec<Source>,
    pub(super) links: Links,
    pub(super) crossings: Crossings,
    pub(super) slowed: Slowed,
    /// Some allocations have yet to be given their shapers.
    is_renewing: bool,
    control: Arc<Control>,
    event_log: ShardEventLog,
    spans: ShardSpans,
    published: Arc<Published>,
    pub(super) usage: Option<Arc<UsageBook>>,
    /// A sweep over the allocations is not at its end.
    pub(super) sweeping: bool,
    draining: bool,
    alternates: Arc<Alternates>,
    evictions: u32,
    evicting: Evicting,
    /// When counts are published next; `None` while nothing has happened since the last time.
    publish_at: Option<Instant>,
}

impl Shard {
    /// Puts the parts together, on the thread that will run them.
    pub(super) fn new(parts: ShardParts) -> Self {
        let policy = parts.control.policy.load_full();
        let event_log = ShardEventLog::new(parts.events, parts.config.shard);
        let spans = ShardSpans::new(parts.config.shard);
        let core_policy = Arc::clone(&policy.server);
        let own = parts.config.shard;
        let trusted_sources = parts.config.trusted_sources.clone();
        Self {
            server: Server::new(parts.config, core_policy, parts.ledger, parts.seed),
            policy,
            now: parts.control.told_time.now(),
            listeners: UdpListeners::new(parts.listeners.udp),
            departures: Departures::default(),
            own,
            relayed: RelayedSockets::new(parts.directory, own),
            relayed_listeners: RelayedListeners::default(),
            peer_connections: PeerConnections::new(),
            streams: Streams::new(
                parts.listeners.streams,
                parts.tls,
                parts.streams,
                trusted_sources,
            ),
            from_clients: ReceiveBatch::new(BATCH),
            from_peers: ReceiveBatch::new(BATCH),
            gathered: 0,
            brought: 0,
            to_peers: PeerQueue::new(BATCH),
            unread: vec![0; UNREAD_LEN].into_boxed_slice(),
            reply: Vec::with_capacity(2048),
            copy: Vec::new(),
            counters: DriverCounters::default(),
            poll: parts.poll,
            ready: Vec::new(),
            links: parts.links,
            crossings: parts.crossings,
            slowed: Slowed::default(),
            is_renewing: false,
            control: parts.control,
            event_log,
            spans,
            published: parts.published,
            usage: parts.usage,
            sweeping: false,
            draining: false,
            alternates: Arc::default(),
            evictions: 0,
            evicting: Evicting::default(),
            publish_at: None,
        }
    }

    /// Serves until the relay stops.
    ///
    /// # Panics
    /// If the event queue itself fails: without it a shard is deaf, and the process has to be replaced.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut turns = Vec::new();
        self.read_control();
        while !self.control.stopping.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, self.sleep()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("the event queue of a shard failed: {error}"),
            }
            self.now = self.control.told_time.now();
            let is_rung = self.crossings.wake();
            for event in &events {
                self.note(event);
            }
            self.handle_timeouts();
            if is_rung {
                self.serve_crossings();
            }
            std::mem::swap(&mut turns, &mut self.ready);
            self.serve(&mut turns);
            self.publish();
            self.tally();
            // Whoever waits for them finds their ends told and counted.
            self.published.set_evictions(self.evictions);
        }
        self.close();
    }

    /// Puts `source` into the ready list, where it stands once.
    pub(super) fn enqueue(&mut self, source: Source) {
        let added = match source {
            Source::Waker => false,
            Source::Udp(index) => self.listeners.set_queued(index),
            Source::Acceptor(index) => self.streams.set_acceptor_queued(index, true),
            Source::Relayed(index) => self.relayed.set_queued(index),
            Source::Stream(index) => self.streams.set_queued(index),
            Source::RelayedListener(index) => self.relayed_listeners.set_queued(index),
            Source::PeerConnection(index) | Source::DataConnection(index) => {
                self.peer_connections.set_queued(index)
            }
            Source::Forward(index) => self.streams.forwards.set_queued(index),
        };
        if added {
            self.ready.push(source);
        }
    }

    /// How long to wait for events: not at all while sources are ready or another shard has brought something, without end
    /// while nothing is due.
    fn sleep(&self) -> Option<Duration> {
        let busy = self.sweeping || self.is_renewing || !self.ready.is_empty();
        if busy || !self.crossings.may_sleep() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.server.poll_timeout(),
            self.streams.poll_timeout(),
            self.relayed_listeners.poll_timeout(),
            self.peer_connections.poll_timeout(),
            self.departures.poll_timeout(),
            self.slowed.poll_timeout(),
            self.evicting.poll_timeout(),
            self.publish_at,
        ];
        let next = due.into_iter().flatten().min()?;
        Some(next.since(self.now.instant))
    }

    fn note(&mut self, event: &IoEvent) {
        let source = Source::of(event.token());
        match source {
            Source::Waker => {
                self.read_control();
                self.read_letters();
            }
            Source::Stream(index) => {
                let hung_up = event.is_read_closed() || event.is_error();
                self.streams.note_event(index, event.is_writable(), hung_up);
                if event.is_readable() || hung_up {
                    self.enqueue(source);
                }
            }
            Source::PeerConnection(index) => {
                self.peer_connections
                    .note_peer_event(index, event.is_error());
                self.enqueue(source);
            }
            Source::DataConnection(index) => {
                let failed = event.is_error();
                let hung_up = event.is_read_closed() || failed;
                self.peer_connections.note_client_event(
                    index,
                    event.is_writable(),
                    hung_up,
                    failed,
                );
                self.enqueue(Source::PeerConnection(index));
            }
            Source::Relayed(index) if event.is_error() => self.note_errors(index),
            Source::Udp(_)
            | Source::Acceptor(_)
            | Source::Relayed(_)
            | Source::RelayedListener(_) => self.enqueue(source),
            Source::Forward(index) => {
                if event.is_error() {
                    self.streams.forwards.note_failure(index);
                }
                self.enqueue(source);
            }
        }
    }

    /// Gives each source one turn. Relayed sockets come last, because what they bring is gathered for one flush.
    fn serve(&mut self, turns: &mut Vec<Source>) {
        for &source in &*turns {
            match source {
                Source::Udp(index) => self.serve_listener(index),
                Source::Acceptor(index) => self.accept(index),
                Source::Stream(index) => {
                    if self.open_stream(index) {
                        self.serve_stream(index);
                    }
                }
                Source::RelayedListener(index) => self.accept_peers(index),
                Source::PeerConnection(index) | Source::DataConnection(index) => {
                    self.serve_connection(index);
                }
                Source::Forward(index) => {
                    let now = self.now.instant;
                    let forwards = &mut self.streams.forwards;
                    if forwards.serve(index, now, &mut self.counters) {
                        self.enqueue(source);
                    }
                }
                Source::Relayed(_) | Source::Waker => {}
            }
        }
        turns.retain(|source| matches!(source, Source::Relayed(_)));
        self.serve_all_relayed(turns);
        turns.clear();
        self.finish();
    }

    /// Gives relayed sockets their turns: one alone may fill the whole row, and many share it. Those that are left over come
    /// first the next time.
    fn serve_all_relayed(&mut self, sources: &[Source]) {
        let Some(share) = BATCH.checked_div(sources.len()) else {
            return;
        };
        let left = take_turns(sources, RELAYED_AT_ONCE, |source| {
            let before = self.brought;
            if let Source::Relayed(index) = source {
                self.serve_relayed(index, share.max(MIN_SHARE));
            }
            self.brought - before
        });
        self.flush_to_clients();
        self.ready.splice(0..0, left.iter().copied());
    }

    /// Writes what streams wait for; a stream that fails on that occasion gives the core something to do again.
    fn finish(&mut self) {
        self.settle();
        self.streams.flush();
        while self.streams.has_closed() {
            self.settle();
            self.streams.flush();
        }
    }

    fn accept(&mut self, index: usize) {
        self.streams.set_acceptor_queued(index, false);
        let registry = self.poll.registry();
        let now = self.now.instant;
        if self
            .streams
            .accept(index, registry, now, &mut self.counters)
        {
            self.enqueue(Source::Acceptor(index));
        }
        self.settle();
    }

    /// Whether messages may be read from the stream; before that its beginning is looked at.
    fn open_stream(&mut self, index: usize) -> bool {
        self.streams.clear_queued(index);
        let registry = self.poll.registry();
        let now = self.now.instant;
        let is_open = self
            .streams
            .open_up(index, registry, now, &mut self.counters);
        if self.streams.has_closed() {
            // The core forgets an earlier stream of the same client before it hears of this one.
            self.settle();
        }
        is_open
    }

    fn handle_timeouts(&mut self) {
        let now = self.now.instant;
        if self.server.poll_timeout().is_some_and(|due| due <= now) {
            self.server.handle_timeout(self.now);
            self.settle();
        }
        if self.departures.poll_timeout().is_some_and(|due| due <= now) {
            let (server, listeners) = (&self.server, &mut self.listeners);
            self.departures.look(self.now, server, listeners);
        }
        if self.is_renewing {
            self.is_renewing = self.server.renew_shapers();
        }
        for index in self.slowed.take_due(now) {
            self.enqueue(Source::PeerConnection(index));
        }
        if self.evicting.poll_timeout().is_some_and(|due| due <= now) {
            let (log, server) = (&self.event_log, &mut self.server);
            self.evicting.tell(self.now, log, server);
            self.settle();
        }
        while let Some(id) = self.peer_connections.poll_due(now) {
            self.server.handle_connection_closed(id);
        }
        while let Some(index) = self.relayed_listeners.poll_due(now) {
            self.enqueue(Source::RelayedListener(index));
        }
        if self.streams.poll_timeout().is_some_and(|due| due <= now) {
            for index in self.streams.handle_timeout(now, &mut self.counters) {
                self.enqueue(Source::Acceptor(index));
            }
            self.settle();
        }
    }

    /// Looks at what the relay tells its shards.
    fn read_control(&mut self) {
        let current = self.control.policy.load();
        if !Arc::ptr_eq(&current, &self.policy) {
            self.policy = Arc::clone(&current);
            self.server.apply_policy(Arc::clone(&self.policy.server));
        }
        drop(current);
        self.is_renewing = self.server.renew_shapers();
        let alternates = self.control.alternates.load();
        if !Arc::ptr_eq(&alternates, &self.alternates) {
            self.alternates = Arc::clone(&alternates);
            self.server.set_alternates(Arc::clone(&alternates));
        }
        drop(alternates);
        let changes = self.control.changes_of(self.own);
        if !changes.is_empty() {
            let listeners = (&mut self.listeners, &mut self.streams);
            let departures = &mut self.departures;
            departures.carry_out(self.now, changes, &self.poll, listeners);
        }
        let draining = self.control.draining.load(Ordering::Relaxed);
        if draining != self.draining {
            self.draining = draining;
            self.server.set_draining(draining);
        }
        let evicting = self.control.evicting.load(Ordering::Relaxed);
        self.evicting.set(self.now, evicting, &mut self.server);
        let evictions = self.control.evictions.load(Ordering::Relaxed);
        if evictions != self.evictions {
            self.evictions = evictions;
            self.end_allocations();
        }
        self.settle();
    }

    /// Carries out what the core asks for, and tells it which clients are gone, until both have nothing more to say.
    /// Nothing waits in `to_peers` here: a command may close the socket that it would leave by.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(client) = self.streams.poll_closed() {
                self.server.handle_client_closed(self.now, client);
            } else if let Some(command) = self.server.poll_command() {
                self.carry_out(command);
            } else if let Some(event) = self.server.poll_event() {
                self.log(event);
            } else {
                break;
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::OpenRelayed { id, local } => {
                let opened = self.relayed.open(self.poll.registry(), id, local);
                self.relayed_opened(id, opened);
            }
            Command::ClaimReserved { id, owner, token } => self.claim(id, owner, token),
            Command::CloseRelayed { id } => {
                self.relayed.close(id);
                self.relayed_listeners.close(id);
            }
            Command::ListenRelayed { id, local } => {
                let registry = self.poll.registry();
                let opened = self.relayed_listeners.open(registry, id, local);
                self.relayed_opened(id, opened);
            }
            Command::ConnectPeer {
                connection,
                via,
                peer,
            } => self.connect_peer(connection, via, peer),
            Command::CloseConnection { connection } => self.peer_connections.close(connection),
            Command::KeepStream { client } => self.streams.allocation_opened(client),
            Command::ReleaseStream { client } => {
                let now = self.now.instant;
                self.streams.allocation_closed(client, now);
            }
            Command::Send { to, message } => self.send(to, &message),
        }
    }

    pub(super) fn relayed_opened(&mut self, id: RelayedId, opened: Result<SocketAddr, OpenError>) {
        self.counters.relayed_sockets_exhausted += u64::from(opened == Err(OpenError::Exhausted));
        // Opening one takes longer than looking at the clock, and how long the client has waited is counted.
        self.now = self.control.told_time.now();
        self.server.handle_relayed_opened(self.now, id, opened);
    }

    fn send(&mut self, to: FiveTuple, message: &[u8]) {
        match to.transport {
            Transport::Udp => {
                if let Some(index) = self.listeners.find(to.server) {
                    let sent = self.listeners.send_now(index, message, to.client);
                    self.counters.client_datagrams_refused += sent.refused;
                }
            }
            Transport::Tcp | Transport::Tls => {
                if let Some(index) = self.streams.find(to) {
                    self.streams
                        .push_message(index, message, &mut self.counters);
                }
            }
        }
    }

    fn log(&mut self, event: Event) {
        self.spans.make(&event, self.now.unix);
        if !self
            .event_log
            .write(&event, self.now.unix, &self.policy.tenants)
        {
            self.counters.events_not_logged += 1;
        }
        let tenants = &self.policy.tenants;
        self.event_log.tell(event, self.now.unix, tenants);
    }

    /// Ends every allocation.
    fn end_allocations(&mut self) {
        while self.server.close_some(self.now) {
            self.settle();
        }
        self.settle();
    }

    /// Publishes the counts when that is due, and sees to it that it becomes due after something has happened.
    fn publish(&mut self) {
        self.published
            .set_allocations(self.server.counters().allocations());
        let now = self.now.instant;
        match self.publish_at {
            Some(due) if due <= now => {
                self.published
                    .publish(self.server.counters(), &self.counters);
                self.sweeping = true;
                self.publish_at = None;
            }
            Some(_) => {}
            None => self.publish_at = Some(now.after(PUBLISH_INTERVAL)),
        }
    }

    fn close(mut self) {
        self.now = self.control.told_time.now();
        self.end_allocations();
        self.finish();
        self.streams.close_all();
        self.finish();
        self.published
            .publish(self.server.counters(), &self.counters);
        self.bring_tally();
    }
}
