//! The way of one controller to the store: late, slow, away, and with answers that get lost after the write.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use turnfleet_controller::fleet::record::{Record, SecretState};
use turnfleet_controller::store::{
    Commit, Entry, LeaseId, MemoryStore, Outcome, Range, Revision, Sealer, Store, StoreError, Txn,
    Watch, codec,
};
use turnfleet_proto::NodeId;

use crate::chance::Chance;

/// How long a call to a store that is away takes until it fails.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// Where the store keeps shared secrets.
const SECRETS: &str = "/tf/v1/secrets/";

/// What is wrong with the way at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    /// Nothing comes through.
    pub(crate) away: u32,
    /// Calls take up to so many milliseconds.
    pub(crate) slow: u64,
    /// Calls take no time at all.
    pub(crate) instant: bool,
    /// One call in so many loses its answer; zero for none.
    pub(crate) loses_answers: usize,
}

/// One controller's way to the store. Clones are the same way.
#[derive(Clone)]
pub(crate) struct StoreWay {
    store: MemoryStore,
    shared: Arc<Shared>,
}

struct Shared {
    owner: NodeId,
    sealer: Sealer,
    /// Seconds that its wall clock is ahead.
    skew: Arc<AtomicI64>,
    state: Mutex<State>,
    /// Woken when watches shall look at their state again.
    changed: Notify,
}

struct State {
    chance: Chance,
    trouble: Trouble,
    /// When something was wrong last.
    troubled: Instant,
    /// Raised to break every watch.
    breaks: u64,
    /// The next write of a leader is held until this is no more.
    trap: bool,
    held: bool,
    /// What a controller wrote that it had no right to.
    breach: Option<String>,
    /// A secret retires by a clock that was slow: it ends before what is minted with it now.
    misdated: bool,
}

impl StoreWay {
    pub(crate) fn new(store: MemoryStore, owner: NodeId, sealer: Sealer, chance: Chance) -> Self {
        let state = State {
            chance,
            trouble: Trouble::default(),
            troubled: Instant::now(),
            breaks: 0,
            trap: false,
            held: false,
            breach: None,
            misdated: false,
        };
        let shared = Shared {
            owner,
            sealer,
            skew: Arc::default(),
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        Self {
            store,
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Trouble)) {
        let mut state = self.state();
        change(&mut state.trouble);
        state.troubled = Instant::now();
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Since when nothing has been wrong.
    pub(crate) fn quiet_since(&self) -> Instant {
        let state = self.state();
        let Trouble {
            away,
            slow,
            loses_answers,
            instant: _,
        } = state.trouble;
        match away > 0 || slow > 0 || loses_answers > 0 {
            true => Instant::now(),
            false => state.troubled,
        }
    }

    pub(crate) fn break_watches(&self) {
        let mut state = self.state();
        state.breaks += 1;
        state.troubled = Instant::now();
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Holds the next write of this controller as the leader on its way, until [`Self::let_go`].
    pub(crate) fn trap(&self) {
        self.state().trap = true;
    }

    pub(crate) fn let_go(&self) {
        let mut state = self.state();
        (state.trap, state.held) = (false, false);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Whether a write is held.
    pub(crate) fn holds(&self) -> bool {
        self.state().held
    }

    /// Seconds that the wall clock of its controller is ahead.
    pub(crate) fn skew(&self) -> &Arc<AtomicI64> {
        &self.shared.skew
    }

    /// Whether a secret retires by a clock of this controller that was slow.
    pub(crate) fn misdated(&self) -> bool {
        self.state().misdated
    }

    /// What this controller wrote that it had no right to.
    pub(crate) fn breach(&self) -> Option<String> {
        self.state().breach.take()
    }

    /// Waits while a write is held.
    async fn pass_trap(&self) {
        self.state().held = true;
        loop {
            let changed = self.shared.changed.notified();
            if !self.state().held {
                return;
            }
            changed.await;
        }
    }

    /// The secret that becomes active by `txn`, which is the work of a leader.
    async fn promoted(&self, txn: &Txn) -> Result<Option<u32>, StoreError> {
        let state = |entry: &Entry| match codec::decode(entry, &self.shared.sealer) {
            Ok(Some(Record::Secret(secret))) => Some((secret.id, secret.state)),
            Ok(_) | Err(_) => None,
        };
        for put in txn.puts.iter().filter(|put| put.key.starts_with(SECRETS)) {
            let after = Entry {
                key: put.key.clone(),
                value: put.value.clone(),
                mod_revision: 0,
            };
            let before = self.store.range(&put.key).await?;
            let before = before.entries.first().and_then(state);
            if let (Some((id, SecretState::Staged)), Some((_, SecretState::Active))) =
                (before, state(&after))
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// What one controller alone may do is done by the one that leads at that moment.
    async fn look_for_breach(&self, secret: u32) -> Result<(), StoreError> {
        let (key, own) = codec::encode_leader(&self.shared.owner);
        let leader = self.store.range(&key).await?;
        if !leader.entries.iter().any(|entry| entry.value == own) {
            let owner = &self.shared.owner;
            let breach = format!("{owner} made secret {secret} active, and does not lead");
            self.state().breach.get_or_insert(breach);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// The time that one direction of a call takes; an error where nothing comes through.
    async fn travel(&self) -> Result<(), StoreError> {
        let (delay, away) = {
            let mut state = self.state();
            if state.trouble.instant {
                return Ok(());
            }
            let slow = state.trouble.slow.max(4);
            (state.chance.millis(1, slow), state.trouble.away > 0)
        };
        if away {
            sleep(GIVEN_UP).await;
            return Err(failed("the store does not answer"));
        }
        sleep(delay).await;
        Ok(())
    }

    fn loses_answer(&self) -> bool {
        let mut state = self.state();
        match state.trouble.loses_answers {
            0 => false,
            cases => state.chance.one_in(cases),
        }
    }
}

fn failed(text: &'static str) -> StoreError {
    StoreError::Backend {
        doing: "a simulated call",
        retryable: true,
        source: text.into(),
    }
}

#[async_trait]
impl Store for StoreWay {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.travel().await?;
        let range = self.store.range(prefix).await?;
        self.travel().await?;
        Ok(range)
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.travel().await?;
        if self.state().trap && self.promoted(&txn).await?.is_some() {
            self.pass_trap().await;
        }
        let promoted = self.promoted(&txn).await?;
        let outcome = self.store.commit(txn).await?;
        if let (Outcome::Committed { .. }, Some(secret)) = (&outcome, promoted) {
            self.state().misdated |= self.shared.skew.load(Ordering::Relaxed) < 0;
            self.look_for_breach(secret).await?;
        }
        if self.loses_answer() {
            sleep(GIVEN_UP).await;
            return Err(failed("the answer is lost"));
        }
        self.travel().await?;
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.travel().await?;
        let watch = self.store.watch(prefix, from).await?;
        let breaks = self.state().breaks;
        Ok(Box::new(LateWatch {
            way: self.clone(),
            watch,
            breaks,
            waiting: None,
        }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.travel().await?;
        let lease = self.store.grant_lease(ttl).await?;
        self.travel().await?;
        Ok(lease)
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.travel().await?;
        let kept = self.store.keep_lease(lease).await?;
        self.travel().await?;
        Ok(kept)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.travel().await?;
        self.store.revoke_lease(lease).await?;
        self.travel().await
    }

    fn max_operations(&self) -> usize {
        self.store.max_operations()
    }
}

struct LateWatch {
    way: StoreWay,
    watch: Box<dyn Watch>,
    breaks: u64,
    /// On its way.
    waiting: Option<(Instant, Commit)>,
}

#[async_trait]
impl Watch for LateWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        let shared = Arc::clone(&self.way.shared);
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (away, broken) = {
                let state = self.way.state();
                (state.trouble.away > 0, state.breaks != self.breaks)
            };
            if broken {
                return Err(failed("the watch was cancelled"));
            }
            if away {
                // What happens meanwhile comes later, as it does from a member that is cut off with its watchers.
                changed.await;
                continue;
            }
            let Some((due, _)) = &self.waiting else {
                tokio::select! {
                    biased;
                    () = changed => {}
                    commit = self.watch.next() => {
                        let mut state = self.way.state();
                        let late = match state.trouble {
                            Trouble { instant: true, .. } => Duration::ZERO,
                            Trouble { slow, .. } => state.chance.millis(1, slow.max(4)),
                        };
                        let due = Instant::now() + late;
                        self.waiting = Some((due, commit?));
                    }
                }
                continue;
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(*due) => {
                    if let Some((_, commit)) = self.waiting.take() {
                        return Ok(commit);
                    }
                }
            }
        }
    }
}
