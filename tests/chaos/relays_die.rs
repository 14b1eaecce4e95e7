//! Relays that are killed or vanish.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::calls::Calls;
use crate::cuts::set;
use crate::figures::{self, SLACK, assert_time, millis};
use crate::fleet::{CONTROLLERS, Fleet, RELAYS, with_fleet};
use crate::process::SOON;
use crate::tools::eventually;

const CALLS: usize = 100;
const VICTIM: usize = 3;

fn elsewhere(homes: [usize; 2]) -> bool {
    !homes.contains(&VICTIM)
}

/// When each controller ceased to list the victim, from now on.
#[track_caller]
fn unlisted(fleet: &Fleet<'_>, promised: Duration) -> Vec<Duration> {
    let victim = &fleet.relays[VICTIM];
    let what = "every controller forgets the relay";
    fleet.within(promised * SLACK, what, 0..CONTROLLERS, |controller| {
        let lists = controller.api.listed();
        lists.is_ok_and(|listed| !listed.contains(&victim.name))
    })
}

fn all_millis(times: &[Duration]) -> Vec<u64> {
    times.iter().copied().map(millis).collect()
}

#[test]
fn r01_a_killed_relay_leaves_every_list_and_disturbs_no_other() {
    const PROMISED: Duration = Duration::from_secs(1);
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, CALLS);
        calls.go_on_for(1000);
        fleet.relays[VICTIM].process.kill();
        let unlisted = unlisted(fleet, PROMISED);
        let listed = fleet.controllers[0].api.listed().unwrap();
        assert_eq!(listed.len(), RELAYS - 1, "{listed:?}");
        calls.go_on_for(1000);
        let others = calls.end().count(elsewhere);
        figures::print(
            "R1",
            json!({
                "relays": RELAYS,
                "unlisted_ms": all_millis(&unlisted),
                "promised_ms": millis(PROMISED),
                "others": others.figures(),
            }),
        );
        others.assert_whole();
    });
}

#[test]
fn r02_a_relay_that_vanishes_leaves_every_list_and_returns_with_its_allocations() {
    const PROMISED: Duration = Duration::from_secs(6);
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, CALLS);
        calls.go_on_for(1000);
        let victim = &fleet.relays[VICTIM];
        let (server, mark) = (victim.server, victim.mark);
        let ports = fleet.ports(0, VICTIM);
        let ports = format!("{}-{}", ports[0]["first"], ports[0]["last"]);
        let udp = set([server.port().to_string(), ports].into_iter());
        for matching in [
            format!("meta mark {mark}"),
            format!("ct mark {mark}"),
            format!("ip daddr {} udp dport {udp}", server.ip()),
            format!("ip daddr {} tcp dport {}", server.ip(), server.port()),
        ] {
            fleet.cuts.drop(&matching);
        }
        let unlisted = unlisted(fleet, PROMISED);
        calls.go_on_for(1000);
        fleet.cuts.heal();
        let back = fleet.within(
            SOON,
            "the relay is listed again",
            0..CONTROLLERS,
            |controller| controller.lists(&fleet.relays[VICTIM]),
        );
        calls.go_on_for(500);
        let mut held = calls.end();
        let (others, own) = (held.count(elsewhere), held.count(|homes| !elsewhere(homes)));
        figures::print(
            "R2",
            json!({
                "relays": RELAYS,
                "unlisted_ms": all_millis(&unlisted),
                "promised_ms": millis(PROMISED),
                "listed_again_ms": all_millis(&back),
                "others": others.figures(),
                "own": own.figures(),
            }),
        );
        others.assert_whole();
        assert_eq!(own.ended_allocations, 0, "{own:?}");
    });
}

#[test]
fn r30_the_successor_of_a_killed_relay_allocates_soon_from_the_same_ports() {
    const PROMISED: Duration = Duration::from_secs(5);
    /// How long one client waits before the next one tries.
    const TRY: Duration = Duration::from_millis(200);
    with_fleet(|fleet| {
        let before = fleet.ports(0, VICTIM);
        fleet.relays[VICTIM].process.kill();
        fleet.relays[VICTIM].process.restart();
        let begun = Instant::now();
        let relay = &fleet.relays[VICTIM];
        let allocated = eventually("the successor grants an allocation", SOON, || {
            let mut caller = relay.caller("@alice:example.org");
            caller.try_allocate(TRY)?.ok()
        });
        let time = begun.elapsed();
        let port = u64::from(allocated.relayed.port());
        let [first, last] = ["first", "last"].map(|end| before[0][end].as_u64().unwrap());
        assert!((first..=last).contains(&port), "{port} of {before}");
        fleet.wait_until_whole();
        assert_eq!(fleet.ports(1, VICTIM), before);
        figures::print(
            "R30",
            json!({ "allocates_ms": millis(time), "promised_ms": millis(PROMISED), "same_ports": true }),
        );
        assert_time("the first allocation", time, PROMISED);
    });
}
