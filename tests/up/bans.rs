//! Bans over a fleet of four relays: what is banned falls silent on all of them within two seconds and is refused, until the
//! ban ends or is lifted, whatever is restarted meanwhile.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential, unix_now};
use crate::fleet::{Fleet, Place, Ports, SOON, within};

const SECRET: &str = "north-by-northwest";
/// How soon a ban stops traffic.
const BANNED_WITHIN: Duration = Duration::from_secs(2);
/// Where an echo is over.
const SILENCE: Duration = Duration::from_millis(200);

const HOME: &str = "127.0.0.1";
/// Where the source that is banned is.
const BAD_SOURCE: &str = "127.0.0.2";
/// Where the peer that is banned is.
const BAD_PEER: &str = "127.0.0.3";

/// A peer at `ip` that answers every datagram with the same bytes.
fn echo(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let place = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
    place
}

/// A client of `relay` at `ip` that is known as `user`, and what its Allocate came to.
#[track_caller]
fn call(ip: &str, relay: SocketAddr, user: &str) -> (Caller, Result<(), ErrorCode>) {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let credential = Credential::synapse(SECRET, user);
    let mut caller = Caller::udp(socket, relay, &credential);
    let allocated = caller.allocate(AllocateOptions::default()).map(drop);
    (caller, allocated)
}

/// A call of one client with an echo on each relay.
struct Talk {
    callers: Vec<Caller>,
    peer: SocketAddr,
}

impl Talk {
    #[track_caller]
    fn on_all(fleet: &Fleet, ip: &str, user: &str, peer: SocketAddr) -> Self {
        let callers = (0..4).map(|relay| {
            let (mut caller, allocated) = call(ip, fleet.relay(relay), user);
            assert_eq!(allocated, Ok(()));
            caller.bind(peer).unwrap();
            caller
        });
        let mut talk = Self {
            callers: callers.collect(),
            peer,
        };
        talk.goes_on();
        talk
    }

    #[track_caller]
    fn goes_on(&mut self) {
        for caller in &mut self.callers {
            caller.send(self.peer, "words");
            assert_eq!(caller.hear(), (self.peer, "words".to_owned()));
        }
    }

    /// Nothing comes back any more from `banned` on, but for the time that a ban may take.
    #[track_caller]
    fn falls_silent(&mut self, banned: Instant) {
        for caller in &mut self.callers {
            let mut last = Instant::now();
            while last.elapsed() < SILENCE {
                caller.send(self.peer, "words");
                if caller.turn().is_some() {
                    last = Instant::now();
                    assert!(banned.elapsed() < BANNED_WITHIN, "words come back");
                }
            }
        }
    }
}

impl Fleet {
    /// What all relays answer to a client at `ip` that is known as `user`.
    #[track_caller]
    fn answers(&self, ip: &str, user: &str) -> Vec<Result<(), ErrorCode>> {
        let relays = (0..4).map(|relay| self.relay(relay));
        relays.map(|relay| call(ip, relay, user).1).collect()
    }
}

fn start(place: &Place, ports: Ports) -> Fleet {
    let arguments = [
        "--relays",
        "4",
        "--shared-secret",
        SECRET,
        "--danger-allow-loopback-peers",
    ];
    place.start(ports, &arguments)
}

const FORBIDDEN: [Result<(), ErrorCode>; 4] = [Err(ErrorCode::FORBIDDEN); 4];

#[test]
fn a_ban_stops_a_user_a_source_and_a_peer_on_all_relays_and_outlives_a_restart() {
    let (place, ports) = (Place::new(), Ports::free());
    let mut fleet = start(&place, ports);
    let (good, bad) = (echo(HOME), echo(BAD_PEER));
    let mut bystander = Talk::on_all(&fleet, HOME, "alice", good);
    let mut user = Talk::on_all(&fleet, HOME, "mallory", good);
    let mut source = Talk::on_all(&fleet, BAD_SOURCE, "bob", good);
    let mut peer = Talk::on_all(&fleet, HOME, "carol", bad);

    let bans = [
        (&mut user, ["--user", "mallory"]),
        (&mut source, ["--source", BAD_SOURCE]),
        (&mut peer, ["--peer", BAD_PEER]),
    ];
    for (talk, [flag, whom]) in bans {
        let begun = Instant::now();
        fleet.order(&["ban", flag, whom, "--reason", "a drill"]);
        talk.falls_silent(begun);
    }
    bystander.goes_on();
    for caller in &mut peer.callers {
        assert_eq!(caller.refresh(), Ok(()), "the allocation stays");
        assert_eq!(caller.bind(bad), Err(ErrorCode::FORBIDDEN));
    }
    let check = |fleet: &Fleet| {
        assert_eq!(fleet.answers(HOME, "mallory"), FORBIDDEN);
        assert_eq!(fleet.answers(BAD_SOURCE, "bob"), FORBIDDEN);
        let (mut carol, allocated) = call(HOME, fleet.relay(3), "carol");
        assert_eq!(allocated, Ok(()));
        assert_eq!(carol.permit(bad), Err(ErrorCode::FORBIDDEN));
    };
    check(&fleet);

    assert!(fleet.signal("TERM").success(), "{}", place.said());
    let fleet = start(&place, ports);
    check(&fleet);

    // The peer first: a relay that knows of the last of them knows of it.
    for [flag, whom] in [
        ["--peer", BAD_PEER],
        ["--user", "mallory"],
        ["--source", BAD_SOURCE],
    ] {
        fleet.order(&["unban", flag, whom]);
    }
    within(BANNED_WITHIN, "everybody is let in again", || {
        let (user, source) = (
            fleet.answers(HOME, "mallory"),
            fleet.answers(BAD_SOURCE, "bob"),
        );
        user == [Ok(()); 4] && source == [Ok(()); 4]
    });
    Talk::on_all(&fleet, HOME, "dave", bad);
}

#[test]
fn a_ban_with_an_end_lets_in_again_when_that_comes() {
    let place = Place::new();
    let fleet = start(&place, Ports::free());
    let good = echo(HOME);
    let mut user = Talk::on_all(&fleet, HOME, "mallory", good);
    let begun = Instant::now();
    let ban = fleet.order(&["ban", "--user", "mallory", "--for", "10s"]);
    user.falls_silent(begun);
    assert_eq!(fleet.answers(HOME, "mallory"), FORBIDDEN);
    let until = ban["until"].as_u64().unwrap();
    within(SOON, "the ban ends", || unix_now() >= until);
    within(BANNED_WITHIN, "it lets in again", || {
        fleet.answers(HOME, "mallory") == [Ok(()); 4]
    });
    Talk::on_all(&fleet, HOME, "mallory", good);
}
