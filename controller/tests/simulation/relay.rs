//! A relay node: what its disk keeps, and what its process does with what controllers say. Which snapshot it runs by, whom
//! it lets in and which port it opens are decided by the relay's own code; the data path is a set of allocations.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use turnfleet_proto::credentials::EphemeralCredential;
use turnfleet_proto::{NodeId, fleet as wire};
use turnfleet_relay::agreement::{LocalPolicy, Running, SnapshotError, Verdict, consider};
use turnfleet_relay::config::NodeLimits;
use turnfleet_relay::{GrantedRange, RelayPolicy};
use turnfleet_turn::ledger::{GrantedPorts, Holder};
use turnfleet_turn::ports::PortRequest;
use turnfleet_turn::wire::{LongTermKey, PasswordAlgorithm};
use turnfleet_turn::{Candidates, Identity, Ledger, Now};

use crate::chance::Chance;
use crate::process::Process;
use crate::site::Site;
use crate::wire::Wire;
use crate::world::World;

/// A clock that is off is seen in two heartbeats, and some time for a session to be there.
const CLOCK_SEEN: Duration = Duration::from_secs(20);

/// One relay node.
pub(crate) struct Relay {
    pub(crate) index: usize,
    pub(crate) id: NodeId,
    /// Where clients reach it; its own.
    pub(crate) address: IpAddr,
    /// What peers see; may be shared with other relays.
    pub(crate) public_ip: IpAddr,
    pub(crate) zone: String,
    /// The ways to the controllers, for sessions and for probes.
    pub(crate) control: Vec<Wire>,
    pub(crate) data: Vec<Wire>,
    pub(crate) local: LocalPolicy,
    pub(crate) state: RefCell<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) chance: Chance,
    /// Seconds that its wall clock is ahead, and since when.
    pub(crate) skew: i64,
    pub(crate) clock_set: Instant,
    pub(crate) disk: Disk,
    pub(crate) run: Option<Run>,
}

/// What outlives the process.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) credential: Option<String>,
    /// The credential that it was kept for, and the snapshot.
    pub(crate) snapshot: Option<(String, wire::Snapshot)>,
}

/// One run of the process.
pub(crate) struct Run {
    pub(crate) process: Process,
    pub(crate) incarnation: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) epoch: Vec<u8>,
    pub(crate) policy: Option<RelayPolicy>,
    pub(crate) granted: Vec<GrantedRange>,
    pub(crate) ledger: Ledger,
    pub(crate) allocations: BTreeMap<u16, Allocation>,
    pub(crate) opened: u64,
    pub(crate) draining: bool,
    /// Which controller it has a settled session with, and since when.
    pub(crate) session: Option<(usize, Instant)>,
    /// Since when clients are served without a break.
    pub(crate) serves_since: Option<Instant>,
}

/// A live allocation.
pub(crate) struct Allocation {
    pub(crate) ends: Instant,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Allocated,
    /// 401 for a credential.
    Unauthorized,
    /// 300.
    TryAlternate,
    /// 486 or 508.
    Full,
    /// Nobody answers.
    Silence,
}

impl Run {
    pub(crate) fn new(process: Process, chance: &mut Chance) -> Self {
        Self {
            process,
            incarnation: chance.bytes(),
            generation: 0,
            epoch: Vec::new(),
            policy: None,
            granted: Vec::new(),
            ledger: Ledger::new(chance.bytes()),
            allocations: BTreeMap::new(),
            opened: 0,
            draining: false,
            session: None,
            serves_since: None,
        }
    }

    /// The relay's `Grants`: a grant that ends is drawn from no longer.
    fn open_ports(&self, unix: u64) {
        let open = self.granted.iter().filter(|grant| grant.may_open(unix));
        let open = open.map(|grant| GrantedPorts {
            public: grant.public,
            first: grant.range.first(),
            last: grant.range.last(),
        });
        self.ledger.set_granted(&open.collect::<Vec<_>>());
    }

    pub(crate) fn port_uses(&self) -> Vec<wire::PortUse> {
        let range = |&(first, last): &(u16, u16)| wire::PortRange {
            first: first.into(),
            last: last.into(),
        };
        let uses = self.ledger.ports().into_iter();
        uses.map(|ports| wire::PortUse {
            public_ip: ports.public.to_string(),
            used: ports.used,
            withdrawn: ports.withdrawn.iter().map(range).collect(),
            open: ports.open.iter().map(range).collect(),
        })
        .collect()
    }
}

impl Relay {
    pub(crate) fn new(index: usize, sharing: usize, controllers: usize, chance: Chance) -> Self {
        let [high, low] = u16::try_from(index).unwrap().to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(198, 18, high, low));
        let group = u16::try_from(index / sharing).unwrap();
        let [high, low] = group.to_be_bytes();
        let public_ip = IpAddr::V4(Ipv4Addr::new(198, 19, high, low));
        let wires = || (0..controllers).map(|_| Wire::new()).collect();
        Self {
            index,
            id: format!("relay-{index:04}").parse().unwrap(),
            address,
            public_ip,
            zone: format!("zone-{}", index % 3),
            control: wires(),
            data: wires(),
            local: LocalPolicy {
                public_ips: vec![public_ip],
                own_ips: vec![public_ip],
                nonce_lifetime: Duration::from_secs(3600),
                limits: NodeLimits {
                    allocations: None,
                    permissions_per_allocation: 10,
                    channels_per_allocation: 10,
                    connections_per_allocation: 10,
                    connections_per_user: 10,
                },
                allocations: 10_000,
                connections: 100,
                tcp_low_peer_ports: false,
                secret_uses: std::sync::Arc::default(),
            },
            state: RefCell::new(State {
                chance,
                skew: 0,
                clock_set: Instant::now(),
                disk: Disk::default(),
                run: None,
            }),
        }
    }

    /// Sets the wall clock so many seconds off true time.
    pub(crate) fn set_clock(&self, seconds: i64) {
        let mut state = self.state.borrow_mut();
        (state.skew, state.clock_set) = (seconds, Instant::now());
    }

    /// Whether its clock has been right for so long that everybody knows.
    pub(crate) fn has_right_clock(&self) -> bool {
        let state = self.state.borrow();
        state.skew == 0 && state.clock_set.elapsed() >= CLOCK_SEEN
    }

    /// Whether it has told the controller at `site` for long that its clock is wrong.
    pub(crate) fn shows_wrong_clock(&self, site: &Site) -> bool {
        let state = self.state.borrow();
        let session = state.run.as_ref().and_then(|run| run.session);
        let Some((_, since)) = session.filter(|(index, _)| *index == site.index) else {
            return false;
        };
        let quiet = self.control[site.index].quiet_since();
        let clocks = state.clock_set.max(site.clock_set());
        let since = since.max(clocks).max(quiet);
        state.skew != 0 && since.elapsed() >= CLOCK_SEEN
    }

    /// Starts the process: it serves by what its disk holds, and looks for a controller.
    pub(crate) fn start(self: &Rc<Self>, world: &Rc<World>) {
        let process = Process::default();
        let cached = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            if state.run.is_some() {
                return;
            }
            state.run = Some(Run::new(process.clone(), &mut state.chance));
            let credential = state.disk.credential.as_ref();
            let fits = |(owner, _): &&(String, _)| Some(owner) == credential;
            state.disk.snapshot.as_ref().filter(fits).cloned()
        };
        let cached = cached.map(|(_, snapshot)| snapshot);
        let generation = cached.as_ref().map(|snapshot| snapshot.generation);
        world.note(format_args!(
            "{} starts, cached generation {generation:?}",
            self.id
        ));
        if let Some(snapshot) = cached {
            let _ = self.apply(world, &snapshot);
        }
        let (relay, world) = (Rc::clone(self), Rc::clone(world));
        process.spawn(async move { crate::session::run(world, relay).await });
    }

    /// Ends the process at once.
    pub(crate) fn kill(&self, world: &World) {
        let run = self.state.borrow_mut().run.take();
        if let Some(run) = run {
            world.note(format_args!("{} dies", self.id));
            run.process.kill();
            for port in run.allocations.keys() {
                world.ports.borrow_mut().remove(&(self.public_ip, *port));
            }
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().run.is_some()
    }

    /// The process runs, and clients are answered.
    pub(crate) fn serves(&self) -> bool {
        let state = self.state.borrow();
        let serves = |run: &Run| run.policy.is_some() && !run.process.is_stopped();
        state.run.as_ref().is_some_and(serves)
    }

    pub(crate) fn generation(&self) -> u64 {
        let state = self.state.borrow();
        state.run.as_ref().map_or(0, |run| run.generation)
    }

    /// Takes a snapshot as the relay's code decides, and says whether anything changed.
    pub(crate) fn apply(
        &self,
        world: &World,
        snapshot: &wire::Snapshot,
    ) -> Result<bool, SnapshotError> {
        let now = self.now(world);
        let mut state = self.state.borrow_mut();
        let Some(run) = &mut state.run else {
            return Err(SnapshotError::Stopped);
        };
        let running = Running {
            generation: run.generation,
            epoch: run.epoch.clone(),
            granted: run.granted.clone(),
            ..Running::default()
        };
        let compiled = match consider(&running, snapshot, &[], &self.local, false)? {
            Verdict::Apply(compiled) => compiled,
            Verdict::Running => return Ok(false),
        };
        if compiled.generation < run.generation && snapshot.epoch == run.epoch {
            world.broken(format_args!(
                "I6: {} went from generation {} back to {}",
                self.id, run.generation, compiled.generation
            ));
        }
        run.generation = compiled.generation;
        run.epoch.clone_from(&snapshot.epoch);
        run.policy = Some(compiled.policy);
        run.granted = compiled.granted;
        run.open_ports(now.unix);
        run.serves_since.get_or_insert_with(Instant::now);
        drop(state);
        crate::invariants::ranges_are_apart(world, self);
        crate::invariants::suits_its_lists(world, self);
        Ok(true)
    }

    /// Answers a client's Allocate.
    pub(crate) fn allocate(&self, world: &World, credential: &EphemeralCredential) -> Answer {
        if !self.serves() {
            return Answer::Silence;
        }
        let now = self.now(world);
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(run) = &mut state.run else {
            return Answer::Silence;
        };
        let Some(policy) = &run.policy else {
            return Answer::Silence;
        };
        if !accepts(policy, credential, now) {
            return Answer::Unauthorized;
        }
        if run.draining {
            return Answer::TryAlternate;
        }
        if run
            .ledger
            .admit(Holder::default(), &policy.server.limits)
            .is_err()
        {
            return Answer::Full;
        }
        run.open_ports(now.unix);
        let drawn = run
            .ledger
            .draw(self.public_ip, PortRequest::Any, now.instant);
        let Some(port) = drawn else {
            run.ledger.leave(Holder::default());
            return Answer::Full;
        };
        let ends = Instant::now() + state.chance.millis(1_000, 40_000);
        run.allocations.insert(port, Allocation { ends });
        run.opened += 1;
        crate::invariants::port_is_free(world, self, port);
        Answer::Allocated
    }

    /// Whether a credential would be accepted; `None` where nobody answers.
    pub(crate) fn would_accept(
        &self,
        world: &World,
        credential: &EphemeralCredential,
    ) -> Option<bool> {
        if !self.serves() {
            return None;
        }
        let state = self.state.borrow();
        let policy = state.run.as_ref()?.policy.as_ref()?;
        Some(accepts(policy, credential, self.now_of(world, &state)))
    }

    /// Closes the allocations that end.
    pub(crate) fn sweep(&self, world: &World) {
        let now = self.now(world).instant;
        let mut state = self.state.borrow_mut();
        let Some(run) = &mut state.run else { return };
        if run.process.is_stopped() {
            return;
        }
        let over = |allocation: &Allocation| allocation.ends <= Instant::now();
        let ended: Vec<u16> = (run.allocations.iter())
            .filter(|(_, allocation)| over(allocation))
            .map(|(port, _)| *port)
            .collect();
        for port in ended {
            run.allocations.remove(&port);
            run.ledger.release((self.public_ip, port).into(), now);
            run.ledger.leave(Holder::default());
            world.ports.borrow_mut().remove(&(self.public_ip, port));
        }
    }

    pub(crate) fn now(&self, world: &World) -> Now {
        self.now_of(world, &self.state.borrow())
    }

    fn now_of(&self, world: &World, state: &State) -> Now {
        let mut now = world.now();
        now.unix = now.unix.saturating_add_signed(state.skew);
        now
    }
}

fn accepts(policy: &RelayPolicy, credential: &EphemeralCredential, now: Now) -> bool {
    let (username, password) = (&credential.username, &credential.password);
    let mut candidates = Candidates::of(PasswordAlgorithm::Md5);
    let realm = &policy.server.realm;
    let identity = Identity {
        username,
        realm,
        server_name: None,
    };
    policy.keys.candidates(identity, now, &mut candidates);
    let shown = LongTermKey::derive_with(PasswordAlgorithm::Md5, username, realm, password);
    let good = |until: Option<u64>| until.is_none_or(|until| now.unix <= until);
    (candidates.iter()).any(|candidate| candidate.key == shown && good(candidate.expires_at))
}
