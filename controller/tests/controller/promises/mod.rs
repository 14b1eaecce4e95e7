//! What every back end of the store promises. A back end joins with an implementation of [`Backend`] and a use of
//! [`conformance!`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_controller::store::{
    Change, Commit, Compare, LeaseId, MAX_KEY, MAX_VALUE, Outcome, Put, Revision, Store,
    StoreError, Txn, Watch,
};

/// Opens one back end again and again on the same data.
pub(crate) trait Backend {
    type Store: Store;

    fn open(&self) -> impl Future<Output = Self::Store>;

    /// Makes the back end forget every change up to its last revision but one.
    fn forget_history(&self, store: &Self::Store) -> impl Future<Output = ()>;
}

pub(crate) fn put(key: &str, value: &str) -> Txn {
    Txn {
        puts: vec![entry(key, value)],
        ..Txn::default()
    }
}

pub(crate) fn entry(key: &str, value: impl AsRef<[u8]>) -> Put {
    Put {
        key: key.to_owned(),
        value: value.as_ref().to_vec(),
        lease: None,
    }
}

pub(crate) fn delete(key: &str) -> Txn {
    Txn {
        deletes: vec![key.to_owned()],
        ..Txn::default()
    }
}

pub(crate) fn at(key: &str, mod_revision: Revision) -> Compare {
    Compare {
        key: key.to_owned(),
        mod_revision,
    }
}

#[track_caller]
pub(crate) fn committed(outcome: &Outcome) -> Revision {
    match outcome {
        Outcome::Committed { revision } => *revision,
        Outcome::Conflict { .. } => panic!("the transaction met a conflict: {outcome:?}"),
    }
}

pub(crate) async fn commit(store: &impl Store, txn: Txn) -> Revision {
    committed(&store.commit(txn).await.unwrap())
}

pub(crate) async fn read(store: &impl Store, prefix: &str) -> BTreeMap<String, String> {
    let range = store.range(prefix).await.unwrap();
    range
        .entries
        .into_iter()
        .map(|entry| (entry.key, String::from_utf8(entry.value).unwrap()))
        .collect()
}

pub(crate) async fn next(watch: &mut Box<dyn Watch>) -> Result<Commit, StoreError> {
    tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .expect("the watch gives the next commit within 10 s")
}

pub(crate) async fn a_transaction_writes_all_at_one_revision(backend: impl Backend) {
    let store = backend.open().await;
    commit(&store, put("/old", "0")).await;
    let revision = commit(
        &store,
        Txn {
            compares: vec![at("/a", 0)],
            puts: vec![entry("/a", "1"), entry("/b", "2")],
            deletes: vec!["/old".into(), "/never".into()],
        },
    )
    .await;
    let range = store.range("/").await.unwrap();
    assert_eq!(range.revision, revision);
    let found: Vec<_> = range
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.mod_revision))
        .collect();
    assert_eq!(found, [("/a", revision), ("/b", revision)]);
}

pub(crate) async fn a_failed_compare_writes_nothing_and_says_what_it_saw(backend: impl Backend) {
    let store = backend.open().await;
    let first = commit(&store, put("/a", "1")).await;
    let outcome = store
        .commit(Txn {
            compares: vec![at("/a", first), at("/a", 0), at("/b", 9)],
            puts: vec![entry("/c", "3")],
            deletes: vec!["/a".into()],
        })
        .await
        .unwrap();
    let Outcome::Conflict { revision, seen } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(revision, first);
    assert_eq!(seen.len(), 2);
    let entry = seen[0].1.as_ref().unwrap();
    assert_eq!(
        (
            seen[0].0.as_str(),
            entry.value.as_slice(),
            entry.mod_revision
        ),
        ("/a", &b"1"[..], first)
    );
    assert_eq!(seen[1], ("/b".to_owned(), None));
    assert_eq!(
        read(&store, "/").await,
        BTreeMap::from([("/a".into(), "1".into())])
    );
}

pub(crate) async fn a_range_holds_the_keys_of_its_prefix_in_order(backend: impl Backend) {
    let store = backend.open().await;
    for key in ["/b/2", "/b/10", "/a", "/c", "/b", "/b/1"] {
        commit(&store, put(key, "x")).await;
    }
    let keys: Vec<_> = read(&store, "/b/").await.into_keys().collect();
    assert_eq!(keys, ["/b/1", "/b/10", "/b/2"]);
    assert!(store.range("/none").await.unwrap().entries.is_empty());
}

pub(crate) async fn a_transaction_that_changes_nothing_keeps_the_revision(backend: impl Backend) {
    let store = backend.open().await;
    let revision = commit(&store, put("/a", "1")).await;
    assert_eq!(commit(&store, delete("/never")).await, revision);
    assert_eq!(commit(&store, Txn::default()).await, revision);
}

pub(crate) async fn a_watch_gives_every_later_change_once_and_in_order(backend: impl Backend) {
    let store = backend.open().await;
    commit(&store, put("/w/before", "0")).await;
    let from = store.range("/w/").await.unwrap().revision + 1;
    let mut early = store.watch("/w/", from).await.unwrap();
    let mut written = Vec::new();
    for number in 0..100 {
        let key = format!("/w/{}", number % 7);
        let (txn, value) = match number % 5 {
            4 => (delete(&key), None),
            _ => (
                put(&key, &number.to_string()),
                Some(number.to_string().into_bytes()),
            ),
        };
        commit(&store, put("/other", "x")).await;
        let before = store.range("/").await.unwrap().revision;
        let revision = commit(&store, txn).await;
        if revision > before {
            written.push(Commit {
                revision,
                changes: vec![Change { key, value }],
            });
        }
    }
    let mut late = store.watch("/w/", from).await.unwrap();
    for watch in [&mut early, &mut late] {
        for expected in &written {
            assert_eq!(&next(watch).await.unwrap(), expected);
        }
    }
    let revision = commit(&store, put("/w/last", "x")).await;
    assert_eq!(next(&mut early).await.unwrap().revision, revision);
    assert_eq!(next(&mut late).await.unwrap().revision, revision);
}

pub(crate) async fn a_waiting_watch_hears_of_concurrent_commits(backend: impl Backend) {
    let store = Arc::new(backend.open().await);
    let mut watch = store.watch("/n/", 1).await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0..10 {
                    commit(&*store, put(&format!("/n/{writer}/{number}"), "x")).await;
                }
            })
        })
        .collect();
    let (mut keys, mut last) = (Vec::new(), 0);
    while keys.len() < 40 {
        let commit = next(&mut watch).await.unwrap();
        assert!(commit.revision > last, "revisions rise");
        last = commit.revision;
        keys.extend(commit.changes.into_iter().map(|change| change.key));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 40, "every change comes once");
}

pub(crate) async fn of_racing_claims_exactly_one_wins(backend: impl Backend) {
    let store = Arc::new(backend.open().await);
    for slot in 0..20 {
        let key = format!("/slot/{slot}");
        let claims: Vec<_> = (0..8)
            .map(|racer: u8| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move {
                    let txn = Txn {
                        compares: vec![at(&key, 0)],
                        puts: vec![entry(&key, [racer])],
                        deletes: Vec::new(),
                    };
                    store.commit(txn).await.unwrap()
                })
            })
            .collect();
        let mut winners = 0;
        let mut seen_by_losers = Vec::new();
        for claim in claims {
            match claim.await.unwrap() {
                Outcome::Committed { .. } => winners += 1,
                Outcome::Conflict { seen, .. } => seen_by_losers.push(seen[0].1.clone().unwrap()),
            }
        }
        assert_eq!(winners, 1);
        let held = store.range(&key).await.unwrap().entries[0].clone();
        assert!(
            seen_by_losers.iter().all(|seen| *seen == held),
            "losers see who won"
        );
    }
}

pub(crate) async fn a_watch_of_forgotten_history_says_so(backend: impl Backend) {
    let store = backend.open().await;
    let first = commit(&store, put("/a", "1")).await;
    let mut slow = store.watch("/a", first).await.unwrap();
    assert_eq!(next(&mut slow).await.unwrap().revision, first);
    let second = commit(&store, put("/a", "2")).await;
    backend.forget_history(&store).await;
    // A back end that sends changes on its own has sent this one already.
    match next(&mut slow).await {
        Ok(commit) => assert_eq!(commit.revision, second),
        Err(error) => assert!(matches!(error, StoreError::Compacted { .. })),
    }
    let Err(error) = store.watch("/a", second).await else {
        panic!("the history is gone")
    };
    assert!(matches!(error, StoreError::Compacted { .. }) && error.is_retryable());
    let range = store.range("/a").await.unwrap();
    assert_eq!(range.entries[0].value, b"2", "entries outlive the history");
    let mut again = store.watch("/a", range.revision + 1).await.unwrap();
    let third = commit(&store, put("/a", "3")).await;
    assert_eq!(next(&mut again).await.unwrap().revision, third);
}

pub(crate) async fn everything_is_there_after_a_reopening(backend: impl Backend) {
    let store = backend.open().await;
    let first = commit(&store, put("/a", "1")).await;
    let second = commit(&store, put("/b", "2")).await;
    let before = store.range("/").await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.range("/").await.unwrap(), before);
    let mut watch = store.watch("/", first).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, first);
    assert_eq!(next(&mut watch).await.unwrap().revision, second);
    assert_eq!(commit(&store, put("/c", "3")).await, second + 1);
}

pub(crate) async fn sizes_are_bounded(backend: impl Backend) {
    let store = backend.open().await;
    let largest = Txn {
        puts: vec![entry("/a", vec![7; MAX_VALUE])],
        ..Txn::default()
    };
    commit(&store, largest.clone()).await;
    assert_eq!(
        store.range("/a").await.unwrap().entries[0].value.len(),
        MAX_VALUE
    );
    let mut too_large = largest;
    too_large.puts[0].value.push(7);
    let long_key = put(&"k".repeat(MAX_KEY + 1), "x");
    let many = Txn {
        deletes: vec!["/a".into(); store.max_operations() + 1],
        ..Txn::default()
    };
    for txn in [too_large, long_key, many] {
        let error = store.commit(txn).await.unwrap_err();
        assert!(
            matches!(error, StoreError::TooLarge { .. }) && !error.is_retryable(),
            "{error}"
        );
    }
}

pub(crate) fn leased(key: &str, lease: LeaseId) -> Txn {
    let mut txn = put(key, "leased");
    txn.puts[0].lease = Some(lease);
    txn
}

pub(crate) async fn what_a_lease_holds_goes_when_it_ends(backend: impl Backend) {
    let store = backend.open().await;
    // Time enough to use it, on a machine that does much else.
    let lease = store.grant_lease(Duration::from_secs(3)).await.unwrap();
    let mut both = leased("/l/a", lease);
    both.puts.push(entry("/l/stays", "x"));
    let revision = commit(&store, both).await;
    let mut watch = store.watch("/l/", revision + 1).await.unwrap();
    let ended = next(&mut watch).await.unwrap();
    assert_eq!(
        ended.changes,
        [Change {
            key: "/l/a".into(),
            value: None
        }]
    );
    assert_eq!(read(&store, "/l/").await.len(), 1);
    assert!(!store.keep_lease(lease).await.unwrap());
    let late = store.commit(leased("/l/b", lease)).await;
    assert!(matches!(late, Err(StoreError::LeaseEnded)), "{late:?}");
    store.revoke_lease(lease).await.unwrap();
}

pub(crate) async fn a_kept_lease_does_not_end(backend: impl Backend) {
    let store = backend.open().await;
    let kept = store.grant_lease(Duration::from_secs(5)).await.unwrap();
    let revision = commit(&store, leased("/k/kept", kept)).await;
    let mut watch = store.watch("/k/", revision + 1).await.unwrap();
    // Leases of one length, one after the other, measure the time: more of it than the lease has by itself.
    for _ in 0..3 {
        let measure = store.grant_lease(Duration::from_secs(2)).await.unwrap();
        commit(&store, leased("/k/measure", measure)).await;
        assert_eq!(next(&mut watch).await.unwrap().changes[0].key, "/k/measure");
        assert!(store.keep_lease(kept).await.unwrap());
        let ended = next(&mut watch).await.unwrap().changes;
        assert_eq!(
            (ended[0].key.as_str(), &ended[0].value),
            ("/k/measure", &None)
        );
        assert!(store.keep_lease(kept).await.unwrap(), "it has been kept");
    }
    assert_eq!(read(&store, "/k/").await.len(), 1);
}

pub(crate) async fn a_revoked_lease_takes_what_it_holds_along(backend: impl Backend) {
    let store = backend.open().await;
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let other = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let mut txn = leased("/r/a", lease);
    txn.puts.extend(leased("/r/b", lease).puts);
    txn.puts.extend(leased("/r/freed", lease).puts);
    txn.puts.extend(leased("/r/moved", lease).puts);
    commit(&store, txn).await;
    commit(&store, put("/r/freed", "stays")).await;
    let before = commit(&store, leased("/r/moved", other)).await;
    let mut watch = store.watch("/r/", before + 1).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let ended = next(&mut watch).await.unwrap();
    assert_eq!(ended.revision, before + 1, "one commit");
    let keys: Vec<_> = ended.changes.into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["/r/a", "/r/b"]);
    let left: Vec<_> = read(&store, "/r/").await.into_keys().collect();
    assert_eq!(left, ["/r/freed", "/r/moved"]);
}

/// One test for each promise.
macro_rules! conformance {
    ($backend:ident, $make:expr) => {
        $crate::promises::conformance!($backend, $make, [
            a_transaction_writes_all_at_one_revision,
            a_failed_compare_writes_nothing_and_says_what_it_saw,
            a_range_holds_the_keys_of_its_prefix_in_order,
            a_transaction_that_changes_nothing_keeps_the_revision,
            a_watch_gives_every_later_change_once_and_in_order,
            a_waiting_watch_hears_of_concurrent_commits,
            of_racing_claims_exactly_one_wins,
            a_watch_of_forgotten_history_says_so,
            everything_is_there_after_a_reopening,
            sizes_are_bounded,
            what_a_lease_holds_goes_when_it_ends,
            a_kept_lease_does_not_end,
            a_revoked_lease_takes_what_it_holds_along,
        ]);
    };
    ($backend:ident, $make:expr, [$($promise:ident),+ $(,)?]) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    if let Some(backend) = $make {
                        $crate::promises::$promise(backend).await;
                    }
                }
            )+
        }
    };
}
pub(crate) use conformance;
