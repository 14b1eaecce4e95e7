//! The task behind [`Handle`]: it takes requests from the mailbox one by one, keeps the open sessions' channels, and
//! publishes the view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use turnfleet_proto::{NodeId, fleet as wire};
use turnfleet_turn::Now;

mod members;
mod offers;
mod ports;
mod publishing;
mod quotas;
mod reports;

use self::publishing::view_of;
use super::mirror::Mirror;
use super::orders::Orderer;
use super::surroundings::{Clock, Random, Surroundings};
use super::{Extent, Handle, MAILBOX, Offer, Planner, Request, Session, SessionKey};
use crate::abuse::AbuseDesk;
use crate::error::FleetError;
use crate::events::EventBus;
use crate::fleet::node::port_report;
use crate::fleet::quota::{QuotaState, Quotas, Subject};
use crate::fleet::record::{Desired, Epoch, token_hash};
use crate::fleet::{
    Admission, AlternatePool, Certified, Ended, Event, Fleet, FleetView, Fresh, Health,
    Incarnation, Load, NodePolicies, ProbeOutcome, Registration, Settings, Vitals, Wishes,
    secret_text,
};
use crate::leader::Leadership;
use crate::store::audit::AuditLog;
use crate::store::{SealError, Sealer, Store, StoreError};
use crate::usage::UsageDesk;
use crate::usage::history::History;

/// How often time passes for the fleet, and the view follows load.
const TICK: Duration = Duration::from_millis(100);
/// How often credentials are looked at, in ticks.
const RENEWAL_TICKS: u64 = 600;
/// How often the audit log is trimmed, in ticks.
const TRIM_TICKS: u64 = 36_000;
/// The first time.
const FIRST_TRIM_TICK: u64 = 600;
/// The rest of the upkeep after it failed, in ticks.
const UPKEEP_RETRY_TICKS: u64 = 50;
/// How often the ports of connected nodes are looked at, in ticks.
const PORTS_TICKS: u64 = 10;
/// The view is published at least this often, in ticks: parts of it depend on time alone.
const PUBLISH_TICKS: u64 = 10;
/// Publishing takes at most one part in so many of the time, however fast things change.
const PUBLISH_SHARE: u32 = 5;
/// The longest text of a relay that is kept.
const MAX_REFUSAL: usize = 500;

/// Owns the fleet.
pub struct Reconciler {
    mirror: Mirror,
    mailbox: mpsc::Receiver<Request>,
    view: watch::Sender<Arc<FleetView>>,
    sightings: watch::Sender<Arc<wire::Sightings>>,
    quotas: Quotas,
    quota_words: watch::Sender<Arc<wire::QuotaWord>>,
    certificates: watch::Sender<Arc<wire::Certificates>>,
    abuse: AbuseDesk,
    /// There is something to tell other controllers of quotas.
    quota_news: bool,
    /// How tenants and users stood a second ago at most.
    quota_states: Arc<BTreeMap<Subject, QuotaState>>,
    /// Whose bytes of the day were used up then.
    exhausted: Arc<BTreeSet<Subject>>,
    usage: UsageDesk,
    /// A session began or ended, or a node took a snapshot, since the sightings were told.
    sessions_changed: bool,
    sessions: BTreeMap<NodeId, Channels>,
    /// The number of the last session.
    last_session: u64,
    /// Who takes the clients of others, as sessions have been told.
    alternates: AlternatePool,
    policies: NodePolicies,
    /// What sessions have been offered.
    offered: (Epoch, u64),
    /// The earliest moment at which the view is published again.
    publish_from: tokio::time::Instant,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// What is published is no longer what others say.
    stale: bool,
    /// And somebody should know at once.
    urgent: bool,
    /// Ticks until the upkeep is tried again.
    upkeep_in: u64,
    audit: AuditLog,
}

struct Channels {
    incarnation: Incarnation,
    takes_deltas: bool,
    /// Whether the node was told, by its last report, that its clock is behind.
    is_behind: bool,
    orderer: Orderer,
    offers: watch::Sender<Offer>,
    /// What the operator wants of the node, as the session has been told.
    desired: Desired,
    drain: watch::Sender<wire::Drain>,
    alternates: watch::Sender<wire::Alternates>,
    shares: watch::Sender<Option<wire::Shares>>,
}

/// What the task wakes for.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, on the stack"
)]
enum Step {
    Request(Request),
    Followed,
    Publish,
    Tick,
    Stop,
}

impl Reconciler {
    /// Reads the store, brings it in line with `wishes`, and gives the handle whose requests [`Self::run`] will answer.
    ///
    /// # Errors
    /// When the store fails or holds what cannot be read.
    pub async fn open(
        store: Arc<dyn Store>,
        sealer: Sealer,
        settings: Settings,
        wishes: &Wishes,
    ) -> Result<(Self, Handle), FleetError> {
        Self::open_in(Surroundings::real(), store, sealer, settings, wishes).await
    }

    /// As [`Self::open`], with clocks and chance of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_in(
        surroundings: Surroundings,
        store: Arc<dyn Store>,
        sealer: Sealer,
        settings: Settings,
        wishes: &Wishes,
    ) -> Result<(Self, Handle), FleetError> {
        let Surroundings { clock, random } = surroundings;
        let now = clock.now();
        let epoch = random_bytes(&*random)?;
        let audit = AuditLog::new(Arc::clone(&store));
        let usage = UsageDesk::new(History::new(Arc::clone(&store)));
        let mut mirror = Mirror::open(store, sealer, settings, epoch, now).await?;
        let fresh = Fresh::draw(&*random)?;
        let plan = |fleet: &Fleet| Ok(fleet.plan_start(wishes, fresh.clone(), now));
        mirror.carry_out_in_parts(now, plan).await?;
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (view, published) = watch::channel(Arc::new(view_of(&mirror, now)));
        let (sightings, told) = watch::channel(Arc::default());
        let (quota_words, quotas_told) = watch::channel(Arc::default());
        let (certificates, certificates_told) = watch::channel(Arc::default());
        let abuse = AbuseDesk::default();
        let offered = (mirror.fleet().epoch(), mirror.fleet().generation());
        let task = Self {
            mirror,
            mailbox,
            view,
            sightings,
            quotas: Quotas::default(),
            quota_words,
            certificates,
            abuse: abuse.clone(),
            quota_news: false,
            quota_states: Arc::default(),
            exhausted: Arc::default(),
            usage: usage.clone(),
            sessions_changed: false,
            sessions: BTreeMap::new(),
            last_session: 0,
            alternates: AlternatePool::default(),
            policies: NodePolicies::default(),
            offered,
            publish_from: tokio::time::Instant::now(),
            clock,
            random,
            stale: false,
            urgent: false,
            upkeep_in: 0,
            audit: audit.clone(),
        };
        Ok((
            task,
            Handle {
                mailbox: sender,
                view: published,
                sightings: told,
                quota_words: quotas_told,
                certificates: certificates_told,
                audit,
                usage,
                events: EventBus::new("", None),
                abuse,
                asked_by: None,
            },
        ))
    }

    /// Leaves the work of a leader to whom `leadership` names; without it, it is this controller's.
    #[must_use]
    pub fn with_leadership(mut self, leadership: Leadership) -> Self {
        self.mirror.follow_election(leadership);
        self
    }

    /// What is known of the fleet, with what only its owner sees.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        self.mirror.fleet()
    }

    /// Answers requests until `stop` is true or its sender is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = 0u64;
        loop {
            let clock = Arc::clone(&self.clock);
            // In the order of how seldom each is ready, so that none starves another; and the same at every run.
            let step = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Step::Stop,
                _ = ticks.tick() => Step::Tick,
                () = self.mirror.follow(|| clock.now()) => Step::Followed,
                () = tokio::time::sleep_until(self.publish_from), if self.urgent => Step::Publish,
                request = self.mailbox.recv() => request.map_or(Step::Stop, Step::Request),
            };
            match step {
                Step::Stop => return,
                Step::Request(request) => self.answer_batch(request).await,
                Step::Followed => self.urgent = true,
                Step::Publish => {}
                Step::Tick => {
                    tick += 1;
                    // What nodes said while the store was waited for counts before the time that went by.
                    if let Ok(request) = self.mailbox.try_recv() {
                        self.answer_batch(request).await;
                    }
                    self.tick(tick).await;
                }
            }
            let begun = tokio::time::Instant::now();
            if self.urgent && begun >= self.publish_from {
                self.publish();
                self.publish_from = begun + begun.elapsed() * PUBLISH_SHARE;
            }
        }
    }

    /// Answers what waits, so that a burst is published once.
    async fn answer_batch(&mut self, first: Request) {
        let mut next = Some(first);
        for _ in 0..MAILBOX {
            let Some(request) = next else { return };
            self.answer(request).await;
            next = self.mailbox.try_recv().ok();
        }
        if let Some(request) = next {
            self.answer(request).await;
        }
    }

    async fn answer(&mut self, request: Request) {
        // Whoever asked may have gone; then nobody hears the answer, and the change stands.
        match request {
            Request::Enroll {
                shown,
                node,
                answer,
            } => {
                drop(answer.send(self.enroll(&shown, &node).await));
            }
            Request::OpenSession {
                credential,
                certified,
                hello,
                answer,
            } => {
                let certified = certified.as_deref();
                let opened = self.open_session(&credential, certified, *hello).await;
                if let Err(error @ FleetError::PortsExhausted { .. }) = &opened {
                    tracing::warn!(%error, "a node has no relay ports");
                }
                drop(answer.send(opened));
            }
            Request::Heartbeat {
                session,
                heartbeat,
                answer,
            } => {
                drop(answer.send(self.heartbeat(&session, heartbeat)));
            }
            Request::PolicyStatus {
                session,
                status,
                answer,
            } => {
                drop(answer.send(self.policy_status(&session, status)));
            }
            Request::Quotas(said) => self.quotas_said(said),
            Request::SessionEnded { session, ended } => self.session_ended(&session, ended),
            Request::Probed { node, outcome } => self.probed(node, outcome),
            Request::Redirect {
                node,
                endpoint,
                answer,
            } => {
                drop(answer.send(self.redirect(node, endpoint)));
            }
            Request::Sighted {
                controller,
                sightings,
            } => {
                self.stale = true;
                let event = Event::Sighted {
                    controller,
                    sightings,
                };
                self.mirror.apply(self.clock.now(), event);
            }
            Request::Change {
                planner,
                extent,
                answer,
            } => {
                drop(answer.send(self.change(&planner, extent).await));
            }
        }
    }

    async fn enroll(&mut self, shown: &Admission, node: &NodeId) -> Result<String, FleetError> {
        let credential = random_text(&*self.random)?;
        let hash = token_hash(&credential);
        let now = self.clock.now();
        self.mirror
            .carry_out(now, |fleet| {
                fleet.plan_enrolment(shown, node, hash, now.unix)
            })
            .await?;
        self.urgent = true;
        Ok(credential)
    }

    async fn open_session(
        &mut self,
        credential: &str,
        certified: Option<&Certified>,
        hello: wire::Hello,
    ) -> Result<Session, FleetError> {
        let tells_events = hello.events;
        let mut registration = Registration::try_from(hello)?;
        let (node, running) = (registration.id.clone(), registration.running);
        let fleet = self.mirror.fleet();
        fleet.authenticate(credential, certified, &node)?;
        let now = self.clock.now();
        self.admitted(credential, certified, &node, now).await?;
        self.bind(&mut registration);
        self.mirror
            .carry_out(now, |fleet| {
                fleet.plan_registration(&registration, now.unix)
            })
            .await?;
        self.mirror.fleet().require_ports(&registration)?;
        self.last_session += 1;
        let number = self.last_session;
        let incarnation = registration.incarnation;
        let tenant = self.mirror.fleet().bound_tenant(&node);
        let region = &registration.identity.region;
        let alternates = self.alternates.of(&node, region, tenant);
        let registration = Box::new(registration);
        self.mirror.apply(
            now,
            Event::SessionOpened {
                number,
                registration,
            },
        );
        self.urgent = true;
        let (offer, runs) = self.first_offer(&node, &running)?;
        let fleet = self.mirror.fleet();
        let (offers, offer_updates) = watch::channel(offer);
        let (drain, drain_updates) = watch::channel(fleet.drain_order(&node, now.unix));
        let desired = fleet.desired(&node);
        let (orderer, orders) = Orderer::new(desired.kill == Some(incarnation));
        let (alternates, alternate_updates) = watch::channel(alternates);
        let (shares, share_updates) = watch::channel(self.quotas.shares(&node));
        let channels = Channels {
            incarnation,
            takes_deltas: running.takes_deltas,
            is_behind: false,
            orderer,
            offers,
            desired,
            drain,
            alternates,
            shares,
        };
        self.sessions_changed = true;
        // A session that this one replaces ends with its channels.
        self.sessions.insert(node.clone(), channels);
        Ok(Session {
            key: SessionKey {
                node,
                incarnation,
                number,
            },
            offers: offer_updates,
            runs,
            takes_deltas: running.takes_deltas,
            tells_events,
            orders,
            drain: drain_updates,
            alternates: alternate_updates,
            shares: share_updates,
        })
    }

    fn heartbeat(
        &mut self,
        session: &SessionKey,
        heartbeat: wire::Heartbeat,
    ) -> Result<(), FleetError> {
        let session = self.current(session)?;
        let report = Event::PortsReported {
            session: session.clone(),
            report: port_report(&heartbeat),
        };
        self.mirror.apply(self.clock.now(), report);
        let before = self.standing(&session.0);
        let node = session.0.clone();
        let now = self.clock.now();
        let uses = heartbeat.secret_uses.iter();
        let uses: Vec<_> = uses.map(|used| (used.id, used.last_used)).collect();
        if !uses.is_empty() {
            self.mirror.apply(now, Event::SecretsUsed { uses });
        }
        self.mirror.apply(
            now,
            Event::Heartbeat {
                session,
                applied_generation: heartbeat.applied_generation,
                load: heartbeat.load.map(Load::from),
                draining: heartbeat.draining,
                vitals: Vitals::read(&heartbeat, now.unix),
            },
        );
        self.urgent |= self.standing(&node) != before;
        self.tell_time(&node, now);
        Ok(())
    }

    fn session_ended(&mut self, session: &SessionKey, ended: Ended) {
        let Ok(current) = self.current(session) else {
            return;
        };
        self.sessions.remove(&session.node);
        (self.urgent, self.sessions_changed) = (true, true);
        self.mirror.apply(
            self.clock.now(),
            Event::SessionEnded {
                session: current,
                ended,
            },
        );
    }

    fn probed(&mut self, node: NodeId, outcome: ProbeOutcome) {
        let before = self.standing(&node);
        let event = Event::Probed {
            node: node.clone(),
            outcome,
        };
        self.mirror.apply(self.clock.now(), event);
        self.urgent |= self.standing(&node) != before;
    }

    /// What of a node somebody should know at once.
    fn standing(&self, node: &NodeId) -> (Option<Health>, bool) {
        let fleet = self.mirror.fleet();
        (fleet.health(node), fleet.serves(node))
    }

    async fn change(&mut self, planner: &Planner, extent: Extent) -> Result<(), FleetError> {
        let now = self.clock.now();
        let plan = |fleet: &Fleet| planner(fleet, now);
        match extent {
            Extent::Whole => self.mirror.carry_out(now, plan).await?,
            Extent::Parts => self.mirror.carry_out_in_parts(now, plan).await?,
        }
        // Whoever asked for the change finds it in the view.
        self.publish();
        Ok(())
    }

    fn current(&self, session: &SessionKey) -> Result<(NodeId, u64), FleetError> {
        let session = (session.node.clone(), session.number);
        if self.mirror.fleet().is_current(&session) {
            Ok(session)
        } else {
            Err(FleetError::SessionReplaced)
        }
    }

    async fn tick(&mut self, tick: u64) {
        let now = self.clock.now();
        let every_second = tick.is_multiple_of(PUBLISH_TICKS);
        if std::mem::take(&mut self.sessions_changed) || every_second {
            let seen = self.mirror.fleet().sightings(now.instant);
            self.sightings.send_replace(Arc::new(seen));
        }
        self.urgent |= self.mirror.tick(now) || self.stale || every_second;
        self.look_after_quotas(now, every_second);
        if tick.is_multiple_of(PORTS_TICKS) {
            self.look_after_ports(now).await;
        }
        self.roll_out(now).await;
        if tick.is_multiple_of(RENEWAL_TICKS) {
            self.renew_credentials(now).await;
        }
        if tick % TRIM_TICKS == FIRST_TRIM_TICK && self.mirror.leads() {
            self.trim_audit(now.unix.saturating_mul(1000));
        }
        self.upkeep_in = self.upkeep_in.saturating_sub(1);
        if self.upkeep_in == 0 && self.mirror.leads() && self.mirror.fleet().is_upkeep_due(now) {
            match self.look_after(now).await {
                Ok(()) => self.urgent = true,
                Err(error) => {
                    self.upkeep_in = UPKEEP_RETRY_TICKS;
                    tracing::warn!(%error, "secrets and nonce keys could not be looked after");
                }
            }
        }
    }

    /// Beside the task: nothing waits for it.
    fn trim_audit(&self, now_milliseconds: u64) {
        let audit = self.audit.clone();
        tokio::spawn(async move {
            if let Err(error) = audit.trim(now_milliseconds).await {
                tracing::warn!(%error, "the audit log could not be trimmed");
            }
        });
    }

    /// Carries out what is due by itself.
    async fn look_after(&mut self, now: Now) -> Result<(), FleetError> {
        let random = random_bytes(&*self.random)?;
        self.mirror
            .carry_out(now, |fleet| Ok(fleet.plan_upkeep(now, random)))
            .await
    }
}

/// Random bytes: 32 of them are 256 bits.
pub(crate) fn random_bytes<const N: usize>(random: &dyn Random) -> Result<[u8; N], FleetError> {
    let mut bytes = [0; N];
    let filled = random.fill(&mut bytes);
    filled.ok_or_else(|| StoreError::from(SealError::Random))?;
    Ok(bytes)
}

/// A random secret, as [`secret_text`] writes it.
pub(crate) fn random_text(random: &dyn Random) -> Result<String, FleetError> {
    Ok(secret_text(random_bytes(random)?))
}
