//! The thread that writes.

use std::fs;

use turnfleet_proto::user_hash::UserKey;
use turnfleet_turn::{Event, FiveTuple, ShardId};

use super::super::search::Ending;
use super::super::{Journal, segment};
use super::*;
use crate::config::JournalConfig;
use crate::driver::clock::ToldTime;

const CONFIG: JournalConfig = JournalConfig {
    retention: Duration::from_secs(7 * DAY),
    bytes: 1 << 20,
};
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
        tenant: TenantId::DEFAULT,
        relayed_transport: Transport::Udp,
        relayed: vec![relayed(port)],
        took: Duration::ZERO,
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
