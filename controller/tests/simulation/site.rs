//! A controller: its reconciler on its own way to the store, its side of sessions, and its probe.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout};
use turnfleet_controller::fleet::record::ControllerRecord;
use turnfleet_controller::fleet::{
    Ended, FleetView, ProbeFailure, ProbeOutcome, Probing, Transport, Vantage,
};
use turnfleet_controller::leader::{self, Leadership};
use turnfleet_controller::reconcile::{Clock, Handle, Random, Reconciler, Session, Surroundings};
use turnfleet_proto::NodeId;
use turnfleet_proto::credentials::{EphemeralCredential, mint};
use turnfleet_proto::fleet::Sightings;
use turnfleet_proto::fleet::controller_message::Message as ToRelay;
use turnfleet_proto::fleet::node_message::Message as FromNode;
use turnfleet_turn::{Instant as Moment, Now};

use crate::chance::Chance;
use crate::invariants;
use crate::peers;
use crate::process::Process;
use crate::session::{Down, is_unknown};
use crate::storage::StoreWay;
use crate::wire::Pipe;
use crate::world::{EPOCH, World};

/// What a probe waits for an answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// As the prober has it: other trials are Bindings, which show nobody a credential.
const ROUND_TRIP_EVERY: u64 = 5;

/// A place where a controller runs.
pub(crate) struct Site {
    pub(crate) index: usize,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) way: StoreWay,
    skew: Arc<AtomicI64>,
    /// When its wall clock was set.
    clock_set: Cell<Instant>,
    chance: RefCell<Chance>,
    process: RefCell<Option<Process>>,
    live: RefCell<Option<Live>>,
    /// Controllers that follow this one.
    pub(crate) followers: RefCell<Vec<Pipe<Sightings>>>,
}

/// A controller that serves.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) handle: Handle,
    pub(crate) process: Process,
    pub(crate) since: Instant,
}

impl Site {
    pub(crate) fn new(index: usize, id: NodeId, way: StoreWay, chance: Chance) -> Self {
        Self {
            index,
            name: id.to_string(),
            id,
            skew: Arc::clone(way.skew()),
            clock_set: Cell::new(Instant::now()),
            way,
            chance: RefCell::new(chance),
            process: RefCell::default(),
            live: RefCell::default(),
            followers: RefCell::default(),
        }
    }

    /// The controller, where it runs and serves.
    pub(crate) fn live(&self) -> Option<Live> {
        let live = self.live.borrow();
        live.clone().filter(|live| !live.process.is_stopped())
    }

    /// Sets the wall clock so many seconds off true time.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::Relaxed);
        self.clock_set.set(Instant::now());
    }

    /// When its wall clock was set, by which relays' are measured.
    pub(crate) fn clock_set(&self) -> Instant {
        self.clock_set.get()
    }

    pub(crate) fn has_right_clock(&self) -> bool {
        self.skew.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.borrow().is_some()
    }

    pub(crate) fn process(&self) -> Option<Process> {
        self.process.borrow().clone()
    }

    /// Seconds since the Unix epoch, as its clock has them.
    pub(crate) fn unix(&self, world: &World) -> u64 {
        let skew = self.skew.load(Ordering::Relaxed);
        world.now().unix.saturating_add_signed(skew)
    }

    pub(crate) fn kill(&self, world: &World) {
        if let Some(process) = self.process.borrow_mut().take() {
            world.note(format_args!("{} dies", self.name));
            self.live.borrow_mut().take();
            process.kill();
            for follower in self.followers.take() {
                follower.close();
            }
        }
    }

    /// Starts the process, which serves as soon as it has read the store.
    pub(crate) fn start(self: &Rc<Self>, world: &Rc<World>) {
        if self.is_up() {
            return;
        }
        let process = Process::default();
        self.process.borrow_mut().replace(process.clone());
        world.note(format_args!("{} starts", self.name));
        let (site, world, inner) = (Rc::clone(self), Rc::clone(world), process.clone());
        process.spawn(async move { site.run(world, inner).await });
    }

    async fn run(self: Rc<Self>, world: Rc<World>, process: Process) {
        let (reconciler, handle) = loop {
            let surroundings = Surroundings {
                clock: Arc::new(SkewedClock {
                    origin: world.start,
                    skew: Arc::clone(&self.skew),
                }),
                random: Arc::new(SeededRandom(std::sync::Mutex::new(
                    self.chance.borrow_mut().fork(),
                ))),
            };
            let opened = Reconciler::open_in(
                surroundings,
                Arc::new(self.way.clone()),
                world.sealer(),
                world.settings.clone(),
                &world.wishes,
            );
            match opened.await {
                Ok(opened) => break opened,
                Err(error) => world.note(format_args!("{} cannot start: {error}", self.name)),
            }
            sleep(Duration::from_secs(1)).await;
        };
        let reconciler = reconciler.with_leadership(self.stand(&process));
        let live = Live {
            handle: handle.clone(),
            process: process.clone(),
            since: Instant::now(),
        };
        world.note(format_args!("{} serves", self.name));
        self.live.borrow_mut().replace(live);
        process.spawn(peers::tell(Rc::clone(&self), handle.clone()));
        for other in world.sites.iter().filter(|it| it.index != self.index) {
            let (world, other) = (Rc::clone(&world), Rc::clone(other));
            let chance = self.chance.borrow_mut().fork();
            let handle = handle.clone();
            process.spawn(peers::follow(
                world,
                Rc::clone(&self),
                other,
                handle,
                chance,
            ));
        }
        process.spawn(invariants::follow(
            Rc::clone(&world),
            Rc::clone(&self),
            handle.clone(),
        ));
        let (site, probing) = (Rc::clone(&self), Rc::clone(&world));
        let prober = process.clone();
        process.spawn(async move { site.probe(probing, prober, handle).await });
        let (_stop, stopped) = watch::channel(false);
        reconciler.run(stopped).await;
        world.broken(format_args!("{} stopped by itself", self.name));
    }

    /// Takes part in the election.
    fn stand(&self, process: &Process) -> Leadership {
        let (term, terms) = watch::channel(None);
        let me = ControllerRecord {
            id: self.id.clone(),
            grpc_url: String::new(),
            http_address: String::new(),
            region: "north".into(),
            version: "simulated".into(),
        };
        let store = Arc::new(self.way.clone());
        process.spawn(async move {
            let (_stop, stopped) = watch::channel(false);
            leader::stand(store, me, term, stopped).await;
        });
        Leadership::Elected(terms)
    }

    /// Serves a session that a relay has begun.
    pub(crate) fn serve(
        &self,
        world: &Rc<World>,
        live: &Live,
        up: Pipe<FromNode>,
        down: Pipe<Down>,
        credential: String,
    ) {
        let handle = live.handle.clone();
        let _ = world;
        live.process.spawn(async move {
            let down = Closing(down);
            serve(&handle, &up, &down.0, credential).await;
        });
    }

    /// Examines relays as the prober does: at the interval, and at once when the fleet asks.
    async fn probe(self: Rc<Self>, world: Rc<World>, process: Process, handle: Handle) {
        let mut chance = self.chance.borrow_mut().fork();
        let mut known: BTreeMap<NodeId, (u64, Instant, u64)> = BTreeMap::new();
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let view = handle.view();
            let now = Instant::now();
            for node in &view.nodes {
                let Probing::Yes { round } = node.probing else {
                    known.remove(&node.id);
                    continue;
                };
                let due = known.get(&node.id);
                if due.is_some_and(|(last, due, _)| *last == round && now < *due) {
                    continue;
                }
                let turn = due.map_or(0, |(.., turn)| turn + 1);
                let next = now + PROBE_INTERVAL.mul_f64(0.5) + chance.millis(0, 2_000);
                known.insert(node.id.clone(), (round, next, turn));
                let (secret, generation) = view.trial_secret(node);
                let credential = || mint(secret, "", self.unix(&world) + 120);
                let in_turn = node.connected && turn.is_multiple_of(ROUND_TRIP_EVERY);
                let round_trip = (in_turn || node.secret_unproven) && !node.draining;
                let examination = Examination {
                    node: node.id.clone(),
                    round,
                    credential: round_trip.then(credential),
                    generation,
                    delay: chance.millis(2, 40),
                };
                let (site, world, handle) = (Rc::clone(&self), Rc::clone(&world), handle.clone());
                process.spawn(async move { examination.run(&site, &world, &handle).await });
            }
        }
    }

    /// A credential as the controller mints it at this moment.
    pub(crate) fn credential(
        &self,
        world: &World,
        view: &FleetView,
        user: &str,
    ) -> EphemeralCredential {
        mint(view.minting_secret(), user, self.unix(world) + 3600)
    }
}

struct Closing(Pipe<Down>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn serve(handle: &Handle, up: &Pipe<FromNode>, down: &Pipe<Down>, credential: String) {
    let Ok(Ok(FromNode::Hello(hello))) = timeout(Duration::from_secs(5), up.receive()).await else {
        return;
    };
    let mut session = match handle.open_session(&credential, hello).await {
        Ok(session) => session,
        Err(error) => {
            down.send(Down::Refused(is_unknown(&error)));
            return;
        }
    };
    let ended = converse(handle, up, down, &mut session).await;
    handle.session_ended(session.key.clone(), ended).await;
}

async fn converse(
    handle: &Handle,
    up: &Pipe<FromNode>,
    down: &Pipe<Down>,
    session: &mut Session,
) -> Ended {
    let tell = |message| down.send(Down::Message(Box::new(message)));
    session.offers.mark_changed();
    if session.drain.borrow().draining {
        session.drain.mark_changed();
    }
    loop {
        tokio::select! {
            biased;
            message = up.receive() => {
                let outcome = match message {
                    Ok(FromNode::Heartbeat(heartbeat)) => {
                        handle.heartbeat(&session.key, heartbeat).await
                    }
                    Ok(FromNode::PolicyStatus(status)) => {
                        handle.policy_status(&session.key, status).await
                    }
                    Ok(FromNode::Demand(demand)) => handle.demand(&session.key, demand).await,
                    Ok(FromNode::Goodbye(_)) => return Ended::Goodbye,
                    Ok(FromNode::Usage(usage)) => {
                        handle.usage().report(&session.key.node, usage);
                        Ok(())
                    }
                    // None of its relays tells of any.
                    Ok(FromNode::Events(_)) => Ok(()),
                    Ok(FromNode::Hello(_) | FromNode::TraceAnswer(_)) | Err(_) => return Ended::Reset,
                };
                if outcome.is_err() {
                    return Ended::Reset;
                }
            }
            changed = session.offers.changed() => {
                if changed.is_err() {
                    return Ended::Reset;
                }
                session.offers.mark_unchanged();
                if let Some(snapshot) = session.snapshot() {
                    tell(ToRelay::Snapshot(snapshot));
                }
            }
            Ok(()) = session.drain.changed() => {
                let drain = *session.drain.borrow_and_update();
                tell(ToRelay::Drain(drain));
            }
        }
    }
}

/// One probe of one relay.
struct Examination {
    node: NodeId,
    round: u64,
    /// What a round trip is made with; `None` for a Binding.
    credential: Option<EphemeralCredential>,
    generation: u64,
    delay: Duration,
}

impl Examination {
    async fn run(self, site: &Site, world: &World, handle: &Handle) {
        let result = self.result(site, world).await;
        let by_udp = vec![Transport::Udp];
        let (reached, missed) = match result {
            Err(ProbeFailure::NoAnswer | ProbeFailure::Connection) => (Vec::new(), by_udp),
            Ok(_) | Err(_) => (by_udp, Vec::new()),
        };
        let outcome = ProbeOutcome {
            vantage: Vantage::HERE,
            round: self.round,
            result,
            reached,
            missed,
            broken: Vec::new(),
            shown_generation: match &self.credential {
                Some(_) if result.is_ok() => self.generation,
                Some(_) | None => 0,
            },
        };
        handle.report_probe(&self.node, outcome).await;
    }

    async fn result(&self, site: &Site, world: &World) -> Result<Duration, ProbeFailure> {
        let Some(relay) = world.relay(&self.node) else {
            return Err(ProbeFailure::NoListener);
        };
        sleep(self.delay / 2).await;
        let reached = !relay.data[site.index].is_cut();
        let accepted = match &self.credential {
            Some(credential) => relay.would_accept(world, credential),
            None => relay.serves().then_some(true),
        };
        match accepted {
            Some(good) if reached => {
                sleep(self.delay / 2).await;
                if good {
                    Ok(self.delay)
                } else {
                    Err(ProbeFailure::Refused(401))
                }
            }
            // The machine answers for a process that is not there.
            None if reached && !relay.is_up() => {
                sleep(self.delay / 2).await;
                Err(ProbeFailure::Connection)
            }
            Some(_) | None => {
                sleep(PROBE_PATIENCE).await;
                Err(ProbeFailure::NoAnswer)
            }
        }
    }
}

struct SkewedClock {
    origin: Instant,
    skew: Arc<AtomicI64>,
}

impl Clock for SkewedClock {
    fn now(&self) -> Now {
        let elapsed = self.origin.elapsed();
        let skew = self.skew.load(Ordering::Relaxed);
        Now {
            instant: Moment(u64::try_from(elapsed.as_nanos()).unwrap()),
            unix: (EPOCH + elapsed.as_secs()).saturating_add_signed(skew),
        }
    }
}

struct SeededRandom(std::sync::Mutex<Chance>);

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Option<()> {
        let mut chance = self.0.lock().unwrap();
        bytes.fill_with(|| chance.number().to_le_bytes()[0]);
        Some(())
    }
}
