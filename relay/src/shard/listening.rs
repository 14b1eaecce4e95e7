//! Listeners that come and go while the shards run, without a word to those who use the others.
//!
//! A listener for streams that is taken away is closed; its streams go on. One for UDP is the only way to the clients that came
//! by it: it stays open for them, is deaf to everybody else, and closes when no shard has an allocation of it. All shards close
//! it then, and none before: the kernel deals a port's datagrams to the sockets on it by their number.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use turnfleet_turn::{Instant, Now, Server, Transport};

use super::token::Source;
use crate::driver::stream::Streams;
use crate::driver::udp::UdpListeners;
use crate::listeners::{self, BindError, Listener, ShardListeners};

/// How often a shard looks whether allocations keep a listener open.
const LOOK: Duration = Duration::from_secs(1);

/// A change of one shard's listeners.
pub(super) enum Change {
    Open(ShardListeners),
    /// Streams from here on are taken as this says.
    Alter(Listener),
    CloseStreams(SocketAddr),
    Leave(SocketAddr, Arc<Leaving>),
    Stay(SocketAddr),
}

/// A UDP listener that was taken away, as all shards see it.
pub(super) struct Leaving(Mutex<Stand>);

#[derive(Clone, Copy)]
struct Stand {
    /// Shards with allocations of it.
    used: usize,
    /// It was asked for again before it was closed.
    stays: bool,
}

impl Leaving {
    fn new(shards: usize) -> Self {
        let used = shards;
        Self(Mutex::new(Stand { used, stays: false }))
    }

    fn stand(&self) -> MutexGuard<'_, Stand> {
        // It is never left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it; `false` where it is too late.
    fn stay(&self) -> bool {
        let mut stand = self.stand();
        stand.stays = stand.used > 0;
        stand.stays
    }

    fn is_over(&self) -> bool {
        self.stand().used == 0
    }
}

/// What the shards listen on, as the configuration asked for it and as it was opened.
pub(super) struct Listening {
    current: Vec<(Listener, Listener)>,
    leaving: Vec<(Listener, Listener, Arc<Leaving>)>,
    has_tls: bool,
}

/// What becomes of the listeners.
#[derive(Default)]
struct Steps {
    open: Vec<Listener>,
    alter: Vec<Listener>,
    /// As they were asked for, and as they were opened.
    close: Vec<(Listener, Listener)>,
    stay: Vec<SocketAddr>,
    /// The place in `open`, or what is open already, in the order of what is wanted.
    wanted: Vec<(Listener, Result<Listener, usize>)>,
}

impl Listening {
    pub(super) fn new(asked: &[Listener], opened: &[Listener], has_tls: bool) -> Self {
        let current = asked.iter().cloned().zip(opened.iter().cloned());
        Self {
            current: current.collect(),
            leaving: Vec::new(),
            has_tls,
        }
    }

    /// Opens what is `wanted` and not open, and says what each of `shards` shards has to change. Nothing is changed when that
    /// fails.
    pub(super) fn change(
        &mut self,
        wanted: &[Listener],
        shards: u8,
    ) -> Result<Vec<Vec<Change>>, BindError> {
        let needs_tls = wanted.iter().find(|it| it.takes_tls());
        if let Some(listener) = needs_tls.filter(|_| !self.has_tls) {
            let listener = listener.clone();
            return Err(BindError::NoCertificate { listener });
        }
        self.leaving.retain(|(_, _, leaving)| !leaving.is_over());
        let steps = self.compare(wanted);
        let opened = listeners::open(&steps.open, shards);
        if opened.is_err() {
            self.let_go(&steps.stay);
        }
        let (opened, addresses) = opened?;
        let opened = opened.into_iter();
        let mut changes: Vec<_> = opened.map(|it| vec![Change::Open(it)]).collect();
        for (asked, listener) in steps.close {
            let address = listener.address;
            if listener.transport == Transport::Udp {
                let leaving = Arc::new(Leaving::new(changes.len()));
                for changes in &mut changes {
                    changes.push(Change::Leave(address, Arc::clone(&leaving)));
                }
                self.leaving.push((asked, listener, leaving));
            } else {
                for changes in &mut changes {
                    changes.push(Change::CloseStreams(address));
                }
            }
        }
        for changes in &mut changes {
            changes.extend(steps.alter.iter().cloned().map(Change::Alter));
            changes.extend(steps.stay.iter().copied().map(Change::Stay));
        }
        let stays = |opened: &Listener| steps.stay.contains(&opened.address);
        self.leaving.retain(|(_, opened, _)| !stays(opened));
        let resolve = |(asked, place): (Listener, Result<Listener, usize>)| {
            let opened = place.or_else(|index| addresses.get(index).cloned().ok_or(index));
            let opened = opened.unwrap_or_else(|_| asked.clone());
            (asked, opened)
        };
        self.current = steps.wanted.into_iter().map(resolve).collect();
        Ok(changes)
    }

    /// The listeners that are open for everybody, in the order in which they were asked for.
    pub(super) fn addresses(&self) -> Vec<Listener> {
        let opened = self.current.iter().map(|(_, opened)| opened.clone());
        opened.collect()
    }

    fn compare(&self, wanted: &[Listener]) -> Steps {
        let mut steps = Steps::default();
        let mut left: Vec<_> = self.current.clone();
        for asked in wanted {
            let same = left.iter().position(|(known, _)| known == asked);
            let near = same.or_else(|| left.iter().position(|(known, _)| is_near(known, asked)));
            let place = if let Some(place) = near {
                let (_, opened) = left.remove(place);
                let altered = Listener {
                    address: opened.address,
                    ..asked.clone()
                };
                if same.is_none() {
                    steps.alter.push(altered.clone());
                }
                Ok(altered)
            } else if let Some(back) = self.back(asked) {
                steps.stay.push(back.address);
                Ok(back)
            } else {
                steps.open.push(asked.clone());
                Err(steps.open.len() - 1)
            };
            steps.wanted.push((asked.clone(), place));
        }
        steps.close = left;
        steps
    }

    /// Takes back that they stay.
    fn let_go(&self, stay: &[SocketAddr]) {
        for (_, opened, leaving) in &self.leaving {
            if stay.contains(&opened.address) {
                leaving.stand().stays = false;
            }
        }
    }

    /// The listener that is about to leave and is asked for again, kept.
    fn back(&self, asked: &Listener) -> Option<Listener> {
        let mut known = self.leaving.iter().filter(|(known, ..)| known == asked);
        known.find_map(|(_, opened, leaving)| leaving.stay().then(|| opened.clone()))
    }
}

/// Whether they are the same socket for streams, taken in another way.
fn is_near(one: &Listener, other: &Listener) -> bool {
    let streams = [one, other].map(|it| it.transport != Transport::Udp);
    streams == [true, true] && one.address == other.address && one.address.port() != 0
}

/// The listeners of one shard that are about to close.
#[derive(Default)]
pub(super) struct Departures {
    leaving: Vec<(SocketAddr, Arc<Leaving>, Uses)>,
    look_at: Option<Instant>,
}

/// Whether this shard has an allocation of a listener, by what it has said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uses {
    Some,
    None,
}

impl Departures {
    /// When [`Departures::look`] is next due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Carries out what was asked of the shard.
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        changes: Vec<Change>,
        poll: &Poll,
        (udp, streams): (&mut UdpListeners, &mut Streams),
    ) {
        for change in changes {
            match change {
                Change::Open(opened) => open(opened, poll, udp, streams),
                Change::Alter(listener) => streams.alter_listener(listener),
                Change::CloseStreams(address) => streams.close_listener(address),
                Change::Leave(address, leaving) => {
                    udp.set_leaving(address, true);
                    self.leaving.push((address, leaving, Uses::Some));
                }
                Change::Stay(address) => {
                    udp.set_leaving(address, false);
                    self.leaving.retain(|(known, ..)| *known != address);
                }
            }
        }
        self.look_at = (!self.leaving.is_empty()).then(|| now.instant.after(LOOK));
    }

    /// Closes the listeners that no allocation of any shard needs.
    pub(super) fn look(&mut self, now: Now, server: &Server, udp: &mut UdpListeners) {
        self.look_at = None;
        self.leaving.retain_mut(|(address, leaving, uses)| {
            let mut stand = leaving.stand();
            if *uses == Uses::Some && !stand.stays && !server.has_clients_at(*address) {
                *uses = Uses::None;
                stand.used -= 1;
            }
            let is_over = stand.used == 0;
            if is_over {
                udp.close(*address);
                tracing::info!(%address, "a listener is closed, as nobody uses it");
            }
            !is_over
        });
        if !self.leaving.is_empty() {
            self.look_at = Some(now.instant.after(LOOK));
        }
    }
}

/// Serves `opened` from here on.
fn open(opened: ShardListeners, poll: &Poll, udp: &mut UdpListeners, streams: &mut Streams) {
    for (socket, address) in opened.udp {
        if register(poll, socket.as_fd(), Source::Udp(udp.next()), address) {
            udp.open(socket, address);
        }
    }
    for (socket, listener) in opened.streams {
        let place = Source::Acceptor(streams.next_acceptor());
        if register(poll, socket.as_fd(), place, listener.address) {
            streams.listen(socket, listener);
        }
    }
}

/// Asks for events about a socket; one that nobody would hear of is closed.
fn register(poll: &Poll, socket: BorrowedFd<'_>, source: Source, address: SocketAddr) -> bool {
    let mut socket = SourceFd(&socket.as_raw_fd());
    let registry = poll.registry();
    let registered = registry.register(&mut socket, source.token(), Interest::READABLE);
    if let Err(error) = &registered {
        tracing::error!(%address, %error, "a shard cannot hear a listener");
    }
    registered.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(transport: Transport, address: &str) -> Listener {
        Listener::new(transport, address.parse().unwrap())
    }

    fn listening(asked: &[Listener]) -> Listening {
        Listening::new(asked, asked, true)
    }

    #[test]
    fn what_is_wanted_as_before_is_let_be() {
        let asked = [
            listener(Transport::Udp, "127.0.0.1:0"),
            listener(Transport::Udp, "127.0.0.1:0"),
            listener(Transport::Tcp, "127.0.0.1:3478"),
        ];
        let steps = listening(&asked).compare(&asked);
        assert!(steps.open.is_empty() && steps.close.is_empty() && steps.alter.is_empty());
        let steps = listening(&asked).compare(&asked[1..]);
        assert_eq!(steps.close, [(asked[0].clone(), asked[0].clone())]);
    }

    #[test]
    fn a_socket_for_streams_is_kept_when_it_is_to_take_them_otherwise() {
        let plain = listener(Transport::Tcp, "127.0.0.1:443");
        let tls = listener(Transport::Tls, "127.0.0.1:443");
        let datagrams = listener(Transport::Udp, "127.0.0.1:443");
        let steps = listening(&[plain, datagrams.clone()]).compare(&[datagrams, tls.clone()]);
        assert_eq!(steps.alter, [tls]);
        assert!(steps.open.is_empty() && steps.close.is_empty());
    }

    #[test]
    fn a_listener_without_a_certificate_changes_nothing() {
        let udp = listener(Transport::Udp, "127.0.0.1:0");
        let asked = [udp];
        let mut listening = Listening::new(&asked, &asked, false);
        let refused = listening.change(&[listener(Transport::Tls, "127.0.0.1:0")], 1);
        assert!(matches!(refused, Err(BindError::NoCertificate { .. })));
        assert_eq!(listening.addresses(), asked);
    }

    #[test]
    fn a_listener_that_is_asked_for_again_stays_unless_it_is_too_late() {
        let leaving = Leaving::new(2);
        leaving.stand().used -= 1;
        assert!(leaving.stay());
        let leaving = Leaving::new(1);
        leaving.stand().used -= 1;
        assert!(!leaving.stay() && leaving.is_over());
    }
}
