//! etcd keeps the promises of the store, also while it loses members.

use std::time::{Duration, Instant};

use turnfleet_controller::store::{EtcdStore, Outcome, Store as _, StoreError, Txn};

use crate::cluster::Cluster;
use crate::promises::{self, Backend, commit, committed, conformance, next, put};

impl Backend for Cluster {
    type Store = EtcdStore;

    async fn open(&self) -> EtcdStore {
        self.store()
    }

    async fn forget_history(&self, store: &EtcdStore) {
        let revision = commit(store, put("/filler", "x")).await;
        self.ctl(&["compact", &revision.to_string()]);
    }
}

async fn losing_members() -> Option<Cluster> {
    let mut cluster = Cluster::start().await?;
    cluster.lose_members();
    Some(cluster)
}

conformance!(etcd, Cluster::start().await);
// Without the promises that measure time by leases: they begin anew with each leader of etcd.
conformance!(
    etcd_that_loses_members,
    losing_members().await,
    [
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
        a_revoked_lease_takes_what_it_holds_along,
    ]
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_made_once_however_many_members_die_under_it() {
    let Some(cluster) = losing_members().await else {
        return;
    };
    let store = cluster.store();
    let mut watch = store.watch("/count", 1).await.unwrap();
    let (mut last, mut slowest) = (0, Duration::ZERO);
    for number in 0..300 {
        let mut txn = put("/count", &number.to_string());
        txn.compares = vec![promises::at("/count", last)];
        let begun = Instant::now();
        last = committed(&store.commit(txn).await.unwrap());
        slowest = slowest.max(begun.elapsed());
        let change = next(&mut watch).await.unwrap();
        assert_eq!(
            change.revision, last,
            "claim {number}: each is written once"
        );
    }
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_gone_is_an_error_soon_and_answers_soon_when_it_is_back() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let store = cluster.store();
    let revision = commit(&store, put("/a", "1")).await;
    let mut watch = store.watch("/", revision + 1).await.unwrap();
    cluster.kill_all();
    let begun = Instant::now();
    for error in [
        store.range("/").await.unwrap_err(),
        store.commit(Txn::default()).await.unwrap_err(),
        next(&mut watch).await.unwrap_err(),
    ] {
        assert!(error.is_retryable(), "{error:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(7),
        "{:?}",
        begun.elapsed()
    );
    cluster.restart_all();
    let begun = Instant::now();
    while store.range("/a").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let mut watch = store.watch("/", revision + 1).await.unwrap();
    let later = commit(&store, put("/a", "2")).await;
    assert_eq!(next(&mut watch).await.unwrap().revision, later);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_every_change_or_hears_that_history_is_gone() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let store = cluster.store();
    let mut slow = store.watch("/s/", 1).await.unwrap();
    let mut last = 0;
    for number in 0..2000 {
        let key = format!("/s/{}", number % 10);
        last = commit(&store, put(&key, &"x".repeat(8000))).await;
    }
    cluster.ctl(&["compact", &last.to_string()]);
    let ended = loop {
        match next(&mut slow).await {
            Ok(commit) if commit.revision == last => break None,
            Ok(_) => {}
            Err(error) => break Some(error),
        }
    };
    match ended {
        None => {}
        Some(StoreError::Compacted { .. }) => {
            let range = store.range("/s/").await.unwrap();
            assert_eq!(range.entries.len(), 10, "what is there can be read again");
            let mut again = store.watch("/s/", range.revision + 1).await.unwrap();
            let later = commit(&store, put("/s/0", "y")).await;
            assert_eq!(next(&mut again).await.unwrap().revision, later);
        }
        Some(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_store_is_read_in_pages_at_one_revision() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let store = cluster.store();
    for batch in 0..10 {
        let mut txn = Txn::default();
        for number in 0..100 {
            let key = format!("/p/{:04}", batch * 100 + number);
            txn.puts.push(promises::entry(&key, "x"));
        }
        let outcome = store.commit(txn).await.unwrap();
        assert!(matches!(outcome, Outcome::Committed { .. }));
    }
    let range = store.range("/p/").await.unwrap();
    assert_eq!(range.entries.len(), 1000);
    assert!(range.entries.is_sorted_by_key(|entry| entry.key.clone()));
}
