use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use turnfleet_proto::user_hash::{UserHash, UserKey};
use turnfleet_turn::{CloseReason, Event, FiveTuple, ShardId, Transport};

use super::log::Log;
use super::record::{Key, Opened, Record};
use super::search::{Ending, Findings, Gap, GapReason, Question, search};
use super::{Bounds, Journal, segment};
use crate::config::JournalConfig;
use crate::driver::clock::ToldTime;

const DAY: u64 = 86_400;
const BOUNDS: Bounds = Bounds {
    retention: 7 * DAY,
    bytes: 1 << 20,
};
const CONFIG: JournalConfig = JournalConfig {
    retention: Duration::from_secs(7 * DAY),
    bytes: 1 << 20,
};
/// No allocation.
const NONE: [u64; 0] = [];
/// A moment that tests begin at.
const T: u64 = 1_800_000_000;

fn relayed(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn opened(number: u64, at: u64, port: u16) -> Opened {
    Opened {
        key: Key { shard: 0, number },
        at,
        client: SocketAddr::from(([198, 51, 100, 7], 1000)),
        transport: Transport::Udp,
        relayed: vec![relayed(port)],
        relayed_transport: Transport::Udp,
        tenant: "acme".into(),
        user: Some(UserHash([1; 16])),
    }
}

fn closed(number: u64, at: u64) -> Record {
    Record::Closed {
        key: Key { shard: 0, number },
        at,
        reason: Some(CloseReason::Refreshed),
    }
}

#[track_caller]
fn begin(folder: &Path, bounds: Bounds, incarnation: u8, now: u64) -> Log {
    Log::begin(folder.to_owned(), bounds, [incarnation; 16], now).unwrap()
}

#[track_caller]
fn write(log: &mut Log, record: Record) {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    log.append(&bytes).unwrap();
}

#[track_caller]
fn open(log: &mut Log, number: u64, at: u64, port: u16) {
    write(log, Record::Opened(opened(number, at, port)));
}

/// Marks every ten seconds, and syncs after as many marks as are given.
#[track_caller]
fn pass(log: &mut Log, from: u64, to: u64, marks: usize) {
    for (number, at) in (from..=to).step_by(10).enumerate() {
        write(log, Record::Mark { at });
        if number % marks == 0 {
            log.keep(at).unwrap();
        }
    }
}

#[track_caller]
fn ask(folder: &Path, port: u16, from: u64, to: u64, now: u64) -> Findings {
    let question = Question {
        relayed: relayed(port),
        from,
        to,
    };
    search(folder, &question, now).unwrap()
}

fn numbers(findings: &Findings) -> Vec<u64> {
    let found = findings.found.iter();
    found.map(|found| found.opened.key.number).collect()
}

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
fn silence_losses_and_damage_are_gaps() {
    let root = tempfile::tempdir().unwrap();
    let mut log = begin(root.path(), BOUNDS, 1, T);
    pass(&mut log, T + 10, T + 20, 1);
    write(&mut log, Record::Mark { at: T + 100 });
    write(
        &mut log,
        Record::Lost {
            since: T + 100,
            until: T + 102,
            count: 3,
        },
    );
    let file = segment::list(root.path()).unwrap().remove(0).path;
    log.roll(T + 110).unwrap();
    let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"no record").unwrap();
    let findings = ask(root.path(), 5000, T, T + 200, T + 200);
    let gap = |from, to, reason| Gap {
        from: T + from,
        to: T + to,
        reason,
    };
    let expected = [
        gap(20, 100, GapReason::Silent),
        gap(100, 102, GapReason::Lost),
        gap(102, 110, GapReason::Damaged),
        gap(110, 200, GapReason::Silent),
    ];
    assert_eq!(findings.gaps, expected);
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

/// What a shard says.
fn event(number: u64, port: u16) -> Event {
    Event::Opened {
        allocation: number,
        client: FiveTuple {
            transport: Transport::Tcp,
            client: SocketAddr::from(([198, 51, 100, 7], 1000)),
            server: SocketAddr::from(([192, 0, 2, 1], 3478)),
        },
        username: "1800000600:ann".into(),
        relayed_transport: Transport::Udp,
        relayed: vec![relayed(port)],
    }
}

/// Looks until `holds` is true of what the journal says of `port`.
#[track_caller]
fn wait_for(journal: &Journal, port: u16, holds: impl Fn(&Findings) -> bool) -> Findings {
    let now = journal.time.now().unix;
    let question = Question {
        relayed: relayed(port),
        from: now - 60,
        to: now + 60,
    };
    let begun = Instant::now();
    loop {
        let findings = journal.search(&question).unwrap();
        if holds(&findings) {
            return findings;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{findings:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn the_writer_names_users_once_it_has_the_key_and_ends_in_good_order() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("journal");
    let start = |incarnation| {
        let time = std::sync::Arc::<ToldTime>::default();
        Journal::start(folder.clone(), Some(CONFIG), [incarnation; 16], time).unwrap()
    };
    let journal = start(1);
    let recorder = journal.recorder().unwrap();
    let now = journal.time.now().unix;
    recorder.record(ShardId(2), &event(7, 5000), now);
    let findings = wait_for(&journal, 5000, |findings| !findings.found.is_empty());
    assert_eq!(findings.found[0].opened.user, None);
    assert_eq!(findings.found[0].opened.key.shard, 2);
    let key = UserKey::new([3; 32]);
    journal.hash_with(key.clone());
    let named = |findings: &Findings| findings.found[0].opened.user.is_some();
    let findings = wait_for(&journal, 5000, named);
    assert_eq!(findings.found[0].opened.user, Some(key.hash("1:ann")));
    recorder.record(ShardId(2), &event(8, 5001), now);
    journal.stop();
    drop(recorder);

    let bytes = fs::read(&segment::list(&folder).unwrap()[0].path).unwrap();
    assert!(!bytes.windows(3).any(|part| part == b"ann"));
    let journal = start(2);
    let findings = wait_for(&journal, 5001, |findings| !findings.found.is_empty());
    assert_eq!(findings.found[0].opened.user, Some(key.hash("ann")));
    let ending = findings.found[0].ending;
    assert!(matches!(ending, Some(Ending::Died { .. })), "{ending:?}");
    let died = findings
        .gaps
        .iter()
        .any(|gap| gap.reason == GapReason::Died);
    assert!(!died, "it ended well: {findings:?}");
    journal.stop();

    let none = Journal::start(folder.clone(), None, [3; 16], Default::default()).unwrap();
    assert!(!none.is_kept() && none.recorder().is_none());
    assert_eq!(
        segment::list(&folder).unwrap(),
        [],
        "a journal that is off keeps nothing"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_tried_again_and_what_was_lost_shows() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("journal");
    fs::write(&folder, "in the way").unwrap();
    let journal =
        Journal::start(folder.clone(), Some(CONFIG), [1; 16], Default::default()).unwrap();
    let recorder = journal.recorder().unwrap();
    let lost = || journal.figures().lost;
    recorder.record(ShardId(0), &event(1, 5000), journal.time.now().unix);
    let begun = Instant::now();
    while lost() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    fs::remove_file(&folder).unwrap();
    let findings = {
        let begun = Instant::now();
        while !folder.is_dir() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::park_timeout(Duration::from_millis(20));
        }
        wait_for(&journal, 5000, |findings| {
            findings
                .gaps
                .iter()
                .any(|gap| gap.reason == GapReason::Lost)
        })
    };
    assert_eq!(findings.found, []);
    journal.stop();
}
