//! What a node serves with, as the control session and the process shell see it: listeners and shards, the policy that
//! they run by, the ledger that they share, and whether the node is about to leave.
//!
//! Shards start with the first policy. Until then clients wait in the queues of the listeners: a node that does not know
//! its realm and its users has no answer for them that would be right.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use turnfleet_proto::{GrantedRange, fleet};
use turnfleet_turn::alternates::Alternates;
use turnfleet_turn::ledger::Usage;
use turnfleet_turn::{Counters, DropReason, Ledger, Transport};
use turnfleet_turn::{Reject, RequestMethod};

use crate::agreement::{self, Running, Verdict};
use crate::controllers::{self, Controllers};
use crate::driver::clock::ToldTime;
use crate::grants::Grants;
use crate::policy::{LocalPolicy, RelayPolicy, SnapshotError, compile};
use crate::process;
use crate::quota::NodeQuotas;
use crate::shard::{BindError, Bound, DriverCounters, EventLog, Listener, ShardSet};

/// How often grants are compared with the clock: well within the margin that their end has.
const GRANTS_LOOK: Duration = Duration::from_secs(5);

/// Seconds: a deadline that differs by no more is the same.
const SAME_DEADLINE: u64 = 5;

/// Shared by the node and its control session.
pub(crate) struct Serving {
    local: Mutex<LocalPolicy>,
    /// The snapshot that runs. Held while another one takes its place.
    running: Mutex<Option<fleet::Snapshot>>,
    /// How many nodes share the process's file descriptors.
    nodes_in_process: NonZeroU64,
    ledger: Arc<Ledger>,
    grants: Grants,
    quotas: NodeQuotas,
    /// The generation of the snapshot that a restart would begin with.
    kept_generation: AtomicU64,
    events: EventLog,
    shards: Mutex<Shards>,
    controllers: Mutex<Controllers>,
    applied: watch::Sender<AppliedPolicy>,
    drain: watch::Sender<Drain>,
    alternates: ArcSwap<Alternates>,
    /// Why the process shall end, once the controller wants it.
    killed: watch::Sender<Option<String>>,
    shard_clock: Mutex<process::ShardClock>,
    /// The Unix second at which live allocations were last said to end; zero for none.
    evicting: AtomicU64,
    told_time: Arc<ToldTime>,
}

enum Shards {
    /// No policy has come yet.
    Waiting(Bound),
    Running {
        set: ShardSet,
        policy: Arc<ArcSwap<RelayPolicy>>,
    },
    Stopped,
}

/// What a snapshot led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The node runs by it from here on.
    Changed,
    /// The node runs by it already.
    Running,
}

/// The running policy, as others may know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedPolicy {
    pub(crate) generation: u64,
    pub(crate) epoch: Vec<u8>,
    /// Of what the snapshot holds; empty where the controller gave none.
    pub(crate) sha256: Vec<u8>,
    pub(crate) granted: Vec<GrantedRange>,
}

/// Who wants the node to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drain {
    by_controller: bool,
    by_shell: bool,
    /// When the process shell stops waiting.
    until: Option<Instant>,
    /// When the controller wants what still lives to end.
    evict_at: Option<Instant>,
}

impl Drain {
    fn is_draining(self) -> bool {
        self.by_controller || self.by_shell
    }

    /// When what lives will end.
    fn end(self) -> Option<Instant> {
        self.until.into_iter().chain(self.evict_at).min()
    }
}

impl Serving {
    pub(crate) fn new(
        bound: Bound,
        local: LocalPolicy,
        nodes_in_process: NonZeroU64,
        ledger: Ledger,
        events: EventLog,
    ) -> Self {
        let ledger = Arc::new(ledger);
        Self {
            local: Mutex::new(local),
            running: Mutex::default(),
            nodes_in_process,
            grants: Grants::new(Arc::clone(&ledger)),
            quotas: NodeQuotas::new(Arc::clone(&ledger)),
            kept_generation: AtomicU64::new(0),
            ledger,
            events,
            told_time: bound.told_time(),
            shards: Mutex::new(Shards::Waiting(bound)),
            controllers: Mutex::default(),
            applied: watch::Sender::default(),
            drain: watch::Sender::default(),
            alternates: ArcSwap::default(),
            killed: watch::Sender::default(),
            shard_clock: Mutex::default(),
            evicting: AtomicU64::new(0),
        }
    }

    /// Runs by `snapshot` from here on, unless it is an earlier one of the running epoch. `sha256` is of what it holds, empty
    /// where that is not known.
    ///
    /// # Errors
    /// With the reason; everything stays as it was then.
    pub(crate) fn apply(
        &self,
        snapshot: &fleet::Snapshot,
        sha256: &[u8],
    ) -> Result<Applied, SnapshotError> {
        let mut last = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = self.applied();
        let running = Running {
            generation: applied.generation,
            epoch: applied.epoch,
            sha256: applied.sha256,
            granted: applied.granted,
        };
        let moved = self.controllers().change();
        let again = moved.is_some();
        let controllers = moved.unwrap_or_else(|| self.controllers().addresses());
        let mut local = self.local().clone();
        local.own_ips.extend(&controllers);
        let compiled = match agreement::consider(&running, snapshot, sha256, &local, again)? {
            Verdict::Apply(compiled) => compiled,
            Verdict::Running => return Ok(Applied::Running),
        };
        if running.epoch != snapshot.epoch {
            self.kept_generation.store(0, Ordering::Relaxed);
        }
        // First the ports: requests may wait in the listeners' queues.
        self.grants
            .replace(&compiled.granted, self.told_time.now().unix);
        self.quotas.limit(snapshot);
        self.run_by(compiled.policy)?;
        self.applied.send_replace(AppliedPolicy {
            generation: compiled.generation,
            epoch: snapshot.epoch.clone(),
            sha256: sha256.to_vec(),
            granted: compiled.granted,
        });
        self.controllers().enforced(controllers);
        *last = Some(snapshot.clone());
        Ok(Applied::Changed)
    }

    /// Changes what the node adds to every snapshot, and runs the running one by it. Allocations live on. Gives what was
    /// before.
    ///
    /// # Errors
    /// With the reason; everything stays as it was then.
    pub(crate) fn reconfigure(
        &self,
        change: impl FnOnce(&mut LocalPolicy),
    ) -> Result<LocalPolicy, SnapshotError> {
        let last = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self.local().clone();
        change(&mut wanted);
        if let Some(snapshot) = &*last {
            let mut local = wanted.clone();
            local.own_ips.extend(self.controllers().addresses());
            self.run_by(compile(snapshot, &local)?.policy)?;
        }
        Ok(std::mem::replace(&mut *self.local(), wanted))
    }

    /// Listens on what is `wanted`, and gives it as it was opened; `None` before the first policy, where nothing changes.
    ///
    /// # Errors
    /// When a listener cannot be opened; nothing has changed then.
    pub(crate) fn listen(&self, wanted: &[Listener]) -> Result<Option<Vec<Listener>>, BindError> {
        match &*self.shards() {
            Shards::Running { set, .. } => set.listen(wanted).map(Some),
            Shards::Waiting(_) | Shards::Stopped => Ok(None),
        }
    }

    fn local(&self) -> MutexGuard<'_, LocalPolicy> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the controller at `uri` to clients, wherever its name leads to at the moment. The next snapshot that is applied
    /// makes it so; there is one whenever a session begins.
    pub(crate) async fn close_controller(&self, uri: &http::Uri) {
        let addresses = controllers::resolve(uri).await;
        self.controllers().found(controllers::host(uri), addresses);
    }

    fn run_by(&self, policy: RelayPolicy) -> Result<(), SnapshotError> {
        let policy = Arc::new(policy);
        let mut shards = self.shards();
        if let Shards::Running { set, policy: cell } = &*shards {
            cell.store(policy);
            set.notify_policy();
            return Ok(());
        }
        let Shards::Waiting(bound) = std::mem::replace(&mut *shards, Shards::Stopped) else {
            return Err(SnapshotError::Stopped);
        };
        let policy = Arc::new(ArcSwap::new(policy));
        let set = bound
            .start(Arc::clone(&policy), &self.ledger, &self.events)
            .map_err(|error| {
                tracing::error!(%error, "cannot start the shards");
                SnapshotError::Stopped
            })?;
        set.set_draining(self.is_draining());
        set.set_alternates(self.alternates.load_full());
        *shards = Shards::Running { set, policy };
        Ok(())
    }

    /// The node is a member of another fleet, or of one that lost its memory: generations begin anew. The running policy
    /// stays until the next snapshot.
    pub(crate) fn forget_generation(&self) {
        self.applied.send_modify(|applied| {
            applied.generation = 0;
            applied.epoch.clear();
            applied.sha256.clear();
        });
        self.kept_generation.store(0, Ordering::Relaxed);
    }

    /// A restart of the node would begin with the snapshot of that generation.
    pub(crate) fn kept(&self, generation: u64) {
        self.kept_generation.store(generation, Ordering::Relaxed);
    }

    /// The report to the controller. What is kept is read before what is in use: ports that the kept snapshot does not grant
    /// are drawn by nobody after that.
    pub(crate) fn heartbeat(&self) -> fleet::Heartbeat {
        let kept_generation = self.kept_generation.load(Ordering::Relaxed);
        fleet::Heartbeat {
            applied_generation: self.generation(),
            load: Some(self.load()),
            draining: self.is_draining(),
            kept_generation,
            port_uses: self.grants.uses(),
            ..fleet::Heartbeat::default()
        }
    }

    /// What limited tenants and users may have here, by the word of a controller. Kept when it is gone.
    pub(crate) fn take_shares(&self, shares: fleet::Shares) {
        if self.quotas.take(shares)
            && let Shards::Running { set, .. } = &*self.shards()
        {
            set.notify_quotas();
        }
    }

    /// What a controller should hear of quotas now, if there is anything; `anew` where it has heard nothing yet.
    pub(crate) fn demand(&self, anew: bool) -> Option<fleet::Demand> {
        if anew {
            self.quotas.begin_session();
        }
        self.quotas.look(Instant::now())
    }

    /// Keeps what ends by the clock, whether the session lives or not. Never returns.
    pub(crate) async fn keep_deadlines(&self) {
        tokio::join!(self.enforce_drain(), self.enforce_grants());
    }

    /// Opens ports no longer whose grant has ended, while no controller renews it. Never returns.
    async fn enforce_grants(&self) {
        let mut look = interval(GRANTS_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.grants.expire(self.told_time.now().unix);
        }
    }

    /// The generation of the running policy; zero for none.
    pub(crate) fn generation(&self) -> u64 {
        self.applied.borrow().generation
    }

    pub(crate) fn applied(&self) -> AppliedPolicy {
        self.applied.borrow().clone()
    }

    /// Whether clients are served, and allocations granted.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.shards(), Shards::Running { .. }) && !self.is_draining()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.borrow().is_draining()
    }

    /// Wakes whenever draining begins or ends.
    pub(crate) fn drain_changes(&self) -> watch::Receiver<Drain> {
        self.drain.subscribe()
    }

    /// The controller's wish. [`Serving::enforce_drain`] keeps its deadline.
    pub(crate) fn drain_by_controller(&self, wish: fleet::Drain) {
        let deadline = Some(wish.deadline_seconds).filter(|seconds| wish.draining && *seconds > 0);
        tracing::info!(
            draining = wish.draining,
            deadline,
            "the controller sets draining"
        );
        let deadline = deadline.map(Duration::from_secs);
        self.change_drain(|drain| {
            drain.by_controller = wish.draining;
            drain.evict_at = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        });
    }

    /// What the controller has said of the time.
    pub(crate) fn told_time(&self) -> &ToldTime {
        &self.told_time
    }

    /// The controller wants the process to end.
    pub(crate) fn kill(&self, reason: String) {
        tracing::error!(reason, "the controller ends this node");
        self.killed.send_replace(Some(reason));
    }

    /// Waits until the controller wants the process to end, and says why.
    pub(crate) async fn killed(&self) -> String {
        let mut killed = self.killed.subscribe();
        match killed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender is a part of `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Where clients go while this node takes no allocations. Kept when the controller is gone.
    pub(crate) fn set_alternates(&self, alternates: Alternates) {
        let shards = self.shards();
        self.alternates.store(Arc::new(alternates));
        if let Shards::Running { set, .. } = &*shards {
            set.set_alternates(self.alternates.load_full());
        }
    }

    /// How many servers clients can be sent to, each transport by itself.
    pub(crate) fn alternates(&self) -> usize {
        self.alternates.load().servers.len()
    }

    /// Ends what lives when the deadline of the controller's drain has passed, whether its session lives or not. Never
    /// returns.
    async fn enforce_drain(&self) {
        let mut changes = self.drain.subscribe();
        loop {
            let due = changes.borrow_and_update().evict_at;
            let passed = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is a part of `self`.
                _ = changes.changed() => continue,
                () = passed => {}
            }
            // An order that came meanwhile has another deadline.
            let kept = self.drain.send_if_modified(|drain| {
                let kept = drain.evict_at == due;
                if kept {
                    drain.evict_at = None;
                }
                kept
            });
            if kept {
                let allocations = self.allocations();
                tracing::warn!(allocations, "the controller's drain deadline has passed");
                self.end_allocations();
            }
        }
    }

    /// Ends every allocation that lives.
    pub(crate) fn end_allocations(&self) {
        if let Shards::Running { set, .. } = &*self.shards() {
            set.end_allocations();
        }
    }

    /// Whether every shard has carried out [`Self::end_allocations`].
    pub(crate) fn has_ended_allocations(&self) -> bool {
        match &*self.shards() {
            Shards::Running { set, .. } => set.has_ended_allocations(),
            Shards::Waiting(_) | Shards::Stopped => true,
        }
    }

    /// Another session has begun: a controller that still wants the node to drain says so again.
    pub(crate) fn forget_controllers_drain(&self) {
        if self.drain.borrow().by_controller {
            self.change_drain(|drain| {
                drain.by_controller = false;
                drain.evict_at = None;
            });
        }
    }

    /// The process shell's wish: the process ends when no allocation lives, at the latest after `deadline`.
    pub(crate) fn drain_by_shell(&self, deadline: Option<Duration>) {
        let until = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        self.change_drain(|drain| {
            drain.by_shell = true;
            drain.until = until;
        });
    }

    /// When the process shell stops waiting for allocations to end.
    pub(crate) fn drain_until(&self) -> Option<Instant> {
        self.drain.borrow().until
    }

    fn change_drain(&self, change: impl FnOnce(&mut Drain)) {
        self.drain.send_modify(change);
        let drain = *self.drain.borrow();
        if let Shards::Running { set, .. } = &*self.shards() {
            set.set_draining(drain.is_draining());
            if let Some(evicting) = self.evicting(drain) {
                set.set_evicting(evicting);
            }
        }
    }

    /// When live allocations shall hear that they end, if it is not when they have heard. A controller says its wish again at the
    /// beginning of each session, a second off or two; in between there is none.
    fn evicting(&self, drain: Drain) -> Option<u64> {
        let told = self.evicting.load(Ordering::Relaxed);
        let unix = self.told_time.now().unix;
        let due = drain
            .end()
            .map(|end| unix + end.duration_since(Instant::now()).as_secs());
        let next = match due {
            Some(due) if due.abs_diff(told) <= SAME_DEADLINE => return None,
            Some(due) => due,
            None if told <= unix || drain.is_draining() => 0,
            None => return None,
        };
        (self.evicting.swap(next, Ordering::Relaxed) != next).then_some(next)
    }

    /// Allocations that live.
    pub(crate) fn allocations(&self) -> u64 {
        match &*self.shards() {
            Shards::Running { set, .. } => set.allocations(),
            Shards::Waiting(_) | Shards::Stopped => 0,
        }
    }

    /// What the shards have counted, at most a second old.
    pub(crate) fn counters(&self) -> (Counters, DriverCounters) {
        match &*self.shards() {
            Shards::Running { set, .. } => (set.counters(), set.driver_counters()),
            Shards::Waiting(_) | Shards::Stopped => Default::default(),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.ledger.usage()
    }

    /// The shared secrets that were used since `reported`, which is brought up to date.
    pub(crate) fn secret_uses(&self, reported: &mut BTreeMap<u32, u64>) -> Vec<fleet::SecretUse> {
        self.local().secret_uses.report(reported)
    }

    /// What the node does at this moment.
    pub(crate) fn load(&self) -> fleet::Load {
        let (counters, _) = self.counters();
        let usage = self.usage();
        let mut load = fleet::Load {
            allocations: self.allocations(),
            relayed_ports_used: usage.ports_used.into(),
            relayed_ports_total: usage.ports_granted.into(),
            file_descriptors_used: process::file_descriptors() / self.nodes_in_process,
            memory_bytes: process::memory_used() / self.nodes_in_process,
            busiest_shard_permille: self.busiest_shard_permille(),
            packets_dropped: DropReason::ALL
                .iter()
                .map(|&reason| counters.drops(reason))
                .sum(),
            allocations_opened: counters.opened,
            ..fleet::Load::default()
        };
        for transport in Transport::ALL {
            let (up, down) = (counters.to_peers(transport), counters.to_clients(transport));
            load.bytes_from_clients += up.bytes;
            load.packets_from_clients += up.packets;
            load.bytes_to_clients += down.bytes;
            load.packets_to_clients += down.packets;
        }
        for method in RequestMethod::ALL {
            for reject in Reject::ALL {
                let count = counters.rejects(method, reject);
                if reject == Reject::Unauthenticated {
                    load.authentication_failures += count;
                } else {
                    load.requests_rejected += count;
                }
            }
        }
        load
    }

    fn busiest_shard_permille(&self) -> u32 {
        let clock = self.shard_clock.lock();
        clock
            .unwrap_or_else(PoisonError::into_inner)
            .busiest_permille()
    }

    /// Ends every allocation and waits for the threads of the shards.
    pub(crate) fn stop(&self) {
        let shards = std::mem::replace(&mut *self.shards(), Shards::Stopped);
        if let Shards::Running { set, .. } = shards {
            set.stop();
        }
    }

    fn controllers(&self) -> MutexGuard<'_, Controllers> {
        self.controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shards(&self) -> MutexGuard<'_, Shards> {
        // No operation leaves the shards half changed.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
