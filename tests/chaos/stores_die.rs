//! An etcd that is gone, or takes no writes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::Api;
use crate::calls::Calls;
use crate::figures::{self, assert_time, millis, sized};
use crate::fleet::{CONTROLLERS, Fleet, RELAYS, Special, with_fleet, with_special_fleet};
use crate::newcomers::Newcomers;
use crate::onlookers::Onlookers;
use crate::process::SOON;
use crate::tools::eventually;

/// Seconds that the store is away for: usually, and at full size.
const AWAY: [u64; 2] = [8, 600];
/// After its return.
const CONSISTENT: Duration = Duration::from_secs(5);

/// A change by an operator, and the answer to it.
fn drain(api: &Api, how: &str) -> Result<u16, String> {
    let answer = api.post(&format!("/v1/nodes/relay-7/{how}"), &json!({}));
    answer.map(|(status, _)| status)
}

fn is_done(answer: &Result<u16, String>) -> bool {
    matches!(answer, Ok(200..=204))
}

/// Waits until a change by one controller holds at all of them, and takes it back: how long that took.
#[track_caller]
fn writes_resume(fleet: &Fleet<'_>) -> Duration {
    let begun = Instant::now();
    let all_see = |draining: bool| {
        let sees = |api: &Api| api.node("relay-7")["draining"] == draining;
        fleet.within(SOON, "the change is seen", 0..CONTROLLERS, |it| {
            sees(&it.api)
        });
    };
    let change = |how: &str| {
        eventually("changes are taken", SOON, || {
            is_done(&drain(&fleet.controllers[1].api, how)).then_some(())
        });
    };
    change("drain");
    all_see(true);
    let time = begun.elapsed();
    change("undrain");
    all_see(false);
    time
}

#[test]
fn r05_without_etcd_nothing_is_lost_and_changes_wait_for_its_return() {
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 100);
        let onlookers = Onlookers::of(fleet, 0..CONTROLLERS);
        fleet.etcd.kill_all();
        let begun = Instant::now();
        let newcomers = Newcomers::to(fleet, 0..RELAYS);
        let refused = eventually("changes are refused", SOON, || {
            let refused = drain(&fleet.controllers[0].api, "drain");
            (refused == Ok(503)).then_some(503)
        });
        let [usual, full] = AWAY.map(Duration::from_secs);
        calls.pass(sized(usual, full).saturating_sub(begun.elapsed()));
        let away = begun.elapsed();
        let served = newcomers.stop();
        let seen = onlookers.stop();
        fleet.etcd.restart_all();
        let resumed = writes_resume(fleet);
        fleet.wait_until_whole();
        let count = calls.end().count_all();
        figures::print(
            "R5",
            json!({
                "without_etcd_ms": millis(away),
                "change_meanwhile": refused,
                "calls": count.figures(),
                "lists": seen.figures(),
                "newcomers": served.figures(),
                "consistent_ms": millis(resumed),
                "promised_ms": millis(CONSISTENT),
            }),
        );
        count.assert_whole();
        seen.assert_served(RELAYS);
        served.assert_all();
        assert_time("changes hold everywhere", resumed, CONSISTENT);
    });
}

#[test]
fn r14_an_etcd_without_space_takes_no_change_and_costs_no_call() {
    /// Half of it is filled by one value after the other.
    const QUOTA: usize = 24 << 20;
    let quota = format!("--quota-backend-bytes={QUOTA}");
    let special = Special {
        etcd: &[&quota],
        ..Special::default()
    };
    with_special_fleet(&special, |fleet| {
        let calls = Calls::open(fleet, 60);
        let onlookers = Onlookers::of(fleet, 0..CONTROLLERS);
        let value = "x".repeat(100_000);
        eventually("the alarm is raised", SOON, || {
            let full = (0..32).any(|number| {
                fleet
                    .etcd
                    .try_ctl(&["put", &format!("/filler/{number}"), &value])
                    .is_err()
            });
            full.then_some(())
        });
        let alarm = fleet.etcd.ctl(&["alarm", "list"]);
        assert!(alarm.contains("NOSPACE"), "{alarm}");
        let newcomers = Newcomers::to(fleet, 0..RELAYS);
        let answer = eventually("changes are refused", SOON, || {
            let path = "/v1/nodes/relay-7/drain";
            let answer = fleet.controllers[0].api.post(path, &json!({})).ok()?;
            (answer.0 == 503).then_some(answer.1)
        });
        calls.go_on_for(2000);
        let said = std::fs::read_to_string(fleet.controllers[0].process.log()).unwrap();
        let told = said.to_lowercase().contains("no space") || said.contains("database space");

        fleet.etcd.ctl(&["del", "--prefix", "/filler/"]);
        let revision = fleet.etcd.ctl(&["get", "--write-out=json", "/none"]);
        let revision = revision.split("\"revision\":").nth(1).unwrap();
        let revision = revision.split([',', '}']).next().unwrap();
        fleet.etcd.ctl(&["compact", revision]);
        fleet.etcd.ctl(&["defrag"]);
        fleet.etcd.ctl(&["alarm", "disarm"]);
        // What is written then drains a relay.
        let (served, seen) = (newcomers.stop(), onlookers.stop());
        let resumed = writes_resume(fleet);
        let count = calls.end().count_all();
        figures::print(
            "R14",
            json!({
                "change_meanwhile": answer,
                "log_says_why": told,
                "calls": count.figures(),
                "lists": seen.figures(),
                "newcomers": served.figures(),
                "consistent_ms": millis(resumed),
                "promised_ms": millis(CONSISTENT),
            }),
        );
        count.assert_whole();
        seen.assert_served(RELAYS);
        served.assert_all();
    });
}
