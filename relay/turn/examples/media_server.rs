//! A media server that is its own TURN server: one UDP port for both, one thread, its own event loop.
//!
//! `media_server IP:PORT NAME PASSWORD` echoes RTP, its own work; all that the core asks of a program stands here.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Instant as Clock, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use turnfleet_turn::peer_filter::{FleetRange, PeerFilter, PeerRules};
use turnfleet_turn::policy::{Config, Policy};
use turnfleet_turn::{
    Candidates, ClientHeader, Command, Context, Decision, FiveTuple, Identity, Instant, IpMeta,
    KeySource, Ledger, Now, OpenError, PeerAddr, RelayedId, Server, Span, Transport,
};

const REALM: &str = "media.example";
/// Stands for the program's own port among the events; a relayed socket has its index.
const OWN: Token = Token(usize::MAX);

/// The one account; a program asks its own table of users here.
struct Account(String, String);

impl KeySource for Account {
    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        if identity.username == self.0 {
            out.push_password(&self.0, REALM, &self.1);
        }
    }
}

/// A TURN server whose relayed sockets are opened on `ip`.
fn turn_server(ip: IpAddr) -> io::Result<Server> {
    let mut seeds = [[0; 32]; 3];
    std::fs::File::open("/dev/urandom")?.read_exact(seeds.as_flattened_mut())?;
    let (first, last) = (50_000, 50_999);
    let ports = FleetRange { ip, first, last };
    let ledger = Ledger::new(seeds[0]);
    ledger.set_granted(&[ports.into()]);
    // Clients may be each other's peers; whatever else listens on this address is closed to them.
    let mut rules = PeerRules::default();
    rules.fleet.push(ports);
    let policy = Policy::new(REALM, seeds[1], PeerFilter::new(rules));
    Ok(Server::new(
        Config::new([ip]),
        policy.into(),
        ledger.into(),
        seeds[2],
    ))
}

struct Sockets {
    poll: Poll,
    own: UdpSocket,
    relayed: std::collections::HashMap<usize, (RelayedId, UdpSocket)>,
}

impl Sockets {
    fn open(&mut self, id: RelayedId, local: SocketAddr) -> io::Result<SocketAddr> {
        let mut socket = UdpSocket::bind(local)?;
        let (registry, token) = (self.poll.registry(), Token(id.index()));
        registry.register(&mut socket, token, Interest::READABLE)?;
        self.relayed.insert(id.index(), (id, socket));
        Ok(local)
    }

    /// Does what the server asks. What cannot be sent is lost, as datagrams may be.
    fn carry_out_commands(&mut self, turn: &mut Server, now: Now) {
        while let Some(command) = turn.poll_command() {
            if let Command::OpenRelayed { id, local } = command {
                let opened = self.open(id, local).map_err(|_| OpenError::PortTaken);
                turn.handle_relayed_opened(now, id, opened);
            } else if let Command::CloseRelayed { id } = command {
                self.relayed.remove(&id.index());
            } else if let Command::Send { to, message } = command {
                let _ = self.own.send_to(&message, to.client);
            } // other commands are about streams, or for several shards
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().ok_or("usage: IP:PORT NAME PASSWORD");
    let server: SocketAddr = argument()?.parse()?;
    let account = Account(argument()?, argument()?);
    let mut turn = turn_server(server.ip())?;
    let (poll, mut own) = (Poll::new()?, UdpSocket::bind(server)?);
    poll.registry()
        .register(&mut own, OWN, Interest::READABLE)?;
    let relayed = Default::default();
    let mut sockets = Sockets { poll, own, relayed };
    let (mut events, began) = (Events::with_capacity(256), Clock::now());
    let (mut buffer, mut reply) = (vec![0; ClientHeader::MAX_LEN + 65_536], Vec::new());
    let ip = IpMeta::default(); // nothing is known of the headers of datagrams
    let context = Context::new(&account);
    let now = || Now {
        instant: Instant::default().after(began.elapsed()),
        unix: UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()),
    };
    loop {
        let wait = turn.poll_timeout().map(|due| due.since(now().instant));
        sockets.poll.poll(&mut events, wait)?;
        let now = now();
        for event in &events {
            while event.token() == OWN
                && let Ok((len, client)) = sockets.own.recv_from(&mut buffer)
            {
                let packet = &buffer[..len];
                // RFC 7983 §7: the first byte tells RTP from what is TURN's.
                if let Some(128..=191) = packet.first() {
                    let _ = sockets.own.send_to(packet, client);
                    continue;
                }
                let from = FiveTuple {
                    transport: Transport::Udp,
                    client,
                    server,
                };
                let decision = turn.handle_client(now, from, ip, packet, &context, &mut reply);
                sockets.carry_out_commands(&mut turn, now);
                if decision == Decision::Reply {
                    let _ = sockets.own.send_to(&reply, client);
                } else if let Decision::ToPeer {
                    via, to, payload, ..
                } = decision
                {
                    let (_, socket) = &sockets.relayed[&via.index()];
                    let _ = socket.send_to(&buffer[payload.range()], to.0);
                }
            }
            let start = ClientHeader::MAX_LEN;
            while let Some((id, socket)) = sockets.relayed.get(&event.token().0)
                && let Ok((len, peer)) = socket.recv_from(&mut buffer[start..])
            {
                let decision = turn.handle_peer(now, *id, PeerAddr(peer), ip, len);
                // The header is written into the room before the payload.
                if let Decision::ToClient { to, header, .. } = decision
                    && let Some(message) = header.write(&mut buffer, Span { start, len })
                {
                    let _ = sockets.own.send_to(&buffer[message.range()], to.client);
                }
            }
        }
        turn.handle_timeout(now);
        sockets.carry_out_commands(&mut turn, now);
        while turn.poll_event().is_some() {} // lines for the program's log
    }
}
