//! Peer data connections around a server (RFC 6062): peers that accept, refuse or connect by themselves, and streams that
//! carry their bytes.

use turnfleet_turn::wire::ConnectionId;
use turnfleet_turn::{ConnectError, PeerAddr, RelayedId};

use super::{Bytes, CLIENTS, World, is_out_of_bounds};

/// What the driver holds.
#[derive(Default)]
pub(super) struct Connections {
    /// The relayed sockets that listen.
    pub(super) listening: Vec<RelayedId>,
    /// Begun, and not answered by their peers.
    connecting: Vec<ConnectionId>,
    /// Those of `connecting`, and all that are open.
    open: Vec<ConnectionId>,
    /// The connection that each client's stream is spliced with.
    spliced: [Option<ConnectionId>; CLIENTS.len()],
    /// One that was open.
    closed: Option<ConnectionId>,
}

impl World {
    /// A connection that is there, that was, or that never will be.
    pub(in super::super) fn connection(&self, choice: u8) -> ConnectionId {
        let known = &self.connections;
        let known = known.open.iter().copied().chain(known.closed);
        let mut known = known.chain([ConnectionId(0x0100_0001), ConnectionId(0x0200_0001)]);
        let place = usize::from(choice) % known.clone().count();
        known.nth(place).expect("within the count")
    }

    /// Whether there is a connection that strangers must not have made.
    pub(super) fn open_connections(&self) -> usize {
        self.connections.open.len()
    }

    /// The connection that the stream of `client` carries, if it carries messages no more.
    pub(super) fn spliced_with(&self, client: u8) -> Option<ConnectionId> {
        self.connections.spliced[usize::from(client) % CLIENTS.len()]
    }

    /// The client's request was the last message of its stream.
    pub(super) fn splice(&mut self, client: u8, connection: ConnectionId) {
        let held = &mut self.connections;
        assert!(held.open.contains(&connection), "{connection:?} is none");
        assert!(
            !held.connecting.contains(&connection),
            "{connection:?} waits"
        );
        assert!(
            !held.spliced.contains(&Some(connection)),
            "{connection:?} has a stream"
        );
        held.spliced[usize::from(client) % CLIENTS.len()] = Some(connection);
    }

    pub(super) fn begin_connection(
        &mut self,
        connection: ConnectionId,
        via: RelayedId,
        peer: PeerAddr,
    ) {
        assert!(!is_out_of_bounds(peer.0), "connects to {peer:?}");
        assert!(
            self.low_ports || peer.0.port() >= 1024,
            "connects to {peer:?}"
        );
        assert!(self.connections.listening.contains(&via), "leaves by UDP");
        self.connections.connecting.push(connection);
        self.connections.open.push(connection);
    }

    pub(super) fn close_connection(&mut self, connection: ConnectionId) {
        assert!(self.drop_connection(connection), "{connection:?} is none");
    }

    /// A peer that is being connected to says yes or no.
    pub(in super::super) fn answer_peer(&mut self, accepts: bool, choices: &mut Bytes<'_>) {
        let Some(connection) = self.connections.connecting.pop() else {
            return;
        };
        let result = if accepts {
            Ok(())
        } else {
            self.drop_connection(connection);
            Err(ConnectError::Failed)
        };
        self.server
            .handle_peer_connected(self.now, connection, result);
        self.carry_out(choices);
    }

    /// A peer connects to a relayed transport address.
    pub(in super::super) fn accept_peer(&mut self, peer: u8, choices: &mut Bytes<'_>) {
        let Some(on) = self.connections.listening.last().copied() else {
            return;
        };
        let from = self.peer(peer);
        if let Some(connection) = self.server.handle_peer_accepted(self.now, on, from) {
            assert!(!is_out_of_bounds(from.0), "lets {from:?} in");
            assert!(!self.connections.open.contains(&connection), "a name twice");
            self.connections.open.push(connection);
        }
        self.carry_out(choices);
    }

    /// Both sides of a connection are closed, or one has failed.
    pub(in super::super) fn end_connection(&mut self, choice: u8, choices: &mut Bytes<'_>) {
        let connection = self.connection(choice);
        if self.drop_connection(connection) {
            self.server.handle_connection_closed(connection);
            self.carry_out(choices);
        }
    }

    /// Bytes pass over a connection.
    pub(in super::super) fn pass_bytes(&mut self, choice: u8, len: usize) {
        let connection = self.connection(choice);
        if self.connections.spliced.contains(&Some(connection)) {
            self.server
                .handle_spliced_data(self.now, connection, len, len);
        }
    }

    fn drop_connection(&mut self, connection: ConnectionId) -> bool {
        let held = &mut self.connections;
        let Some(at) = held.open.iter().position(|open| *open == connection) else {
            return false;
        };
        held.open.swap_remove(at);
        held.connecting.retain(|waiting| *waiting != connection);
        for spliced in &mut held.spliced {
            spliced.take_if(|other| *other == connection);
        }
        held.closed = Some(connection);
        true
    }
}
