//! A relay that drains sends clients to another one, which takes them, while what lives goes on.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;

use turnfleet_turn::Instant;
use turnfleet_turn::client::{AllocateOptions, Allocated, Redirections};
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::fleet::{Fleet, Place, Ports, SOON, lives, signal, within};

const SECRET: &str = "north-by-northwest";
/// In the certificate of every relay.
const NAME: &str = "turn.test";

/// How a client reaches relays.
#[derive(Clone, Copy, Debug)]
enum Way {
    Udp,
    Tcp,
    Tls,
}

impl Way {
    fn relay(self, fleet: &Fleet, number: usize) -> SocketAddr {
        let transport = match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        };
        let place = fleet.text(&format!("/relays/{number}/{transport}"));
        place.parse().unwrap()
    }

    #[track_caller]
    fn call(self, relay: SocketAddr, name: &str, ca: &Path) -> Caller {
        let credential = Credential::synapse(SECRET, "@alice:example.org");
        let connected = || TcpStream::connect(relay).unwrap();
        match self {
            Self::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                Caller::udp(socket, relay, &credential)
            }
            Self::Tcp => Caller::tcp(connected(), &credential),
            Self::Tls => Caller::tls(connected(), name, ca, &credential),
        }
    }

    /// Asks `first`, and goes where it is sent: what it was granted, and by whom.
    #[track_caller]
    fn follow(self, first: SocketAddr, ca: &Path) -> (Caller, SocketAddr, Allocated) {
        let mut asked = Redirections::default();
        let (mut relay, mut name) = (first, NAME.to_owned());
        loop {
            assert!(
                asked.may_ask(Instant::default(), relay),
                "a loop: {asked:?}"
            );
            let mut caller = self.call(relay, &name, ca);
            match caller.allocate(AllocateOptions::default()) {
                Ok(allocated) => return (caller, relay, allocated),
                Err(code) => assert_eq!(code, ErrorCode::TRY_ALTERNATE),
            }
            let redirect = caller.redirect().unwrap();
            relay = redirect.servers[0];
            if let Some(domain) = &redirect.domain {
                name = domain.to_string();
            }
        }
    }
}

#[test]
fn a_relay_that_drains_sends_clients_to_another_and_keeps_what_lives() {
    let place = Place::new();
    let arguments = [
        "--relays",
        "3",
        "--spawn",
        "--shared-secret",
        SECRET,
        "--hostname",
        NAME,
    ];
    let fleet = place.start(Ports::free(), &arguments);
    let ca = Path::new(fleet.text("/ca"));
    within(SOON, "lists name every relay", || {
        fleet.api("/v1/capacity")["total"]["listed"] == 3
    });
    let allocate = || {
        let mut caller = Way::Udp.call(fleet.relay(1), NAME, ca);
        let allocated = caller.allocate(AllocateOptions::default()).unwrap();
        (caller, allocated.relayed)
    };
    let ((mut one, here), (mut other, there)) = (allocate(), allocate());
    one.bind(there).unwrap();
    other.permit(here).unwrap();

    signal("TERM", fleet.pid(1));
    for way in [Way::Udp, Way::Tcp, Way::Tls] {
        let drained = way.relay(&fleet, 1);
        within(SOON, "the relay sends clients elsewhere", || {
            let mut caller = way.call(drained, NAME, ca);
            caller.allocate(AllocateOptions::default()) == Err(ErrorCode::TRY_ALTERNATE)
        });
        let (mut caller, taken_by, _) = way.follow(drained, ca);
        let others = [0, 2].map(|number| way.relay(&fleet, number));
        assert!(others.contains(&taken_by), "{way:?}: {taken_by}");
        caller.refresh().unwrap();
        one.refresh().unwrap();
        one.send(there, "hello");
        assert_eq!(other.hear(), (here, "hello".to_owned()));
    }
    assert!(lives(fleet.pid(1)));
}
