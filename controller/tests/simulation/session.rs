//! A relay's side of control sessions: which controller it turns to, and what it says and hears.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use turnfleet_controller::FleetError;
use turnfleet_controller::fleet::Ended;
use turnfleet_controller::reconcile::Handle;
use turnfleet_proto::fleet as wire;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::node_message::Message as FromNode;

use crate::process::Process;
use crate::relay::{Disk, Relay, Run};
use crate::site::{Live, Site};
use crate::wire::{Closed, Pipe};
use crate::world::{JOIN_TOKEN, World};

const HEARTBEAT: Duration = Duration::from_secs(2);
const FIRST_SNAPSHOT: Duration = Duration::from_secs(10);
/// What a relay waits for an answer of a controller.
const PATIENCE: Duration = Duration::from_secs(5);
const QUEUE: usize = 8;

/// What comes down a session: a message, or how it was refused.
pub(crate) enum Down {
    Message(Box<FromController>),
    /// With whether the credential was not known.
    Refused(bool),
}

/// Both directions of a connection, closed when the relay's end goes away.
struct Dial {
    up: Pipe<FromNode>,
    down: Pipe<Down>,
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.up.close();
    }
}

enum Failure {
    Unreachable,
    UnknownCredential,
    Ended,
}

impl From<Closed> for Failure {
    fn from(_: Closed) -> Self {
        Self::Ended
    }
}

/// Holds a session with one controller or another for as long as the process lives.
pub(crate) async fn run(world: Rc<World>, relay: Rc<Relay>) {
    let sites = world.sites.len();
    let mut chance = relay.state.borrow_mut().chance.fork();
    let mut next = chance.below(sites);
    loop {
        next = (next + 1) % sites;
        let site = Rc::clone(&world.sites[next]);
        let _ = attempt(&world, &relay, &site).await;
        if let Some(run) = &mut relay.state.borrow_mut().run {
            run.session = None;
        }
        chance.pause(100, 5_000).await;
    }
}

async fn attempt(world: &Rc<World>, relay: &Rc<Relay>, site: &Rc<Site>) -> Result<(), Failure> {
    let live = connect(relay, site).await?;
    let known = relay.state.borrow().disk.credential.clone();
    let credential = match known {
        Some(credential) => credential,
        None => enrol(world, relay, site, &live).await?,
    };
    match converse(world, relay, site, &live, credential).await {
        Err(Failure::UnknownCredential) => {
            let credential = enrol(world, relay, site, &live).await?;
            converse(world, relay, site, &live, credential).await
        }
        ended => ended,
    }
}

async fn connect(relay: &Relay, site: &Site) -> Result<Live, Failure> {
    let wire = &relay.control[site.index];
    let delay = relay.state.borrow_mut().chance.millis(2, 40);
    sleep(delay).await;
    if wire.is_cut() {
        sleep(PATIENCE).await;
        return Err(Failure::Unreachable);
    }
    site.live().ok_or(Failure::Unreachable)
}

async fn enrol(world: &World, relay: &Relay, site: &Site, live: &Live) -> Result<String, Failure> {
    let asked = timeout(PATIENCE, live.handle.enroll(JOIN_TOKEN, &relay.id)).await;
    let delay = relay.state.borrow_mut().chance.millis(2, 40);
    sleep(delay).await;
    let Ok(Ok(credential)) = asked else {
        return Err(Failure::Unreachable);
    };
    if relay.control[site.index].is_cut() {
        return Err(Failure::Unreachable);
    }
    world.note(format_args!("{} is enrolled by {}", relay.id, site.name));
    let mut state = relay.state.borrow_mut();
    state.disk.credential = Some(credential.clone());
    if let Some(run) = &mut state.run {
        // The relay's `Serving::forget_generation`.
        run.generation = 0;
    }
    Ok(credential)
}

async fn converse(
    world: &Rc<World>,
    relay: &Rc<Relay>,
    site: &Rc<Site>,
    live: &Live,
    credential: String,
) -> Result<(), Failure> {
    let dial = {
        let wire = &relay.control[site.index];
        let chance = &mut relay.state.borrow_mut().chance;
        Dial {
            up: Pipe::new(wire, chance.fork()),
            down: Pipe::new(wire, chance.fork()),
        }
    };
    site.serve(
        world,
        live,
        dial.up.clone(),
        dial.down.clone(),
        credential.clone(),
    );
    let hello = relay
        .state
        .borrow()
        .run
        .as_ref()
        .map(|run| hello(relay, run));
    say(&dial, FromNode::Hello(hello.ok_or(Failure::Ended)?))?;
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first_snapshot = sleep_until(Instant::now() + FIRST_SNAPSHOT);
    tokio::pin!(first_snapshot);
    let mut settled = false;
    let mut open = false;
    loop {
        tokio::select! {
            biased;
            message = dial.down.receive() => {
                let message = match message? {
                    Down::Message(message) => *message,
                    Down::Refused(unknown) if unknown => return Err(Failure::UnknownCredential),
                    Down::Refused(_) => return Err(Failure::Ended),
                };
                if !std::mem::replace(&mut open, true) {
                    drain(world, relay, false);
                }
                if let FromController::Snapshot(snapshot) = message {
                    let status = take(world, relay, snapshot, &credential).await;
                    say(&dial, FromNode::PolicyStatus(status))?;
                    if !std::mem::replace(&mut settled, true) {
                        settle(world, relay, site);
                    }
                } else if let FromController::Drain(wish) = message {
                    drain(world, relay, wish.draining);
                    say(&dial, heartbeat_of(relay))?;
                }
            }
            _ = heartbeat.tick() => say(&dial, heartbeat_of(relay))?,
            () = &mut first_snapshot, if !settled => return Err(Failure::Ended),
        }
    }
}

fn say(dial: &Dial, message: FromNode) -> Result<(), Closed> {
    if dial.up.len() >= QUEUE {
        return Err(Closed);
    }
    dial.up.send(message);
    Ok(())
}

fn settle(world: &World, relay: &Relay, site: &Site) {
    if let Some(run) = &mut relay.state.borrow_mut().run {
        run.session = Some((site.index, Instant::now()));
        let generation = run.generation;
        world.note(format_args!(
            "{} has a session with {}, generation {generation}",
            relay.id, site.name
        ));
    }
}

fn drain(world: &World, relay: &Relay, draining: bool) {
    if let Some(run) = &mut relay.state.borrow_mut().run
        && run.draining != draining
    {
        run.draining = draining;
        world.note(format_args!("{} draining: {draining}", relay.id));
    }
}

/// Applies a snapshot or not, and keeps it before the controller hears of it.
async fn take(
    world: &World,
    relay: &Relay,
    snapshot: wire::Snapshot,
    credential: &str,
) -> wire::PolicyStatus {
    let generation = snapshot.generation;
    let error = match relay.apply(world, &snapshot) {
        Ok(true) => {
            let delay = relay.state.borrow_mut().chance.millis(1, 15);
            sleep(delay).await;
            let kept = (credential.to_owned(), snapshot);
            relay.state.borrow_mut().disk.snapshot = Some(kept);
            String::new()
        }
        Ok(false) => String::new(),
        Err(error) => error.to_string(),
    };
    if !error.is_empty() {
        world.note(format_args!("{} refuses {generation}: {error}", relay.id));
    }
    wire::PolicyStatus {
        generation,
        applied: error.is_empty(),
        error,
        running_generation: relay.generation(),
        needs_whole: false,
    }
}

/// What a run of `relay` says of itself when a session begins.
fn hello(relay: &Relay, run: &Run) -> wire::Hello {
    wire::Hello {
        node_id: relay.id.to_string(),
        incarnation: run.incarnation.to_vec(),
        version: "simulated".into(),
        region: "north".into(),
        zone: relay.zone.clone(),
        listeners: vec![wire::Listener {
            transport: wire::listener::Transport::Udp.into(),
            address: format!("{}:3478", relay.address),
            ..wire::Listener::default()
        }],
        public_ips: vec![relay.public_ip.to_string()],
        capacity: Some(wire::Capacity {
            allocations: 10_000,
            file_descriptors: 10_000,
            ..wire::Capacity::default()
        }),
        applied_generation: run.generation,
        allocations: u64::try_from(run.allocations.len()).unwrap(),
        ..wire::Hello::default()
    }
}

/// Makes `relay` a member that the fleet has known for long, before anything begins.
pub(crate) async fn join(relay: &Relay, handle: &Handle) {
    let credential = handle.enroll(JOIN_TOKEN, &relay.id).await.unwrap();
    let run = Run::new(Process::default(), &mut relay.state.borrow_mut().chance);
    let opened = handle.open_session(&credential, hello(relay, &run)).await;
    let session = opened.unwrap();
    let snapshot = session.snapshot().unwrap();
    handle.session_ended(session.key, Ended::Goodbye).await;
    relay.state.borrow_mut().disk = Disk {
        snapshot: Some((credential.clone(), snapshot)),
        credential: Some(credential),
    };
}

fn heartbeat_of(relay: &Relay) -> FromNode {
    let state = relay.state.borrow();
    let Some(run) = &state.run else {
        return FromNode::Heartbeat(wire::Heartbeat::default());
    };
    let usage = run.ledger.usage();
    let credential = state.disk.credential.as_ref();
    let kept = (state.disk.snapshot.as_ref())
        .filter(|(owner, _)| Some(owner) == credential)
        .map(|(_, snapshot)| snapshot.generation);
    FromNode::Heartbeat(wire::Heartbeat {
        applied_generation: run.generation,
        load: Some(wire::Load {
            allocations: usage.allocations.into(),
            relayed_ports_used: usage.ports_used.into(),
            relayed_ports_total: usage.ports_granted.into(),
            allocations_opened: run.opened,
            ..wire::Load::default()
        }),
        draining: run.draining,
        kept_generation: kept.unwrap_or(0),
        port_uses: run.port_uses(),
        ..wire::Heartbeat::default()
    })
}

/// Whether the controller does not know the credential.
pub(crate) fn is_unknown(error: &FleetError) -> bool {
    matches!(error, FleetError::Credential)
}
