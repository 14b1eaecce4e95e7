//! What bans do: nobody is served who is banned, what they have ends, and what leads to banned peers does.

use std::time::Duration;

use turnfleet_turn::bans::{Ban, BanKind, BanTarget, Bans};
use turnfleet_turn::peer_filter::PeerDenied;
use turnfleet_turn::policy::TcpRelaying;
use turnfleet_turn::wire::{AttributeType, Method};
use turnfleet_turn::{
    CloseReason, DropReason, Event, Reject, RequestMethod, TenantId, TenantPolicy, Tenants,
    Transport,
};

use crate::support::tcp;
use crate::support::{
    ACME, ACME_NAME, ALICE, Answer, BOB, Caller, Net, Outcome, PEER, START_UNIX, V4, addr,
};

fn ban(net: &mut Net, targets: &[BanTarget], until: Option<u64>) {
    let bans = targets.iter().cloned();
    let bans = Bans::new(bans.map(|target| Ban { target, until }));
    net.change_policy(|policy| policy.bans = bans);
}

fn user(tenant: TenantId, user: &str) -> BanTarget {
    let user = user.into();
    BanTarget::User { tenant, user }
}

fn alice() -> BanTarget {
    user(TenantId::DEFAULT, "alice")
}

fn source(block: &str) -> BanTarget {
    BanTarget::Source(block.parse().unwrap())
}

fn peer(block: &str) -> BanTarget {
    BanTarget::Peer(block.parse().unwrap())
}

/// Alice and Bob, each with an allocation.
fn both() -> (Net, Caller, Caller) {
    let mut net = Net::new();
    let mut alice = Caller::new(&mut net, ALICE);
    let mut bob = Caller::named(&mut net, BOB, "bob");
    alice.allocated(&mut net);
    bob.allocated(&mut net);
    (net, alice, bob)
}

#[track_caller]
fn assert_all_refused(net: &mut Net, caller: &mut Caller) {
    for method in [
        Method::Allocate,
        Method::Refresh,
        Method::CreatePermission,
        Method::ChannelBind,
    ] {
        let answer = caller.request(net, method, |_| {});
        assert_eq!(answer.code(), 403, "{method:?}");
        assert!(answer.is_signed_for(caller), "{method:?}");
    }
}

#[test]
fn a_banned_users_allocations_end_and_its_requests_get_403_while_others_go_on() {
    let (mut net, mut alice, mut bob) = both();
    ban(&mut net, &[self::alice()], None);
    assert_eq!(net.server.counters().closed(CloseReason::Banned), 1);
    assert_eq!(net.server.counters().allocations(), 1);
    assert_all_refused(&mut net, &mut alice);
    assert_eq!(net.server.counters().bans(BanKind::User), 4);
    assert_eq!(bob.refresh(&mut net, None).code(), 200);
    let elsewhere = alice.send_indication(&mut net, PEER, b"data");
    assert_eq!(elsewhere, Outcome::Dropped(DropReason::NoAllocation));
}

#[test]
fn a_ban_ends_with_its_second_though_no_other_policy_comes() {
    let (mut net, mut alice, _) = both();
    ban(&mut net, &[self::alice()], Some(START_UNIX + 60));
    net.advance_seconds(59);
    assert_eq!(alice.allocate(&mut net, |_| {}).code(), 403);
    net.advance_seconds(1);
    assert_eq!(alice.allocate(&mut net, |_| {}).code(), 200);
}

#[test]
fn a_ban_that_is_over_ends_nothing() {
    let (mut net, mut alice, _) = both();
    let bans = [
        self::alice(),
        source("192.0.2.0/24"),
        peer("203.0.113.0/24"),
    ];
    ban(&mut net, &bans, Some(START_UNIX));
    assert_eq!(net.server.counters().allocations(), 2);
    assert_eq!(alice.permit(&mut net, &[PEER]).code(), 200);
}

#[test]
fn whoever_has_no_password_does_not_learn_who_is_banned() {
    let (mut net, mut alice, _) = both();
    ban(&mut net, &[self::alice()], None);
    alice.password = "wrong".into();
    assert_eq!(alice.allocate(&mut net, |_| {}).code(), 401);
}

#[test]
fn a_banned_tenant_and_a_suspended_one_are_refused_and_end_alike() {
    let suspend = |net: &mut Net| {
        let suspended = TenantPolicy {
            suspended: true,
            ..TenantPolicy::default()
        };
        net.change_policy(|policy| policy.tenants = Tenants::from_iter([(ACME, suspended)]));
    };
    let banned = |net: &mut Net| ban(net, &[BanTarget::Tenant(ACME)], None);
    for exclude in [&suspend as &dyn Fn(&mut Net), &banned] {
        let mut net = Net::new();
        net.keys.set("acme/alice", &["secret"]);
        let mut theirs = Caller::named(&mut net, ALICE, "acme/alice");
        let mut other = Caller::named(&mut net, BOB, "alice");
        theirs.allocated(&mut net);
        other.allocated(&mut net);
        exclude(&mut net);
        assert_eq!(net.server.counters().closed(CloseReason::Banned), 1);
        assert_all_refused(&mut net, &mut theirs);
        assert_eq!(net.server.counters().bans(BanKind::Tenant), 4);
        assert_eq!(other.refresh(&mut net, None).code(), 200);
    }
}

#[test]
fn a_ban_is_of_the_user_of_one_tenant() {
    let mut net = Net::new();
    net.keys.set("acme/alice", &["secret"]);
    ban(&mut net, &[user(ACME, "alice")], None);
    let mut theirs = Caller::named(&mut net, ALICE, "acme/alice");
    assert_eq!(theirs.allocate(&mut net, |_| {}).code(), 403);
    Caller::new(&mut net, BOB).allocated(&mut net);
}

#[test]
fn nobody_escapes_a_ban_by_asking_for_the_server_of_another_tenant() {
    let mut net = Net::new();
    net.server_name = Some(ACME_NAME);
    let transport = Transport::Tls;
    let mut alice = Caller::of(&mut net, ALICE, transport, "alice");
    let mut bob = Caller::of(&mut net, BOB, transport, "bob");
    alice.allocated(&mut net);
    bob.allocated(&mut net);
    let opened = net
        .events
        .iter()
        .filter(|event| matches!(event, Event::Opened { tenant, .. } if *tenant == ACME));
    assert_eq!(opened.count(), 2);
    ban(&mut net, &[self::alice(), user(ACME, "bob")], None);
    assert_eq!(net.server.counters().closed(CloseReason::Banned), 2);
    for caller in [&mut alice, &mut bob] {
        assert_eq!(caller.allocate(&mut net, |_| {}).code(), 403);
    }
}

#[test]
fn a_banned_source_gets_403_to_every_request_without_a_challenge() {
    let (mut net, mut alice, mut bob) = both();
    ban(&mut net, &[source("192.0.2.1/32")], None);
    assert_eq!(net.server.counters().closed(CloseReason::Banned), 1);
    let methods = [Method::Binding, Method::Allocate, Method::Refresh];
    for method in methods {
        for packet in [alice.unsigned(method, |_| {}), alice.signed(method, |_| {})] {
            let answer = alice.send(&mut net, &packet);
            assert_eq!(answer.code(), 403, "{method:?}");
            assert!(!answer.has(AttributeType::NONCE));
            assert!(!answer.has(AttributeType::MESSAGE_INTEGRITY));
        }
    }
    let counters = net.server.counters();
    assert_eq!(counters.bans(BanKind::Source), 6);
    let refused = counters.rejects(RequestMethod::Binding, Reject::Forbidden);
    assert_eq!(refused, 2);
    assert_eq!(bob.refresh(&mut net, None).code(), 200);
}

#[test]
fn a_banned_source_is_answered_within_the_reflection_budget() {
    let mut net = Net::new();
    let mut alice = Caller::new(&mut net, ALICE);
    ban(&mut net, &[source("192.0.2.0/24")], None);
    let mut answered = 0;
    for _ in 0..5000 {
        let packet = alice.unsigned(Method::Binding, |_| {});
        let outcome = net.client_sends(alice.five_tuple, &packet);
        answered += usize::from(matches!(outcome, Outcome::Reply(_)));
    }
    assert!((100..1000).contains(&answered), "{answered}");
}

#[test]
fn a_banned_peer_is_refused_as_a_denied_one_is_and_reported() {
    let (mut net, mut alice, _) = both();
    ban(&mut net, &[peer("203.0.113.0/24")], None);
    net.events.clear();
    assert_eq!(alice.permit(&mut net, &[PEER]).code(), 403);
    assert_eq!(alice.bind(&mut net, 0x4000, PEER).code(), 403);
    let banned = |event: &Event| matches!(event, Event::PeerDenied { rule, .. } if *rule == PeerDenied::Banned);
    assert!(net.events.iter().all(banned) && net.events.len() == 2);
    assert_eq!(net.server.counters().bans(BanKind::Peer), 2);
    assert_eq!(alice.permit(&mut net, &["192.0.2.77:9"]).code(), 200);
}

#[test]
fn the_permissions_and_channels_of_a_banned_peer_end_and_the_allocation_stays() {
    let mut net = Net::new();
    let mut alice = Caller::new(&mut net, ALICE);
    let relayed = alice.allocated(&mut net);
    let other = "192.0.2.77:9";
    assert_eq!(alice.permit(&mut net, &[PEER, other]).code(), 200);
    assert_eq!(alice.bind(&mut net, 0x4000, PEER).code(), 200);
    assert_eq!(alice.bind(&mut net, 0x4001, other).code(), 200);
    ban(&mut net, &[peer("203.0.113.9/32")], None);
    assert_eq!(net.server.counters().permissions, 1);
    assert_eq!(net.server.counters().channels, 1);
    let sent = alice.channel_data(&mut net, 0x4000, b"data");
    assert_eq!(sent, Outcome::Dropped(DropReason::NoChannel));
    let sent = alice.send_indication(&mut net, PEER, b"data");
    assert_eq!(sent, Outcome::Dropped(DropReason::PeerDenied));
    let came = net.peer_sends(PEER, relayed, b"data");
    assert_eq!(came, Outcome::Dropped(DropReason::NoPermission));
    let sent = alice.channel_data(&mut net, 0x4001, b"data");
    assert_eq!(sent, Outcome::Relayed(relayed, addr(other), b"data".into()));
    assert_eq!(alice.refresh(&mut net, Some(0)).code(), 200);
}

#[test]
fn when_the_ban_of_a_peer_ends_the_client_may_ask_for_it_again() {
    let (mut net, mut alice, _) = both();
    ban(&mut net, &[peer("203.0.113.9/32")], Some(START_UNIX + 30));
    assert_eq!(alice.permit(&mut net, &[PEER]).code(), 403);
    net.advance_seconds(30);
    assert_eq!(alice.permit(&mut net, &[PEER]).code(), 200);
}

#[test]
fn the_fleets_own_granted_ports_outlast_the_ban_of_their_network() {
    let mut net = Net::new();
    let mut alice = Caller::new(&mut net, ALICE);
    alice.allocated(&mut net);
    let bobs = Caller::named(&mut net, BOB, "bob").allocated(&mut net);
    assert_eq!(alice.bind(&mut net, 0x4000, &bobs.to_string()).code(), 200);
    ban(&mut net, &[peer("198.51.100.0/24")], None);
    let sent = alice.channel_data(&mut net, 0x4000, b"data");
    assert!(matches!(sent, Outcome::Relayed(..)), "{sent:?}");
    assert_eq!(alice.permit(&mut net, &["198.51.100.2:9"]).code(), 403);
    assert_eq!(alice.bind(&mut net, 0x4001, &format!("{V4}:9")).code(), 403);
}

#[test]
fn the_connections_with_a_banned_peer_are_closed_and_no_others_are_made() {
    let mut net = tcp::net_with(TcpRelaying::On);
    let mut alice = tcp::caller(&mut net, tcp::ALICE);
    assert_eq!(tcp::allocate(&mut net, &mut alice).code(), 200);
    let relayed = *net.listening.iter().next().unwrap();
    let id = tcp::connected(&mut net, &mut alice);
    tcp::connect(&mut net, &mut alice, "203.0.113.10:9000");
    ban(&mut net, &[peer("203.0.113.0/24")], None);
    assert_eq!(net.closed_connections.len(), 2);
    assert!(net.closed_connections.contains(&id));
    let failed = Answer(net.outbox.pop_front().unwrap().1);
    assert_eq!(failed.code(), 447);
    let code = tcp::refused_connect(&mut net, &mut alice, tcp::PEER);
    assert_eq!(code, 403);
    assert_eq!(net.peer_connects(tcp::PEER, relayed), None);
    assert_eq!(alice.refresh(&mut net, None).code(), 200);
}

#[test]
fn what_is_made_between_a_ban_and_its_enforcement_does_not_escape() {
    let (mut net, mut alice, _) = both();
    let bans = [self::alice()];
    let bans = Bans::new(bans.map(|target| Ban {
        target,
        until: None,
    }));
    net.announce_policy(|policy| policy.bans = bans);
    assert_eq!(alice.refresh(&mut net, None).code(), 403);
    assert!(net.server.serves(&alice.five_tuple));
    net.advance(Duration::ZERO);
    assert!(!net.server.serves(&alice.five_tuple));
}

#[test]
fn many_allocations_end_in_slices_and_a_policy_in_between_skips_none() {
    let mut net = Net::with(crate::support::Setup {
        ports: (20_000, 29_999),
        limits: turnfleet_turn::policy::Limits {
            allocations_per_user: u32::MAX,
            ..turnfleet_turn::policy::Limits::default()
        },
        ..crate::support::Setup::default()
    });
    for port in 1..=3000 {
        Caller::new(&mut net, &format!("192.0.2.1:{port}")).allocated(&mut net);
    }
    let bans = |net: &mut Net, targets: Vec<BanTarget>| {
        let bans = targets.into_iter();
        let bans = Bans::new(bans.map(|target| Ban {
            target,
            until: None,
        }));
        net.announce_policy(|policy| policy.bans = bans);
    };
    bans(&mut net, vec![user(TenantId::DEFAULT, "nobody")]);
    net.server.handle_timeout(net.now);
    net.obey();
    assert_eq!(net.server.counters().allocations(), 3000);
    bans(&mut net, vec![alice()]);
    let mut slices = 0;
    while net
        .server
        .poll_timeout()
        .is_some_and(|due| due <= net.now.instant)
    {
        net.server.handle_timeout(net.now);
        net.obey();
        slices += 1;
        assert!(slices < 10, "spins");
    }
    net.assert_idle();
    assert!(slices >= 3, "{slices} slices for 3000 allocations");
}
