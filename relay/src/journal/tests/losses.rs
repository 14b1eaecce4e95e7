//! What was not written, and what cannot be read.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::super::held::Loss;
use super::super::search::Ending;
use super::super::segment;
use super::*;

fn loss(since: u64, until: u64) -> Record {
    Record::Lost(Loss {
        since: T + since,
        until: T + until,
        count: 1,
    })
}

#[test]
fn silence_losses_and_damage_are_gaps() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    pass(&mut log, T + 10, T + 20, 1);
    write(&mut log, Record::Mark { at: T + 100 });
    write(
        &mut log,
        Record::Lost(Loss {
            since: T + 100,
            until: T + 102,
            count: 3,
        }),
    );
    let file = segment::list(root.path()).unwrap().remove(0).path;
    log.roll(T + 110).unwrap();
    let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"no record").unwrap();
    let findings = ask(root.path(), 5000, T, T + 200, T + 200);
    let expected = [
        gap(20, 100, GapReason::Silent),
        gap(100, 102, GapReason::Lost),
        gap(100, 110, GapReason::Damaged),
        gap(110, 200, GapReason::Silent),
    ];
    assert_eq!(findings.gaps, expected);
}

#[test]
fn an_end_that_was_lost_does_not_keep_an_allocation_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T, 5000);
    open(&mut log, 2, T + 20, 5000);
    log.roll(T + 21).unwrap();
    let findings = ask(root.path(), 5000, T, T + 25, T + 25);
    assert_eq!(numbers(&findings), [1, 2]);
    let unseen = Some(Ending::Unseen { before: T + 20 });
    assert_eq!(findings.found[0].ending, unseen);
    write(&mut log, closed(2, T + 22));
    log.roll(T + 23).unwrap();
    let last = segment::list(root.path()).unwrap().pop().unwrap();
    assert!(last.bytes < 60, "nothing is held: {} bytes", last.bytes);
}

#[test]
fn a_loss_casts_doubt_on_later_times_of_its_process_and_on_no_other() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    write(&mut log, loss(5, 7));
    pass(&mut log, T + 10, T + 20, 1);
    // Hours go by, and segments.
    for hour in 1..30 {
        pass(&mut log, T + hour * 3600, T + hour * 3600, 1);
    }
    let now = T + 29 * 3600;
    assert!(segment::list(root.path()).unwrap().len() > 3);
    let findings = ask(root.path(), 5000, now, now, now);
    assert_eq!(findings.gaps, [gap(5, 7, GapReason::Lost)]);
    assert_eq!(ask(root.path(), 5000, T, T + 4, now).gaps, []);
    let _next = begin(root.path(), BOUNDS, 2, now + 10);
    let findings = ask(root.path(), 5000, now + 12, now + 15, now + 15);
    assert_eq!(findings.gaps, []);
}

#[test]
fn losses_are_bounded_and_forgotten_with_the_retention() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    for at in 1..100 {
        write(&mut log, loss(at, at));
    }
    log.roll(T + 100).unwrap();
    let size = || segment::list(root.path()).unwrap().pop().unwrap().bytes;
    assert!(size() < 1000, "{} bytes", size());
    let first = T + 1;
    let findings = ask(root.path(), 5000, T + 200_000, T + 200_000, T + 100);
    assert_eq!(findings.gaps[0].from, first);
    log.roll(T + 100 + BOUNDS.retention).unwrap();
    assert!(size() < 60, "{} bytes", size());
}

#[test]
fn what_cannot_be_read_when_a_segment_ends_is_a_loss() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 1, 5000);
    pass(&mut log, T + 10, T + 10, 1);
    let file = segment::list(root.path()).unwrap().remove(0).path;
    let mut torn = OpenOptions::new().append(true).open(file).unwrap();
    torn.write_all(b"no record").unwrap();
    write(&mut log, closed(1, T + 12));
    log.roll(T + 20).unwrap();
    let findings = ask(root.path(), 5000, T + 25, T + 25, T + 25);
    assert_eq!(numbers(&findings), [1]);
    assert_eq!(findings.gaps, [gap(10, 20, GapReason::Lost)]);
}

#[test]
fn a_search_gives_up_in_time_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T, 5000);
    for number in 2..5000 {
        open(&mut log, number, T + 1, 5001);
    }
    write(&mut log, closed(1, T + 2));
    let question = Question {
        relayed: relayed(5000),
        from: T,
        to: T + 10,
    };
    let reader = Reader {
        incarnation: [1; 16],
        now: T + 10,
        by: Instant::now(),
    };
    let findings = search(root.path(), &question, reader).unwrap();
    assert_eq!(findings.found[0].ending, Some(Ending::Unread { after: T }));
    assert_eq!(findings.gaps, [gap(0, 10, GapReason::Unread)]);
}

#[test]
fn a_process_whose_disk_takes_nothing_knows_that_the_one_before_it_is_dead() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 1, 5000);
    pass(&mut log, T + 10, T + 20, 1);
    let place = (root.path(), 5000);
    let findings = ask_as([2; 16], place, T + 20, T + 40, T + 40);
    let died = Some(Ending::Died { after: T + 20 });
    assert_eq!(findings.found[0].ending, died);
    assert_eq!(findings.gaps, [gap(20, 40, GapReason::Died)]);
}

#[test]
fn a_killed_process_whose_file_is_damaged_lost_more_than_its_last_second() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    open(&mut log, 1, T + 1, 5000);
    pass(&mut log, T + 10, T + 10, 1);
    let file = segment::list(root.path()).unwrap().remove(0).path;
    let mut damaged = OpenOptions::new().append(true).open(file).unwrap();
    damaged.write_all(b"no record").unwrap();
    pass(&mut log, T + 20, T + 100, 1);
    // The process that wrote it says so, ...
    let findings = ask(root.path(), 5000, T + 50, T + 90, T + 100);
    assert_eq!(findings.gaps, [gap(50, 90, GapReason::Damaged)]);
    drop(log);
    // ... and so does the one after it.
    let _next = begin(root.path(), BOUNDS, 2, T + 200);
    let findings = ask(root.path(), 5000, T, T + 210, T + 210);
    assert_eq!(findings.gaps, [gap(10, 200, GapReason::Damaged)]);
    let died = Some(Ending::Died { after: T + 10 });
    assert_eq!(findings.found[0].ending, died);
}
