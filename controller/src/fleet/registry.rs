//! One node: what the store keeps of it, what it said last, and whether it lives.

use std::sync::Arc;

use turnfleet_proto::NodeId;
use turnfleet_turn::{Instant, Now};

use super::capacity::{granted_ports, saturation};
use super::certificate::{CertificateState, Validity};
use super::health::{Ended, Health, ProbeFailure, ProbeOutcome};
use super::liveness::{Liveness, Word};
use super::node::{Identity, Incarnation, Load, Registration, Transport, Vitals};
use super::placement::weight;
use super::port_grants::PortReport;
use super::rates::RateMeter;
use super::record::{Desired, NodeRecord, PortGrant};
use super::saturation::SaturationMeter;
use super::secrets::Place;
use super::sightings::{Elsewhere, OwnSession};
use super::skew::{CLOCK_LIMIT, SkewMeter, is_beyond};
use super::uris::Uris;
use super::vantage::{Reach, Vantage};
use super::view::{NodeView, Probing};

/// One node.
#[derive(Clone, Debug)]
pub(super) struct NodeState {
    pub(super) record: Option<NodeRecord>,
    pub(super) desired: Desired,
    pub(super) grants: Arc<[PortGrant]>,
    pub(super) liveness: Liveness,
    /// The session with this controller that speaks for the node.
    pub(super) session: Option<u64>,
    pub(super) own: OwnSession,
    /// What this controller's own last probe said that could tell, how many had by then, and when it did.
    pub(super) word: Option<(u64, Word, Instant)>,
    pub(super) elsewhere: Elsewhere,
    pub(super) applied_generation: u64,
    /// What this run of the process runs at least, as a probe has shown.
    pub(super) shown_generation: u64,
    pub(super) refusal: Option<Box<str>>,
    /// The generation of the snapshot that it spoke of last.
    pub(super) spoke_of: u64,
    /// When its session opened.
    pub(super) opened_at: Instant,
    /// Since when it has a session, here or elsewhere, by which it is told of the policy that it runs or has not refused.
    pub(super) told_since: Instant,
    /// The latest generation of the store's own epoch that it is known to have run.
    pub(super) came_with: u64,
    /// Whether what it says that it runs is of the store's own epoch.
    pub(super) is_of_epoch: bool,
    /// The generation of the backup that the store was restored from, where the node ran a later one of that epoch.
    pub(super) knows_more_than: Option<u64>,
    identity: Arc<Identity>,
    pub(super) incarnation: Option<Incarnation>,
    /// What the open session last said of ports.
    pub(super) port_report: Option<PortReport>,
    pub(super) draining: bool,
    last_heartbeat: Option<u64>,
    pub(super) load: Load,
    rates: RateMeter,
    saturation: SaturationMeter,
    probe: Option<Result<(), ProbeFailure>>,
    broken: Vec<Transport>,
    /// By which transports this controller has reached this run of the process.
    reached: Reach,
    skew: SkewMeter,
    certificate: Option<Validity>,
    /// Kept in lists by the panic rule, whatever its health.
    pub(super) suspect: bool,
    uris: Arc<Uris>,
}

impl NodeState {
    pub(super) fn new(probing: bool) -> Self {
        Self {
            record: None,
            desired: Desired::default(),
            grants: Arc::new([]),
            liveness: Liveness::new(probing),
            session: None,
            own: OwnSession::default(),
            word: None,
            elsewhere: Elsewhere::default(),
            applied_generation: 0,
            shown_generation: 0,
            refusal: None,
            spoke_of: 0,
            opened_at: Instant::default(),
            told_since: Instant::default(),
            came_with: 0,
            is_of_epoch: false,
            knows_more_than: None,
            identity: Arc::default(),
            incarnation: None,
            port_report: None,
            draining: false,
            last_heartbeat: None,
            load: Load::default(),
            rates: RateMeter::default(),
            saturation: SaturationMeter::default(),
            probe: None,
            broken: Vec::new(),
            reached: Reach::default(),
            skew: SkewMeter::default(),
            certificate: None,
            suspect: false,
            uris: Arc::default(),
        }
    }

    /// The store's record, whose identity stands for the node until it speaks itself, and is what it last said after that.
    pub(super) fn store(&mut self, record: NodeRecord) {
        if let Some(identity) = &record.identity
            && *identity != *self.identity
        {
            self.uris = Arc::new(Uris::new(identity));
            self.identity = Arc::new(identity.clone());
        }
        self.record = Some(record);
    }

    /// Why it refused the snapshot of `generation`, or a later one, if it did.
    pub(super) fn refusal_since(&self, generation: u64) -> Option<&str> {
        let refusal = self.refusal.as_deref();
        refusal.filter(|_| self.spoke_of >= generation)
    }

    /// What the node says of itself, if it ever has.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.record.as_ref()?.identity.as_ref()
    }

    /// A session with this controller opened.
    pub(super) fn opened(&mut self, now: Now, number: u64, registration: Registration) {
        // Incarnations are not kept: after a restart of the controller it is the probe that knows the process.
        let known = self.incarnation.unwrap_or(registration.incarnation);
        let same = known == registration.incarnation;
        self.begin(now, Some(registration.incarnation), same);
        self.is_told(now.instant);
        self.session = Some(number);
        self.port_report = None;
        self.own = OwnSession::Open { heard: now.instant };
        self.applied_generation = registration.running.generation;
        self.opened_at = now.instant;
        (self.refusal, self.spoke_of) = (None, 0);
        self.draining = false;
        self.last_heartbeat = Some(now.unix);
    }

    /// A session opened, here or elsewhere, of the process that was known or of another one.
    pub(super) fn begin(&mut self, now: Now, incarnation: Option<Incarnation>, same: bool) {
        self.liveness.opened(now.instant, same);
        if !same {
            self.shown_generation = 0;
            self.load = Load::default();
            self.rates = RateMeter::default();
            self.saturation = SaturationMeter::default();
            self.probe = None;
            self.broken.clear();
            self.reached = Reach::default();
            self.skew = SkewMeter::default();
        }
        self.incarnation = incarnation;
    }

    /// The node has another session, here or elsewhere. After a refusal it is not given time again.
    pub(super) fn is_told(&mut self, now: Instant) {
        if self.refusal.is_none() {
            self.told_since = now;
        }
    }

    /// The node reported to this controller.
    pub(super) fn heartbeat(
        &mut self,
        now: Now,
        applied_generation: u64,
        load: Option<Load>,
        draining: bool,
    ) {
        self.own = OwnSession::Open { heard: now.instant };
        self.reported(now, applied_generation, load, draining);
        self.remember();
    }

    /// The node reported, here or elsewhere.
    pub(super) fn reported(
        &mut self,
        now: Now,
        applied_generation: u64,
        load: Option<Load>,
        draining: bool,
    ) {
        self.liveness.heartbeat(now.instant);
        self.last_heartbeat = Some(now.unix);
        self.draining = draining;
        self.runs(applied_generation);
        if let Some(load) = load {
            self.load = load;
            self.rates.update(now.instant, load.counters);
            let granted = granted_ports(&self.grants);
            let instant = saturation(&load, self.identity.capacity, granted);
            let busy = load.cpu_permille as f64 / 1000.0;
            self.saturation.update(now.instant, instant, busy);
        }
    }

    /// The node runs `generation`. One that has not been seen to work is probed at once, for it may work from here on.
    pub(super) fn runs(&mut self, generation: u64) {
        if generation == self.applied_generation {
            return;
        }
        self.applied_generation = generation;
        if self.liveness.health() == Health::Starting {
            self.liveness.ask_probe();
        }
    }

    /// The node spoke of the snapshot of `generation` to this controller.
    pub(super) fn spoke(&mut self, generation: u64, running: u64, refusal: Option<Box<str>>) {
        self.is_of_epoch |= refusal.is_none();
        self.refusal = refusal;
        self.spoke_of = generation;
        self.runs(running);
        self.remember();
    }

    /// Remembers what it runs: a store that goes back under a live session is found out by it.
    fn remember(&mut self) {
        if self.is_of_epoch {
            self.came_with = self.came_with.max(self.applied_generation);
        }
    }

    /// The session with this controller ended. A node that another one hears has gone there.
    pub(super) fn ended(&mut self, now: Now, ended: Ended) {
        self.session = None;
        self.port_report = None;
        self.own = OwnSession::Ended(ended);
        // Nobody tells any more how they stand.
        (self.skew, self.certificate) = (SkewMeter::default(), None);
        if !self.elsewhere.hears(now.instant) {
            self.lost(now, ended);
        }
    }

    /// The session of the node ended, here or elsewhere, and it has no other.
    pub(super) fn lost(&mut self, now: Now, ended: Ended) {
        self.liveness.ended(now.instant, ended);
        self.rates = RateMeter::default();
    }

    /// What it says of itself, as [`Self::take_vitals`] knows it.
    pub(super) fn vitals(&self) -> Vitals {
        Vitals {
            clock_skew_millis: self.skew.millis(),
            certificate: self.certificate,
        }
    }

    pub(super) fn take_vitals(&mut self, vitals: Vitals) {
        if let Some(millis) = vitals.clock_skew_millis {
            self.skew.update(millis);
        }
        self.certificate = vitals.certificate;
    }

    /// The generation that it runs at least, by its own word or by what a probe has shown.
    pub(super) fn known_generation(&self) -> u64 {
        self.applied_generation.max(self.shown_generation)
    }

    /// Whether there is more to speak for it than another controller's probe, which may have shown it another secret.
    pub(super) fn is_met(&self) -> bool {
        self.known_generation() > 0 || matches!(self.probe, Some(Ok(())))
    }

    /// A probe ended, which amounts to `word`.
    pub(super) fn probed(&mut self, now: Instant, outcome: ProbeOutcome, word: Word) {
        self.shown_generation = self.shown_generation.max(outcome.shown_generation);
        self.liveness
            .probed(now, outcome.vantage, outcome.round, word);
        if word == Word::Good && self.suspect {
            self.liveness.pardon();
            self.suspect = false;
        }
        if outcome.vantage == Vantage::HERE {
            if word != Word::Blind {
                let number = self.word.map_or(0, |(number, ..)| number);
                self.word = Some((number + 1, word, now));
            }
            self.probe = Some(outcome.result.map(drop));
            self.broken = outcome.broken;
            for transport in outcome.reached {
                self.reached.add(transport);
            }
        }
    }

    /// Whether clients may be sent here at all.
    pub(super) fn serves(&self) -> bool {
        let alive = match self.liveness.health() {
            Health::Healthy | Health::Unmanaged => true,
            Health::Starting | Health::Unhealthy | Health::Gone => false,
        };
        alive && !self.drains()
    }

    pub(super) fn is_full(&self) -> bool {
        self.saturation.saturation.full
    }

    /// Whether it fails again and again.
    pub(super) fn is_damped(&self, now: Instant) -> bool {
        self.liveness.faults().damped_for(now).is_some()
    }

    pub(super) fn has_wrong_clock(&self) -> bool {
        is_beyond(self.skew.millis(), CLOCK_LIMIT)
    }

    pub(super) fn region(&self) -> &str {
        &self.identity.region
    }

    /// The tenant that it is bound to.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.record.as_ref()?.membership.tenant.as_deref()
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            region: self.region(),
            tenant: self.tenant(),
        }
    }

    /// Whether lists can carry its `turns:` for as long as they are used.
    pub(super) fn has_long_certificate(&self, unix: u64) -> bool {
        let by_tls = |listener: &super::node::Listener| listener.transport == Transport::Tls;
        self.serves()
            && self.identity.listeners.iter().any(by_tls)
            && !self.certificate.is_some_and(|it| it.is_short(unix))
    }

    pub(super) fn certificate_state(&self, unix: u64, spared: bool) -> CertificateState {
        self.certificate.map_or(CertificateState::Unknown, |it| {
            CertificateState::of(it, unix, spared)
        })
    }

    pub(super) fn drains(&self) -> bool {
        self.draining || self.desired.draining
    }

    fn probing(&self) -> Probing {
        let unready = self.liveness.is_connected() && self.applied_generation == 0;
        match self.liveness.probe_round() {
            Some(round) if !unready && self.identity().is_some() => Probing::Yes { round },
            Some(_) | None => Probing::No,
        }
    }

    /// The node as others see it, but for what depends on the rest of the fleet.
    pub(super) fn view(&self, id: &NodeId, now: Instant) -> NodeView {
        let faults = self.liveness.faults();
        let mut view = NodeView {
            id: id.clone(),
            identity: Arc::clone(&self.identity),
            tenant: self.tenant().map(Into::into),
            incarnation: self.incarnation,
            health: self.liveness.health(),
            connected: self.liveness.is_connected(),
            draining: self.drains(),
            drain_deadline: self
                .desired
                .drain_deadline
                .filter(|_| self.desired.draining),
            listed: false,
            suspect: self.suspect && !self.drains(),
            up_to_date: false,
            secret_unproven: false,
            grants: Arc::clone(&self.grants),
            applied_generation: self.applied_generation,
            refusal: self.refusal.clone(),
            last_heartbeat: self.last_heartbeat,
            load: self.load,
            rates: self.rates.rates,
            saturation: self.saturation.saturation,
            probe: self.probe,
            unseen: self.liveness.is_unseen(),
            broken: self.broken.clone(),
            reached: self.reached,
            clock_skew_millis: self.skew.millis(),
            damped_for: faults.damped_for(now),
            faults: faults.count(now),
            ramp: faults.ramp(now),
            certificate: CertificateState::Unknown,
            validity: self.certificate,
            weight: 0.0,
            uris: Arc::clone(&self.uris),
            probing: self.probing(),
        };
        view.weight = weight(&view);
        view
    }
}
