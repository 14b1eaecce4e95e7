//! Streams that are for an HTTPS server behind the relay: each is spliced with a connection to it.
//!
//! One of which one end has said all lives on until nothing more comes from the other. Where a newcomer finds no place, the
//! stream that has been silent for longest makes room.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use socket2::{SockRef, TcpKeepalive};
use turnfleet_turn::Instant;
use turnfleet_turn::server::Room;

use super::connection::Connection;
use crate::driver::counters::DriverCounters;
use crate::driver::places::Places;
use crate::driver::splice::{Buffers, Carried, Next, Splice, is_connected};
use crate::shard::token::Source;

/// How long the HTTPS server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// When the kernel begins to ask an end that is silent whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The streams of one shard that are passed on.
pub(crate) struct Forwards {
    places: Places<Forward>,
    /// Those whose server has not answered, or of which one end is left: the one to be given up next first.
    due: BTreeSet<(Instant, usize)>,
    /// When each had its latest byte: the one that is silent for longest first.
    silent: BTreeSet<(Instant, usize)>,
    limit: usize,
    buffers: Buffers,
}

/// One client's stream and the one that goes on from it.
struct Forward {
    splice: Splice,
    server: TcpStream,
    /// Whether the server has not accepted yet.
    connecting: bool,
    /// Whether one of both sockets has failed.
    failed: bool,
    /// When the stream is given up; present while the server has not accepted, and once one end has said all.
    deadline: Option<Instant>,
    /// When the latest byte came.
    active: Instant,
    /// Whether it stands in the shard's ready list.
    queued: bool,
}

impl Forwards {
    /// At most `limit` streams are passed on at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            places: Places::new(),
            due: BTreeSet::new(),
            silent: BTreeSet::new(),
            limit,
            buffers: Buffers::new(),
        }
    }

    /// Passes `client` on to the server at `backend`; closes it where that cannot be.
    pub(super) fn open(
        &mut self,
        client: Box<Connection>,
        backend: SocketAddr,
        registry: &Registry,
        now: Instant,
        counters: &mut DriverCounters,
    ) {
        if self.places.len() >= self.limit {
            counters.https_evicted += 1;
            if let Some(&(_, index)) = self.silent.first() {
                self.close(index);
            }
        }
        let index = self.places.next();
        let splice = Splice::new(client, b"", &mut self.buffers.pool);
        match Forward::open(splice, backend, registry, index, now) {
            Ok(forward) => {
                self.due
                    .extend(forward.deadline.map(|deadline| (deadline, index)));
                self.silent.insert((forward.active, index));
                self.places.insert(Box::new(forward));
                counters.https_forwarded += 1;
            }
            Err(_) => counters.https_unreachable += 1,
        }
    }

    /// Carries what one turn allows; `true` where more may wait.
    pub(crate) fn serve(
        &mut self,
        index: usize,
        now: Instant,
        counters: &mut DriverCounters,
    ) -> bool {
        let Some(forward) = self.places.at_mut(index) else {
            return false;
        };
        forward.queued = false;
        if forward.connecting {
            match is_connected(&forward.server) {
                Ok(false) => return false,
                Ok(true) => {
                    forward.connecting = false;
                    if let Some(deadline) = forward.deadline.take() {
                        self.due.remove(&(deadline, index));
                    }
                }
                Err(_) => {
                    counters.https_unreachable += 1;
                    self.close(index);
                    return false;
                }
            }
        }
        // Both ends have one token, so that an event may be either's, and the end of what a client sends is not told apart.
        forward.splice.client.blocked = false;
        forward.splice.client.hung_up = true;
        let carried = forward
            .splice
            .carry(&mut forward.server, &mut self.buffers, Room::FREE);
        if forward.failed || carried.next == Next::Closed {
            self.close(index);
            return false;
        }
        self.note_carried(index, carried, now);
        carried.next == Next::Again
    }

    /// Notes that one of both ends of the stream at `index` has failed.
    pub(crate) fn note_failure(&mut self, index: usize) {
        if let Some(forward) = self.places.at_mut(index) {
            forward.failed |= !forward.connecting;
        }
    }

    /// Notes what was carried: the stream is not silent, and one of which one end is left may stay.
    fn note_carried(&mut self, index: usize, carried: Carried, now: Instant) {
        let Some(forward) = self.places.at_mut(index) else {
            return;
        };
        if carried.outward + carried.inward > 0 {
            let earlier = std::mem::replace(&mut forward.active, now);
            self.silent.remove(&(earlier, index));
            self.silent.insert((now, index));
        }
        if let Some(deadline) = forward.splice.postpone(forward.deadline, carried, now) {
            if let Some(earlier) = forward.deadline.replace(deadline) {
                self.due.remove(&(earlier, index));
            }
            self.due.insert((deadline, index));
        }
    }

    /// When [`Forwards::handle_timeout`] is next due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|&(deadline, _)| deadline)
    }

    /// Gives up on servers that do not answer, and on streams of which one end is left and silent.
    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &mut DriverCounters) {
        while let Some(&(deadline, index)) = self.due.first()
            && deadline <= now
        {
            let forward = self.places.at(index);
            let connecting = forward.is_some_and(|forward| forward.connecting);
            counters.https_unreachable += u64::from(connecting);
            self.close(index);
        }
    }

    /// Notes that it stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        let forward = self.places.at_mut(index);
        forward.is_some_and(|forward| !std::mem::replace(&mut forward.queued, true))
    }

    fn close(&mut self, index: usize) {
        let Some(forward) = self.places.take(index) else {
            return;
        };
        if let Some(deadline) = forward.deadline {
            self.due.remove(&(deadline, index));
        }
        self.silent.remove(&(forward.active, index));
    }
}

impl Forward {
    fn open(
        mut splice: Splice,
        backend: SocketAddr,
        registry: &Registry,
        index: usize,
        now: Instant,
    ) -> io::Result<Self> {
        let client = &mut splice.client.socket;
        let mut server = TcpStream::connect(backend)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        for socket in [&*client, &server] {
            let socket = SockRef::from(socket);
            socket.set_tcp_keepalive(&keepalive)?;
            socket.set_tcp_nodelay(true)?;
        }
        // Both ends have one token: either gives the pair its turn.
        let token = Source::Forward(index).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut server, token, interest)?;
        registry.reregister(client, token, interest)?;
        Ok(Self {
            splice,
            server,
            connecting: true,
            failed: false,
            deadline: Some(now.after(CONNECT_LIMIT)),
            active: now,
            queued: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream as StdStream};

    use mio::Poll;
    use turnfleet_turn::{FiveTuple, Transport};

    use super::*;
    use crate::driver::splice::HALF_OPEN;

    /// A server, streams that are passed on to it, and what they need.
    struct World {
        forwards: Forwards,
        server: TcpListener,
        entrance: TcpListener,
        poll: Poll,
        counters: DriverCounters,
    }

    impl World {
        fn new(limit: usize) -> Self {
            let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
            Self {
                forwards: Forwards::new(limit),
                server: listen(),
                entrance: listen(),
                poll: Poll::new().unwrap(),
                counters: DriverCounters::default(),
            }
        }

        /// Passes a client's stream on: its far ends at the client and at the server.
        fn open(&mut self, now: Instant) -> (StdStream, StdStream) {
            let client = StdStream::connect(self.entrance.local_addr().unwrap()).unwrap();
            let (accepted, _) = self.entrance.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            let client_address = FiveTuple {
                transport: Transport::Tls,
                client: accepted.peer_addr().unwrap(),
                server: accepted.local_addr().unwrap(),
            };
            let mut accepted = TcpStream::from_std(accepted);
            let registry = self.poll.registry();
            let token = Source::Waker.token();
            registry
                .register(&mut accepted, token, Interest::READABLE)
                .unwrap();
            let backend = self.server.local_addr().unwrap();
            let accepted = Box::new(Connection::opened(accepted, client_address));
            self.forwards
                .open(accepted, backend, registry, now, &mut self.counters);
            (client, self.server.accept().unwrap().0)
        }

        /// Gives the stream at `index` turns until `condition` holds.
        #[track_caller]
        fn serve_until(&mut self, index: usize, now: Instant, condition: fn(&Forwards) -> bool) {
            let begun = std::time::Instant::now();
            while !condition(&self.forwards) {
                self.forwards.serve(index, now, &mut self.counters);
                assert!(begun.elapsed() < Duration::from_secs(10), "too long");
            }
        }
    }

    fn is_silent(mut stream: StdStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn a_stream_without_a_byte_for_a_minute_after_one_end_is_given_up() {
        let mut world = World::new(1);
        let start = Instant(1);
        let (client, _server) = world.open(start);
        assert_eq!(
            world.forwards.poll_timeout(),
            Some(start.after(CONNECT_LIMIT))
        );
        world.serve_until(0, start, |forwards| forwards.poll_timeout().is_none());

        client.shutdown(Shutdown::Write).unwrap();
        world.serve_until(0, start, |forwards| forwards.poll_timeout().is_some());
        let due = start.after(HALF_OPEN);
        assert_eq!(world.forwards.poll_timeout(), Some(due));
        world
            .forwards
            .handle_timeout(Instant(due.0 - 1), &mut world.counters);
        assert!(world.forwards.set_queued(0));
        world.forwards.handle_timeout(due, &mut world.counters);
        assert!(!world.forwards.set_queued(0));
        assert_eq!(world.forwards.poll_timeout(), None);
        assert_eq!(world.counters.https_unreachable, 0);
    }

    #[test]
    fn the_stream_that_is_silent_for_longest_makes_room() {
        let mut world = World::new(2);
        let (mut talkative, _its_server) = world.open(Instant(1));
        let (quiet, _other_server) = world.open(Instant(2));
        for index in 0..2 {
            let condition = [
                |it: &Forwards| it.due.len() == 1,
                |it: &Forwards| it.due.is_empty(),
            ];
            world.serve_until(index, Instant(3), condition[index]);
        }
        talkative.write_all(b"still there").unwrap();
        world.serve_until(0, Instant(4), |forwards| {
            forwards.silent.last() == Some(&(Instant(4), 0))
        });
        let (newcomer, _third_server) = world.open(Instant(5));
        assert_eq!(world.counters.https_evicted, 1);
        assert!(is_silent(talkative) && is_silent(newcomer));
        assert!(!is_silent(quiet));
    }
}
