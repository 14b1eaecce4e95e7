//! What shards send each other: reserved sockets that change hands, and streams that belong elsewhere.

use turnfleet_turn::wire::ReservationToken;
use turnfleet_turn::{OpenError, RelayedId, ShardId};

use super::links::{Letter, Reserved};
use super::worker::Shard;

impl Shard {
    /// Reads what other shards have sent.
    pub(super) fn read_letters(&mut self) {
        while let Some(letter) = self.links.receive() {
            match letter {
                Letter::Claim { from, id, token } => {
                    let held = self.server.release_reserved(self.now, token);
                    let registry = self.poll.registry();
                    let reserved = held.map(|(held, local)| Reserved {
                        local,
                        socket: self.relayed.release(registry, held),
                    });
                    self.links.answer(from, id, reserved);
                }
                Letter::Claimed { id, reserved } => {
                    self.links.claimed();
                    self.claimed(id, reserved);
                }
                Letter::Stream {
                    from,
                    stream,
                    unread,
                } => {
                    self.links.acknowledge(from);
                    self.adopt(stream, &unread);
                }
                Letter::StreamTaken => self.links.taken(),
            }
        }
        self.settle();
    }

    /// Takes a socket over that another shard has given up, or has not.
    fn claimed(&mut self, id: RelayedId, reserved: Option<Reserved>) {
        let Some(Reserved { local, socket }) = reserved else {
            let refused = Err(OpenError::NoReservation);
            return self.relayed_opened(id, refused);
        };
        let registry = self.poll.registry();
        match socket.map(|socket| self.relayed.adopt(registry, id, socket)) {
            Some(Ok(local)) => self.relayed_opened(id, Ok(local)),
            Some(Err(_)) | None => self.server.handle_claim_lost(self.now, id, local),
        }
    }

    /// Asks `owner` for the socket that it holds for `token`.
    pub(super) fn claim(&mut self, id: RelayedId, owner: ShardId, token: ReservationToken) {
        if let Err(error) = self.links.claim(owner, id, token) {
            self.counters.claims_refused += 1;
            self.server.handle_relayed_opened(self.now, id, Err(error));
        }
    }
}
