//! What holds for the users of one tenant and no others.

use turnfleet_turn::peer_filter::PeerOverlay;
use turnfleet_turn::policy::{Policy, TcpRelaying};
use turnfleet_turn::wire::{AttributeType, ConnectionId, Method};
use turnfleet_turn::{DropReason, TenantId, TenantPolicy, Tenants, Transport};

use crate::support::tcp;
use crate::support::{
    ACME, ACME_NAME, ACME_REALM, ALICE, ALICE_AGAIN, BOB, Caller, Net, Outcome, PEER, REALM, addr,
    v4_only,
};

const PRIVATE: &str = "10.0.0.9:9";

fn acme(policy: &mut Policy, own: TenantPolicy) {
    policy.tenants = Tenants::from_iter([(ACME, own)]);
}

/// A relay that knows `acme/alice`, and her.
fn hers(net: &mut Net, client: &str) -> Caller {
    net.keys.set("acme/alice", &["secret"]);
    Caller::named(net, client, "acme/alice")
}

#[test]
fn a_client_that_asks_for_a_tenants_server_is_challenged_with_its_realm() {
    let mut net = Net::new();
    for (name, realm) in [
        (None, REALM),
        (Some(ACME_NAME), ACME_REALM),
        (Some("turn.example"), REALM),
    ] {
        net.server_name = name;
        let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
        assert_eq!(caller.realm, realm);
        caller.allocated(&mut net);
        assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
        // What is stale is renewed in the same realm.
        caller.nonce.reverse();
        let answer = caller.allocate(&mut net, |_| {});
        assert_eq!(answer.code(), 438);
        assert_eq!(answer.message().realm(), Some(Ok(realm)));
    }
}

#[test]
fn credentials_of_the_fleets_realm_are_nobodys_at_a_tenants_server_with_its_own() {
    let mut net = Net::new();
    net.server_name = Some(ACME_NAME);
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
    caller.realm = REALM.into();
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 401);
}

#[test]
fn the_limit_per_user_is_the_tenants_own_and_counts_its_users_apart() {
    let mut net = Net::with(v4_only());
    net.policy.limits.allocations_per_user = 2;
    net.change_policy(|policy| {
        acme(
            policy,
            TenantPolicy {
                allocations_per_user: Some(1),
                ..TenantPolicy::default()
            },
        );
    });
    hers(&mut net, "192.0.2.1:1").allocated(&mut net);
    let mut second = hers(&mut net, "192.0.2.1:2");
    assert_eq!(second.allocate(&mut net, |_| {}).code(), 486);
    for port in 3..5 {
        Caller::new(&mut net, &format!("192.0.2.1:{port}")).allocated(&mut net);
    }
    let mut fifth = Caller::new(&mut net, "192.0.2.1:5");
    assert_eq!(fifth.allocate(&mut net, |_| {}).code(), 486);
    let counted = net.ledger.allocations_by_tenant();
    assert_eq!(counted, [(TenantId::DEFAULT, 2), (ACME, 1)]);
}

#[test]
fn a_tenant_without_a_limit_of_its_own_has_the_fleets() {
    let mut net = Net::with(v4_only());
    net.policy.limits.allocations_per_user = 1;
    net.change_policy(|policy| acme(policy, TenantPolicy::default()));
    hers(&mut net, ALICE).allocated(&mut net);
    let mut second = hers(&mut net, ALICE_AGAIN);
    assert_eq!(second.allocate(&mut net, |_| {}).code(), 486);
}

#[test]
fn tcp_is_relayed_for_the_tenants_that_may() {
    for (fleet, own) in [
        (TcpRelaying::Off, TcpRelaying::On),
        (TcpRelaying::On, TcpRelaying::Off),
    ] {
        let mut net = tcp::net_with(fleet);
        net.change_policy(|policy| {
            acme(
                policy,
                TenantPolicy {
                    tcp_relaying: own,
                    ..TenantPolicy::default()
                },
            );
        });
        net.keys.set("acme/alice", &["secret"]);
        for (client, username, rule) in [(ALICE, "acme/alice", own), (BOB, "bob", fleet)] {
            let mut caller = Caller::of(&mut net, client, Transport::Tcp, username);
            let expected = if rule == TcpRelaying::On { 200 } else { 442 };
            let code = tcp::allocate(&mut net, &mut caller).code();
            assert_eq!(code, expected, "{username}");
        }
    }
}

#[test]
fn a_tenants_rules_about_peers_go_before_the_operators_for_its_users_alone() {
    let mut net = Net::new();
    let block = |text: &str| text.parse().unwrap();
    net.change_policy(|policy| {
        let peers = PeerOverlay::new(
            &[block("10.0.0.0/8"), block("127.0.0.0/8")],
            &[block("203.0.113.0/24")],
        );
        acme(
            policy,
            TenantPolicy {
                peers,
                ..TenantPolicy::default()
            },
        );
    });
    let mut theirs = hers(&mut net, ALICE);
    let relayed = theirs.allocated(&mut net);
    assert_eq!(theirs.permit(&mut net, &[PRIVATE]).code(), 200);
    assert_eq!(theirs.permit(&mut net, &[PEER]).code(), 403);
    // What no operator can open, no tenant can.
    assert_eq!(theirs.permit(&mut net, &["127.0.0.1:9"]).code(), 403);
    let sent = theirs.send_indication(&mut net, PRIVATE, b"data");
    let expected = Outcome::Relayed(relayed, addr(PRIVATE), b"data".into());
    assert_eq!(sent, expected);
    let came = net.peer_sends(PRIVATE, relayed, b"data");
    assert!(matches!(came, Outcome::Delivered(..)), "{came:?}");

    let mut other = Caller::new(&mut net, BOB);
    other.allocated(&mut net);
    assert_eq!(other.permit(&mut net, &[PRIVATE]).code(), 403);
    assert_eq!(other.permit(&mut net, &[PEER]).code(), 200);
}

#[test]
fn what_a_tenant_may_no_longer_reach_gets_nothing_by_send_indications() {
    let mut net = Net::new();
    let mut theirs = hers(&mut net, ALICE);
    theirs.allocated(&mut net);
    assert_eq!(theirs.permit(&mut net, &[PEER]).code(), 200);
    net.change_policy(|policy| {
        let peers = PeerOverlay::new(&[], &["203.0.113.0/24".parse().unwrap()]);
        acme(
            policy,
            TenantPolicy {
                peers,
                ..TenantPolicy::default()
            },
        );
    });
    let sent = theirs.send_indication(&mut net, PEER, b"data");
    assert_eq!(sent, Outcome::Dropped(DropReason::PeerDenied));
}

#[test]
fn a_connection_is_not_for_the_user_of_that_name_of_another_tenant() {
    let mut net = tcp::net();
    let mut alice = tcp::caller(&mut net, tcp::ALICE);
    assert_eq!(tcp::allocate(&mut net, &mut alice).code(), 200);
    let id: ConnectionId = tcp::connected(&mut net, &mut alice);
    net.server_name = Some(ACME_NAME);
    let mut data = Caller::of(&mut net, tcp::ALICE_DATA, Transport::Tls, "alice");
    assert_eq!(tcp::refused_bind(&mut net, &mut data, id), 441);
    // With the key of the control connection it is the same user, whatever it asks for.
    data.realm = REALM.into();
    tcp::spliced(&mut net, &mut data, id);
}

#[test]
fn a_challenge_of_a_tenant_offers_what_every_challenge_does() {
    let mut net = Net::new();
    net.server_name = Some(ACME_NAME);
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
    let packet = caller.unsigned(Method::Allocate, |_| {});
    let answer = caller.send(&mut net, &packet);
    assert_eq!(answer.code(), 401);
    assert!(answer.has(AttributeType::PASSWORD_ALGORITHMS));
}
