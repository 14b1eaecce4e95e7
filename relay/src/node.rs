//! A relay node from start to stop: puts listeners, shards, state and control session together.

mod certificates;
mod reload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::Instrument as _;
use turnfleet_proto::certificate::{Certificate, CertificateError};
use turnfleet_proto::file_watch::FileWatcher;
use turnfleet_proto::{GrantedRange, NodeId};
use turnfleet_turn::{Ledger, Transport};

use self::reload::Reloads;
use crate::addressing::Addressing;
use crate::budget::DescriptorBudget;
use crate::config::{Config, ConfigErrors, Findings};
use crate::control::{
    ControlState, ControlStatus, Identity, Introduction, Outbox, Sections, Session, SnapshotCache,
    StateDir, StateDirError, unix_millis,
};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::metrics::{self, Observed};
use crate::policy::LocalPolicy;
use crate::process::{self, ProcessUsage};
use crate::serving::Serving;
use crate::shard::{
    BindError, Bound, EventLog, Heard, Listener, ShardSet, ShardSettings, StreamLimits, Teller,
    raise_descriptor_limit,
};
use crate::usage::UsageBook;

/// The folder of the journal, in the state folder.
const JOURNAL: &str = "journal";
/// How often a drain looks whether it is over.
const DRAIN_POLL: Duration = Duration::from_millis(100);
/// How long the end of allocations may keep a node from leaving.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often it looks meanwhile whether they have ended.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// A running relay node. Dropping it ends it at once, without a Goodbye.
pub struct Node {
    node_id: NodeId,
    listeners: watch::Sender<Vec<BoundListener>>,
    /// Those that clients may come to by themselves, for the control session.
    introduced: watch::Sender<Vec<BoundListener>>,
    descriptor_limit: u64,
    serving: Arc<Serving>,
    status: Arc<ControlStatus>,
    journal: Arc<Journal>,
    events: Arc<Outbox>,
    certificate: Option<Arc<Certificate>>,
    _certificate_watcher: Option<FileWatcher>,
    /// Answers the challenges of certificate authorities.
    challenges: certificates::Challenges,
    reloads: Reloads,
    stop: watch::Sender<bool>,
    session: JoinHandle<()>,
    /// Keeps what ends by the clock, whether the session lives or not.
    deadlines: JoinHandle<()>,
    usage: Arc<UsageBook>,
    /// Keeps what is counted.
    keeping: JoinHandle<()>,
}

/// A listener that clients can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// Over what.
    pub transport: Transport,
    /// The address of this machine, with the port that the system chose where none was asked for.
    pub address: SocketAddr,
    /// The address that clients see; differs behind 1:1 NAT only.
    pub public: SocketAddr,
    /// Whether clients may come to it themselves; `false` where only balancers are let in.
    pub is_direct: bool,
}

/// What a node can say of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name in the fleet.
    pub node_id: NodeId,
    /// The generation of the policy snapshot that it serves by; zero for none, and between an enrolment and the first
    /// snapshot after it.
    pub applied_generation: u64,
    /// The ports that it may use.
    pub granted: Vec<GrantedRange>,
    /// Allocations that live.
    pub allocations: u64,
    /// Whether allocations are refused because the node is about to leave.
    pub draining: bool,
    /// Whether a controller answers.
    pub connected: bool,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration does not fit this machine.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The state folder cannot be used.
    #[error("cannot use {} (state_dir)", path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error("cannot use the certificate (tls.certificate, tls.key)")]
    Certificate(#[from] CertificateError),
    /// A listener cannot be opened.
    #[error("cannot open the listeners (listeners)")]
    Bind(#[from] BindError),
    /// The listener for challenges cannot be opened.
    #[error("cannot listen on {address} (tls.http_challenges)")]
    Challenges {
        /// Its address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another configuration does not fit what runs.
    #[error("the running policy does not fit the configuration: {0}")]
    Reload(String),
    /// Another configuration has a listener that takes TLS, and there has been no certificate since the start.
    #[error(
        "the listener {0} takes TLS, and the relay was started without a certificate: restart it, for tls takes effect at the start alone"
    )]
    NoCertificate(Box<Listener>),
    /// The operating system refused a thread, random bytes or the limit on open files.
    #[error("the operating system refused")]
    System(#[source] std::io::Error),
}

impl From<StateDirError> for NodeError {
    fn from(StateDirError { path, source }: StateDirError) -> Self {
        Self::StateDir { path, source }
    }
}

impl Node {
    /// Opens the listeners, starts the shards and the control session, and returns before the controller is reached.
    /// With a snapshot of an earlier run in the state folder the node serves at once.
    ///
    /// # Errors
    /// When a listener cannot be opened, the state folder or the certificate cannot be used, or the configuration does not
    /// fit the machine.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        let addressing = Addressing::resolve(&config, &Machine::read())?;
        for warning in config.warnings.iter().chain(&addressing.warnings) {
            tracing::warn!(key = warning.key, "{}", warning.message);
        }
        let descriptor_limit = raise_descriptor_limit().map_err(NodeError::System)?;
        let dir = Arc::new(StateDir::open(&config.state_dir)?);
        let (identity, cache) = kept_membership(&config, &dir)?;
        let certificate = certificates::certificate(&config, &dir)?;
        let share = descriptor_limit / config.nodes_in_process;
        let budget = descriptor_budget(&config, &addressing, share);
        let settings = shard_settings(&config, &addressing, certificate.clone(), budget);
        let (bound, usage) = bind(settings, &dir)?;
        let listeners = bound_listeners(bound.addresses(), &addressing);
        let introduced = watch::Sender::new(direct(&listeners));
        let local = local_policy(&config, &addressing, budget);
        let shown = certificate.clone();
        let introduction = introduction(&config, &listeners, &local, share, shown);
        let journal = open_journal(&config, &dir, &identity, &bound)?;
        let (teller, heard) = Teller::new();
        let outbox = Arc::new(Outbox::new(&heard));
        let events = event_log(&config, &journal)?.with_teller(teller);
        let ledger = Ledger::new(seed()?);
        let nodes = config.nodes_in_process;
        let serving = Arc::new(Serving::new(bound, local, nodes, ledger, events));
        let status = Arc::new(ControlStatus::new());
        for endpoint in &config.controller.endpoints {
            serving.close_controller(&endpoint.uri).await;
        }
        let sections = serve_from_cache(&serving, &cache, &identity, &dir);

        let watcher = certificate.as_ref().map(Certificate::watch).transpose();
        let challenges = certificates::answer_challenges(&config, certificate.as_ref()).await?;
        let reloads = Reloads::of(&config, addressing.hosts);
        let stop = watch::Sender::new(false);
        let deadlines = keep_time(Arc::clone(&serving), Arc::clone(&outbox), heard);
        let session = Session {
            controller: config.controller,
            introduction,
            identity,
            dir,
            cache: Arc::new(cache),
            serving: Arc::clone(&serving),
            status: Arc::clone(&status),
            journal: Arc::clone(&journal),
            usage: Arc::clone(&usage),
            events: Arc::clone(&outbox),
            sections,
            listeners: introduced.subscribe(),
            was_open: false,
        };
        Ok(Self {
            node_id: config.node_id,
            listeners: watch::Sender::new(listeners),
            introduced,
            descriptor_limit,
            serving,
            status,
            journal,
            events: outbox,
            reloads,
            certificate,
            _certificate_watcher: watcher.map_err(NodeError::System)?.flatten(),
            challenges,
            // Log lines name the node where whoever starts it has put it into a span.
            session: tokio::spawn(session.run(stop.subscribe()).in_current_span()),
            deadlines: tokio::spawn(deadlines.in_current_span()),
            keeping: tokio::spawn(Arc::clone(&usage).keep(stop.subscribe()).in_current_span()),
            usage,
            stop,
        })
    }

    /// The listeners, in the order of the configuration, wildcard addresses expanded, one for each transport.
    #[must_use]
    pub fn listeners(&self) -> Vec<BoundListener> {
        self.listeners.borrow().clone()
    }

    /// Whether clients can be served: a policy is applied, and the node is not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.serving.is_ready()
    }

    /// What the node can say of itself.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let applied = self.serving.applied();
        NodeStatus {
            node_id: self.node_id.clone(),
            applied_generation: applied.generation,
            granted: applied.granted,
            allocations: self.serving.allocations(),
            draining: self.serving.is_draining(),
            connected: self.status.state() == ControlState::Connected,
        }
    }

    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        let (core, drivers) = self.serving.counters();
        metrics::render(&Observed {
            core,
            drivers,
            usage: self.serving.usage(),
            usage_unnamed: self.usage.unnamed(),
            allocations: self.serving.allocations(),
            generation: self.serving.generation(),
            ready: self.serving.is_ready(),
            draining: self.serving.is_draining(),
            alternates: self.serving.alternates(),
            control: self.status.state(),
            control_counts: self.status.counts(),
            events: self.events.counts(),
            certificate: self
                .certificate
                .as_ref()
                .map(|certificate| certificates::counts(certificate, &self.challenges)),
            reloads: (
                self.reloads.good.load(Ordering::Relaxed),
                self.reloads.refused.load(Ordering::Relaxed),
            ),
            journal: self.journal.figures(),
            process: ProcessUsage::read(),
            descriptor_limit: self.descriptor_limit,
        })
    }

    /// Refuses allocations from here on; live ones go on until they end, or until [`Node::stop`]. The controller hears of it
    /// at once, and takes the node off its lists. `deadline` bounds [`Node::drained`].
    pub fn drain(&self, deadline: Option<Duration>) {
        self.serving.drain_by_shell(deadline);
        tracing::info!(
            allocations = self.serving.allocations(),
            ?deadline,
            "draining"
        );
    }

    /// Resolves when no allocation lives, or the deadline of the drain has passed.
    pub async fn drained(&self) {
        let emptied = async {
            let mut look = interval(DRAIN_POLL);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                look.tick().await;
                if self.serving.allocations() == 0 {
                    return;
                }
            }
        };
        match self.serving.drain_until() {
            None => emptied.await,
            Some(until) => tokio::select! {
                () = emptied => {}
                () = sleep_until(until) => tracing::warn!(
                    allocations = self.serving.allocations(),
                    "the drain deadline has passed"
                ),
            },
        }
    }

    /// Resolves when the controller wants the process to end, with its reason.
    pub async fn killed(&self) -> String {
        self.serving.killed().await
    }

    /// Ends every allocation while the controller can still be told of it.
    async fn end_in_sight(&self) {
        if self.status.state() != ControlState::Connected {
            return;
        }
        self.serving.end_allocations();
        let ended = async {
            while !self.serving.has_ended_allocations() {
                sleep(LAST_LOOK).await;
            }
            self.events.settled().await;
        };
        // What is not told by then is told by nobody.
        let _ = timeout(LAST_WORDS, ended).await;
    }

    /// Takes leave of the controller, ends every allocation, and returns when all threads have ended.
    pub async fn stop(mut self) {
        self.end_in_sight().await;
        self.stop.send_replace(true);
        // A session that panicked has nothing left to say.
        let _ = (&mut self.session).await;
        let _ = (&mut self.keeping).await;
        let (serving, journal) = (Arc::clone(&self.serving), Arc::clone(&self.journal));
        let usage = Arc::clone(&self.usage);
        let ended = move || {
            serving.stop();
            usage.keep_now(true);
            journal.stop();
        };
        let _ = tokio::task::spawn_blocking(ended).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.session.abort();
        self.deadlines.abort();
        self.keeping.abort();
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("node_id", &self.node_id)
            .field("listeners", &self.listeners())
            .finish_non_exhaustive()
    }
}

/// Opens the listeners, and the book that their shards will count into.
fn bind(
    settings: ShardSettings,
    dir: &Arc<StateDir>,
) -> Result<(Bound, Arc<UsageBook>), NodeError> {
    let usage = UsageBook::open(Arc::clone(dir), unix_millis()).map_err(NodeError::System)?;
    let usage = Arc::new(usage);
    let mut bound = ShardSet::bind(settings)?;
    bound.count_into(&usage);
    Ok((bound, usage))
}

/// Who the node is, and what it served last; refuses a node that is no member yet and cannot become one, which would try for ever.
fn kept_membership(
    config: &Config,
    dir: &StateDir,
) -> Result<(Identity, SnapshotCache), NodeError> {
    let state_dir = |source| NodeError::StateDir {
        path: config.state_dir.clone(),
        source,
    };
    let identity = Identity::load(config.node_id.clone(), dir).map_err(state_dir)?;
    let cache = SnapshotCache::open(config.node_id.clone(), dir).map_err(state_dir)?;
    require_membership(config, &identity)?;
    Ok((identity, cache))
}

fn require_membership(config: &Config, identity: &Identity) -> Result<(), ConfigErrors> {
    let mut findings = Findings::default();
    let way = &config.controller;
    if way.join_token.is_none() && way.certificate.is_none() && identity.credential.is_none() {
        findings.missing(
            "controller.join_token",
            "a join token, or join_token_file, or controller.certificate: the state folder has no node credential yet",
        );
    }
    findings.finish().map(drop)
}

/// What this node's share of the process's descriptors allows.
fn descriptor_budget(config: &Config, addressing: &Addressing, share: u64) -> DescriptorBudget {
    let mut listeners = addressing.listeners.iter();
    let passes_on = listeners.any(|listener| listener.front.https_backend.is_some());
    let https_connections = if passes_on {
        config.stream.https_connections
    } else {
        0
    };
    DescriptorBudget::new(share, https_connections)
}

fn shard_settings(
    config: &Config,
    addressing: &Addressing,
    tls: Option<Arc<Certificate>>,
    budget: DescriptorBudget,
) -> ShardSettings {
    ShardSettings {
        listeners: addressing.listeners.clone(),
        relayed_hosts: addressing.hosts.clone(),
        shards: config.shards,
        rfc5766_channel_numbers: config.rfc5766_channel_numbers,
        short_cut: config.short_cut,
        trusted_sources: config.trusted_sources.clone(),
        tls,
        streams: StreamLimits {
            without_allocation: config.stream.unauthenticated_connections,
            of_one_source: config.stream.unauthenticated_connections_per_source,
            idle: config.stream.unauthenticated_timeout,
            outgoing: config.stream.write_queue_bytes,
            forwarded: budget.https_connections,
            ..StreamLimits::default()
        },
    }
}

/// One for each transport that each of `listeners` takes.
fn bound_listeners(listeners: &[Listener], addressing: &Addressing) -> Vec<BoundListener> {
    let bound_of = |listener: &Listener| {
        let address = listener.address;
        let public = SocketAddr::new(addressing.public(address.ip()), address.port());
        let is_direct = !listener.front.has_proxy_header();
        listener.transports().map(move |transport| BoundListener {
            transport,
            address,
            public,
            is_direct,
        })
    };
    listeners.iter().flat_map(bound_of).collect()
}

/// Those that clients may come to by themselves.
fn direct(listeners: &[BoundListener]) -> Vec<BoundListener> {
    let direct = listeners.iter().filter(|it| it.is_direct);
    direct.copied().collect()
}

fn local_policy(config: &Config, addressing: &Addressing, budget: DescriptorBudget) -> LocalPolicy {
    let hosts = addressing.hosts.iter();
    let own = hosts.flat_map(|host| [host.local, host.public]);
    // Those of listeners that only balancers reach are no hosts.
    let listeners = addressing.listeners.iter();
    let own = own.chain(listeners.map(|listener| listener.address.ip()));
    LocalPolicy {
        public_ips: addressing.public_ips(),
        own_ips: own.collect(),
        nonce_lifetime: config.nonce_lifetime,
        limits: config.limits,
        allocations: budget.allocations,
        connections: budget.connections,
        tcp_low_peer_ports: config.tcp_low_peer_ports,
        secret_uses: Arc::default(),
    }
}

fn introduction(
    config: &Config,
    listeners: &[BoundListener],
    local: &LocalPolicy,
    file_descriptors: u64,
    shown: Option<Arc<Certificate>>,
) -> Introduction {
    Introduction {
        region: config.region.clone(),
        zone: config.zone.clone(),
        hostnames: config.hostnames.clone(),
        certificate: config.tls.as_ref().map(|files| files.certificate.clone()),
        listeners: direct(listeners),
        public_ips: local.public_ips.clone(),
        allocations: local.allocation_limit(),
        file_descriptors,
        memory_bytes: process::memory_limit() / config.nodes_in_process,
        journal: config.journal.is_some(),
        shown,
    }
}

/// Serves by the last snapshot of an earlier run, where there is one: the controller may be away.
fn serve_from_cache(
    serving: &Serving,
    cache: &SnapshotCache,
    identity: &Identity,
    dir: &StateDir,
) -> Option<Sections> {
    let kept = cache.load(identity.credential.as_ref()?, dir);
    let kept =
        kept.inspect_err(|error| tracing::warn!(%error, "cannot read the policy of the last run"));
    let sections = kept.ok()??;
    let snapshot = sections.snapshot().ok()?;
    let generation = snapshot.generation;
    match serving.apply(&snapshot, sections.sha256()) {
        Ok(_) => {
            serving.kept(generation);
            tracing::info!(generation, "serving by the policy of the last run");
            Some(sections)
        }
        Err(error) => {
            tracing::warn!(
                generation, %error,
                "the policy of the last run does not fit; waiting for the controller"
            );
            None
        }
    }
}

fn open_journal(
    config: &Config,
    dir: &StateDir,
    identity: &Identity,
    bound: &Bound,
) -> Result<Arc<Journal>, NodeError> {
    let folder = dir.path_of(JOURNAL);
    let time = bound.told_time();
    let journal = Journal::start(folder, config.journal, identity.incarnation, time);
    journal.map(Arc::new).map_err(NodeError::System)
}

fn event_log(config: &Config, journal: &Journal) -> Result<EventLog, NodeError> {
    let log = match config.log.privacy {
        true => EventLog::private().map_err(|_| no_random_bytes())?,
        false => EventLog::open(),
    };
    Ok(log.with_journal(journal.recorder()))
}

/// What goes on whether the session lives or not.
async fn keep_time(serving: Arc<Serving>, events: Arc<Outbox>, heard: Heard) {
    let collected = events.collect(heard, serving.told_time());
    tokio::join!(serving.keep_deadlines(), collected);
}

fn seed() -> Result<[u8; 32], NodeError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| no_random_bytes())?;
    Ok(seed)
}

fn no_random_bytes() -> NodeError {
    NodeError::System(std::io::Error::other("the system has no random bytes"))
}
