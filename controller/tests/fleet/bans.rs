//! Who is banned, for how long, and what relays hear of it.

use turnfleet_controller::FleetError;
use turnfleet_controller::fleet::NodePolicies;
use turnfleet_controller::fleet::bans::{BanError, MAX_BANS, network};
use turnfleet_controller::fleet::record::{Ban, ControllerRecord, Record, Terms, Whom};
use turnfleet_proto::fleet::section::Number;

use crate::stage::{Stage, id};

fn user(name: &str) -> Whom {
    Whom::User {
        tenant: 0,
        user: name.to_owned(),
    }
}

fn source(text: &str) -> Whom {
    Whom::Source(network(text).unwrap())
}

fn ban(whom: Whom, since: u64) -> Ban {
    Ban {
        whom,
        reason: "spam".to_owned(),
        by: "night".to_owned(),
        since,
        until: None,
        automatic: false,
    }
}

fn place(stage: &mut Stage, ban: Ban) {
    let plan = stage.fleet.plan_ban(ban, false, None).unwrap();
    stage.carry_out(plan);
}

/// The numbers of the sections that a node which runs `before` is sent, and how many bytes they have.
#[track_caller]
fn sent(
    stage: &Stage,
    policies: &mut NodePolicies,
    node: u8,
    before: &Before,
) -> (Vec<u32>, usize) {
    let policy = policies.of(&stage.fleet, &id(node)).unwrap();
    let delta = policy.since(&before.0);
    assert_eq!(delta.sha256.len(), 32);
    let bytes = delta.sections.iter().map(|it| it.content.len()).sum();
    (delta.sections.iter().map(|it| it.number).collect(), bytes)
}

struct Before(turnfleet_controller::fleet::NodePolicy);

#[test]
fn a_ban_is_a_small_delta_to_every_relay_however_many_there_are() {
    let mut stage = Stage::of(4);
    for number in 0..MAX_BANS - 1 {
        stage.store(Record::Ban(ban(user(&format!("user-{number}")), 1)));
    }
    let mut policies = NodePolicies::default();
    let before = [0, 1, 2, 3].map(|node| Before(policies.of(&stage.fleet, &id(node)).unwrap()));
    assert_eq!(before[0].0.snapshot().bans.len(), MAX_BANS - 1);
    place(&mut stage, ban(source("198.51.100.0/24"), 2));
    for (node, before) in (0u8..).zip(&before) {
        let (numbers, bytes) = sent(&stage, &mut policies, node, before);
        let bans = Number::BansFirst as u32..=Number::BansLast as u32;
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        assert!(bans.contains(&numbers[0]), "{numbers:?}");
        assert!(bytes < 8192, "{bytes}");
    }
    let snapshot = policies.of(&stage.fleet, &id(0)).unwrap().snapshot();
    assert_eq!(snapshot.bans.len(), MAX_BANS);
    let lift = stage.fleet.plan_lift(&source("198.51.100.0/24")).unwrap();
    stage.carry_out(lift);
    let after = policies.of(&stage.fleet, &id(0)).unwrap();
    assert_eq!(after.since(&before[0].0).sections, []);
}

#[test]
fn a_ban_that_has_ended_is_taken_away_by_the_upkeep() {
    let mut stage = Stage::kept_up(1);
    let ends = |whom, until| Ban {
        until: Some(until),
        ..ban(whom, stage_time())
    };
    for number in 0..100 {
        place(
            &mut stage,
            ends(user(&format!("user-{number}")), stage_time() + 60),
        );
    }
    place(&mut stage, ban(user("for ever"), stage_time()));
    assert!(!stage.fleet.is_upkeep_due(stage.now));
    stage.now.unix = stage_time() + 60;
    let mut rounds = 0;
    while stage.fleet.is_upkeep_due(stage.now) {
        let plan = stage.fleet.plan_upkeep(stage.now, [0; 32]);
        assert!(plan.as_leader && plan.raises_generation());
        assert!(plan.deletes.len() <= 64, "{}", plan.deletes.len());
        stage.carry_out(plan);
        rounds += 1;
    }
    assert_eq!((rounds, stage.fleet.bans().len()), (2, 1));
}

fn stage_time() -> u64 {
    1_700_000_000
}

#[test]
fn what_may_be_a_mistake_needs_force() {
    let mut stage = Stage::of(2);
    stage.store(Record::Controller(ControllerRecord {
        id: "controller-0".parse().unwrap(),
        grpc_url: "http://203.0.113.5:8081".to_owned(),
        http_address: "203.0.113.5:8080".to_owned(),
        region: "north".to_owned(),
        version: String::new(),
    }));
    let asker = Some("198.51.100.7".parse().unwrap());
    let peer = |text| Whom::Peer(network(text).unwrap());
    for whom in [
        source("0.0.0.0/0"),
        source("64.0.0.0/7"),
        peer("2000::/18"),
        source("192.0.2.1"),
        peer("192.0.2.0/31"),
        source("203.0.113.0/24"),
        source("198.51.100.0/24"),
        Whom::Tenant(0),
    ] {
        let refused = stage.fleet.plan_ban(ban(whom.clone(), 0), false, asker);
        let is_guarded = matches!(
            refused,
            Err(FleetError::Ban(BanError::Wide(_) | BanError::Own { .. }))
        );
        assert!(is_guarded, "{whom:?} {refused:?}");
        let forced = stage.fleet.plan_ban(ban(whom, 0), true, asker).unwrap();
        assert!(forced.raises_generation());
    }
    for whom in [
        source("64.0.0.0/8"),
        peer("2000::/19"),
        peer("198.51.100.0/24"),
        source("192.0.2.128/25"),
        user("alice"),
    ] {
        let placed = stage.fleet.plan_ban(ban(whom.clone(), 0), false, asker);
        assert!(placed.is_ok(), "{whom:?} {placed:?}");
    }
}

/// A fleet with a tenant, whose number is 1.
fn with_acme() -> Stage {
    let mut stage = Stage::of(1);
    let plan = stage
        .fleet
        .plan_tenant("acme", Terms::default(), 0)
        .unwrap();
    stage.carry_out(plan);
    stage
}

#[test]
fn a_username_is_no_user_and_needs_force() {
    let stage = with_acme();
    let of_acme = |user: &str| Whom::User {
        tenant: 1,
        user: user.to_owned(),
    };
    for (whom, inner) in [
        (user("1700000000:alice"), "alice"),
        (user("1700000000:acme/bob"), "acme/bob"),
        (of_acme("acme/bob"), "bob"),
        (of_acme("1700000000:bob"), "bob"),
        (of_acme("1700000000:acme/bob"), "bob"),
    ] {
        let refused = stage.fleet.plan_ban(ban(whom.clone(), 0), false, None);
        let Err(FleetError::Ban(BanError::Username { user, .. })) = &refused else {
            panic!("{whom:?} {refused:?}");
        };
        assert_eq!(user, inner);
        let forced = stage.fleet.plan_ban(ban(whom.clone(), 0), true, None);
        assert!(forced.is_ok(), "{forced:?}");
        // A rule has seen whom it means.
        let by_rule = Ban {
            automatic: true,
            ..ban(whom, 0)
        };
        let placed = stage.fleet.plan_ban(by_rule, false, None);
        assert!(placed.is_ok(), "{placed:?}");
    }
    for name in ["1700000000", "@alice:example.org", "other/alice"] {
        let placed = stage.fleet.plan_ban(ban(user(name), 0), false, None);
        assert!(placed.is_ok(), "{name} {placed:?}");
    }
}

#[test]
fn the_oldest_that_a_rule_placed_makes_room_and_an_operators_never_does() {
    let mut stage = Stage::of(1);
    let by_rule = |name: &str, since| Ban {
        automatic: true,
        ..ban(user(name), since)
    };
    for number in 0..MAX_BANS - 2 {
        stage.store(Record::Ban(ban(user(&format!("user-{number}")), 1)));
    }
    place(&mut stage, by_rule("late", 9));
    place(&mut stage, by_rule("early", 8));
    place(&mut stage, ban(user("alice"), 10));
    let bans = stage.fleet.bans();
    assert_eq!(bans.len(), MAX_BANS);
    assert!(bans.of(&user("early")).is_none());
    // An operator's stays as it is where a rule finds the same, and takes the place of a rule's.
    let again = stage.fleet.plan_ban(by_rule("alice", 11), false, None);
    assert!(again.unwrap().is_empty());
    place(&mut stage, ban(user("late"), 12));
    let full = stage.fleet.plan_ban(ban(user("bob"), 13), false, None);
    assert!(matches!(
        full,
        Err(FleetError::Ban(BanError::TooMany { .. }))
    ));
}

#[test]
fn a_user_of_a_tenant_is_named_as_in_a_username_or_beside_it() {
    let mut stage = with_acme();
    let tenants = stage.fleet.tenants();
    let alice = |tenant| Whom::User {
        tenant,
        user: "alice".to_owned(),
    };
    assert_eq!(tenants.banned_user("acme/alice", None).unwrap(), alice(1));
    assert_eq!(
        tenants.banned_user("alice", Some("acme")).unwrap(),
        alice(1)
    );
    assert_eq!(
        tenants.banned_user("alice", Some("default")).unwrap(),
        alice(0)
    );
    assert_eq!(tenants.banned_user("alice", None).unwrap(), alice(0));
    assert_eq!(
        tenants.banned_user("other/alice", None).unwrap(),
        user("other/alice")
    );
    assert!(tenants.banned_user("alice", Some("other")).is_err());
    // With the tenant, what concerns it goes.
    place(&mut stage, ban(alice(1), 0));
    place(&mut stage, ban(Whom::Tenant(1), 0));
    let gone = stage.fleet.plan_remove_tenant("acme").unwrap();
    stage.carry_out(gone);
    let upkeep = stage.fleet.plan_upkeep(stage.now, [0; 32]);
    stage.carry_out(upkeep);
    assert!(stage.fleet.bans().is_empty());
}
