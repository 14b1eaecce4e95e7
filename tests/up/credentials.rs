//! Which credentials open an allocation on a relay of a running fleet.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Instant, SystemTime};

use turnfleet_proto::credentials::{EphemeralCredential, SharedSecret, mint};
use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Failure};
use turnfleet_turn::wire::ErrorCode;
use turnfleet_turn::{Instant as ClientInstant, Transport};

use crate::fleet::{Place, Ports, SOON};

/// What a relay answers to an Allocate with this credential.
#[track_caller]
fn allocate(relay: SocketAddr, username: &str, password: &str) -> Result<(), ErrorCode> {
    let start = Instant::now();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&socket.local_addr().unwrap().port().to_be_bytes());
    let mut client = Client::new(Config {
        transport: Transport::Udp,
        username: username.to_owned(),
        password: password.to_owned(),
        seed,
    });
    let now = || ClientInstant::default().after(start.elapsed());
    client.allocate(now(), AllocateOptions::default()).unwrap();
    let (mut out, mut packet) = (Vec::new(), [0; 1500]);
    while start.elapsed() < SOON {
        while client.poll_transmit(&mut out) {
            socket.send_to(&out, relay).unwrap();
            out.clear();
        }
        match client.poll_event() {
            Some(Event::Allocated(_)) => return Ok(()),
            Some(Event::Failed {
                why: Failure::Refused(code),
                ..
            }) => return Err(code),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        let due = client.poll_timeout().unwrap();
        let wait = due.since(now()).max(std::time::Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).unwrap();
        match socket.recv(&mut packet) {
            Ok(length) => {
                client.handle_input(now(), &packet[..length]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => client.handle_timeout(now()),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no answer from {relay}")
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn ephemeral_credentials_of_every_form_and_static_users_open_allocations() {
    let place = Place::new();
    let fleet = place.start(
        Ports::free(),
        &["--shared-secret", "north", "--user", "ann:pass:word"],
    );
    let secret = SharedSecret::new("north");
    let later = unix_now() + 600;
    for relay in 0..2 {
        let relay: SocketAddr = fleet.text(&format!("/relays/{relay}/udp")).parse().unwrap();
        let open = |credential: EphemeralCredential| {
            allocate(relay, &credential.username, &credential.password)
        };
        assert_eq!(
            open(mint(&secret, "@alice:example.org", later)),
            Ok(()),
            "as Synapse mints"
        );
        assert_eq!(open(mint(&secret, "", later)), Ok(()), "as Jitsi mints");
        assert_eq!(allocate(relay, "ann", "pass:word"), Ok(()), "a static user");
        let refused = Err(ErrorCode::UNAUTHENTICATED);
        let other = SharedSecret::new("south");
        assert_eq!(
            open(mint(&other, "@alice:example.org", later)),
            refused,
            "another secret"
        );
        assert_eq!(
            open(mint(&secret, "a", unix_now() - 70)),
            refused,
            "a credential that has ended"
        );
        assert_eq!(allocate(relay, "ann", "guess"), refused, "a wrong password");
        assert_eq!(
            allocate(relay, "bob", "pass:word"),
            refused,
            "an unknown user"
        );
    }
}

#[test]
fn credentials_of_the_api_open_allocations() {
    let place = Place::new();
    let fleet = place.start(Ports::free(), &["--relays", "1"]);
    let relay: SocketAddr = fleet.text("/relays/0/udp").parse().unwrap();
    let answer = fleet.api("/turn?service=turn&username=carol");
    let field = |name: &str| answer[name].as_str().unwrap();
    assert_eq!(
        allocate(relay, field("username"), field("password")),
        Ok(())
    );
}
