//! Whom lists trust: after faults, with clocks and certificates that are wrong, and with a controller that sees nothing.

use turnfleet_controller::fleet::{Ask, Ended, Health, Load, Validity, Vitals};

use crate::stage::{Stage, id, identity};

fn reason(stage: &Stage, number: u8) -> String {
    let view = stage.view();
    let reason = view.reason(view.node(&id(number)).unwrap());
    reason.map_or_else(String::new, |reason| reason.to_string())
}

/// A fault, and the way back.
fn fail_and_recover(stage: &mut Stage, number: u8) {
    stage.probe(number, false);
    stage.probe(number, false);
    for _ in 0..6 {
        stage.wait(2000);
        for number in 0..2 {
            stage.heartbeat(number, 7, Load::default());
        }
        stage.probe(number, true);
    }
}

#[test]
fn a_node_that_fails_four_times_in_ten_minutes_is_out_for_ten() {
    let mut stage = Stage::of(2);
    for fault in 1..=3 {
        fail_and_recover(&mut stage, 1);
        assert_eq!(stage.listed().len(), 2, "fault {fault}");
    }
    fail_and_recover(&mut stage, 1);
    assert_eq!(stage.view().node(&id(1)).unwrap().health, Health::Healthy);
    assert_eq!(stage.listed(), ["relay-0"]);
    assert!(reason(&stage, 1).starts_with("failed more than three times"));
    let mut alone = stage.fleet.clone();
    let session = stage.session(0);
    let ended = Ended::Goodbye;
    let event = turnfleet_controller::fleet::Event::SessionEnded { session, ended };
    alone.apply(stage.now, event);
    let listed = alone.view(stage.now).listed();
    assert_eq!(listed, 1, "a node that flaps is better than none");
    for _ in 0..300 {
        stage.wait(2000);
        for number in 0..2 {
            stage.heartbeat(number, 7, Load::default());
        }
    }
    assert_eq!(stage.listed().len(), 2);
    assert_eq!(stage.view().node(&id(1)).unwrap().ramp, 25);
}

#[test]
fn the_share_of_a_node_rises_over_a_minute_after_a_fault() {
    let mut stage = Stage::of(2);
    let weights = |stage: &Stage| {
        let view = stage.view();
        let weight = |number| view.node(&id(number)).unwrap().weight;
        weight(1) / weight(0)
    };
    assert_eq!(weights(&stage), 1.0, "a first registration is whole");
    fail_and_recover(&mut stage, 1);
    let mut seen = Vec::new();
    for _ in 0..32 {
        seen.push(weights(&stage));
        stage.wait(2000);
        for number in 0..2 {
            stage.heartbeat(number, 7, Load::default());
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert_eq!(seen, [0.25, 0.5, 0.75, 1.0]);
}

#[test]
fn a_wrong_clock_is_a_warning_and_then_a_reason() {
    let mut stage = Stage::of(2);
    let skewed = |stage: &mut Stage, number, millis| {
        let vitals = Vitals {
            clock_skew_millis: Some(millis),
            ..Vitals::default()
        };
        for _ in 0..2 {
            stage.beat(number, 7, Load::default(), vitals);
        }
        (stage.listed(), reason(stage, number))
    };
    let both = ["relay-0".to_owned(), "relay-1".to_owned()];
    let (listed, why) = skewed(&mut stage, 1, 4000);
    assert_eq!((&listed[..], &*why), (&both[..], ""));
    let (listed, why) = skewed(&mut stage, 1, -7500);
    assert_eq!(
        (&listed[..], &*why),
        (&both[..], "its clock is 7.5 s behind")
    );
    let (listed, why) = skewed(&mut stage, 1, 31_000);
    assert_eq!(
        (&listed[..], &*why),
        (&both[..1], "its clock is 31.0 s ahead")
    );
    let (listed, _) = skewed(&mut stage, 0, 31_000);
    assert_eq!(listed, both, "it is this controller's clock");
}

#[test]
fn a_node_is_behind_unless_most_others_say_that_it_is_the_controller_who_is_ahead() {
    let mut stage = Stage::of(4);
    let mut say = |number, millis| {
        let vitals = Vitals {
            clock_skew_millis: Some(millis),
            ..Vitals::default()
        };
        for _ in 0..2 {
            stage.beat(number, 7, Load::default(), vitals);
        }
        [0, 1, 2, 3].map(|number| stage.fleet.is_behind(&id(number)))
    };
    let (not, is) = (Some(false), Some(true));
    assert_eq!(say(0, -3_600_000), [is, None, None, None]);
    assert_eq!(say(1, 500), [is, not, None, None]);
    assert_eq!(say(2, -3_600_000), [is, not, is, None]);
    assert_eq!(say(3, -3_600_000), [None, not, None, None]);
    assert_eq!(say(1, -3_600_000), [None; 4]);
    assert_eq!(say(3, 3_600_000)[3], not, "it is ahead");
}

pub(crate) const DAY: u64 = 86_400;

/// A heartbeat says that the certificate of the relay of that number is good for `left` seconds.
pub(crate) fn certificate(stage: &mut Stage, number: u8, left: u64) {
    let now = stage.now.unix;
    let validity = Validity {
        not_before: now - 80 * DAY,
        not_after: now + left,
    };
    let vitals = Vitals {
        certificate: Some(validity),
        ..Vitals::default()
    };
    stage.beat(number, 7, Load::default(), vitals);
}

fn by_tls(stage: &Stage) -> Vec<String> {
    let mut list = stage.list(&Ask {
        count: Some(8),
        ..Ask::default()
    });
    list.retain(|uri| uri.starts_with("turns:"));
    list.sort();
    list
}

const TURNS: [&str; 2] = [
    "turns:192.0.2.0:5349?transport=tcp",
    "turns:192.0.2.1:5349?transport=tcp",
];

#[test]
fn a_certificate_at_its_end_takes_turns_away_and_nothing_else() {
    let mut stage = Stage::of(2);
    certificate(&mut stage, 0, 60 * DAY);
    certificate(&mut stage, 1, 3 * DAY);
    assert_eq!(by_tls(&stage), TURNS);
    assert_eq!(reason(&stage, 1), "its certificate ends soon");
    certificate(&mut stage, 1, DAY - 1);
    assert_eq!(by_tls(&stage), TURNS[..1]);
    assert_eq!(stage.listed().len(), 2);
    assert!(reason(&stage, 1).contains("without turns:"));
    certificate(&mut stage, 0, DAY - 1);
    assert_eq!(
        by_tls(&stage),
        TURNS,
        "until its end it is better than none"
    );
    certificate(&mut stage, 1, 0);
    assert_eq!(by_tls(&stage), TURNS[..1]);
}

#[test]
fn a_controller_whose_own_firewall_stops_its_probes_lists_by_sessions() {
    let mut stage = Stage::empty();
    for number in 0..2 {
        stage.register(number, identity(number), 1);
        stage.probe(number, false);
        stage.probe(number, false);
    }
    assert_eq!(stage.listed().len(), 2);
    assert!(reason(&stage, 0).starts_with("listed by its session alone"));
    stage.probe(0, true);
    stage.probe(1, false);
    stage.probe(1, false);
    assert_eq!(
        stage.listed(),
        ["relay-0"],
        "the probe has reached a relay that way"
    );
}
