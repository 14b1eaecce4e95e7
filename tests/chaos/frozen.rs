//! Processes that stand still and go on, as those of an overloaded machine do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::text;
use crate::calls::Calls;
use crate::figures::{self, millis, sized};
use crate::fleet::{CONTROLLERS, Fleet, with_fleet};
use crate::onlookers::Onlookers;
use crate::process::SOON;
use crate::tools::eventually;

const FROZEN: usize = 2;

/// Checks that no port of an address belongs to two relays, by what a controller knows.
#[track_caller]
fn assert_one_owner_each(fleet: &Fleet<'_>, controller: usize) {
    let nodes = fleet.controllers[controller].api.nodes().unwrap();
    let mut owned: BTreeSet<(String, u64)> = BTreeSet::new();
    for node in &nodes {
        for grant in node["ports"].as_array().unwrap() {
            let [first, last] = ["first", "last"].map(|end| grant[end].as_u64().unwrap());
            for port in first..=last {
                let fresh = owned.insert((text(&grant["public_ip"]), port));
                assert!(fresh, "{port} of {grant} has two owners: {nodes:?}");
            }
        }
    }
    assert!(!owned.is_empty());
}

#[test]
fn r18_a_relay_that_stood_still_serves_on_with_its_own_ports() {
    let pauses = [3, sized(9, 30)].map(Duration::from_secs);
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 60);
        let before = fleet.ports(0, FROZEN);
        let mut back = Vec::new();
        for pause in pauses {
            fleet.relays[FROZEN].process.signal("STOP");
            calls.pass(pause);
            assert_one_owner_each(fleet, 0);
            fleet.relays[FROZEN].process.signal("CONT");
            let begun = Instant::now();
            fleet.wait_until_whole();
            back.push(millis(begun.elapsed()));
            assert_eq!(fleet.ports(1, FROZEN), before);
            assert_one_owner_each(fleet, 1);
        }
        let mut held = calls.end();
        let own = held.count(|homes| homes.contains(&FROZEN));
        let others = held.count(|homes| !homes.contains(&FROZEN));
        figures::print(
            "R18",
            json!({
                "relay_stood_still_ms": pauses.map(millis),
                "listed_again_ms": back,
                "own": own.figures(),
                "others": others.figures(),
            }),
        );
        others.assert_whole();
        assert_eq!(own.ended_allocations, 0, "{own:?}");
    });
}

#[test]
fn r18_a_leader_that_stood_still_leads_no_longer_and_undoes_nothing() {
    /// At full size; else until another one leads.
    const PAUSE: Duration = Duration::from_secs(30);
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 60);
        let zombie = fleet.leader();
        let others = || (0..CONTROLLERS).filter(move |number| *number != zombie);
        let onlookers = Onlookers::of(fleet, others());
        fleet.controllers[zombie].process.signal("STOP");
        let begun = Instant::now();
        let heir = eventually("another one leads", SOON, || {
            others().find(|number| fleet.controllers[*number].leads())
        });
        let elected = begun.elapsed();
        calls.pass(sized(Duration::ZERO, PAUSE.saturating_sub(elected)));
        // What only a leader does: promoting a secret.
        let rotated = fleet.controllers[heir]
            .api
            .post("/v1/secrets/rotate", &json!({}));
        let (status, secret) = rotated.unwrap();
        assert!((200..300).contains(&status), "{status} {secret}");
        let minted = |number: usize| -> Option<Value> {
            let answer = fleet.controllers[number].api.ask("/v1/secrets").ok()?;
            let mut all = answer["secrets"].as_array()?.iter();
            all.find(|it| it["minted"] == true)
                .map(|it| it["id"].clone())
        };
        eventually("the next secret is minted with", SOON, || {
            (minted(heir)? == secret["id"]).then_some(())
        });
        let key = || {
            fleet
                .etcd
                .ctl(&["get", "--prefix", "/tf/v1/leader", "--write-out=json"])
        };
        let term = key();
        let stood_still = begun.elapsed();
        fleet.controllers[zombie].process.signal("CONT");
        let begun = Instant::now();
        eventually("the old leader follows", SOON, || {
            let follows = !fleet.controllers[zombie].leads() && fleet.controllers[heir].leads();
            (follows && minted(zombie)? == secret["id"]).then_some(())
        });
        let follows = begun.elapsed();
        fleet.wait_until_whole();
        let value = |json: &str| -> Value {
            let answer: Value = serde_json::from_str(json).unwrap();
            json!([
                answer["kvs"][0]["create_revision"],
                answer["kvs"][0]["value"]
            ])
        };
        assert_eq!(value(&key()), value(&term), "the term of the heir goes on");
        for number in 0..CONTROLLERS {
            assert_eq!(minted(number), Some(secret["id"].clone()));
        }
        let (seen, count) = (onlookers.stop(), calls.end().count_all());
        figures::print(
            "R18",
            json!({
                "leader_stood_still_ms": millis(stood_still),
                "another_leads_ms": millis(elected),
                "old_leader_follows_ms": millis(follows),
                "calls": count.figures(),
                "lists": seen.figures(),
            }),
        );
        count.assert_whole();
        // Until the relays' word of the next secret has come round, a list may be of those alone whose session is there.
        assert!(
            seen.failed.is_empty() && seen.shortest >= Some(2),
            "{seen:?}"
        );
    });
}
