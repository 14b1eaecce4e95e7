//! Nonces of one relay that are shown to another one, or to its successor, while the keys that sign them change.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::clocks::ShownClock;
use crate::figures;
use crate::fleet::{CLIENT, Fleet, SECRET, Special, caller, with_special_fleet};
use crate::process::SOON;
use crate::tools::eventually;

/// Passes datagrams of one client on to one of several relays, from one address, as a balancer of the fourth layer does.
struct Balancer {
    front: UdpSocket,
    back: UdpSocket,
    relays: Vec<SocketAddr>,
    chosen: AtomicUsize,
    over: AtomicBool,
}

impl Balancer {
    fn new(fleet: &Fleet<'_>) -> Self {
        let socket = || {
            let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
            let look = Some(Duration::from_millis(2));
            socket.set_read_timeout(look).unwrap();
            socket
        };
        Self {
            front: socket(),
            back: socket(),
            relays: fleet.relays.iter().map(|relay| relay.server).collect(),
            chosen: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn run(&self) {
        let (mut client, mut buffer) = (None, [0; 2048]);
        while !self.over.load(Ordering::Relaxed) {
            if let Ok((len, from)) = self.front.recv_from(&mut buffer) {
                client = Some(from);
                let relay = self.relays[self.chosen.load(Ordering::Relaxed)];
                self.back.send_to(&buffer[..len], relay).unwrap();
            }
            if let (Ok((len, _)), Some(client)) = (self.back.recv_from(&mut buffer), client) {
                self.front.send_to(&buffer[..len], client).unwrap();
            }
        }
    }
}

/// Refusals of stale nonces by all relays but probes of controllers, who show none.
fn stale(fleet: &Fleet<'_>) -> f64 {
    let refused = "turnfleet_relay_requests_refused_total";
    let count = |relay: &crate::fleet::Relay| relay.metrics.metric(refused, "code=\"438\"");
    fleet.relays.iter().filter_map(count).sum()
}

/// Nonce keys that the store holds.
fn keys(fleet: &Fleet<'_>) -> usize {
    let prefix = "/tf/v1/noncekeys/";
    let keys = fleet.etcd.ctl(&["get", "--prefix", prefix, "--keys-only"]);
    keys.lines().filter(|line| line.starts_with(prefix)).count()
}

/// Shows one relay's nonce to another one and so on, with a client that has none yet: how often somebody was asked.
fn show_around(fleet: &Fleet<'_>, balancer: &Balancer, first: usize) -> usize {
    const SHOWN_TO: usize = 3;
    let credential = Credential::synapse(SECRET, "@bob:example.org");
    let mut client = caller(balancer.front.local_addr().unwrap(), &credential);
    for step in 0..SHOWN_TO {
        // The first relay has an allocation of somebody else by this balancer.
        let relay = 1 + (first + step) % (fleet.relays.len() - 1);
        balancer.chosen.store(relay, Ordering::Relaxed);
        assert_eq!(client.refresh(), Err(ErrorCode::ALLOCATION_MISMATCH));
    }
    SHOWN_TO
}

#[test]
fn r11_a_nonce_is_good_at_every_relay_while_keys_change_and_at_the_successor_of_a_killed_one() {
    const RESTARTED: usize = 0;
    /// A key follows another one after a day.
    const A_DAY_LATER: &str = "+90000";
    let Some(clock) = ShownClock::new() else {
        return;
    };
    let environment = clock.environment();
    let special = Special {
        controllers: &environment,
        ..Special::default()
    };
    with_special_fleet(&special, |fleet| {
        let balancer = Balancer::new(fleet);
        let credential = Credential::synapse(SECRET, "@alice:example.org");
        std::thread::scope(|scope| {
            scope.spawn(|| balancer.run());
            let _end = End(&balancer.over);
            let mut client = caller(balancer.front.local_addr().unwrap(), &credential);
            client.allocate(Default::default()).unwrap();
            let before = stale(fleet);
            let mut asked = 0;
            // The other relays know nothing of the allocation, and that is all they find wrong.
            let others = 1..fleet.relays.len();
            let everywhere = |client: &mut Caller| {
                for relay in others.clone() {
                    balancer.chosen.store(relay, Ordering::Relaxed);
                    assert_eq!(client.refresh(), Err(ErrorCode::ALLOCATION_MISMATCH));
                }
                others.len()
            };
            asked += everywhere(&mut client);

            let generation = eventually("the policy is settled", SOON, || fleet.settled());
            let had = keys(fleet);
            clock.set(A_DAY_LATER);
            // The next key verifies everywhere, and then it signs: two changes.
            eventually("another key signs", SOON, || {
                asked += show_around(fleet, &balancer, asked);
                let changed = fleet.settled()? >= generation + 2;
                (changed && keys(fleet) > had).then_some(())
            });
            asked += show_around(fleet, &balancer, asked);
            // The nonce that the key before has signed.
            asked += everywhere(&mut client);

            fleet.relays[RESTARTED].process.kill();
            fleet.relays[RESTARTED].process.restart();
            balancer.chosen.store(RESTARTED, Ordering::Relaxed);
            eventually("the successor answers", SOON, || {
                let ready = fleet.relays[RESTARTED].metrics.get("/readyz");
                ready.is_ok_and(|(status, _)| status == 200).then_some(())
            });
            assert_eq!(client.refresh(), Err(ErrorCode::ALLOCATION_MISMATCH));
            asked += 1;
            let refused = stale(fleet) - before;
            figures::print(
                "R11",
                json!({ "asked": asked, "nonce_keys": keys(fleet), "stale_nonces": refused }),
            );
            assert!(
                refused.abs() < 0.5,
                "{refused} of {asked} nonces were refused"
            );
        });
    });
}

/// Ends the balancer when it is dropped.
struct End<'o>(&'o AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
