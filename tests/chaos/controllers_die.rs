//! Controllers that are killed, the leader or all of them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::calls::Calls;
use crate::figures::{self, assert_time, millis, sized};
use crate::fleet::{CONTROLLERS, RELAYS, with_fleet};
use crate::newcomers::Newcomers;
use crate::onlookers::Onlookers;
use crate::process::SOON;
use crate::tools::eventually;

#[test]
fn r04_the_death_of_the_leading_controller_fails_no_request_and_loses_no_list_entry() {
    const ELECTED: Duration = Duration::from_secs(12);
    const HOMES: Duration = Duration::from_secs(5);
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 60);
        let callers = std::iter::repeat_n(0..CONTROLLERS, sized(2, 4)).flatten();
        let onlookers = Onlookers::asking(fleet, callers, sized(500, 10_000));
        eventually("there is load", SOON, || {
            (onlookers.asked() > 200).then_some(())
        });
        let leader = fleet.leader();
        fleet.controllers[leader].process.kill();
        let begun = Instant::now();
        let others = || (0..CONTROLLERS).filter(|number| *number != leader);
        let (mut homes, mut elected) = (None, None);
        eventually("all have a home, and one leads", SOON, || {
            let sessions: f64 = others().map(|it| fleet.controllers[it].sessions()).sum();
            if homes.is_none() && sessions >= 8.0 {
                homes = Some(begun.elapsed());
            }
            if elected.is_none() && others().any(|it| fleet.controllers[it].leads()) {
                elected = Some(begun.elapsed());
            }
            homes.and(elected)
        });
        let (homes, elected) = (homes.unwrap(), elected.unwrap());
        calls.go_on_for(500);
        let (seen, count) = (onlookers.stop(), calls.end().count_all());
        figures::print(
            "R4",
            json!({
                "rehomed_ms": millis(homes),
                "rehomed_promised_ms": millis(HOMES),
                "leader_ms": millis(elected),
                "leader_promised_ms": millis(ELECTED),
                "credentials": seen.figures(),
                "calls": count.figures(),
            }),
        );
        // Others may miss a relay that moves for a moment, until they hear what it runs.
        seen.assert_served(RELAYS);
        count.assert_whole();
        assert_time("sessions elsewhere", homes, HOMES);
        assert_time("another leader", elected, ELECTED);
    });
}

#[test]
fn r06_without_controllers_calls_go_on_and_homeservers_credentials_open_allocations() {
    /// Restarts while no controller is there.
    const RESTARTED: usize = 5;
    const SERVES: Duration = Duration::from_secs(2);
    with_fleet(|fleet| {
        let on_the_restarted = |homes: [usize; 2]| homes.contains(&RESTARTED);
        let calls = Calls::open(fleet, 100);
        let before = fleet.ports(0, RESTARTED);
        for controller in &mut fleet.controllers {
            controller.process.kill();
        }
        let begun = Instant::now();
        let newcomers = Newcomers::to(fleet, 0..RELAYS);
        calls.go_on_for(5000);
        calls.pass(sized(Duration::ZERO, Duration::from_secs(600)));
        let served = newcomers.stop();

        // R7: one of them restarts meanwhile, and knows what to do from its own copy of the policy.
        fleet.relays[RESTARTED].process.kill();
        fleet.relays[RESTARTED].process.restart();
        let restarted = Instant::now();
        let relay = &fleet.relays[RESTARTED];
        let allocated = eventually("the restarted relay grants an allocation", SOON, || {
            let mut caller = relay.caller("@alice:example.org");
            caller.try_allocate(Duration::from_millis(200))?.ok()
        });
        let serves = restarted.elapsed();
        let port = u64::from(allocated.relayed.port());
        let [first, last] = ["first", "last"].map(|end| before[0][end].as_u64().unwrap());
        assert!((first..=last).contains(&port), "{port} of {before}");
        let again = Newcomers::to(fleet, 0..RELAYS);
        calls.go_on_for(1000);
        let served_again = again.stop();
        let without = begun.elapsed();

        for controller in &mut fleet.controllers {
            controller.process.restart();
        }
        let returned = Instant::now();
        fleet.wait_until_whole();
        let whole = returned.elapsed();
        assert_eq!(fleet.ports(0, RESTARTED), before);
        let others = calls.end().count(|homes| !on_the_restarted(homes));
        figures::print(
            "R6",
            json!({
                "without_controllers_ms": millis(without),
                "calls": others.figures(),
                "newcomers": served.figures(),
                "fleet_whole_again_ms": millis(whole),
            }),
        );
        figures::print(
            "R7",
            json!({
                "serves_ms": millis(serves),
                "promised_ms": millis(SERVES),
                "same_ports": true,
                "newcomers": served_again.figures(),
            }),
        );
        others.assert_whole();
        served.assert_all();
        served_again.assert_all();
        assert_time("the restarted relay serves", serves, SERVES);
    });
}
