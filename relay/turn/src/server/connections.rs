//! The peer data connections of one shard (RFC 6062) by CONNECTION-ID, and when those end that nobody has claimed.
//!
//! Requests and timers touch this, and never a datagram. Whether a connection may be had is not decided here.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::request::Answer;
use crate::random::KeyedHash;
use crate::table::AllocationId;
use crate::time::Instant;
use crate::wire::ConnectionId;

/// How long a peer may take to accept a connection, and a client to claim one (RFC 6062 §5.2, §5.3).
const PATIENCE: Duration = Duration::from_secs(30);

/// As many as the allocations may have at most; see the module.
#[derive(Debug)]
pub(super) struct Connections {
    by_id: HashMap<ConnectionId, Connection, KeyedHash>,
    /// Allocations with at least one.
    by_allocation: HashMap<AllocationId, Vec<ConnectionId>, KeyedHash>,
    /// Those that are not spliced, the one whose time is over first being the first.
    deadlines: BTreeSet<(Instant, ConnectionId)>,
}

/// One peer data connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) allocation: AllocationId,
    /// As the client knows it.
    pub(super) peer: SocketAddr,
    stage: Stage,
    /// When it ends; the end of time once it is spliced.
    until: Instant,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// The peer is being connected to, and the Connect request waits for its answer.
    Connecting(Answer),
    /// The connection is open and waits for its ConnectionBind request.
    Unclaimed,
    /// It is one with a client data connection.
    Spliced,
}

impl Connections {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self {
            by_id: HashMap::with_hasher(hash.clone()),
            by_allocation: HashMap::with_hasher(hash),
            deadlines: BTreeSet::new(),
        }
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.by_id.get(&id)
    }

    /// The connections of an allocation, the oldest first.
    pub(super) fn of(&self, allocation: AllocationId) -> &[ConnectionId] {
        self.by_allocation
            .get(&allocation)
            .map_or(&[], Vec::as_slice)
    }

    /// How many connections of an allocation wait for their ConnectionBind request.
    pub(super) fn unclaimed(&self, allocation: AllocationId) -> usize {
        let waits = |id: &&ConnectionId| {
            let connection = self.by_id.get(id);
            connection.is_some_and(|it| matches!(it.stage, Stage::Unclaimed))
        };
        self.of(allocation).iter().filter(waits).count()
    }

    /// Adds a connection, under an id that [`Self::find`] does not know.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        id: ConnectionId,
        allocation: AllocationId,
        peer: SocketAddr,
        stage: Stage,
    ) {
        let until = now.after(PATIENCE);
        self.deadlines.insert((until, id));
        let connection = Connection {
            allocation,
            peer,
            stage,
            until,
        };
        self.by_id.insert(id, connection);
        self.by_allocation.entry(allocation).or_default().push(id);
    }

    /// The peer has accepted: time begins anew for the client. Returns the answer that waits for it.
    pub(super) fn opened(&mut self, now: Instant, id: ConnectionId) -> Option<Answer> {
        let connection = self.by_id.get_mut(&id)?;
        let Stage::Connecting(answer) = connection.stage else {
            return None;
        };
        connection.stage = Stage::Unclaimed;
        self.deadlines.remove(&(connection.until, id));
        connection.until = now.after(PATIENCE);
        self.deadlines.insert((connection.until, id));
        Some(answer)
    }

    /// The client has claimed the connection, which ends with one of its sides from here on.
    pub(super) fn splice(&mut self, id: ConnectionId) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            self.deadlines.remove(&(connection.until, id));
            connection.stage = Stage::Spliced;
            connection.until = Instant(u64::MAX);
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.by_id.remove(&id)?;
        self.deadlines.remove(&(connection.until, id));
        if let Some(list) = self.by_allocation.get_mut(&connection.allocation) {
            list.retain(|other| *other != id);
            if list.is_empty() {
                self.by_allocation.remove(&connection.allocation);
            }
        }
        Some(connection)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// A connection whose time is over; the caller removes it.
    pub(super) fn due(&self, now: Instant) -> Option<ConnectionId> {
        let (until, id) = *self.deadlines.first()?;
        (until <= now).then_some(id)
    }
}

impl Connection {
    /// Whether a ConnectionBind request may claim it.
    pub(super) fn is_claimable(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Unclaimed) && self.until > now
    }

    /// The answer that waits for the peer.
    pub(super) fn waiting_answer(&self) -> Option<Answer> {
        match self.stage {
            Stage::Connecting(answer) => Some(answer),
            Stage::Unclaimed | Stage::Spliced => None,
        }
    }
}
