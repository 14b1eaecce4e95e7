//! What a tenant may carry in a day, over two relays: who has used it up is held back on both of them, and nobody else is.

use std::net::{SocketAddr, UdpSocket};

use serde_json::Value;
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::fleet::{Fleet, Place, Ports, SOON, within};

const SECRET: &str = "north-by-northwest";
/// What the tenant may carry.
const BYTES: u64 = 100_000;

/// A client of `relay` that is known as `user`, and what its Allocate came to.
fn call(relay: SocketAddr, user: &str) -> (Caller, Result<(), ErrorCode>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut caller = Caller::udp(socket, relay, &Credential::synapse(SECRET, user));
    let allocated = caller.allocate(AllocateOptions::default()).map(drop);
    (caller, allocated)
}

/// What the tenant takes, as the operator is shown.
fn used(fleet: &Fleet) -> Value {
    fleet.order(&["tenants", "usage", "acme"])
}

#[test]
fn a_tenant_that_has_used_up_its_bytes_of_the_day_gets_no_allocation_on_any_relay() {
    let place = Place::new();
    let relays = ["--relays", "2", "--shared-secret", SECRET];
    let arguments = [&relays[..], &["--danger-allow-loopback-peers"]].concat();
    let fleet = place.start(Ports::free(), &arguments);
    let bytes = BYTES.to_string();
    fleet.order(&["tenants", "set", "acme", "--bytes-per-day", &bytes]);
    let peer = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // Until the relay knows of the tenant, its users are nobody's.
    within(SOON, "the tenant has carried something", || {
        let (mut caller, allocated) = call(fleet.relay(0), "acme/ann");
        assert_eq!(allocated, Ok(()));
        caller.bind(peer).unwrap();
        for _ in 0..BYTES / 1000 + 1 {
            caller.send(peer, &"x".repeat(1000));
        }
        caller.end().unwrap();
        used(&fleet)["bytes_per_day"]["used"] != 0
    });
    within(SOON, "its bytes are used up", || {
        let (mut caller, allocated) = call(fleet.relay(0), "acme/ann");
        if allocated.is_ok() {
            caller.bind(peer).unwrap();
            for _ in 0..100 {
                caller.send(peer, &"x".repeat(1000));
            }
            caller.end().unwrap();
        }
        used(&fleet)["bytes_per_day"]["exceeded"] == true
    });
    for relay in 0..2 {
        within(SOON, "the relay lets none of its users in", || {
            call(fleet.relay(relay), "acme/bob").1 == Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
        });
        assert_eq!(call(fleet.relay(relay), "alice").1, Ok(()));
    }
    let more = (BYTES * 1000).to_string();
    fleet.order(&["tenants", "set", "acme", "--bytes-per-day", &more]);
    within(SOON, "its users are let in again", || {
        (0..2).all(|relay| call(fleet.relay(relay), "acme/bob").1.is_ok())
    });
}
