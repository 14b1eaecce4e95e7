//! Files: what they hold, how long, and what a missing or damaged one does.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::search::Ending;
use super::super::segment;
use super::*;

#[test]
fn an_address_is_found_for_the_time_that_somebody_had_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("journal");
    let mut log = begin(&folder, BOUNDS, 1, T);
    open(&mut log, 1, T + 10, 5000);
    open(&mut log, 2, T + 11, 5001);
    pass(&mut log, T + 10, T + 20, 1);
    write(&mut log, closed(1, T + 20));
    open(&mut log, 3, T + 25, 5000);
    for (from, to, expected) in [
        (T, T + 9, vec![]),
        (T + 10, T + 10, vec![1]),
        (T + 20, T + 20, vec![1]),
        (T + 21, T + 24, vec![]),
        (T + 15, T + 30, vec![1, 3]),
    ] {
        let findings = ask(&folder, 5000, from, to, T + 30);
        assert_eq!(numbers(&findings), expected, "{from}..{to}");
        assert_eq!((findings.gaps.len(), findings.covers_since), (0, Some(T)));
    }
    let findings = ask(&folder, 5000, T + 15, T + 30, T + 30);
    let [first, last] = &*findings.found else {
        panic!("{findings:?}")
    };
    assert_eq!(first.opened, opened(1, T + 10, 5000));
    let reason = Some(CloseReason::Refreshed);
    assert_eq!(first.ending, Some(Ending::Closed { at: T + 20, reason }));
    assert_eq!(last.ending, None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let file = &segment::list(&folder).unwrap()[0].path;
    assert_eq!(mode(file), 0o600);
}

#[test]
fn an_allocation_that_outlives_segments_is_found_at_every_time() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 5, 5000);
    // Segments by age are six hours long.
    pass(&mut log, T + 10, T + DAY, 60);
    write(&mut log, closed(1, T + DAY));
    assert_eq!(segment::list(root.path()).unwrap().len(), 4);
    for at in [T + 5, T + DAY / 2, T + DAY] {
        let findings = ask(root.path(), 5000, at, at, T + DAY);
        assert_eq!(numbers(&findings), [1], "at {at}");
        assert_eq!(findings.found[0].opened.at, T + 5);
        let reason = Some(CloseReason::Refreshed);
        let ending = Some(Ending::Closed {
            at: T + DAY,
            reason,
        });
        assert_eq!(findings.found[0].ending, ending);
        assert_eq!(findings.gaps, []);
    }
}

#[test]
fn what_is_older_than_the_retention_is_dropped_and_shows() {
    let root = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        retention: 280,
        ..BOUNDS
    };
    let mut log = begin(root.path(), bounds, 1, T);
    open(&mut log, 1, T, 5000);
    write(&mut log, closed(1, T + 5));
    pass(&mut log, T + 10, T + 400, 1);
    let since = log.covers_since().unwrap();
    assert!((T + 100..T + 130).contains(&since), "{}", since - T);
    assert_eq!(log.dropped_early(), 0);
    let findings = ask(root.path(), 5000, T, T + 10, T + 400);
    assert_eq!(numbers(&findings), NONE);
    let gap = Gap {
        from: T,
        to: T + 10,
        reason: GapReason::BeforeJournal,
    };
    assert_eq!(
        (findings.gaps, findings.covers_since),
        (vec![gap], Some(since))
    );
}

#[test]
fn the_files_stay_within_their_bound_and_the_oldest_go_first() {
    let root = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        bytes: 64 * 1024,
        ..BOUNDS
    };
    let mut log = begin(root.path(), bounds, 1, T);
    open(&mut log, 0, T, 4999);
    for number in 1..5000 {
        let at = T + number;
        open(&mut log, number, at, 5000);
        write(&mut log, closed(number, at));
        write(&mut log, Record::Mark { at });
        if number % 20 == 0 {
            log.keep(at).unwrap();
        }
    }
    log.keep(T + 5000).unwrap();
    let on_disk: u64 = segment::list(root.path())
        .unwrap()
        .iter()
        .map(|it| it.bytes)
        .sum();
    assert_eq!(log.bytes(), on_disk);
    assert!(on_disk <= bounds.bytes, "{on_disk}");
    assert!(on_disk > bounds.bytes / 2, "{on_disk}");
    assert!(log.dropped_early() > 10);
    let since = log.covers_since().unwrap();
    let now = T + 5000;
    assert_eq!(
        numbers(&ask(root.path(), 5000, T + 4900, T + 4900, now)),
        [4900]
    );
    assert_eq!(
        numbers(&ask(root.path(), 5000, since - 2, since - 2, now)),
        NONE
    );
    // The one that lives on has been carried along.
    let held = ask(root.path(), 4999, now, now, now);
    assert_eq!((numbers(&held), held.found[0].opened.at), (vec![0], T));
}

#[test]
fn a_process_that_was_killed_leaves_a_gap_and_what_it_had_is_found() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 1, 5000);
    pass(&mut log, T + 10, T + 40, 1);
    drop(log);
    let file = &segment::list(root.path()).unwrap()[0].path;
    // Half of a record.
    let mut torn = OpenOptions::new().append(true).open(file).unwrap();
    torn.write_all(&[40, 0, 1, 2, 3, 4, 2, 9]).unwrap();
    let mut log = begin(root.path(), BOUNDS, 2, T + 100);
    open(&mut log, 1, T + 101, 5000);
    let findings = ask(root.path(), 5000, T, T + 110, T + 110);
    assert_eq!(findings.found.len(), 2);
    let ending = Some(Ending::Died { after: T + 40 });
    assert_eq!(findings.found[0].ending, ending);
    assert_eq!(findings.found[1].ending, None);
    let gap = Gap {
        from: T + 40,
        to: T + 100,
        reason: GapReason::Died,
    };
    assert_eq!(findings.gaps, [gap]);
    assert_eq!(
        numbers(&ask(root.path(), 5000, T + 90, T + 99, T + 110)),
        NONE
    );
}

#[test]
fn a_process_that_ended_well_shows_when_nothing_was_relayed() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    write(&mut log, Record::End { at: T + 5 });
    drop(log);
    // Hours later.
    let later = T + DAY / 2;
    let _log = begin(root.path(), BOUNDS, 2, later);
    let gap = Gap {
        from: T + 10,
        to: T + 20,
        reason: GapReason::Stopped,
    };
    assert_eq!(ask(root.path(), 5000, T + 10, T + 20, later).gaps, [gap]);
    assert_eq!(ask(root.path(), 5000, T, T + 4, later).gaps, []);
}

#[test]
fn a_folder_that_is_removed_under_way_begins_anew_with_what_lives() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("journal");
    let mut log = begin(&folder, BOUNDS, 1, T);
    open(&mut log, 1, T, 5000);
    open(&mut log, 2, T, 5001);
    write(&mut log, closed(2, T + 1));
    fs::remove_dir_all(&folder).unwrap();
    log.keep(T + 50).unwrap();
    let findings = ask(&folder, 5000, T, T + 60, T + 60);
    assert_eq!(
        (numbers(&findings), findings.covers_since),
        (vec![1], Some(T + 50))
    );
    let gap = Gap {
        from: T,
        to: T + 50,
        reason: GapReason::BeforeJournal,
    };
    assert_eq!(findings.gaps, [gap]);
    assert_eq!(numbers(&ask(&folder, 5001, T, T + 60, T + 60)), NONE);
}

#[test]
fn no_journal_at_all_is_a_gap_over_everything() {
    let root = tempfile::tempdir().unwrap();
    let findings = ask(&root.path().join("none"), 5000, T, T + 60, T + 60);
    assert_eq!((findings.found.len(), findings.covers_since), (0, None));
    assert_eq!(findings.gaps.len(), 1);
    assert_eq!(findings.gaps[0].reason, GapReason::BeforeJournal);
}
