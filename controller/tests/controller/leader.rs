//! One controller leads, another takes over when it goes, and one whose term is over writes nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use turnfleet_controller::FleetError;
use turnfleet_controller::fleet::record::ControllerRecord;
use turnfleet_controller::leader::{Leadership, Term, stand};
use turnfleet_controller::reconcile::Reconciler;
use turnfleet_controller::store::{
    Commit, EmbeddedStore, LeaseId, MemoryStore, Outcome, Put, Range, Revision, Sealer, Store,
    StoreError, Txn, Watch, codec, keys,
};
use turnfleet_proto::store::LeaderRecord;

use crate::plain_fleet;

struct Candidate {
    term: watch::Receiver<Option<Term>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn candidate(store: &(impl Store + Clone), id: &str) -> Candidate {
    candidate_at(store, id, "http://127.0.0.1:8081")
}

fn candidate_at(store: &(impl Store + Clone), id: &str, grpc_url: &str) -> Candidate {
    let me = ControllerRecord {
        id: id.parse().unwrap(),
        grpc_url: grpc_url.into(),
        http_address: "127.0.0.1:8080".into(),
        region: "north".into(),
        version: "0".into(),
    };
    let (told, term) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(stand(Arc::new(store.clone()), me, told, stopped));
    Candidate { term, stop, task }
}

impl Candidate {
    async fn wins(&mut self) -> Term {
        let won = self.term.wait_for(Option::is_some);
        let won = timeout(Duration::from_secs(20), won).await;
        let term = *won.expect("it leads within 20 s").unwrap();
        term.unwrap()
    }
}

#[tokio::test]
async fn one_controller_leads_and_another_follows_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).await.unwrap();
    let mut first = candidate(&store, "a");
    let earlier = first.wins().await;
    let mut second = candidate(&store, "b");
    let mut watch = store.watch(keys::PREFIX, 1).await.unwrap();
    let both = async {
        while store
            .range("/tf/v1/controllers/")
            .await
            .unwrap()
            .entries
            .len()
            < 2
        {
            watch.next().await.unwrap();
        }
    };
    timeout(Duration::from_secs(10), both).await.unwrap();
    assert!(second.term.borrow().is_none(), "only one leads");
    let begun = Instant::now();
    first.stop.send_replace(true);
    first.task.await.unwrap();
    assert!(first.term.borrow().is_none());
    let later = second.wins().await;
    assert!(
        later.fence > earlier.fence,
        "each term has a fence of its own"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "who stops hands over at once"
    );
}

#[tokio::test]
async fn a_leader_whose_term_is_over_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).await.unwrap();
    let mut first = candidate(&store, "a");
    let earlier = first.wins().await;
    first.stop.send_replace(true);
    first.task.await.unwrap();
    let other = Put {
        key: keys::LEADER.to_owned(),
        value: LeaderRecord {
            controller_id: "other".into(),
        }
        .encode_to_vec(),
        lease: None,
    };
    let elected = Txn {
        puts: vec![other],
        ..Txn::default()
    };
    store.commit(elected).await.unwrap();

    // It was stopped in the middle of its term, as by SIGSTOP, and believes that the term goes on.
    let believed = Term {
        ends: Instant::now() + Duration::from_secs(600),
        ..earlier
    };
    let (_told, term) = watch::channel(Some(believed));
    let refused = upkeep(&store, dir.path(), Leadership::Elected(term)).await;
    assert!(matches!(refused, Err(FleetError::NotLeader)), "{refused:?}");
    let over = Term {
        ends: Instant::now(),
        ..earlier
    };
    let (_told, term) = watch::channel(Some(over));
    let refused = upkeep(&store, dir.path(), Leadership::Elected(term)).await;
    assert!(matches!(refused, Err(FleetError::NotLeader)), "{refused:?}");
    upkeep(&store, dir.path(), Leadership::Sole).await.unwrap();
}

/// Replaces the nonce key, which is a leader's work.
async fn upkeep(
    store: &EmbeddedStore,
    dir: &std::path::Path,
    leadership: Leadership,
) -> Result<(), FleetError> {
    let wishes = plain_fleet::wishes("example.org");
    let settings = plain_fleet::settings();
    let sealer = Sealer::open(&dir.join("store.key"), true).unwrap();
    let (reconciler, handle) = Reconciler::open(Arc::new(store.clone()), sealer, settings, &wishes)
        .await
        .unwrap();
    let (_stop, stopped) = watch::channel(false);
    let task = tokio::spawn(reconciler.with_leadership(leadership).run(stopped));
    let done = handle
        .change(|fleet, mut now| {
            now.unix += 1_000_000;
            Ok(fleet.plan_upkeep(now, [7; 32]))
        })
        .await;
    task.abort();
    done
}

/// A store whose watches break when they are told to, as they do when etcd is away for some seconds.
#[derive(Clone)]
struct Shaken {
    store: MemoryStore,
    breaks: Arc<Notify>,
    /// How many watches there have been.
    watches: watch::Sender<u32>,
}

struct ShakenWatch {
    watch: Box<dyn Watch>,
    breaks: Arc<Notify>,
}

#[async_trait]
impl Watch for ShakenWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        tokio::select! {
            commit = self.watch.next() => commit,
            () = self.breaks.notified() => Err(StoreError::Away),
        }
    }
}

#[async_trait]
impl Store for Shaken {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.store.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.store.commit(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let watch = self.store.watch(prefix, from).await?;
        self.watches.send_modify(|watches| *watches += 1);
        let breaks = Arc::clone(&self.breaks);
        Ok(Box::new(ShakenWatch { watch, breaks }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.store.grant_lease(ttl).await
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.store.keep_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(lease).await
    }

    fn max_operations(&self) -> usize {
        self.store.max_operations()
    }
}

#[tokio::test]
async fn a_leader_whose_watch_breaks_goes_on_leading() {
    let store = Shaken {
        store: MemoryStore::new(),
        breaks: Arc::default(),
        watches: watch::Sender::new(0),
    };
    let mut first = candidate(&store, "a");
    let term = first.wins().await;
    let mut watches = store.watches.subscribe();
    for count in 1..4 {
        let opened = watches.wait_for(|watches| *watches == count);
        let opened = timeout(Duration::from_secs(10), opened).await;
        drop(opened.expect("it watches again").unwrap());
        let now = first.term.borrow().map(|term| term.fence);
        assert_eq!(now, Some(term.fence), "watch {count}");
        store.breaks.notify_one();
    }
}

const CONTROLLERS: &str = "/tf/v1/controllers/";

/// Where the controllers that have a name are reached.
async fn named(store: &MemoryStore) -> Vec<String> {
    let found = store.range(CONTROLLERS).await.unwrap().entries;
    let addresses = found.iter().map(|entry| {
        let (grpc_url, _) = codec::controller_addresses(&entry.value).unwrap();
        grpc_url
    });
    addresses.collect()
}

#[tokio::test(start_paused = true)]
async fn a_name_of_another_controller_is_taken_when_its_lease_has_ended() {
    let store = MemoryStore::new();
    let mut first = candidate(&store, "a");
    let earlier = first.wins().await;
    let mut second = candidate_at(&store, "a", "http://127.0.0.2:8081");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(named(&store).await, ["http://127.0.0.1:8081"]);
    let now = first.term.borrow().map(|term| term.fence);
    assert_eq!(now, Some(earlier.fence));
    assert!(second.term.borrow().is_none());

    // As by SIGKILL: the lease goes on until its end.
    first.task.abort();
    let later = second.wins().await;
    assert!(later.fence > earlier.fence);
    assert_eq!(named(&store).await, ["http://127.0.0.2:8081"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_at_the_same_place_has_left_is_replaced_at_once() {
    let store = MemoryStore::new();
    let mut first = candidate(&store, "a");
    first.wins().await;
    first.task.abort();
    let begun = Instant::now();
    let mut watch = store
        .watch(CONTROLLERS, store.revision() + 1)
        .await
        .unwrap();
    let mut second = candidate(&store, "a");
    watch.next().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    second.wins().await;
    assert_eq!(named(&store).await, ["http://127.0.0.1:8081"]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_name_was_taken_from_the_same_place_has_it_again_when_the_other_ends() {
    let store = MemoryStore::new();
    let mut first = candidate(&store, "a");
    let term = first.wins().await;
    let second = candidate(&store, "a");
    tokio::time::sleep(Duration::from_secs(5)).await;
    second.stop.send_replace(true);
    second.task.await.unwrap();
    assert!(named(&store).await.is_empty());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(named(&store).await, ["http://127.0.0.1:8081"]);
    let now = first.term.borrow().map(|term| term.fence);
    assert_eq!(now, Some(term.fence), "it leads all the while");
    assert!(second.term.borrow().is_none());
}
