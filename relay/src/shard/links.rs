//! Letters between shards: a redeemed reservation moves its socket from the shard that holds it to the one that asks, and
//! a client data connection moves to the shard whose peer data connection it names.
//!
//! Each shard may have a bounded number of claims and of streams on their way, and an inbox has room for all those of the
//! others and all answers to its own. So an inbox is never full, and no letter is lost.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::Waker;
use turnfleet_turn::wire::ReservationToken;
use turnfleet_turn::{OpenError, RelayedId, ShardId};

use crate::driver::stream::Connection;

/// Claims of one shard that may be on their way at the same time.
const CLAIMS: usize = 64;

/// Streams of one shard that may be on their way to others at the same time.
const STREAMS: usize = 64;

/// What one shard tells another.
pub(super) enum Letter {
    /// The sender wants the socket that the receiver holds in reserve.
    Claim {
        from: ShardId,
        id: RelayedId,
        token: ReservationToken,
    },
    /// The answer to a claim.
    Claimed {
        id: RelayedId,
        socket: Option<OwnedFd>,
    },
    /// The receiver goes on with a stream, and begins with what was read from it and not dealt with.
    Stream {
        from: ShardId,
        stream: Box<Connection>,
        unread: Box<[u8]>,
    },
    /// A stream has arrived.
    StreamTaken,
}

/// The way to one shard's inbox.
#[derive(Clone)]
struct Outbox {
    letters: SyncSender<Letter>,
    waker: Arc<Waker>,
}

impl Outbox {
    fn send(&self, letter: Letter) -> bool {
        let sent = self.letters.try_send(letter).is_ok();
        // A shard that cannot be woken reads its inbox with its next event.
        let _ = self.waker.wake();
        sent
    }
}

/// One shard's inbox, and its ways to every other.
pub(super) struct Links {
    own: ShardId,
    inbox: Receiver<Letter>,
    outboxes: Vec<Outbox>,
    /// Claims on their way; `false` where the core has lost interest since.
    claims: Vec<(RelayedId, bool)>,
    /// How many streams are on their way.
    streams: usize,
}

impl Links {
    /// Links `wakers.len()` shards with each other.
    pub(super) fn connect(wakers: &[Arc<Waker>]) -> Vec<Self> {
        let capacity = (CLAIMS + STREAMS) * wakers.len();
        let (letters, inboxes): (Vec<_>, Vec<_>) =
            wakers.iter().map(|_| sync_channel(capacity)).unzip();
        let outboxes: Vec<_> = letters
            .into_iter()
            .zip(wakers)
            .map(|(letters, waker)| Outbox {
                letters,
                waker: Arc::clone(waker),
            })
            .collect();
        (0..=u8::MAX)
            .zip(inboxes)
            .map(|(own, inbox)| Self {
                own: ShardId(own),
                inbox,
                outboxes: outboxes.clone(),
                claims: Vec::new(),
                streams: 0,
            })
            .collect()
    }

    /// Asks `owner` for a socket. The answer comes as a letter; an error comes at once.
    pub(super) fn claim(
        &mut self,
        owner: ShardId,
        id: RelayedId,
        token: ReservationToken,
    ) -> Result<(), OpenError> {
        let outbox = self.outboxes.get(usize::from(owner.0));
        let outbox = outbox.filter(|_| owner != self.own && self.claims.len() < CLAIMS);
        let outbox = outbox.ok_or(OpenError::NoReservation)?;
        let from = self.own;
        if !outbox.send(Letter::Claim { from, id, token }) {
            return Err(OpenError::NoReservation);
        }
        self.claims.push((id, true));
        Ok(())
    }

    /// Answers the claim of `to`; a socket that does not arrive there is closed.
    pub(super) fn answer(&self, to: ShardId, id: RelayedId, socket: Option<OwnedFd>) {
        if let Some(outbox) = self.outboxes.get(usize::from(to.0)) {
            outbox.send(Letter::Claimed { id, socket });
        }
    }

    /// The core has closed `id` before its claim was answered.
    pub(super) fn forget(&mut self, id: RelayedId) {
        for (claimed, wanted) in &mut self.claims {
            *wanted &= *claimed != id;
        }
    }

    /// Notes that the claim of `id` was answered; whether the core still wants it.
    pub(super) fn settle(&mut self, id: RelayedId) -> bool {
        let place = self.claims.iter().position(|(claimed, _)| *claimed == id);
        place.is_some_and(|place| self.claims.swap_remove(place).1)
    }

    /// Gives a stream to `owner`; where too many are on their way it is closed, and the answer `false`.
    pub(super) fn hand_over(
        &mut self,
        owner: ShardId,
        stream: Box<Connection>,
        unread: Box<[u8]>,
    ) -> bool {
        let outbox = self.outboxes.get(usize::from(owner.0));
        let Some(outbox) = outbox.filter(|_| owner != self.own && self.streams < STREAMS) else {
            return false;
        };
        let from = self.own;
        let sent = outbox.send(Letter::Stream {
            from,
            stream,
            unread,
        });
        self.streams += usize::from(sent);
        sent
    }

    /// Tells `from` that its stream has arrived.
    pub(super) fn acknowledge(&self, from: ShardId) {
        if let Some(outbox) = self.outboxes.get(usize::from(from.0)) {
            outbox.send(Letter::StreamTaken);
        }
    }

    /// Notes that a stream has arrived where it was sent.
    pub(super) fn taken(&mut self) {
        self.streams -= 1;
    }

    /// The next letter for this shard.
    pub(super) fn receive(&self) -> Option<Letter> {
        self.inbox.try_recv().ok()
    }
}
