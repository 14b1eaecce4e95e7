//! Traffic of known size: what the controllers tell of it is exact, whichever of them dies, and whatever relay is killed.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;

use crate::client::Caller;
use crate::figures::{self, assert_time, millis};
use crate::fleet::{CLIENT, CONTROLLERS, Fleet, RELAYS, with_fleet};
use crate::process::SOON;
use crate::tools::eventually;

const USERS: usize = 50;
/// Bytes of one datagram.
const SIZE: usize = 1000;

/// Whose users there are; the first is the default tenant.
const TENANTS: [&str; 3] = ["default", "north", "south"];

/// A user with an allocation.
struct User {
    caller: Caller,
    tenant: usize,
    sent: u64,
}

impl User {
    fn new(fleet: &Fleet<'_>, number: usize, peer: SocketAddr) -> Self {
        let relay = &fleet.relays[number % RELAYS];
        let tenant = number % TENANTS.len();
        let prefix = ["", "north/", "south/"][tenant];
        let mut caller = relay.caller(&format!("{prefix}@user{number}:example.org"));
        caller.allocate(AllocateOptions::default()).unwrap();
        caller.bind(peer).unwrap();
        Self {
            caller,
            tenant,
            sent: 0,
        }
    }

    /// Sends so many datagrams to the peer, each of which has to arrive.
    fn send(&mut self, peer: &UdpSocket, count: u64) {
        let to = peer.local_addr().unwrap();
        let text = "x".repeat(SIZE);
        let mut buffer = [0; 2 * SIZE];
        for _ in 0..count {
            self.caller.send(to, &text);
            let (len, _) = peer.recv_from(&mut buffer).expect("it is relayed");
            assert_eq!(len, SIZE);
        }
        self.sent += count;
    }
}

/// Packets and bytes to peers: of each tenant, and of the whole fleet.
type Sums = [(u64, u64); 4];

/// The sums as one controller tells them.
fn told(fleet: &Fleet<'_>, controller: usize) -> Sums {
    let api = &fleet.controllers[controller].api;
    let ask = |by| api.ask(&format!("/v1/usage?by={by}")).unwrap_or_default();
    let (by_tenant, whole) = (ask("tenant"), ask("fleet"));
    let read = |sum: &Value| {
        let number = |name: &str| sum[name].as_u64().unwrap_or(0);
        (number("packets_to_peers"), number("bytes_to_peers"))
    };
    let of = |tenant: &str| {
        let mut sums = by_tenant["sums"].as_array().into_iter().flatten();
        let sum = sums.find(|sum| sum["tenant"] == tenant);
        sum.map(read).unwrap_or_default()
    };
    let [default, north, south] = TENANTS.map(of);
    [default, north, south, read(&whole["sums"][0])]
}

/// The sums as they were sent.
fn sent(users: &[User]) -> Sums {
    let mut sums = Sums::default();
    for user in users {
        for sum in [user.tenant, TENANTS.len()] {
            sums[sum].0 += user.sent;
            sums[sum].1 += user.sent * SIZE as u64;
        }
    }
    sums
}

fn wait_for_sums(fleet: &Fleet<'_>, which: &[usize], users: &[User]) -> Duration {
    let begun = Instant::now();
    let wanted = sent(users);
    eventually("the sums are exact", SOON, || {
        let told: Vec<_> = which.iter().map(|it| told(fleet, *it)).collect();
        let is_too_much = |sums: &Sums| sums.iter().zip(&wanted).any(|(it, most)| it > most);
        assert!(!told.iter().any(is_too_much), "{told:?} {wanted:?}");
        told.iter().all(|it| *it == wanted).then_some(())
    });
    begun.elapsed()
}

#[test]
fn u01_sums_are_exact_whoever_dies_and_the_largest_user_is_seen_in_time() {
    const SEEN: Duration = Duration::from_secs(15);
    with_fleet(|fleet| {
        let peer = UdpSocket::bind((CLIENT, 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let at = peer.local_addr().unwrap();
        for tenant in &TENANTS[1..] {
            fleet.set_tenant(tenant, &json!({}));
        }
        let mut users: Vec<_> = (0..USERS).map(|it| User::new(fleet, it, at)).collect();
        for user in &mut users {
            user.send(&peer, 20);
        }
        let all: Vec<_> = (0..CONTROLLERS).collect();
        let exact = wait_for_sums(fleet, &all, &users);

        // One user has more than all the others.
        users[7].send(&peer, 5000);
        let begun = Instant::now();
        let seen = eventually("the largest user is the first", SOON, || {
            let first = |it: &usize| {
                let api = &fleet.controllers[*it].api;
                let top = api.ask("/v1/usage/top?limit=3").unwrap_or_default();
                top["talkers"][0]["user"] == "@user7:example.org"
                    && top["talkers"][0]["tenant"] == "north"
            };
            all.iter().all(first).then(|| begun.elapsed())
        });

        // The leader dies while there is traffic; the others tell the whole of it.
        let leader = fleet.leader();
        users[3].send(&peer, 100);
        fleet.controllers[leader].process.kill();
        for user in &mut users {
            user.send(&peer, 10);
        }
        let others: Vec<_> = all.iter().copied().filter(|it| *it != leader).collect();
        let after_leader = wait_for_sums(fleet, &others, &users);

        // A relay is killed, and goes on counting where it was.
        fleet.relays[2].process.kill();
        fleet.relays[2].process.restart();
        let mut again = eventually("the relay serves again", SOON, || {
            let mut caller = fleet.relays[2].caller("@late:example.org");
            caller.try_allocate(Duration::from_millis(200))?.ok()?;
            Some(caller)
        });
        again.bind(at).unwrap();
        let mut late = User {
            caller: again,
            tenant: 0,
            sent: 0,
        };
        late.send(&peer, 50);
        users.push(late);
        let after_relay = wait_for_sums(fleet, &others, &users);

        fleet.controllers[leader].process.restart();
        let after_return = wait_for_sums(fleet, &[leader], &users);
        figures::print(
            "U1",
            json!({
                "users": USERS,
                "tenants": TENANTS.len(),
                "packets": sent(&users)[3].0,
                "bytes": sent(&users)[3].1,
                "exact_ms": millis(exact),
                "largest_user_ms": millis(seen),
                "largest_user_promised_ms": millis(SEEN),
                "exact_after_leader_ms": millis(after_leader),
                "exact_after_relay_ms": millis(after_relay),
                "exact_at_the_returned_ms": millis(after_return),
            }),
        );
        assert_time("the largest user is seen", seen, SEEN);
    });
}
