//! The embedded store keeps the promises of the store, and some of its own.

use std::time::Duration;

use turnfleet_controller::store::{EmbeddedStore, MemoryStore, Revision, Store as _, StoreError};

use crate::promises::{Backend, commit, conformance, leased, next, put, read};

/// The embedded store in a directory of its own.
struct Embedded(tempfile::TempDir);

/// Few enough that a test can write past them.
const HISTORY: Revision = 200;

impl Embedded {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Backend for Embedded {
    type Store = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open_with_history(&self.0.path().join("state"), HISTORY)
            .await
            .unwrap()
    }

    async fn forget_history(&self, store: &EmbeddedStore) {
        for _ in 0..HISTORY {
            commit(store, put("/filler", "x")).await;
        }
    }
}

/// The model that simulations stand on.
struct Memory(MemoryStore);

impl Backend for Memory {
    type Store = MemoryStore;

    async fn open(&self) -> MemoryStore {
        self.0.clone()
    }

    async fn forget_history(&self, store: &MemoryStore) {
        commit(store, put("/filler", "x")).await;
        store.compact(store.revision() - 1);
    }
}

conformance!(embedded, Some(Embedded::new()));
conformance!(memory, Some(Memory(MemoryStore::new())));

#[tokio::test]
async fn leases_of_an_earlier_process_are_over_when_the_embedded_store_opens() {
    let backend = Embedded::new();
    let store = backend.open().await;
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    commit(&store, leased("/a", lease)).await;
    let last = commit(&store, put("/b", "x")).await;
    drop(store);
    let store = backend.open().await;
    let left: Vec<_> = read(&store, "/").await.into_keys().collect();
    assert_eq!(left, ["/b"]);
    let mut watch = store.watch("/", last + 1).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().changes[0].value, None);
    assert!(!store.keep_lease(lease).await.unwrap());
}

#[tokio::test]
async fn a_second_opening_of_the_embedded_store_names_the_file() {
    let backend = Embedded::new();
    let _first = backend.open().await;
    let Err(error) = EmbeddedStore::open(&backend.0.path().join("state")).await else {
        panic!("the store is in use");
    };
    assert!(matches!(error, StoreError::InUse { .. }));
    let dir = backend.0.path().display().to_string();
    assert!(error.to_string().contains(&dir), "{error}");
}

#[tokio::test]
async fn an_embedded_store_that_is_closed_can_be_opened_by_another_whoever_still_holds_it() {
    let backend = Embedded::new();
    let first = backend.open().await;
    let mut watch = first.watch("/", 1).await.unwrap();
    commit(&first, put("/a", "x")).await;
    first.close().await;
    let second = backend.open().await;
    assert!(read(&second, "/").await.contains_key("/a"));
    assert!(matches!(first.range("/").await, Err(StoreError::Closed)));
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
    first.close().await;
}

#[tokio::test]
async fn the_embedded_store_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let backend = Embedded::new();
    let _store = backend.open().await;
    let mode = |path: &str| {
        std::fs::metadata(backend.0.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("state"), mode("state/store.redb")), (0o700, 0o600));
}

#[tokio::test]
async fn an_embedded_store_is_made_whole_whatever_a_process_that_was_ended_has_left() {
    let backend = Embedded::new();
    let folder = backend.0.path().join("state");
    std::fs::create_dir(&folder).unwrap();
    let part = folder.join("store.redb.part");
    // The space of a file of redb, of which the beginning was never written.
    std::fs::write(&part, vec![0; 1 << 20]).unwrap();
    std::fs::write(folder.join("store.redb"), []).unwrap();
    let store = backend.open().await;
    assert!(!part.exists());
    commit(&store, put("/a", "x")).await;
    store.close().await;
    let again = backend.open().await;
    assert!(read(&again, "/").await.contains_key("/a"));
}
