//! What RFC 8489 says of servers that send clients elsewhere, one test for each statement.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use turnfleet_turn::alternates::{Alternate, Alternates};
use turnfleet_turn::policy::Limits;
use turnfleet_turn::wire::{
    AttributeType, Class, IntegrityKind, LongTermKey, MessageWriter, Method, PasswordAlgorithm,
};
use turnfleet_turn::{AddressFamily, OpenError, RedirectReason, Reject, RequestMethod, Transport};

use crate::support::{Answer, Caller, Net, OFFERED, PEER, REALM, Setup, addr};

const ALICE: &str = "192.0.2.1:5000";
const ALICE_V6: &str = "[2001:db8:1::1]:5000";
const OTHER_V4: &str = "203.0.113.50:3478";
const OTHER_V6: &str = "[2001:db8:5::50]:3478";
const NAME: &str = "b.turn.example.org";

/// Another relay by one transport, at these addresses.
fn alternate(transport: Transport, addresses: &[&str], domain: Option<&str>) -> Alternate {
    let mut made = Alternate {
        transport,
        v4: None,
        v6: None,
        domain: domain.map(Into::into),
    };
    for address in addresses {
        match addr(address) {
            SocketAddr::V4(address) => made.v4 = Some(address),
            SocketAddr::V6(address) => made.v6 = Some(address),
        }
    }
    made
}

fn set(net: &mut Net, servers: Vec<Alternate>) {
    let domain = Some("a.turn.example.org".into());
    let alternates = Alternates { domain, servers };
    net.server.set_alternates(Arc::new(alternates));
}

fn draining(servers: Vec<Alternate>) -> Net {
    let mut net = Net::new();
    set(&mut net, servers);
    net.server.set_draining(true);
    net
}

fn over_udp(address: &str) -> Vec<Alternate> {
    vec![alternate(Transport::Udp, &[address], None)]
}

#[track_caller]
fn servers(answer: &Answer) -> Vec<SocketAddr> {
    assert_eq!(answer.code(), 300);
    let servers = answer.message().alternate_servers();
    servers.map(Result::unwrap).collect()
}

#[track_caller]
fn redirects(net: &Net) -> [u64; 2] {
    RedirectReason::ALL.map(|reason| net.server.counters().redirects(reason))
}

/// An Allocate request as a client of RFC 8489 signs it.
#[track_caller]
fn allocate_by_sha256(net: &mut Net, caller: &mut Caller) -> Answer {
    let mut bytes = Vec::new();
    let id = caller.next_id();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::Allocate, id);
    writer
        .requested_transport(17)
        .username(&caller.username)
        .realm(REALM)
        .nonce(&caller.nonce)
        .password_algorithms(&OFFERED)
        .password_algorithm(PasswordAlgorithm::Sha256);
    writer.finish_signed_by(IntegrityKind::Sha256, &sha256_key(caller));
    caller.send(net, &bytes)
}

fn sha256_key(caller: &Caller) -> LongTermKey {
    LongTermKey::derive_with(
        PasswordAlgorithm::Sha256,
        &caller.username,
        REALM,
        &caller.password,
    )
}

// RFC 8489 §10
#[test]
fn a_draining_relay_sends_an_allocate_request_to_another_server() {
    let mut net = draining(over_udp(OTHER_V4));
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |_| {});
    assert_eq!(servers(&answer), [addr(OTHER_V4)]);
    assert_eq!(redirects(&net), [1, 0]);
    let counted = net.server.counters();
    assert_eq!(
        counted.rejects(RequestMethod::Allocate, Reject::TryAlternate),
        1
    );
    net.assert_idle();
}

// RFC 8489 §10
#[test]
fn the_answer_that_sends_a_client_elsewhere_has_the_integrity_that_the_request_chose() {
    let mut net = draining(over_udp(OTHER_V4));
    let mut caller = Caller::new(&mut net, ALICE);
    let plain = caller.allocate(&mut net, |_| {});
    assert_eq!(plain.code(), 300);
    assert!(plain.is_signed_for(&caller));
    assert!(!plain.has(AttributeType::MESSAGE_INTEGRITY_SHA256));

    let strong = allocate_by_sha256(&mut net, &mut caller);
    assert_eq!(strong.code(), 300);
    assert!(strong.message().verify_integrity(&sha256_key(&caller)));
    assert!(strong.has(AttributeType::MESSAGE_INTEGRITY_SHA256));
    assert!(!strong.has(AttributeType::MESSAGE_INTEGRITY));
}

// RFC 8489 §10
#[test]
fn nobody_is_sent_elsewhere_before_authentication() {
    let mut net = draining(over_udp(OTHER_V4));
    let mut caller = Caller::new(&mut net, ALICE);
    let unsigned = caller.unsigned(Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    let wrong = {
        caller.password = "wrong".into();
        caller.signed(Method::Allocate, |writer| {
            writer.requested_transport(17);
        })
    };
    for packet in [unsigned, wrong] {
        let answer = caller.send(&mut net, &packet);
        assert_eq!(answer.code(), 401);
        assert!(!answer.has(AttributeType::ALTERNATE_SERVER));
    }
}

// RFC 8489 §10
#[test]
fn the_other_server_has_an_address_of_the_clients_family() {
    let both = alternate(Transport::Udp, &[OTHER_V4, OTHER_V6], None);
    let mut net = draining(vec![both]);
    let mut old = Caller::new(&mut net, ALICE);
    let answer = old.allocate(&mut net, |_| {});
    assert_eq!(servers(&answer), [addr(OTHER_V4), addr(OTHER_V6)]);
    let mut recent = Caller::new(&mut net, ALICE_V6);
    let answer = recent.allocate(&mut net, |_| {});
    assert_eq!(servers(&answer), [addr(OTHER_V6), addr(OTHER_V4)]);

    set(&mut net, over_udp(OTHER_V6));
    assert_eq!(old.allocate(&mut net, |_| {}).code(), 508);
    assert_eq!(
        servers(&recent.allocate(&mut net, |_| {})),
        [addr(OTHER_V6)]
    );
}

// RFC 8489 §10
#[test]
fn the_other_server_takes_the_clients_transport() {
    let others = [
        (Transport::Udp, "203.0.113.50:1"),
        (Transport::Tcp, "203.0.113.50:2"),
    ];
    let made = others.map(|(transport, address)| alternate(transport, &[address], Some(NAME)));
    let mut net = draining(made.to_vec());
    for (transport, address) in others {
        let mut caller = Caller::of(&mut net, ALICE, transport, "alice");
        let answer = caller.allocate(&mut net, |_| {});
        assert_eq!(servers(&answer), [addr(address)]);
        assert!(!answer.has(AttributeType::ALTERNATE_DOMAIN));
    }
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
    assert_eq!(allocate_by_sha256(&mut net, &mut caller).code(), 508);
}

// RFC 8489 §10
#[test]
fn over_tls_a_client_that_uses_sha256_is_told_the_name_in_the_other_servers_certificate() {
    let mut net = draining(vec![alternate(Transport::Tls, &[OTHER_V4], Some(NAME))]);
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
    let answer = allocate_by_sha256(&mut net, &mut caller);
    assert_eq!(servers(&answer), [addr(OTHER_V4)]);
    assert_eq!(answer.message().alternate_domain(), Some(Ok(NAME)));

    set(&mut net, vec![alternate(Transport::Tls, &[OTHER_V4], None)]);
    assert_eq!(allocate_by_sha256(&mut net, &mut caller).code(), 508);
}

// RFC 8489 §10
#[test]
fn over_tls_a_client_that_uses_sha1_is_only_sent_where_the_same_name_is_in_the_certificate() {
    let mut net = draining(vec![alternate(Transport::Tls, &[OTHER_V4], Some(NAME))]);
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 508);
    let shared = Some("a.turn.example.org");
    set(
        &mut net,
        vec![alternate(Transport::Tls, &[OTHER_V4], shared)],
    );
    let answer = caller.allocate(&mut net, |_| {});
    assert_eq!(servers(&answer), [addr(OTHER_V4)]);
}

// RFC 8489 §10
#[test]
fn a_retransmission_is_sent_to_the_same_server_and_clients_spread_over_all() {
    let addresses: Vec<String> = (1..=4)
        .map(|host| format!("203.0.113.{host}:3478"))
        .collect();
    let others = addresses
        .iter()
        .map(|address| alternate(Transport::Udp, &[address], None));
    let mut net = draining(others.collect());
    let mut seen = BTreeMap::new();
    for port in 5000..5064 {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        let request = caller.signed(Method::Allocate, |writer| {
            writer.requested_transport(17);
        });
        let first = caller.send(&mut net, &request);
        assert_eq!(caller.send(&mut net, &request), first);
        *seen.entry(servers(&first)[0]).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), addresses.len());
    assert!(seen.values().all(|clients| *clients > 4), "{seen:?}");
}

// RFC 8489 §10
#[test]
fn what_lives_is_served_by_a_draining_relay() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let relayed = caller.allocated(&mut net);
    set(&mut net, over_udp(OTHER_V4));
    net.server.set_draining(true);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
    let delivered = net.peer_sends(PEER, relayed, b"hi");
    assert!(matches!(delivered, crate::support::Outcome::Delivered(..)));
    let mut another = Caller::new(&mut net, "192.0.2.1:5001");
    let unsigned = another.unsigned(Method::Binding, |_| {});
    assert_eq!(another.send(&mut net, &unsigned).code(), 200);
}

// RFC 8656 §7.2 (11)
#[test]
fn a_full_relay_sends_a_client_to_another_server_but_not_for_the_users_own_quota() {
    let mut net = Net::with(Setup {
        limits: Limits {
            allocations_per_user: 1,
            allocations: 2,
            ..Limits::default()
        },
        ..Setup::default()
    });
    set(&mut net, over_udp(OTHER_V4));
    Caller::new(&mut net, ALICE).allocated(&mut net);
    let mut again = Caller::new(&mut net, "192.0.2.1:5001");
    assert_eq!(again.allocate(&mut net, |_| {}).code(), 486);
    Caller::named(&mut net, "192.0.2.2:5000", "bob").allocated(&mut net);
    net.keys.set("carol", &["secret"]);
    let mut carol = Caller::named(&mut net, "192.0.2.3:5000", "carol");
    assert_eq!(servers(&carol.allocate(&mut net, |_| {})), [addr(OTHER_V4)]);
    assert_eq!(redirects(&net), [0, 1]);
}

// RFC 8656 §7.2 (11)
#[test]
fn a_relay_without_a_free_port_sends_a_client_to_another_server() {
    let mut net = Net::with(Setup {
        ports: (50_000, 50_000),
        ..Setup::default()
    });
    set(&mut net, over_udp(OTHER_V4));
    Caller::new(&mut net, ALICE).allocated(&mut net);
    let mut second = Caller::new(&mut net, "192.0.2.1:5001");
    assert_eq!(
        servers(&second.allocate(&mut net, |_| {})),
        [addr(OTHER_V4)]
    );
    assert_eq!((redirects(&net), net.usage().allocations), ([0, 1], 1));
}

// RFC 8656 §7.2 (11)
#[test]
fn a_relay_without_descriptors_sends_a_client_to_another_server() {
    let mut net = Net::new();
    set(&mut net, over_udp(OTHER_V4));
    net.open_errors.push_back(OpenError::Exhausted);
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |_| {});
    assert_eq!(servers(&answer), [addr(OTHER_V4)]);
    assert!(answer.is_signed_for(&caller));
    assert_eq!(redirects(&net), [0, 1]);
    net.assert_idle();
}

// RFC 8656 §7.2 (5), RFC 8489 §10
#[test]
fn a_reservation_is_looked_for_nowhere_else() {
    let mut net = draining(over_udp(OTHER_V4));
    let mut caller = Caller::new(&mut net, ALICE);
    for drains in [true, false] {
        net.server.set_draining(drains);
        let answer = caller.allocate(&mut net, |writer| {
            writer.reservation_token(turnfleet_turn::wire::ReservationToken([0; 8]));
        });
        assert_eq!(answer.code(), 508);
    }
}

// RFC 8656 §7.2 (11)
#[test]
fn what_is_wrong_with_a_request_is_said_before_it_is_sent_elsewhere() {
    let mut net = draining(over_udp(OTHER_V4));
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer
            .requested_address_family(AddressFamily::V4)
            .additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 400);
    let answer = caller.request(&mut net, Method::Allocate, |writer| {
        writer.requested_transport(6);
    });
    assert_eq!(answer.code(), 442);
}
