//! Letters between shards: a redeemed reservation moves its socket from the shard that holds it to the one that asks, and
//! a client data connection moves to the shard whose peer data connection it names.
//!
//! Each shard may have a bounded number of claims and of streams on their way, as many streams as it may have strangers: a
//! burst of them is handed over whole. So what waits in an inbox is bounded by what all shards may have on their way and by
//! the answers to that, and takes memory only while it waits.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;
use turnfleet_turn::wire::ReservationToken;
use turnfleet_turn::{OpenError, RelayedId, ShardId};

use crate::driver::stream::Connection;

/// Claims of one shard that may be on their way at the same time.
const CLAIMS: usize = 64;

/// What one shard tells another.
pub(super) enum Letter {
    /// The sender wants the socket that the receiver holds in reserve.
    Claim {
        from: ShardId,
        id: RelayedId,
        token: ReservationToken,
    },
    /// The answer to a claim; `None` where there is no such reservation.
    Claimed {
        id: RelayedId,
        reserved: Option<Reserved>,
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

/// A reserved socket that changes its shard.
pub(super) struct Reserved {
    /// The local address: its port is the receiver's from here on, even without the socket.
    pub(super) local: SocketAddr,
    /// The socket, unless it was lost.
    pub(super) socket: Option<OwnedFd>,
}

/// The way to one shard's inbox.
#[derive(Clone)]
struct Outbox {
    letters: Sender<Letter>,
    waker: Arc<Waker>,
}

impl Outbox {
    fn send(&self, letter: Letter) -> bool {
        let sent = self.letters.send(letter).is_ok();
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
    /// How many claims are on their way.
    claims: usize,
    /// How many streams are on their way.
    streams: usize,
    /// How many streams may be.
    streams_limit: usize,
}

impl Links {
    /// Links `wakers.len()` shards with each other. Each may have `streams_limit` streams on their way.
    pub(super) fn connect(wakers: &[Arc<Waker>], streams_limit: usize) -> Vec<Self> {
        let (letters, inboxes): (Vec<_>, Vec<_>) = wakers.iter().map(|_| channel()).unzip();
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
                claims: 0,
                streams: 0,
                streams_limit,
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
        let outbox = outbox.filter(|_| owner != self.own && self.claims < CLAIMS);
        let outbox = outbox.ok_or(OpenError::NoReservation)?;
        let from = self.own;
        if !outbox.send(Letter::Claim { from, id, token }) {
            return Err(OpenError::NoReservation);
        }
        self.claims += 1;
        Ok(())
    }

    /// Answers the claim of `to`; a socket that does not arrive there is closed.
    pub(super) fn answer(&self, to: ShardId, id: RelayedId, reserved: Option<Reserved>) {
        if let Some(outbox) = self.outboxes.get(usize::from(to.0)) {
            outbox.send(Letter::Claimed { id, reserved });
        }
    }

    /// Notes that a claim was answered.
    pub(super) fn claimed(&mut self) {
        self.claims -= 1;
    }

    /// Gives a stream to `owner`; where too many are on their way it is closed, and the answer `false`.
    pub(super) fn hand_over(
        &mut self,
        owner: ShardId,
        stream: Box<Connection>,
        unread: Box<[u8]>,
    ) -> bool {
        let may = owner != self.own && self.streams < self.streams_limit;
        let Some(outbox) = self.outboxes.get(usize::from(owner.0)).filter(|_| may) else {
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use mio::{Poll, Token};
    use turnfleet_turn::{FiveTuple, Transport};

    use super::*;

    fn stream(listener: &TcpListener) -> Box<Connection> {
        let server = listener.local_addr().unwrap();
        let socket = TcpStream::connect(server).unwrap();
        listener.accept().unwrap();
        let client = FiveTuple {
            transport: Transport::Tcp,
            client: socket.local_addr().unwrap(),
            server,
        };
        let socket = mio::net::TcpStream::from_std(socket);
        Box::new(Connection::opened(socket, client))
    }

    #[test]
    fn as_many_streams_may_be_on_their_way_as_there_may_be_strangers() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut links = Links::connect(&[Arc::clone(&waker), waker], 100);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let [one, other] = &mut links[..] else {
            panic!("two shards");
        };
        let hand_over = |links: &mut Links| {
            let unread = Box::from(*b"a request");
            links.hand_over(ShardId(1), stream(&listener), unread)
        };
        assert!((0..100).all(|_| hand_over(one)));
        assert!(!hand_over(one));
        let letter = other.receive();
        assert!(matches!(
            letter,
            Some(Letter::Stream {
                from: ShardId(0),
                ..
            })
        ));
        other.acknowledge(ShardId(0));
        assert!(matches!(one.receive(), Some(Letter::StreamTaken)));
        one.taken();
        assert!(hand_over(one));
    }
}
