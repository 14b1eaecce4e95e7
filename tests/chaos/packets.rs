//! A network that loses packets everywhere.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::calls::{Calls, LONG};
use crate::cuts::GRPC;
use crate::figures::{self, millis};
use crate::fleet::{CONTROLLERS, RELAYS, with_fleet};
use crate::onlookers::Onlookers;

#[test]
fn r16_loss_everywhere_unlists_nobody_and_relays_lose_nothing_on_top() {
    const LOSS: u32 = 5;
    const TIME: Duration = Duration::from_secs(12);
    with_fleet(|fleet| {
        let calls = Calls::open(fleet, 100);
        calls.go_on_for(500);
        let onlookers = Onlookers::of(fleet, 0..CONTROLLERS);
        let sometimes = format!("numgen random mod 100 < {LOSS}");
        let words = format!("udp length > {LONG}");
        fleet.cuts.drop(&format!("{words} {sometimes}"));
        // Probes, requests and answers.
        fleet.cuts.drop(&format!(
            "ip daddr 11.0.0.0/8 udp length <= {LONG} {sometimes}"
        ));
        fleet.cuts.drop(&format!("tcp dport {GRPC} {sometimes}"));
        fleet.cuts.drop(&format!("tcp sport {GRPC} {sometimes}"));
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            calls.go_on_for(200);
        }
        let seen = onlookers.stop();
        let mut held = calls.end();
        let dropped = usize::try_from(fleet.cuts.dropped(&words)).unwrap();
        fleet.cuts.heal();
        let count = held.count_all();
        figures::print(
            "R16",
            json!({
                "loss_percent": LOSS,
                "took_ms": millis(begun.elapsed()),
                "words_dropped_by_the_network": dropped,
                "calls": count.figures(),
                "lists": seen.figures(),
            }),
        );
        seen.assert_served(RELAYS);
        assert!(dropped > 100, "hardly a loss: {dropped}");
        // A thousandth of what was said.
        assert!(
            count.lost.abs_diff(dropped) <= count.words / 1000,
            "{count:?} of {dropped}"
        );
        assert_eq!(count.ended_allocations, 0, "{count:?}");
    });
}
