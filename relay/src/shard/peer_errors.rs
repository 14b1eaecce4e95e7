//! What the network says about datagrams to peers, on its way to their clients (RFC 8656 §11.5).

use turnfleet_turn::{PeerAddr, RelayedId, Transport};

use super::token::Source;
use super::worker::Shard;
use crate::driver::error_queue::{self, PeerError};

/// Entries of one error queue that are read in one turn: a flood of them waits for its next turn, as one of datagrams does.
const ERRORS: usize = 8;

impl Shard {
    /// Notes that the error queue of the relayed socket at `index` has something.
    pub(super) fn note_errors(&mut self, index: usize) {
        self.enqueue(Source::Relayed(index));
        self.relayed.set_errors(index);
    }

    /// Reads what the network says about what a relayed socket has sent.
    pub(super) fn serve_errors(&mut self, on: RelayedId) {
        for _ in 0..ERRORS {
            let Some(socket) = self.relayed.socket(on) else {
                return;
            };
            match error_queue::take(socket) {
                Ok(Some(error)) => self.handle_peer_error(on, error),
                Ok(None) => {}
                Err(_) => return,
            }
        }
        self.note_errors(on.index());
    }

    fn handle_peer_error(&mut self, on: RelayedId, PeerError { to, icmp, .. }: PeerError) {
        let message = &mut self.reply;
        let peer = PeerAddr(to);
        let told = self
            .server
            .handle_peer_error(self.now, on, peer, icmp, message);
        let Some(client) = told else {
            return;
        };
        match client.transport {
            Transport::Udp => {
                if let Some(index) = self.listeners.find(client.server) {
                    let sent = self.listeners.send_now(index, message, client.client);
                    self.counters.client_datagrams_refused += sent.refused;
                }
            }
            // Dropped where the client reads too slowly, as the peer's data would be.
            Transport::Tcp | Transport::Tls => {
                self.streams.push_data(client, message, &mut self.counters);
            }
        }
    }
}
