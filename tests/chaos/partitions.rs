//! Networks that fall apart between relays and controllers, while clients reach everything.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::calls::Calls;
use crate::cuts::set;
use crate::figures::{self, assert_time, millis};
use crate::fleet::{CONTROLLERS, Controller, Fleet, RELAYS, Relay, with_fleet};
use crate::onlookers::Onlookers;
use crate::process::SOON;
use crate::tools::eventually;

#[test]
fn r03_a_relay_without_its_control_stream_stays_listed_and_loses_nothing() {
    const PROMISED: Duration = Duration::from_secs(5);
    const CUT_OFF: usize = 3;
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 100);
        let onlookers = Onlookers::of(fleet, 0..CONTROLLERS);
        let relay = &fleet.relays[CUT_OFF];
        fleet.cuts.drop(&format!("ct mark {}", relay.mark));
        fleet.within(
            SOON,
            "the relay is unmanaged",
            0..CONTROLLERS,
            |controller| controller.health(relay) == "unmanaged",
        );
        calls.go_on_for(2000);
        fleet.cuts.heal();
        let healthy = fleet.within(SOON, "the relay is healthy", 0..CONTROLLERS, |controller| {
            controller.health(relay) == "healthy"
        });
        let slowest = healthy.into_iter().max().unwrap();
        let (seen, count) = (onlookers.stop(), calls.end().count_all());
        figures::print(
            "R3",
            json!({
                "healthy_again_ms": millis(slowest),
                "promised_ms": millis(PROMISED),
                "calls": count.figures(),
                "lists": seen.figures(),
            }),
        );
        count.assert_whole();
        seen.assert_served(RELAYS);
        assert_time("healthy again", slowest, PROMISED);
    });
}

/// Keeps a controller from some relays and from all other controllers, and these from it.
#[track_caller]
fn cut_off(fleet: &Fleet<'_>, observer: &Controller, missed: &[Relay]) {
    let others = || {
        fleet
            .controllers
            .iter()
            .filter(|it| it.mark != observer.mark)
    };
    let marks = others()
        .map(|it| it.mark)
        .chain(missed.iter().map(|relay| relay.mark));
    let ips = others().map(|it| it.ip.as_str());
    let relay_ips = missed.iter().map(|relay| relay.server.ip());
    for matching in [
        format!("meta mark {} ip daddr {}", observer.mark, set(relay_ips)),
        format!("meta mark {} ip daddr {}", observer.mark, set(ips)),
        format!("meta mark {} ip daddr {}", set(marks), observer.ip),
    ] {
        fleet.cuts.drop(&matching);
    }
}

#[test]
fn r26_a_controller_that_alone_misses_half_of_the_relays_empties_no_list() {
    /// The relays of two addresses.
    const MISSED: usize = 4;
    const OBSERVER: usize = 0;
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 60);
        let onlookers = Onlookers::of(fleet, 0..CONTROLLERS);
        let observer = &fleet.controllers[OBSERVER];
        let missed = &fleet.relays[..MISSED];
        cut_off(fleet, observer, missed);
        let begun = Instant::now();
        let suspects = || {
            let suspects = observer
                .api
                .metric("turnfleet_controller_nodes_suspect", "");
            suspects.unwrap_or(0.0)
        };
        eventually("the silent relays are suspects", SOON, || {
            (suspects() >= 4.0).then_some(())
        });
        let noticed = begun.elapsed();
        let missed_servers: Vec<_> = missed.iter().map(|relay| relay.server).collect();
        for user in 0..20 {
            let (_, servers) = observer.api.credential(&format!("user{user}")).unwrap();
            assert!(
                !missed_servers.contains(&servers[0]),
                "a suspect comes first: {servers:?}"
            );
        }
        calls.go_on_for(1000);
        let panic = observer
            .api
            .metric("turnfleet_controller_regions_in_panic", "");
        fleet.cuts.heal();
        eventually("nobody is suspect", SOON, || {
            let whole = fleet.controllers.iter().all(|controller| {
                controller
                    .api
                    .listed()
                    .is_ok_and(|listed| listed.len() == RELAYS)
            });
            (whole && suspects() == 0.0).then_some(())
        });
        let (seen, count) = (onlookers.stop(), calls.end().count_all());
        figures::print(
            "R26",
            json!({
                "missed": MISSED,
                "suspects_after_ms": millis(noticed),
                "regions_in_panic": panic,
                "calls": count.figures(),
                "lists": seen.figures(),
            }),
        );
        count.assert_whole();
        seen.assert_served(RELAYS - MISSED);
    });
}
