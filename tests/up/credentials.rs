//! Which credentials open an allocation on a relay of a running fleet.

use std::net::{SocketAddr, TcpStream, UdpSocket};

use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential, unix_now};
use crate::fleet::{Place, Ports};

const REFUSED: Result<(), ErrorCode> = Err(ErrorCode::UNAUTHENTICATED);

/// An allocation by UDP, which lives as long as the value.
#[track_caller]
fn open(relay: SocketAddr, credential: &Credential) -> Result<Caller, ErrorCode> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut caller = Caller::udp(socket, relay, credential);
    caller.allocate(AllocateOptions::default()).map(|_| caller)
}

/// What a relay answers to an Allocate with this credential, by UDP and TCP.
#[track_caller]
fn allocate(relay: SocketAddr, credential: &Credential) -> Result<(), ErrorCode> {
    let by_datagrams = open(relay, credential).map(drop);
    let stream = TcpStream::connect(relay).unwrap();
    let mut caller = Caller::tcp(stream, credential);
    let by_stream = caller.allocate(AllocateOptions::default()).map(drop);
    assert_eq!(by_datagrams, by_stream);
    by_stream
}

fn given(username: &str, password: &str) -> Credential {
    Credential {
        username: username.to_owned(),
        password: password.to_owned(),
    }
}

#[test]
fn ephemeral_credentials_of_every_form_and_static_users_open_allocations() {
    let place = Place::new();
    let fleet = place.start(
        Ports::free(),
        &["--shared-secret", "north", "--user", "ann:pass:word"],
    );
    let now = unix_now();
    let sign = |username: &str| Credential::sign("north", username);
    let synapse = Credential::synapse("north", "@alice:example.org");
    let jitsi = sign(&(now + 600).to_string());
    for relay in [fleet.relay(0), fleet.relay(1)] {
        for (what, credential, expected) in [
            ("as Synapse makes it", synapse.clone(), Ok(())),
            ("as Jitsi makes it", jitsi.clone(), Ok(())),
            ("a static user", given("ann", "pass:word"), Ok(())),
            (
                "another secret",
                Credential::synapse("south", "@alice:example.org"),
                REFUSED,
            ),
            (
                "the password without its padding",
                given(&synapse.username, synapse.password.trim_end_matches('=')),
                REFUSED,
            ),
            (
                "another user's password",
                given(&synapse.username, &jitsi.password),
                REFUSED,
            ),
            ("ended", sign(&format!("{}:@a:b.org", now - 60)), REFUSED),
            ("ended, bare", sign(&(now - 60).to_string()), REFUSED),
            ("a wrong password", given("ann", "guess"), REFUSED),
            ("an unknown user", given("bob", "pass:word"), REFUSED),
        ] {
            assert_eq!(allocate(relay, &credential), expected, "{what}");
        }
    }
}

#[test]
fn the_limit_per_user_counts_what_follows_the_first_colon() {
    let place = Place::new();
    let limit = "controller.limits.allocations_per_user=2";
    let arguments = ["--relays", "1", "--shared-secret", "north", "--set", limit];
    let fleet = place.start(Ports::free(), &arguments);
    let relay = fleet.relay(0);
    let later = unix_now() + 600;
    let mut held = Vec::new();
    let mut opens = |username: String| {
        let caller = open(relay, &Credential::sign("north", &username));
        caller.map(|caller| held.push(caller))
    };
    let full = Err(ErrorCode::ALLOCATION_QUOTA_REACHED);

    // The same user, whenever the credential was made.
    assert_eq!(opens(format!("{later}:@alice:example.org")), Ok(()));
    assert_eq!(opens(format!("{}:@alice:example.org", later + 1)), Ok(()));
    assert_eq!(opens(format!("{}:@alice:example.org", later + 2)), full);
    // Others, who share the beginning or the end of the name.
    assert_eq!(opens(format!("{later}:@alice:example.com")), Ok(()));
    assert_eq!(opens(format!("{later}:@bob:example.org")), Ok(()));
    assert_eq!(opens(format!("{later}:@alice")), Ok(()));
    // A bare timestamp is nobody's.
    for _ in 0..4 {
        assert_eq!(opens(later.to_string()), Ok(()));
    }
}

#[test]
fn credentials_of_the_api_open_allocations() {
    let place = Place::new();
    let fleet = place.start(Ports::free(), &["--relays", "1"]);
    let answer = fleet.api("/turn?service=turn&username=carol");
    let field = |name: &str| answer[name].as_str().unwrap();
    let credential = given(field("username"), field("password"));
    assert_eq!(allocate(fleet.relay(0), &credential), Ok(()));
}
