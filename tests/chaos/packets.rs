//! A network that loses packets everywhere, and brings others twice or late.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::calls::{Calls, LONG};
use crate::cuts::GRPC;
use crate::figures::{self, millis, sized};
use crate::fleet::{CONTROLLERS, RELAYS, with_fleet};
use crate::impairer::Impairer;
use crate::onlookers::Onlookers;

#[test]
fn r16_a_bad_network_unlists_nobody_and_relays_neither_lose_nor_repeat_on_top() {
    const LOSS: u32 = 5;
    let time = Duration::from_secs(sized(12, 600));
    with_fleet(|fleet| {
        let impairer = Impairer::new();
        let calls = Calls::open_by(fleet, 100, |relay| impairer.path(relay));
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
        impairer.impair(true);
        let begun = Instant::now();
        calls.pass(time);
        let seen = onlookers.stop();
        let mut held = calls.end();
        impairer.impair(false);
        let dropped = usize::try_from(fleet.cuts.dropped(&words)).unwrap();
        fleet.cuts.heal();
        let count = held.count_all();
        let repeated = impairer.repeated();
        figures::print(
            "R16",
            json!({
                "loss_percent": LOSS,
                "took_ms": millis(begun.elapsed()),
                "words_dropped_by_the_network": dropped,
                "words_repeated_by_the_network": repeated,
                "words_late_by_the_network": impairer.late(),
                "words_came_again": count.repeated,
                "words_overtaken": count.overtaken,
                "calls": count.figures(),
                "lists": seen.figures(),
            }),
        );
        seen.assert_served(RELAYS);
        assert!(dropped > 100, "hardly a loss: {dropped}");
        assert!(
            count.repeated > 10 && count.overtaken > 100,
            "hardly impaired: {count:?}"
        );
        // What came is what was said and repeated, but for what the network dropped, to a thousandth.
        let came = count.words - count.lost + count.repeated;
        let due = count.words + repeated - dropped;
        assert!(
            came.abs_diff(due) <= count.words / 1000,
            "{came} came of {due}: {count:?}"
        );
        assert_eq!(count.ended_allocations, 0, "{count:?}");
    });
}
