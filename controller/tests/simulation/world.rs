//! One run: a fleet, its controllers and their store in virtual time, with what goes wrong and what must hold.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};
use turnfleet_controller::config::{PortPlan, ProbeMode};
use turnfleet_controller::fleet::record::Policy;
use turnfleet_controller::fleet::{ListSettings, Settings, Wishes};
use turnfleet_controller::store::{MemoryStore, Sealer, Store as _, codec};
use turnfleet_proto::{NodeId, PortRange};
use turnfleet_turn::{Instant as Moment, Now};

use crate::chance::Chance;
use crate::process::Process;
use crate::relay::Relay;
use crate::secrets::Secrets;
use crate::site::Site;
use crate::storage::StoreWay;
use crate::trace::Trace;
use crate::wire::Wire;
use crate::{clients, faults, invariants, outage, restore, session};

/// Unix seconds at which every run begins.
pub(crate) const EPOCH: u64 = 1_800_000_000;
/// What relays enrol with.
pub(crate) const JOIN_TOKEN: &str = "the join token of the simulation";

/// What a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) relays: usize,
    pub(crate) controllers: usize,
    /// Relays behind one public address.
    pub(crate) sharing: usize,
    /// Whether every relay is a member from the start.
    pub(crate) warm: bool,
    /// Virtual time with faults.
    pub(crate) stormy: Duration,
    /// Virtual time without any, after which everything must be well.
    pub(crate) calm: Duration,
    pub(crate) trial: Trial,
    /// Milliseconds between two faults at most.
    pub(crate) fault_gap: u64,
    /// Milliseconds between two clients at most.
    pub(crate) client_gap: u64,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// All kinds of faults.
    Storm,
    /// The store is set back to an older copy.
    Restore,
    /// There is no controller for so long.
    Away(Duration),
}

/// What a run found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) events: u64,
    pub(crate) digest: u64,
    pub(crate) allocations: u64,
    pub(crate) revisions: u64,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) start: Instant,
    pub(crate) store: MemoryStore,
    pub(crate) sites: Vec<Rc<Site>>,
    pub(crate) relays: Vec<Rc<Relay>>,
    /// The way from one controller to another.
    pub(crate) between: Vec<Vec<Wire>>,
    pub(crate) settings: Settings,
    pub(crate) wishes: Wishes,
    /// The relay that holds each relayed port.
    pub(crate) ports: RefCell<BTreeMap<(IpAddr, u16), usize>>,
    pub(crate) secrets: RefCell<Secrets>,
    pub(crate) allocations: Cell<u64>,
    key_file: PathBuf,
    trace: RefCell<Trace>,
    failure: RefCell<Option<String>>,
    failed: Notify,
}

impl World {
    fn new(plan: Plan, key_file: PathBuf) -> Rc<Self> {
        let mut chance = Chance::new(plan.seed);
        let store = MemoryStore::new();
        let sites = (0..plan.controllers).map(|index| {
            let id: NodeId = format!("controller-{index}").parse().unwrap();
            let sealer = Sealer::open(&key_file, true).unwrap();
            let way = StoreWay::new(store.clone(), id.clone(), sealer, chance.fork());
            Rc::new(Site::new(index, id, way, chance.fork()))
        });
        let sites = sites.collect();
        let relay = |index| {
            let chance = chance.fork();
            Rc::new(Relay::new(index, plan.sharing, plan.controllers, chance))
        };
        let wires = || (0..plan.controllers).map(|_| Wire::new()).collect();
        Rc::new(Self {
            plan,
            start: Instant::now(),
            sites,
            relays: (0..plan.relays).map(relay).collect(),
            between: (0..plan.controllers).map(|_| wires()).collect(),
            store,
            settings: settings(plan),
            wishes: wishes(),
            ports: RefCell::default(),
            secrets: RefCell::default(),
            allocations: Cell::default(),
            key_file,
            trace: RefCell::new(Trace::new()),
            failure: RefCell::default(),
            failed: Notify::new(),
        })
    }

    /// True time.
    pub(crate) fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        Now {
            instant: Moment(u64::try_from(elapsed.as_nanos()).unwrap()),
            unix: EPOCH + elapsed.as_secs(),
        }
    }

    pub(crate) fn sealer(&self) -> Sealer {
        Sealer::open(&self.key_file, true).unwrap()
    }

    pub(crate) fn relay(&self, id: &NodeId) -> Option<&Rc<Relay>> {
        let place = self.relays.binary_search_by(|relay| relay.id.cmp(id));
        place.ok().map(|place| &self.relays[place])
    }

    /// The relay that clients reach at `host`.
    pub(crate) fn relay_at(&self, host: &str) -> Option<&Rc<Relay>> {
        let address: IpAddr = host.parse().ok()?;
        let place = self
            .relays
            .binary_search_by(|relay| relay.address.cmp(&address));
        place.ok().map(|place| &self.relays[place])
    }

    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        self.trace.borrow_mut().note(self.start.elapsed(), event);
    }

    /// SIGSTOP for the controller at `site`: its machine answers nobody; `None` where nothing runs.
    pub(crate) fn stop(&self, site: &Site) -> Option<Process> {
        let process = site.process().filter(|process| !process.is_stopped())?;
        self.note(format_args!("{} is stopped", site.name));
        process.stop();
        self.wires_of(site).for_each(Wire::cut);
        Some(process)
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, site: &Site, process: &Process) {
        self.wires_of(site).for_each(Wire::heal);
        process.resume();
        self.note(format_args!("{} goes on", site.name));
    }

    fn wires_of(&self, site: &Site) -> impl Iterator<Item = &Wire> {
        let index = site.index;
        let relays = self.relays.iter();
        relays.flat_map(move |it| [&it.control[index], &it.data[index]])
    }

    /// Whether the store names another controller as the leader.
    pub(crate) async fn is_led_by_another(&self, site: &Site) -> bool {
        let (key, own) = codec::encode_leader(&site.id);
        let found = self.store.range(&key).await.unwrap();
        found.entries.iter().any(|entry| entry.value != own)
    }

    /// Something that must hold does not: the run ends with it.
    pub(crate) fn broken(&self, what: fmt::Arguments<'_>) {
        self.note(format_args!("BROKEN {what}"));
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            let at = self.start.elapsed().as_secs_f64();
            let text = self.trace.borrow().text();
            *failure = Some(format!(
                "{what}\nafter {at:.3} s; what happened before:\n{text}"
            ));
            self.failed.notify_one();
        }
    }

    /// Lets every relay be a member before anything begins, as in a fleet that has run for long.
    async fn join_all(self: &Rc<Self>) {
        let first = &self.sites[0];
        first.way.change(|trouble| trouble.instant = true);
        first.start(self);
        let live = loop {
            match first.live() {
                Some(live) => break live,
                None => sleep(Duration::from_millis(10)).await,
            }
        };
        for relay in &self.relays {
            session::join(relay, &live.handle).await;
        }
        first.kill(self);
        first.way.change(|trouble| trouble.instant = false);
    }

    /// An order that its operator has given up waiting for may have been carried out after the one that took it back.
    async fn undrain_all(&self) {
        let Some(live) = self.sites[0].live() else {
            return;
        };
        for relay in &self.relays {
            let _ = live.handle.undrain(&relay.id).await;
        }
    }

    async fn live(self: &Rc<Self>, chance: &mut Chance) {
        if self.plan.warm {
            self.join_all().await;
        }
        for site in &self.sites {
            site.start(self);
        }
        for relay in &self.relays {
            relay.start(self);
        }
        let task = |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            tokio::task::spawn_local(future);
        };
        task(Box::pin(invariants::watch(Rc::clone(self))));
        task(Box::pin(clients::come(Rc::clone(self), chance.fork())));
        sleep(Duration::from_secs(5)).await;
        match self.plan.trial {
            Trial::Storm => faults::rage(self, chance.fork()).await,
            Trial::Restore => restore::happen(self, chance.fork()).await,
            Trial::Away(time) => outage::pass(self, time, chance.fork()).await,
        }
        self.note(format_args!("calm"));
        sleep(self.plan.calm / 3).await;
        self.undrain_all().await;
        sleep(self.plan.calm * 2 / 3).await;
        // What an operator began last may be under way.
        for _ in 0..20 {
            if invariants::all_is_well(self).is_ok() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        if let Err(what) = invariants::all_is_well(self) {
            self.broken(format_args!("{what}"));
        }
    }
}

/// Runs `plan`; the error says what did not hold, and what had happened.
pub(crate) fn run(plan: Plan) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let local = LocalSet::new();
    let outcome = local.block_on(&runtime, async {
        let world = World::new(plan, dir.path().join("store.key"));
        let mut chance = Chance::new(plan.seed ^ 0x7465_6d70_6573_7400);
        tokio::select! {
            biased;
            () = world.failed.notified() => {}
            () = world.live(&mut chance) => {}
        }
        let failure = world.failure.take();
        for relay in &world.relays {
            relay.kill(&world);
        }
        for site in &world.sites {
            site.kill(&world);
        }
        let (events, digest) = world.trace.borrow().digest();
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Report {
                events,
                digest,
                allocations: world.allocations.get(),
                revisions: world.store.revision(),
            }),
        }
    });
    drop(local);
    outcome
}

fn settings(plan: Plan) -> Settings {
    Settings {
        region: "north".into(),
        ports: PortPlan {
            range: PortRange::DYNAMIC,
            relays_per_address: u32::try_from(plan.sharing).unwrap(),
        },
        probe: ProbeMode::On,
        lists: ListSettings::default(),
        rotate_secrets_every: None,
    }
}

fn wishes() -> Wishes {
    Wishes {
        policy: Policy {
            realm: "example.org".into(),
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            danger_allow_loopback: false,
            allocations_per_user: 100,
            max_lifetime_seconds: 3600,
            max_session_seconds: 0,
            strict_expiry: false,
            tcp_relaying: false,
        },
        users: Vec::new(),
        shared_secret: None,
        join_token: Some(JOIN_TOKEN.to_owned()),
        api_tokens: Vec::new(),
        tenants: Vec::new(),
    }
}
