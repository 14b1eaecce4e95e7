//! Wall clocks that are set, forward and back.

use super::super::search::Ending;
use super::super::segment;
use super::*;

const HOUR: u64 = 3600;

#[test]
fn a_clock_that_is_set_back_begins_a_segment_and_both_times_are_found() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 10, 5000);
    write(&mut log, closed(1, T + 20));
    pass(&mut log, T + 10, T + 5 * HOUR, 60);
    open(&mut log, 2, T + 5 * HOUR, 5001);
    // It was five hours ahead.
    log.keep(T + 5).unwrap();
    assert_eq!(segment::list(root.path()).unwrap().len(), 2);
    open(&mut log, 3, T + 15, 5000);
    pass(&mut log, T + 15, T + 3 * HOUR, 60);
    write(&mut log, closed(3, T + 3 * HOUR));
    let now = T + 3 * HOUR;
    let findings = ask(root.path(), 5000, T + 15, T + 15, now);
    assert_eq!(numbers(&findings), [1, 3]);
    assert_eq!(findings.gaps, []);
    let findings = ask(root.path(), 5000, T + 2 * HOUR, T + 2 * HOUR, now);
    assert_eq!(numbers(&findings), [3]);
    let held = ask(root.path(), 5001, T + 5 * HOUR, T + 5 * HOUR, now);
    assert_eq!(numbers(&held), [2]);
}

#[test]
fn a_clock_that_is_ahead_for_a_while_drops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 1, 5000);
    write(&mut log, closed(1, T + 2));
    pass(&mut log, T + 10, T + 600, 1);
    let ahead = T + 400 * DAY;
    pass(&mut log, ahead, ahead + 600, 1);
    pass(&mut log, T + 1200, T + 1800, 1);
    let findings = ask(root.path(), 5000, T + 1, T + 1, T + 1800);
    assert_eq!(numbers(&findings), [1]);
    assert_eq!(log.covers_since(), Some(T));
    assert_eq!(log.dropped_early(), 0);
}

#[test]
fn what_was_written_ahead_of_time_grows_old_with_what_came_after_it() {
    let root = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        retention: 280,
        ..BOUNDS
    };
    let ahead = T + 400 * DAY;
    let mut log = begin(root.path(), bounds, 1, ahead);
    open(&mut log, 1, ahead, 5000);
    write(&mut log, closed(1, ahead + 1));
    pass(&mut log, ahead, ahead + 5, 1);
    pass(&mut log, T, T + 2 * HOUR, 3);
    let since = log.covers_since().unwrap();
    assert!(since > T + 2 * HOUR - 320 && since < T + 2 * HOUR);
    let now = T + 2 * HOUR;
    assert_eq!(numbers(&ask(root.path(), 5000, ahead, ahead, now)), NONE);
}

#[test]
fn a_clock_that_was_never_set_shows_as_silence() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, 5);
    open(&mut log, 1, 6, 5000);
    pass(&mut log, T, T + 30, 1);
    write(&mut log, closed(1, T + 31));
    let findings = ask(root.path(), 5000, T - 100, T + 40, T + 40);
    let reason = Some(CloseReason::Refreshed);
    let ending = Some(Ending::Closed { at: T + 31, reason });
    assert_eq!(findings.found[0].ending, ending);
    let silent = Gap {
        from: T - 100,
        to: T,
        reason: GapReason::Silent,
    };
    assert_eq!(findings.gaps, [silent]);
}
