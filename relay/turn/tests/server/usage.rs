//! What a server tallies of those who use it: to the byte, once, and whatever ends first.

use turnfleet_turn::policy::Limits;
use turnfleet_turn::usage::{Network, Tally, TenantTally, User};
use turnfleet_turn::wire::Method;
use turnfleet_turn::{AddressFamily, DropReason, TenantId, Transport};

use crate::support::tcp;
use crate::support::{
    ALICE, BOB, Caller, Net, Outcome, PEER, PEER6, PROBE_NAME, addr, allocated, dual, limited,
};

/// Everything since the last call.
fn tallied(net: &mut Net) -> Tally {
    while !net.server.sweep_usage(1) {}
    net.server.take_usage()
}

fn default_tenant(tally: &Tally) -> TenantTally {
    tally
        .tenants
        .get(&TenantId::DEFAULT)
        .copied()
        .unwrap_or_default()
}

fn alice() -> User {
    User {
        tenant: TenantId::DEFAULT,
        name: "alice".into(),
    }
}

#[test]
fn what_went_over_an_allocation_is_tallied_once() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    let _ = tallied(&mut net);
    caller.send_indication(&mut net, PEER, &[7; 100]);
    net.peer_sends(PEER, relayed, &[7; 30]);
    net.peer_sends(PEER, relayed, &[7; 30]);
    let tally = tallied(&mut net);
    let leg = default_tenant(&tally).traffic[Transport::Udp as usize][AddressFamily::V4 as usize];
    assert_eq!((leg.to_peers.packets, leg.to_peers.bytes), (1, 100));
    assert_eq!((leg.to_clients.packets, leg.to_clients.bytes), (2, 60));
    assert_eq!(tally.users[&alice()].bytes.sum(), 160);
    assert_eq!(tally.sources[&Network::of(addr(ALICE).ip())].sum(), 160);
    assert_eq!(tally.peers[&Network::of(addr(PEER).ip())].sum(), 160);
    assert!(tallied(&mut net).is_empty());
}

#[test]
fn what_ends_before_the_sweep_is_tallied_by_its_end() {
    let (mut net, mut caller, relayed) = dual();
    caller.permit(&mut net, &[PEER, PEER6]);
    let opened = default_tenant(&tallied(&mut net));
    assert_eq!((opened.opened, opened.closed), (1, 0));
    net.peer_sends(PEER, relayed[0], &[7; 30]);
    net.peer_sends(PEER6, relayed[1], &[7; 50]);
    caller.refresh(&mut net, Some(0));
    let tally = net.server.take_usage();
    assert_eq!(default_tenant(&tally).closed, 1);
    assert_eq!(tally.users[&alice()].bytes.to_clients, 80);
    assert_eq!(tally.peers[&Network::of(addr(PEER6).ip())].to_clients, 50);
    assert!(tallied(&mut net).is_empty());
}

#[test]
fn a_sweep_looks_at_so_many_places_and_comes_round() {
    let mut net = Net::new();
    let mut callers: Vec<_> = (0..5)
        .map(|n| Caller::new(&mut net, &format!("192.0.2.{}:5000", n + 10)))
        .collect();
    for caller in &mut callers {
        caller.allocated(&mut net);
        caller.permit(&mut net, &[PEER]);
        caller.send_indication(&mut net, PEER, &[7; 10]);
    }
    let _ = net.server.take_usage();
    assert!(!net.server.sweep_usage(2));
    assert_eq!(net.server.usage().users[&alice()].bytes.sum(), 20);
    assert!(!net.server.sweep_usage(2));
    assert!(net.server.sweep_usage(2));
    assert_eq!(net.server.take_usage().users[&alice()].bytes.sum(), 50);
}

#[test]
fn what_a_controllers_probe_does_is_in_no_tally() {
    let mut net = Net::new();
    net.keys.set(PROBE_NAME, &["secret"]);
    let mut probe = Caller::named(&mut net, BOB, PROBE_NAME);
    let relayed = probe.allocated(&mut net);
    probe.permit(&mut net, &[PEER]);
    probe.send_indication(&mut net, PEER, &[7; 100]);
    net.peer_sends(PEER, relayed, &[7; 30]);
    probe.refresh(&mut net, Some(0));
    let tally = tallied(&mut net);
    assert!(tally.tenants.is_empty() && tally.users.is_empty());
    assert!(tally.sources.is_empty() && tally.peers.is_empty());
}

// RFC 6062
#[test]
fn bytes_of_tcp_connections_are_their_peers_whether_they_live_or_not() {
    let (mut net, mut caller, _) = tcp::allocated();
    let id = tcp::connected(&mut net, &mut caller);
    let mut data = tcp::caller(&mut net, tcp::ALICE_DATA);
    tcp::spliced(&mut net, &mut data, id);
    let network = Network::of(addr(tcp::PEER).ip());
    net.server.handle_spliced_data(net.now, id, 300, 7);
    assert_eq!(tallied(&mut net).peers[&network].sum(), 307);
    net.server.handle_spliced_data(net.now, id, 0, 5);
    net.server.handle_connection_closed(id);
    let tally = tallied(&mut net);
    assert_eq!(tally.peers[&network].to_clients, 5);
    assert_eq!(tally.users[&alice()].bytes.to_clients, 5);
}

#[test]
fn who_spreads_over_addresses_peers_and_ports_shows() {
    let mut net = Net::new();
    for n in 0..7 {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.{}:5000", n + 10));
        caller.allocated(&mut net);
    }
    let mut caller = Caller::new(&mut net, ALICE);
    caller.allocated(&mut net);
    for port in 0..30 {
        caller.bind(
            &mut net,
            0x4000 + port,
            &format!("203.0.113.9:{}", 100 + port),
        );
    }
    let tally = tallied(&mut net);
    let behaviour = tally.users[&alice()].behaviour.as_deref().unwrap();
    assert!(behaviour.addresses.estimate().abs_diff(8) <= 1);
    assert_eq!(behaviour.peers.estimate(), 1);
    assert!(behaviour.endpoints.estimate().abs_diff(30) <= 3);
    assert_eq!(behaviour.permissions, 1);
}

#[test]
fn challenges_that_lead_to_nothing_and_wrong_passwords_are_their_sources() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    caller.password = "wrong".into();
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 401);
    let network = Network::of(addr(ALICE).ip());
    let strangers = tallied(&mut net).strangers[&network];
    assert_eq!((strangers.failures, strangers.challenges), (1, 1));
    assert_eq!(strangers.authentic, 1);
    caller.password = "secret".into();
    caller.allocated(&mut net);
    assert_eq!(tallied(&mut net).strangers[&network].authentic, 1);
}

#[test]
fn a_flood_counts_for_its_source_whether_it_is_answered_or_not() {
    for method in [Method::Allocate, Method::Binding] {
        let mut net = Net::new();
        let forger = &mut Caller::new(&mut net, ALICE);
        let _ = tallied(&mut net);
        let held_back = |net: &mut Net, forger: &mut Caller| {
            let packet = forger.unsigned(method, |_| {});
            net.client_sends(forger.five_tuple, &packet)
                == Outcome::Dropped(DropReason::ReflectionBudget)
        };
        let sent = (0..5000).filter(|_| held_back(&mut net, forger)).count();
        assert!(sent > 3000, "{sent}");
        let network = Network::of(addr(ALICE).ip());
        let challenges = tallied(&mut net).strangers[&network].challenges;
        assert!(challenges >= 4000, "{challenges}");
    }
}

#[test]
fn networks_allocations_and_refused_peers_are_the_users() {
    let mut net = Net::new();
    for client in ["192.0.2.10:5000", "192.0.2.11:5000", "198.51.100.7:5000"] {
        let mut caller = Caller::new(&mut net, client);
        caller.allocated(&mut net);
        assert_eq!(caller.permit(&mut net, &["127.0.0.1:1"]).code(), 403);
        assert_eq!(caller.bind(&mut net, 0x4000, "127.0.0.1:1").code(), 403);
    }
    let tally = tallied(&mut net);
    let behaviour = tally.users[&alice()].behaviour.as_deref().unwrap();
    assert_eq!(behaviour.networks.estimate(), 2);
    assert_eq!((behaviour.opened, behaviour.denied), (3, 6));
    assert_eq!(behaviour.permissions, 0);
}

#[test]
fn users_at_their_own_limit_are_counted_by_network() {
    let mut net = Net::with(limited(Limits {
        allocations_per_user: 1,
        ..Limits::default()
    }));
    Caller::new(&mut net, "192.0.2.1:1").allocated(&mut net);
    for port in 2..6 {
        let mut next = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        assert_eq!(next.allocate(&mut net, |_| {}).code(), 486);
    }
    let limited = tallied(&mut net).limited;
    let here = &limited[&Network::of(addr("192.0.2.1:1").ip())];
    assert_eq!((here.users.estimate(), here.times), (1, 4));
}

#[test]
fn who_sends_to_many_ports_of_a_peer_shows_and_who_calls_does_not() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &["203.0.113.9:0"]);
    let _ = tallied(&mut net);
    for _ in 0..1000 {
        caller.send_indication(&mut net, "203.0.113.9:5000", &[7; 100]);
        caller.send_indication(&mut net, "203.0.113.9:5001", &[7; 100]);
    }
    let behaviour = |tally: &Tally| tally.users[&alice()].behaviour.clone();
    assert_eq!(behaviour(&tallied(&mut net)), None);
    for port in 1..1025 {
        caller.send_indication(&mut net, &format!("203.0.113.9:{port}"), &[7; 10]);
    }
    let scan = behaviour(&tallied(&mut net)).unwrap();
    assert!(
        scan.endpoints.estimate() >= 58,
        "{}",
        scan.endpoints.estimate()
    );
}

#[test]
fn nobody_fails_in_the_name_of_another_address() {
    let mut net = Net::new();
    let mut forger = Caller::new(&mut net, ALICE);
    let _ = tallied(&mut net);
    forger.password = "wrong".into();
    forger.five_tuple.client = addr("198.51.100.77:5000");
    for _ in 0..10 {
        assert_eq!(forger.allocate(&mut net, |_| {}).code(), 401);
    }
    let victim = tallied(&mut net).strangers[&Network::of(forger.five_tuple.client.ip())];
    assert_eq!((victim.failures, victim.challenges), (0, 10));
}
