use serde_json::json;

use super::*;

fn seen() -> Json {
    let totals = json!({"nodes": 2, "listed": 1, "allocations": {"used": 12, "limit": 100, "headroom": 68},
        "relayed_ports": {"used": 12, "limit": 200}, "rates": {"bytes_from_clients": 125_000.0, "bytes_to_clients": 250.0},
        "saturation": 0.12, "state": "ok", "seconds_to_full": 5400});
    let node = |name: &str, draining: bool| {
        json!({"node": name, "region": "north", "zone": "", "health": "healthy", "listed": !draining,
            "draining": draining, "load": {"allocations": 6, "relayed_ports_used": 6, "relayed_ports_total": 100},
            "rates": {"bytes_from_clients": 1.0, "bytes_to_clients": 1.0}, "saturation": 0.06, "reason": null,
            "drain_deadline": 1_700_000_000})
    };
    let moment = |allocations: u64| json!({"allocations": allocations, "bytes_from_clients": 0, "bytes_to_clients": 0});
    json!({
        "capacity": {"total": totals, "regions": [], "zones": [], "nodes": []},
        "attention": {"items": [{"severity": "critical", "about": "node", "subject": "r\u{1b}[2J", "what": "gone"}], "total": 1},
        "rollout": {"stage": "all", "node": null},
        "course": {"moments": [moment(0), moment(4), moment(8)]},
        "draining": {"nodes": [node("relay-1", true)], "total": 1},
        "nodes": {"nodes": [node("relay-0", false), node("relay-1", true)], "total": 2},
    })
}

fn shown(lines: &[Line]) -> String {
    let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
    texts.join("\n")
}

#[test]
fn the_screen_fills_the_terminal_and_no_more() {
    let mut state = State::default();
    state.take(Ok(seen()));
    for (width, height) in [(120, 40), (80, 24), (20, 5), (1, 1)] {
        state.fit(height);
        let lines = draw(&state, width, height);
        assert_eq!(lines.len(), height, "{width} by {height}");
        assert!(lines.iter().all(|line| line.text.chars().count() <= width));
    }
    let screen = shown(&draw(&state, 200, 24));
    for part in [
        "relays 1 of 2 in lists",
        "full in 90 min",
        "allocations 12 of 100   headroom 68",
        "traffic 1.0 Mbit/s from clients",
        "allocations ▁▄█",
        "relays that drain: 1",
        "[1 relays]",
        "relay-1  north  draining  no",
    ] {
        assert!(screen.contains(part), "{part}:\n{screen}");
    }
}

#[test]
fn what_others_have_named_does_nothing_to_the_terminal() {
    let mut state = State::default();
    state.take(Ok(seen()));
    assert!(shown(&draw(&state, 100, 30)).contains("! critical: node r?[2J: gone"));
    assert!(!page(&seen()).contains('\u{1b}'));
}

#[test]
fn keys_choose_what_is_in_sight() {
    let mut state = State::default();
    state.take(Ok(seen()));
    state.fit(24);
    state.press(Key::Down);
    state.press(Key::PageDown);
    assert_eq!(state.wish.skip, 1, "the last of two");
    state.press(Key::Sort);
    assert_eq!((state.wish.sort, state.wish.skip), (1, 0));
    for _ in 1..SORTS.len() {
        state.press(Key::Sort);
    }
    assert_eq!(state.wish.sort, 0);
    state.press(Key::NextView);
    assert_eq!(state.wish.view, View::Regions);
    state.press(Key::View(2));
    assert_eq!(state.wish.view, View::Changes);
    assert!(
        shown(&draw(&state, 100, 30)).contains('…'),
        "no answer has come"
    );
    state.press(Key::View(7));
    assert_eq!(state.wish.view, View::Changes);
}

#[test]
fn an_answer_that_does_not_come_is_told_and_what_was_shown_stays() {
    let mut state = State::default();
    state.take(Ok(seen()));
    state.take(Err("cannot reach a controller".to_owned()));
    let screen = shown(&draw(&state, 100, 30));
    assert!(screen.contains("0 s old: cannot reach"), "{screen}");
    assert!(screen.contains("relay-0"), "{screen}");
    state.take(Ok(seen()));
    assert!(!shown(&draw(&state, 100, 30)).contains("old"));
}
