//! The only writer. One task owns the [`Fleet`](crate::fleet::Fleet); what relays, the prober and operators say reaches it
//! through a bounded mailbox, in order; what must last goes into the store by a transaction, and comes back by the store's
//! watch before anything is answered. It publishes an immutable [`FleetView`] after every batch.

mod certificates;
mod mirror;
mod orders;
mod secrets;
mod surroundings;
mod task;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use tokio::sync::{mpsc, oneshot, watch};
use turnfleet_proto::{NodeId, PortRange, fleet as wire};
use turnfleet_turn::Now;

use crate::abuse::AbuseDesk;
use crate::error::FleetError;
use crate::events::EventBus;
use crate::fleet::audit::AuditEntry;
use crate::fleet::record::{ApiToken, Desired, JoinToken, TokenHash, token_hash};
use crate::fleet::{
    Admission, Certified, ControllerId, Ended, Fleet, FleetView, Fresh, Incarnation, NodePolicy,
    Plan, ProbeOutcome, Sighting, Wishes,
};
use crate::store::audit::AuditLog;
use crate::usage::UsageDesk;

pub use orders::{Order, Orders};
pub use surroundings::{Clock, Random, Surroundings};
pub use task::Reconciler;
pub(crate) use task::{random_bytes, random_text};

/// Speaks to the task that owns the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: mpsc::Sender<Request>,
    view: watch::Receiver<Arc<FleetView>>,
    sightings: watch::Receiver<Arc<wire::Sightings>>,
    quota_words: watch::Receiver<Arc<wire::QuotaWord>>,
    certificates: watch::Receiver<Arc<wire::Certificates>>,
    audit: AuditLog,
    usage: UsageDesk,
    events: EventBus,
    abuse: AbuseDesk,
    /// Who asks for the changes that go through this handle, where somebody does.
    asked_by: Option<AuditEntry>,
}

/// An open control session, as its service sees it.
#[derive(Debug)]
pub struct Session {
    /// Names the session in everything that its node says.
    pub key: SessionKey,
    /// The policy of the node, the first one at once. Closed when a later session of the node replaces this one, or the
    /// controller stops: the stream then ends.
    pub offers: watch::Receiver<Offer>,
    /// What the node runs, where it is known.
    pub runs: Option<NodePolicy>,
    /// Whether the node takes deltas, and the messages that came with them.
    pub takes_deltas: bool,
    /// Whether the node tells what happens to allocations.
    pub tells_events: bool,
    /// What the node shall do beside.
    pub orders: Orders,
    /// Whether the node shall drain. Sent on at the start only where `draining` is set.
    pub drain: watch::Receiver<wire::Drain>,
    /// Where the node's clients go while it takes none. Sent on at the start.
    pub alternates: watch::Receiver<wire::Alternates>,
    /// What tenants and users may have on the node, once that is known. Sent on at the start.
    pub shares: watch::Receiver<Option<wire::Shares>>,
}

impl Session {
    /// The whole snapshot that the node is offered; `None` where there is none for it.
    #[must_use]
    pub fn snapshot(&self) -> Option<wire::Snapshot> {
        match &*self.offers.borrow() {
            Offer::Policy(policy) => Some(policy.snapshot()),
            Offer::Hold => None,
        }
    }
}

/// What a node shall run.
#[derive(Clone, Debug)]
pub enum Offer {
    /// This.
    Policy(NodePolicy),
    /// What it runs: it is ahead of the store.
    Hold,
}

impl Offer {
    /// The generation that is offered, if one is.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Policy(policy) => Some(policy.generation()),
            Self::Hold => None,
        }
    }
}

/// One session of one node. A later session of the same node, of the same incarnation or not, has another number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Which session of this controller's life.
    pub number: u64,
}

/// Requests that wait; whoever sends one more waits too.
const MAILBOX: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, FleetError>>;

/// What the mailbox holds.
enum Request {
    Enroll {
        shown: Admission,
        node: NodeId,
        answer: Answer<String>,
    },
    OpenSession {
        credential: String,
        certified: Option<Arc<Certified>>,
        hello: Box<wire::Hello>,
        answer: Answer<Session>,
    },
    Heartbeat {
        session: SessionKey,
        heartbeat: wire::Heartbeat,
        answer: Answer<()>,
    },
    PolicyStatus {
        session: SessionKey,
        status: wire::PolicyStatus,
        answer: Answer<()>,
    },
    Quotas(QuotasSaid),
    SessionEnded {
        session: SessionKey,
        ended: Ended,
    },
    Probed {
        node: NodeId,
        outcome: ProbeOutcome,
    },
    Redirect {
        node: NodeId,
        endpoint: String,
        answer: Answer<()>,
    },
    Sighted {
        controller: ControllerId,
        sightings: Vec<Sighting>,
    },
    Change {
        planner: Planner,
        extent: Extent,
        answer: Answer<()>,
    },
}

/// What is said of quotas.
enum QuotasSaid {
    /// By a node.
    Demand {
        session: SessionKey,
        demand: wire::Demand,
        answer: Answer<()>,
    },
    /// By another controller.
    Word(wire::QuotaWord),
}

/// How a change may be written.
#[derive(Clone, Copy, Debug)]
enum Extent {
    /// At once or not at all.
    Whole,
    /// In as many transactions as the store needs.
    Parts,
}

/// What has to be written for an operator's wish to come true. It may be asked again, when a concurrent change came first.
type Planner = Box<dyn Fn(&Fleet, Now) -> Result<Plan, FleetError> + Send + Sync>;

impl Handle {
    /// Turns a join token into the credential of `node`, which its sessions carry.
    ///
    /// # Errors
    /// When the token is unknown, or a session of the node is live.
    pub async fn enroll(&self, join_token: &str, node: &NodeId) -> Result<String, FleetError> {
        self.admit(Admission::JoinToken(join_token.to_owned()), node)
            .await
    }

    /// The same for whatever `node` shows.
    ///
    /// # Errors
    /// As [`Self::enroll`], and when a certificate is that of another node.
    pub async fn admit(&self, shown: Admission, node: &NodeId) -> Result<String, FleetError> {
        let node = node.clone();
        self.ask(|answer| Request::Enroll {
            shown,
            node,
            answer,
        })
        .await
    }

    /// Opens the control session of the node that `credential` belongs to, and grants it ports.
    ///
    /// # Errors
    /// When the credential is unknown or another node's, the Hello is not usable, or no ports are left.
    pub async fn open_session(
        &self,
        credential: &str,
        hello: wire::Hello,
    ) -> Result<Session, FleetError> {
        self.open_session_as(credential, None, hello).await
    }

    /// The same by a connection whose certificate says who the node is, if it showed one.
    ///
    /// # Errors
    /// As [`Self::open_session`], and when the certificate is another node's, or missing.
    pub async fn open_session_as(
        &self,
        credential: &str,
        certified: Option<Arc<Certified>>,
        hello: wire::Hello,
    ) -> Result<Session, FleetError> {
        let (credential, hello) = (credential.to_owned(), Box::new(hello));
        self.ask(|answer| Request::OpenSession {
            credential,
            certified,
            hello,
            answer,
        })
        .await
    }

    /// Passes on what the node does.
    ///
    /// # Errors
    /// [`FleetError::SessionReplaced`] when a later session of the node has taken over: the stream then ends.
    pub async fn heartbeat(
        &self,
        session: &SessionKey,
        heartbeat: wire::Heartbeat,
    ) -> Result<(), FleetError> {
        let session = session.clone();
        self.ask(|answer| Request::Heartbeat {
            session,
            heartbeat,
            answer,
        })
        .await
    }

    /// Passes on the node's word on a snapshot.
    ///
    /// # Errors
    /// As [`Self::heartbeat`].
    pub async fn policy_status(
        &self,
        session: &SessionKey,
        status: wire::PolicyStatus,
    ) -> Result<(), FleetError> {
        let session = session.clone();
        self.ask(|answer| Request::PolicyStatus {
            session,
            status,
            answer,
        })
        .await
    }

    /// Passes on what the node says of quotas.
    ///
    /// # Errors
    /// As [`Self::heartbeat`].
    pub async fn demand(
        &self,
        session: &SessionKey,
        demand: wire::Demand,
    ) -> Result<(), FleetError> {
        let session = session.clone();
        self.ask(|answer| {
            Request::Quotas(QuotasSaid::Demand {
                session,
                demand,
                answer,
            })
        })
        .await
    }

    /// Passes on what another controller knows of quotas.
    pub async fn report_quotas(&self, word: wire::QuotaWord) {
        let _ = self
            .mailbox
            .send(Request::Quotas(QuotasSaid::Word(word)))
            .await;
    }

    /// What this controller knows of quotas by itself, for the others. Closed when the controller stops.
    #[must_use]
    pub fn quota_words(&self) -> watch::Receiver<Arc<wire::QuotaWord>> {
        self.quota_words.clone()
    }

    /// Says that a session is over. The end of one that has been replaced changes nothing.
    pub async fn session_ended(&self, session: SessionKey, ended: Ended) {
        // The mailbox is closed only when the controller stops, and then nothing listens any more.
        let _ = self
            .mailbox
            .send(Request::SessionEnded { session, ended })
            .await;
    }

    /// Passes on what a probe found.
    pub async fn report_probe(&self, node: &NodeId, outcome: ProbeOutcome) {
        let node = node.clone();
        let _ = self.mailbox.send(Request::Probed { node, outcome }).await;
    }

    /// Passes on what another controller sees.
    pub async fn report_sightings(&self, controller: &ControllerId, sightings: Vec<Sighting>) {
        let controller = Arc::clone(controller);
        let _ = self
            .mailbox
            .send(Request::Sighted {
                controller,
                sightings,
            })
            .await;
    }

    /// What this controller sees by itself, for the others: it changes once a second, and when a session begins or ends.
    /// Closed when the controller stops.
    #[must_use]
    pub fn sightings(&self) -> watch::Receiver<Arc<wire::Sightings>> {
        self.sightings.clone()
    }

    /// Takes the node out of lists and tells it to open no allocations; live ones go on until `deadline`, or without an
    /// end. Kept in the store.
    ///
    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn drain(&self, node: &NodeId, deadline: Option<Duration>) -> Result<(), FleetError> {
        let node = node.clone();
        self.change(move |fleet, now| {
            let until = |wait: Duration| now.unix.saturating_add(wait.as_secs());
            let desired = Desired {
                draining: true,
                drain_deadline: deadline.map(until),
                kill: None,
            };
            fleet.plan_desired(&node, desired)
        })
        .await
    }

    /// Takes [`Self::drain`] back.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub async fn undrain(&self, node: &NodeId) -> Result<(), FleetError> {
        let node = node.clone();
        self.change(move |fleet, _| fleet.plan_desired(&node, Desired::default()))
            .await
    }

    /// Forgets a node that is gone for good: its ports are others' after a quarantine. It may enrol again.
    ///
    /// # Errors
    /// When there is no such node, its session is live, or the store fails.
    pub async fn forget(&self, node: &NodeId) -> Result<(), FleetError> {
        let node = node.clone();
        self.change(move |fleet, now| fleet.plan_forget(&node, now.unix))
            .await
    }

    /// Takes the word that nobody uses these ports of `public_ip`: whoever holds them loses them to a quarantine, and a
    /// quarantine ends at once.
    ///
    /// # Errors
    /// When they are not the ports of one grant, their holder's session is live, or the store fails.
    pub async fn release_ports(
        &self,
        public_ip: IpAddr,
        range: PortRange,
    ) -> Result<(), FleetError> {
        self.change(move |fleet, now| fleet.plan_release(public_ip, range, now.unix))
            .await
    }

    /// Ends the process of a node, and its allocations with it.
    ///
    /// # Errors
    /// When there is no such node, it has no session, or the store fails.
    pub async fn kill(&self, node: &NodeId) -> Result<(), FleetError> {
        let node = node.clone();
        self.change(move |fleet, _| fleet.plan_kill(&node)).await
    }

    /// Sends a node whose session is here to another controller, one of its own list; any other one where `endpoint` is
    /// empty.
    ///
    /// # Errors
    /// When the node has no session here.
    pub async fn redirect(&self, node: &NodeId, endpoint: &str) -> Result<(), FleetError> {
        let (node, endpoint) = (node.clone(), endpoint.to_owned());
        self.ask(|answer| Request::Redirect {
            node,
            endpoint,
            answer,
        })
        .await
    }

    /// Gives every relay the policy of a rollout that is under way or stopped.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn force_rollout(&self) -> Result<(), FleetError> {
        self.change(|fleet, _| fleet.plan_force_rollout()).await
    }

    /// Makes a join token, bound to what `token` says; gives its text.
    ///
    /// # Errors
    /// When its name is taken, there are too many, or the store fails.
    pub async fn make_join_token(&self, token: JoinToken) -> Result<String, FleetError> {
        let text = random_text(&SystemRandom::new())?;
        let hash = token_hash(&text);
        self.change(move |fleet, _| fleet.plan_join_token(hash, token.clone()))
            .await?;
        Ok(text)
    }

    /// Enrols nobody by the join token of that name any more.
    ///
    /// # Errors
    /// When there is none of that name, it is the configuration's, or the store fails.
    pub async fn revoke_join_token(&self, name: &str) -> Result<(), FleetError> {
        let name = name.to_owned();
        self.change(move |fleet, _| fleet.plan_revoke_join_token(&name))
            .await
    }

    /// Brings the store in line with another configuration. A changed policy begins a rollout.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reconfigure(&self, wishes: Wishes) -> Result<(), FleetError> {
        let fresh = Fresh::draw(&SystemRandom::new())?;
        let planner: Planner =
            Box::new(move |fleet, now| Ok(fleet.plan_start(&wishes, fresh.clone(), now)));
        self.ask(|answer| Request::Change {
            planner,
            extent: Extent::Parts,
            answer,
        })
        .await
    }

    /// Follows a store that was restored from an older backup, as another epoch. Ports are whose nodes say that they hold them.
    ///
    /// # Errors
    /// When nothing shows that it was, or the store fails.
    pub async fn confirm_restore(&self) -> Result<(), FleetError> {
        let epoch = random_bytes::<16>(&SystemRandom::new())?;
        let planner = move |fleet: &Fleet, now: Now| fleet.plan_confirm_restore(epoch, now.unix);
        self.change_by(planner, Extent::Parts).await
    }

    /// Writes what `planner` makes of the fleet, and returns when the fleet holds it: every change that an operator asks for.
    ///
    /// # Errors
    /// The planner's own, the store's, or [`FleetError::Contended`].
    pub async fn change(
        &self,
        planner: impl Fn(&Fleet, Now) -> Result<Plan, FleetError> + Send + Sync + 'static,
    ) -> Result<(), FleetError> {
        self.change_by(planner, Extent::Whole).await
    }

    async fn change_by(
        &self,
        planner: impl Fn(&Fleet, Now) -> Result<Plan, FleetError> + Send + Sync + 'static,
        extent: Extent,
    ) -> Result<(), FleetError> {
        let asked_by = self.asked_by.clone();
        let planner = Box::new(move |fleet: &Fleet, now: Now| {
            let plan = planner(fleet, now)?;
            // What changes nothing leaves no trace.
            let audit = asked_by.clone().filter(|_| !plan.is_empty());
            Ok(Plan { audit, ..plan })
        });
        self.ask(|answer| Request::Change {
            planner,
            extent,
            answer,
        })
        .await
    }

    /// The same handle for one request of an operator: `entry` is written with every change that it makes.
    #[must_use]
    pub fn asked_by(&self, entry: AuditEntry) -> Self {
        Self {
            asked_by: Some(entry),
            ..self.clone()
        }
    }

    /// Where it is told what happens in the fleet.
    #[must_use]
    pub fn events(&self) -> &EventBus {
        &self.events
    }

    /// Tells what happens to `events`.
    #[must_use]
    pub fn with_events(self, events: EventBus) -> Self {
        Self { events, ..self }
    }

    /// Who changed what.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Who uses the fleet, and how much.
    #[must_use]
    pub fn usage(&self) -> &UsageDesk {
        &self.usage
    }

    /// Who is suspected of abuse.
    #[must_use]
    pub fn abuse(&self) -> &AbuseDesk {
        &self.abuse
    }

    /// Keeps an API token that an operator has made, known by its hash.
    ///
    /// # Errors
    /// When its name is taken, there are too many, or the store fails.
    pub async fn add_api_token(&self, hash: TokenHash, token: ApiToken) -> Result<(), FleetError> {
        self.change(move |fleet, _| fleet.plan_api_token(hash, token.clone()))
            .await
    }

    /// Revokes an API token that an operator has made.
    ///
    /// # Errors
    /// When there is none of that name, it is the configuration's, or the store fails.
    pub async fn revoke_api_token(&self, name: &str) -> Result<(), FleetError> {
        let name = name.to_owned();
        self.change(move |fleet, _| fleet.plan_revoke_api_token(&name))
            .await
    }

    /// What is known of the fleet.
    #[must_use]
    pub fn view(&self) -> Arc<FleetView> {
        Arc::clone(&self.view.borrow())
    }

    /// The same, for waiting: it changes at least when health, lists, grants or the generation change, and once a
    /// second for load. Closed when the controller stops.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, FleetError> {
        let (answer, answered) = oneshot::channel();
        self.mailbox
            .send(request(answer))
            .await
            .map_err(|_| FleetError::Stopping)?;
        answered.await.map_err(|_| FleetError::Stopping)?
    }
}
