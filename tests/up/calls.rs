//! Calls that go on while a relay that they do not use dies and comes back.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::fleet::{Fleet, Place, Ports, SOON, exit, lives, signal, within};

const SECRET: &str = "north-by-northwest";
/// Between two packets of a call.
const PACE: Duration = Duration::from_millis(5);
/// Words of a call, at least.
const WORDS: u64 = 200;

/// A client of `relay` and what its Allocate came to: its relayed transport address, or why there is none.
#[track_caller]
fn try_allocate(relay: SocketAddr) -> (Caller, Result<SocketAddr, ErrorCode>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let credential = Credential::synapse(SECRET, "@alice:example.org");
    let mut caller = Caller::udp(socket, relay, &credential);
    let allocated = caller.allocate(AllocateOptions::default());
    (caller, allocated.map(|allocated| allocated.relayed))
}

#[track_caller]
fn allocate(relay: SocketAddr) -> (Caller, SocketAddr) {
    let (caller, relayed) = try_allocate(relay);
    (caller, relayed.unwrap())
}

/// Two clients and their relays, one of them sending in channels and the other in indications.
struct Call {
    channel: Caller,
    indications: Caller,
    /// The relayed transport address of `channel`, then that of `indications`.
    relayed: [SocketAddr; 2],
}

impl Call {
    #[track_caller]
    fn between(fleet: &Fleet, relays: [usize; 2]) -> Self {
        let [(mut channel, here), (mut indications, there)] =
            relays.map(|relay| allocate(fleet.relay(relay)));
        channel.bind(there).unwrap();
        indications.permit(here).unwrap();
        Self {
            channel,
            indications,
            relayed: [here, there],
        }
    }

    /// Sends numbered words to and fro until `over`, some at least. Every one arrives, in order, in either direction.
    fn hold(mut self, over: &AtomicBool) {
        let [here, there] = self.relayed;
        let mut number = 0;
        while number < WORDS || !over.load(Ordering::Relaxed) {
            let words = format!("word {number}");
            self.channel.send(there, &words);
            assert_eq!(self.indications.hear(), (here, words.clone()));
            self.indications.send(here, &words);
            assert_eq!(self.channel.hear(), (there, words));
            number += 1;
            std::thread::park_timeout(PACE);
        }
    }
}

#[test]
fn a_killed_relay_leaves_the_lists_disturbs_no_other_call_and_comes_back_with_its_ports() {
    let place = Place::new();
    let ports = Ports::free();
    let arguments = ["--relays", "3", "--spawn", "--shared-secret", SECRET];
    let fleet = place.start(ports, &arguments);
    let victim = ports.0 + 2;
    let granted = fleet.text("/relays/1/relay_ports").to_owned();
    within(SOON, "lists name the relay", || {
        fleet.listed_ports().contains(&victim)
    });
    let _lost = allocate(fleet.relay(1));
    let calls = [[0, 0], [0, 2], [2, 2]].map(|relays| Call::between(&fleet, relays));

    let over = AtomicBool::new(false);
    let mut relay = std::thread::scope(|scope| {
        for call in calls {
            scope.spawn(|| call.hold(&over));
        }
        // However this ends, the calls do too.
        let _end = End(&over);
        signal("KILL", fleet.pid(1));
        let gone = within(SOON, "lists forget the relay", || {
            !fleet.listed_ports().contains(&victim)
        });
        assert!(fleet.listed_ports().contains(&ports.0), "after {gone:?}");
        let relay = place.relay(1);
        within(SOON, "lists name the relay again", || {
            fleet.listed_ports().contains(&victim)
        });
        relay
    });

    let nodes = fleet.api("/v1/nodes");
    let ports = &nodes["nodes"][1]["ports"][0];
    assert_eq!(format!("{}-{}", ports["first"], ports["last"]), granted);
    let (_caller, relayed) = allocate(fleet.relay(1));
    let first = ports["first"].as_u64().unwrap();
    let last = ports["last"].as_u64().unwrap();
    assert!((first..=last).contains(&relayed.port().into()), "{relayed}");

    // A live allocation keeps the relay up; asked twice, it ends at once.
    signal("TERM", relay.0.id().into());
    within(SOON, "the relay sends clients elsewhere", || {
        try_allocate(fleet.relay(1)).1 == Err(ErrorCode::TRY_ALTERNATE)
    });
    assert!(lives(relay.0.id().into()));
    signal("TERM", relay.0.id().into());
    assert_eq!(exit(&mut relay.0).code(), Some(0), "{}", place.said());
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
