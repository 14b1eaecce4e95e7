//! One relay of many carries far more than its share, and lists spread what comes.

use turnfleet_controller::fleet::Load;

use crate::stage::{Stage, first_choice, id};

const RELAYS: u8 = 10;
/// What one relay can hold.
const LIMIT: f64 = 1000.0;
/// Calls of 30 s; so many begin each second.
const CALLS_A_SECOND: u32 = 120;
const CALL_SECONDS: f64 = 30.0;

/// Relays whose calls end by chance and begin where lists send them.
struct Traffic {
    stage: Stage,
    calls: Vec<f64>,
    users: u32,
}

impl Traffic {
    fn new() -> Self {
        let even = f64::from(CALLS_A_SECOND) * CALL_SECONDS / f64::from(RELAYS);
        Self {
            stage: Stage::of(RELAYS),
            calls: vec![even; usize::from(RELAYS)],
            users: 0,
        }
    }

    fn second(&mut self) {
        for calls in &mut self.calls {
            *calls -= *calls / CALL_SECONDS;
        }
        let view = self.stage.view();
        for _ in 0..CALLS_A_SECOND {
            self.users += 1;
            let relay = first_choice(&view, &format!("user-{}", self.users));
            let number: usize = relay.rsplit_once('.').unwrap().1.parse().unwrap();
            self.calls[number] += 1.0;
        }
        self.stage.wait(1000);
        if self.stage.now.unix.is_multiple_of(2) {
            for number in 0..RELAYS {
                let allocations = self.calls[usize::from(number)].round();
                let load = Load {
                    allocations: format!("{allocations}").parse().unwrap(),
                    ..Load::default()
                };
                self.stage.heartbeat(number, 7, load);
            }
        }
    }

    fn fullest(&self) -> f64 {
        self.calls.iter().copied().fold(0.0, f64::max) / LIMIT
    }

    /// The standard deviation of the calls of all relays.
    fn spread(&self) -> f64 {
        let mean = self.calls.iter().sum::<f64>() / f64::from(RELAYS);
        let square = |calls: &f64| (calls - mean) * (calls - mean);
        (self.calls.iter().map(square).sum::<f64>() / f64::from(RELAYS)).sqrt()
    }
}

#[test]
fn a_hot_spot_falls_below_four_fifths_within_a_minute_and_nothing_swings() {
    let mut traffic = Traffic::new();
    traffic.calls[3] = 1000.0;
    let mut cooled = None;
    let mut eighths_changes = 0;
    let mut eighths = Vec::new();
    for second in 0..300 {
        traffic.second();
        if cooled.is_none() && traffic.fullest() < 0.8 {
            cooled = Some(second);
        }
        assert!(
            second < 60 || traffic.fullest() < 0.8,
            "at {second}: {:?}",
            traffic.calls
        );
        if second >= 120 {
            assert!(traffic.spread() < 60.0, "at {second}: {:?}", traffic.calls);
            let now: Vec<u8> = traffic
                .stage
                .view()
                .nodes
                .iter()
                .map(|node| node.saturation.eighths)
                .collect();
            eighths_changes += usize::from(!eighths.is_empty() && now != eighths);
            eighths = now;
        }
    }
    assert!(cooled.is_some_and(|second| second <= 60), "{cooled:?}");
    assert!(
        eighths_changes <= 10,
        "{eighths_changes} changes in three minutes"
    );
}

#[test]
fn a_relay_that_comes_back_empty_is_not_overrun() {
    let mut traffic = Traffic::new();
    traffic.stage.probe(0, false);
    traffic.stage.probe(0, false);
    traffic.calls[0] = 0.0;
    for _ in 0..20 {
        traffic.second();
    }
    for _ in 0..6 {
        traffic.stage.probe(0, true);
        traffic.second();
        traffic.second();
    }
    assert!(traffic.stage.view().node(&id(0)).unwrap().listed);
    let mut highest: f64 = 0.0;
    for second in 0..300 {
        traffic.stage.probe(0, true);
        traffic.second();
        highest = highest.max(traffic.calls[0]);
        let others = traffic.calls[1..].iter().sum::<f64>() / f64::from(RELAYS - 1);
        assert!(
            second > 20 || traffic.calls[0] < others / 2.0,
            "it warms up: {:?}",
            traffic.calls
        );
    }
    assert!(highest < 500.0, "{highest}: its share is 360");
    assert!(traffic.spread() < 60.0, "{:?}", traffic.calls);
}
