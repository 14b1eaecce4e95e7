//! Relays that are bound to a tenant: for whom they are listed, which secrets they have, and where they send clients.

use turnfleet_controller::fleet::record::{Record, SecretGeneration, SecretScope, SecretState};
use turnfleet_controller::fleet::{AlternatePool, Ask, Load, NodeView, UriKind};
use turnfleet_proto::credentials::SharedSecret;

use crate::stage::{Stage, host, id, identity};

/// Relay 0 is acme's; the others are everybody's.
fn stage() -> Stage {
    let mut stage = Stage::empty();
    for number in 0..3 {
        stage.join_for(number, identity(number), (number == 0).then_some("acme"));
    }
    stage
}

/// The hosts that a user of `tenant` is given, as many as there are.
fn hosts(stage: &Stage, tenant: &str, user: &str) -> Vec<String> {
    let list = stage.list(&Ask {
        tenant,
        user,
        kinds: &[UriKind::Udp],
        count: Some(8),
        ..Ask::default()
    });
    let mut hosts: Vec<_> = list.iter().map(|uri| host(uri).to_owned()).collect();
    hosts.sort();
    hosts
}

#[test]
fn a_relay_of_a_tenant_is_in_the_lists_of_its_users_alone() {
    let stage = stage();
    let all = ["192.0.2.0", "192.0.2.1", "192.0.2.2"];
    assert_eq!(hosts(&stage, "acme", "alice"), all);
    assert_eq!(hosts(&stage, "", "alice"), all[1..]);
    assert_eq!(hosts(&stage, "other", "alice"), all[1..]);
    let is_first = |tenant| {
        let first = |user: &String| {
            let ask = Ask {
                tenant,
                user,
                ..Ask::default()
            };
            stage.list(&ask)[0] == "stun:192.0.2.0:3478"
        };
        let users = (0..100).map(|number| format!("user-{number}"));
        users.filter(first).count()
    };
    assert!((10..60).contains(&is_first("acme")), "{}", is_first("acme"));
    assert_eq!(is_first(""), 0);
}

#[test]
fn who_asks_why_hears_whose_it_is() {
    let stage = stage();
    let view = stage.view();
    let node = view.node(&id(0)).unwrap();
    for (tenant, open) in [("", false), ("other", false), ("acme", true)] {
        let ask = Ask {
            tenant,
            user: "alice",
            ..Ask::default()
        };
        let explained = view.explain(node, &ask);
        let gate = explained.gates.iter().find(|gate| gate.name == "tenant");
        let gate = gate.unwrap();
        assert_eq!(gate.open, open, "{tenant}");
        assert_eq!(gate.found, "it is for users of acme alone");
        assert_eq!(explained.score.is_some(), open, "{tenant}");
    }
    assert!(node.listed);
}

#[test]
fn a_good_relay_of_a_tenant_leaves_nobody_elses_list_empty() {
    let mut stage = stage();
    stage.store(Record::Generation(8));
    stage.heartbeat(0, 8, Load::default());
    // The others run an older policy for longer than lists wait, and are all that there is for most.
    for _ in 0..10 {
        stage.wait(1000);
        stage.heartbeat(0, 8, Load::default());
        stage.heartbeat(1, 7, Load::default());
        stage.heartbeat(2, 7, Load::default());
    }
    assert_eq!(hosts(&stage, "", "alice"), ["192.0.2.1", "192.0.2.2"]);
    stage.heartbeat(1, 8, Load::default());
    assert_eq!(hosts(&stage, "", "alice"), ["192.0.2.1"]);
    assert_eq!(hosts(&stage, "acme", "alice"), ["192.0.2.0", "192.0.2.1"]);
}

#[test]
fn a_secret_of_a_tenant_is_at_its_relays_and_minted_for_them_alone() {
    let mut stage = stage();
    stage.store(Record::Secret(SecretGeneration {
        id: 2,
        scope: SecretScope::Tenant("acme".into()),
        secret: SharedSecret::new("acme's"),
        state: SecretState::Active,
        created_at: 0,
        since_generation: 7,
    }));
    let accepted = |number| stage.fleet.snapshot(&id(number)).unwrap().secrets.len();
    assert_eq!((accepted(0), accepted(1)), (2, 1));
    let view = stage.view();
    let [own, other] = [0, 1].map(|number| view.node(&id(number)).unwrap());
    let minted = |nodes: &[&NodeView]| {
        let secret = view.minting_secret_for("", nodes.iter().copied());
        String::from_utf8(secret.as_bytes().to_vec()).unwrap()
    };
    assert_eq!(minted(&[&**own]), "acme's");
    assert_eq!(minted(&[&**own, &**other]), "north");
    assert_eq!(minted(&[&**other]), "north");
    // Its probe shows that it accepts what is minted for it.
    assert_eq!(view.trial_secret(own).0.as_bytes(), b"acme's");
    assert_eq!(view.trial_secret(other).0.as_bytes(), b"north");
}

#[test]
fn no_relay_sends_clients_to_one_of_another_tenant() {
    let mut stage = stage();
    stage.join_for(3, identity(3), Some("other"));
    let mut pool = AlternatePool::default();
    assert!(pool.update(&stage.view().nodes));
    let told = |number: u8, tenant| {
        let alternates = pool.of(&id(number), "north", tenant).alternates;
        let address = |it: &turnfleet_proto::fleet::Alternate| it.listeners[0].address.clone();
        let mut told: Vec<_> = alternates.iter().map(address).collect();
        told.sort();
        told
    };
    let (first, second) = ("192.0.2.1:3478", "192.0.2.2:3478");
    assert_eq!(told(1, None), [second]);
    assert_eq!(told(0, Some("acme")), [first, second]);
    assert_eq!(told(3, Some("other")), [first, second]);
    stage.join_for(4, identity(4), Some("acme"));
    assert!(pool.update(&stage.view().nodes));
    let alternates = pool.of(&id(0), "north", Some("acme")).alternates;
    assert_eq!(alternates.len(), 3);
}
