//! A fleet in virtual time, whose nodes are numbered.

use std::time::Duration;

use turnfleet_controller::config::{PortPlan, ProbeMode};
use turnfleet_controller::fleet::record::{
    Membership, NodeRecord, NonceKey, Policy, Record, SecretGeneration, SecretScope, SecretState,
};
use turnfleet_controller::fleet::{
    Ask, Capacity, Ended, Event, Fleet, FleetView, Identity, ListSettings, Listener, Load, Plan,
    ProbeFailure, ProbeOutcome, Probing, Registration, Running, Settings, Transport, UriKind,
    Vantage, Vitals,
};
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{NodeId, PortRange};
use turnfleet_turn::Now;

/// A fleet whose nodes are numbered from zero, with a clock.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) now: Now,
    sessions: u64,
    revision: u64,
}

pub(crate) fn id(number: u8) -> NodeId {
    format!("relay-{number}").parse().unwrap()
}

pub(crate) fn identity(number: u8) -> Identity {
    let listener = |transport, port| Listener {
        transport,
        address: ([192, 0, 2, number], port).into(),
        local: None,
    };
    Identity {
        region: "north".into(),
        zone: format!("zone-{}", number % 2),
        listeners: vec![
            listener(Transport::Udp, 3478),
            listener(Transport::Tcp, 3478),
            listener(Transport::Tls, 5349),
        ],
        public_ips: vec![[192, 0, 2, number].into()],
        capacity: Capacity {
            allocations: 1000,
            file_descriptors: 10_000,
            memory_bytes: 0,
        },
        ..Identity::default()
    }
}

impl Stage {
    pub(crate) fn settings() -> Settings {
        Settings {
            region: "north".into(),
            ports: PortPlan {
                range: PortRange::DYNAMIC,
                relays_per_address: 1,
            },
            probe: ProbeMode::Auto,
            lists: ListSettings::default(),
            rotate_secrets_every: None,
        }
    }

    pub(crate) fn policy() -> Policy {
        Policy {
            realm: "example.org".into(),
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            danger_allow_loopback: false,
            allocations_per_user: 100,
            max_lifetime_seconds: 3600,
            max_session_seconds: 0,
            strict_expiry: false,
            tcp_relaying: false,
        }
    }

    pub(crate) fn empty() -> Self {
        Self::with(ListSettings::default())
    }

    /// A fleet without a node whose lists are made so.
    pub(crate) fn with(lists: ListSettings) -> Self {
        let settings = Settings {
            lists,
            ..Self::settings()
        };
        let mut stage = Self {
            fleet: Fleet::new(settings),
            now: Now::default(),
            sessions: 0,
            revision: 0,
        };
        stage.now.unix = 1_700_000_000;
        stage.store(Record::Generation(7));
        stage.store(Record::Policy(Self::policy()));
        stage.store(Record::Secret(SecretGeneration {
            id: 1,
            scope: SecretScope::Fleet,
            secret: SharedSecret::new("north"),
            state: SecretState::Active,
            created_at: 0,
            since_generation: 1,
        }));
        stage
    }

    /// A fleet of `count` healthy nodes.
    pub(crate) fn of(count: u8) -> Self {
        let mut stage = Self::empty();
        for number in 0..count {
            stage.join(number, identity(number));
        }
        stage
    }

    /// The same with a key of nonces, so that no upkeep is due.
    pub(crate) fn kept_up(count: u8) -> Self {
        let mut stage = Self::of(count);
        stage.store(Record::NonceKey(NonceKey {
            id: 1,
            key: [7; 32],
            created_at: stage.now.unix,
            staged: false,
            since_generation: 1,
        }));
        stage
    }

    pub(crate) fn store(&mut self, record: Record) {
        self.revision += 1;
        let (key, revision) = (record.key(), self.revision);
        self.fleet.apply(
            self.now,
            Event::Stored {
                key,
                record: Some(Box::new(record)),
                revision,
            },
        );
    }

    /// What `plan` writes is stored.
    pub(crate) fn carry_out(&mut self, plan: Plan) {
        for key in plan.deletes {
            self.revision += 1;
            let event = Event::Stored {
                key,
                record: None,
                revision: self.revision,
            };
            self.fleet.apply(self.now, event);
        }
        for record in plan.puts {
            self.store(record);
        }
    }

    /// Registers a node and lets it become healthy.
    pub(crate) fn join(&mut self, number: u8, identity: Identity) {
        self.register(number, identity, 1);
        self.probe(number, true);
    }

    /// The same for one that is bound to a tenant, perhaps.
    pub(crate) fn join_for(&mut self, number: u8, identity: Identity, tenant: Option<&str>) {
        self.enrol(number, &identity, tenant);
        self.opens(number, identity, 1, self.fleet.generation());
        self.probe(number, true);
    }

    fn enrol(&mut self, number: u8, identity: &Identity, tenant: Option<&str>) {
        let record = NodeRecord {
            id: id(number),
            credential: [number; 32],
            identity: Some(identity.clone()),
            membership: Membership {
                tenant: tenant.map(str::to_owned),
                ..Membership::default()
            },
        };
        self.store(Record::Node(record));
    }

    pub(crate) fn register(&mut self, number: u8, identity: Identity, incarnation: u8) {
        self.enrol(number, &identity, None);
        self.opens(number, identity, incarnation, self.fleet.generation());
    }

    /// The same process has another session, and runs an older policy perhaps.
    pub(crate) fn comes_back(&mut self, number: u8, identity: Identity, applied_generation: u64) {
        self.opens(number, identity, 1, applied_generation);
    }

    fn opens(&mut self, number: u8, identity: Identity, incarnation: u8, applied_generation: u64) {
        self.sessions += 1;
        let registration = Box::new(Registration {
            id: id(number),
            incarnation: [incarnation; 16],
            identity,
            running: Running {
                generation: applied_generation,
                ..Running::default()
            },
            allocations: 0,
        });
        let event = Event::SessionOpened {
            number: self.sessions,
            registration,
        };
        self.fleet.apply(self.now, event);
    }

    pub(crate) fn probe(&mut self, number: u8, good: bool) {
        let Some(Probing::Yes { round }) = self.view().node(&id(number)).map(|node| node.probing)
        else {
            return;
        };
        let view = self.view();
        let node = view.node(&id(number));
        let shown_generation = node.map_or(0, |node| view.trial_secret(node).1);
        let outcome = if good {
            ProbeOutcome {
                shown_generation,
                ..outcome(round)
            }
        } else {
            no_answer(round)
        };
        self.report(number, outcome);
    }

    pub(crate) fn report(&mut self, number: u8, outcome: ProbeOutcome) {
        self.fleet.apply(
            self.now,
            Event::Probed {
                node: id(number),
                outcome,
            },
        );
    }

    pub(crate) fn heartbeat(&mut self, number: u8, applied_generation: u64, load: Load) {
        self.beat(number, applied_generation, load, Vitals::default());
    }

    /// A heartbeat that says more of the node.
    pub(crate) fn beat(&mut self, number: u8, applied_generation: u64, load: Load, vitals: Vitals) {
        let session = self.session(number);
        let load = Some(load);
        let draining = false;
        self.fleet.apply(
            self.now,
            Event::Heartbeat {
                session,
                applied_generation,
                load,
                draining,
                vitals,
            },
        );
    }

    /// The session of a node that is the only one it ever had.
    pub(crate) fn session(&self, number: u8) -> (NodeId, u64) {
        let current = |session: &u64| self.fleet.is_current(&(id(number), *session));
        let session = (1..=self.sessions).rev().find(current).unwrap_or(0);
        (id(number), session)
    }

    pub(crate) fn end(&mut self, number: u8, ended: Ended) {
        let session = self.session(number);
        self.fleet
            .apply(self.now, Event::SessionEnded { session, ended });
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(100) {
            self.now.instant = self.now.instant.after(Duration::from_millis(100));
            self.fleet.tick(self.now);
        }
        self.now.unix += millis / 1000;
    }

    pub(crate) fn view(&self) -> FleetView {
        self.fleet.view(self.now)
    }

    pub(crate) fn list(&self, ask: &Ask<'_>) -> Vec<String> {
        self.view()
            .list(ask)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    pub(crate) fn listed(&self) -> Vec<String> {
        let view = self.view();
        view.nodes
            .iter()
            .filter(|node| node.listed)
            .map(|node| node.id.to_string())
            .collect()
    }
}

/// The host of the first `turn:` URI by UDP.
pub(crate) fn first_choice(view: &FleetView, user: &str) -> String {
    let ask = Ask {
        user,
        kinds: &[UriKind::Udp],
        count: Some(1),
        ..Ask::default()
    };
    host(view.list(&ask)[0]).to_owned()
}

/// The host of `scheme:host:port?transport=..`.
pub(crate) fn host(uri: &str) -> &str {
    let (_, rest) = uri.split_once(':').unwrap();
    let (place, _) = rest.split_once('?').unwrap_or((rest, ""));
    place.rsplit_once(':').unwrap().0
}

/// A good probe by UDP.
pub(crate) fn outcome(round: u64) -> ProbeOutcome {
    ProbeOutcome {
        vantage: Vantage::HERE,
        round,
        result: Ok(Duration::ZERO),
        reached: vec![Transport::Udp],
        missed: Vec::new(),
        broken: Vec::new(),
        shown_generation: 0,
    }
}

/// A probe by UDP that nobody answered.
pub(crate) fn no_answer(round: u64) -> ProbeOutcome {
    ProbeOutcome {
        result: Err(ProbeFailure::NoAnswer),
        reached: Vec::new(),
        missed: vec![Transport::Udp],
        ..outcome(round)
    }
}
