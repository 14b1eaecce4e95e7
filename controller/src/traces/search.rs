//! One question to every journal that may know, wherever its session is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant;
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::{PeerTraceRequest, TraceAnswer, TraceQuery};

use super::Journals;
use super::journals::PATIENCE;
use crate::api::TokenBucket;
use crate::fleet::{ControllerView, FleetView, NodeView};
use crate::peers::{self, PeerSettings};
use crate::reconcile::Handle;

/// Searches of one controller at a time: each reads disks all over the fleet.
const SEARCHES: usize = 4;
/// Nodes that are asked at a time for one search.
const AT_ONCE: usize = 64;
/// Searches that one controller begins in a second, and at once after a rest: a relay's disk is there for other work.
const SEARCHES_A_SECOND: u32 = 1;
const BURST: u32 = 8;

/// Asks journals, here and at other controllers.
#[derive(Clone)]
pub(crate) struct Tracer {
    handle: Handle,
    journals: Journals,
    peers: PeerSettings,
    searches: Arc<Semaphore>,
    rate: Arc<TokenBucket>,
}

/// Who had this relayed address between two moments, in Unix seconds, both included?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What became of a question.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// In the order of nodes.
    pub(crate) heard: Vec<Heard>,
    /// In the order of nodes.
    pub(crate) unheard: Vec<Unheard>,
}

/// A node that answered.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) node: NodeId,
    /// Of the node, by its membership; empty for the default one.
    pub(crate) tenant: String,
    pub(crate) answer: TraceAnswer,
}

/// A node that may know, and did not answer.
#[derive(Debug)]
pub(crate) struct Unheard {
    pub(crate) node: NodeId,
    pub(crate) reason: String,
}

impl From<Question> for TraceQuery {
    fn from(question: Question) -> Self {
        Self {
            id: 0,
            relayed_ip: question.ip.to_string(),
            relayed_port: question.port.into(),
            from: question.from,
            to: question.to,
        }
    }
}

impl Tracer {
    pub(crate) fn new(handle: Handle, journals: Journals, peers: PeerSettings) -> Self {
        Self {
            handle,
            journals,
            peers,
            searches: Arc::new(Semaphore::new(SEARCHES)),
            rate: Arc::new(TokenBucket::new(
                SEARCHES_A_SECOND,
                BURST,
                std::time::Instant::now(),
            )),
        }
    }

    /// What users are hashed with in journals.
    pub(crate) fn journals(&self) -> &Journals {
        &self.journals
    }

    /// A place for one search.
    ///
    /// # Errors
    /// How long until there may be one, where too much is asked already.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, Duration> {
        let permit = self.searches.try_acquire();
        let permit = permit.map_err(|_| Duration::from_secs(1))?;
        self.rate.take(std::time::Instant::now())?;
        Ok(permit)
    }

    /// Asks all who may know. Nodes that have the address are asked first; where none of them knows anybody, it may have been
    /// another's then, and all others are asked.
    pub(crate) async fn search(&self, question: Question, _place: SemaphorePermit<'_>) -> Outcome {
        let view = self.handle.view();
        let (having, others) = who_may_know(&view, question.ip);
        if having.is_empty() {
            return self.ask(&view, others, question).await;
        }
        let mut outcome = self.ask(&view, having, question).await;
        let is_found = |heard: &Heard| !heard.answer.allocations.is_empty();
        if !outcome.heard.iter().any(is_found) && !others.is_empty() {
            let mut further = self.ask(&view, others, question).await;
            // Their gaps would bury those of the nodes that have the address.
            further.heard.retain(is_found);
            outcome.heard.append(&mut further.heard);
            outcome.unheard.append(&mut further.unheard);
        }
        outcome
    }

    async fn ask(&self, view: &FleetView, nodes: BTreeSet<NodeId>, question: Question) -> Outcome {
        let (here, elsewhere): (Vec<_>, Vec<_>) = nodes
            .iter()
            .cloned()
            .partition(|node| self.journals.has(node));
        let query = TraceQuery::from(question);
        let (mut answers, (others, silent)) = tokio::join!(
            ask_all(&self.journals, here, query.clone()),
            self.ask_others(view, elsewhere, query),
        );
        answers.extend(others);
        let mut outcome = Outcome::default();
        for node in nodes {
            let heard = match answers.remove(&node) {
                Some(Ok(answer)) if answer.refusal.is_empty() => Ok(answer),
                Some(Ok(answer)) => Err(answer.refusal),
                Some(Err(reason)) => Err(reason.to_owned()),
                None => Err(why_nobody_asked(view, &node, &silent)),
            };
            match heard {
                Ok(answer) => {
                    let tenant = view.node(&node).and_then(|it| it.tenant.as_deref());
                    outcome.heard.push(Heard {
                        tenant: tenant.unwrap_or_default().to_owned(),
                        node,
                        answer,
                    });
                }
                Err(reason) => outcome.unheard.push(Unheard { node, reason }),
            }
        }
        outcome
    }

    /// The answers of nodes whose sessions are with other controllers, and the controllers that did not answer.
    async fn ask_others(
        &self,
        view: &FleetView,
        nodes: Vec<NodeId>,
        query: TraceQuery,
    ) -> (Answers, Vec<String>) {
        let mut asking = JoinSet::new();
        if nodes.is_empty() {
            return Default::default();
        }
        let is_other = |it: &&ControllerView| it.id != self.peers.own && !it.grpc.is_empty();
        for other in view.controllers.iter().filter(is_other) {
            let (settings, other) = (self.peers.clone(), other.clone());
            let request = PeerTraceRequest {
                query: Some(query.clone()),
                node_ids: nodes.iter().map(ToString::to_string).collect(),
            };
            asking.spawn(async move {
                let answer = peers::trace(&settings, &other, request).await;
                answer.map_err(|error| {
                    tracing::warn!(controller = %other.id, error, "another controller cannot be asked for journals");
                    other.id.to_string()
                })
            });
        }
        let (mut answers, mut silent) = (Answers::new(), Vec::new());
        while let Some(ended) = asking.join_next().await {
            match ended {
                Ok(Ok(answer)) => {
                    let nodes = answer.nodes.into_iter();
                    answers.extend(
                        nodes.filter_map(|node| {
                            Some((node.node_id.parse().ok()?, Ok(node.answer?)))
                        }),
                    );
                }
                Ok(Err(controller)) => silent.push(controller),
                Err(error) => tracing::error!(%error, "asking another controller failed"),
            }
        }
        silent.sort();
        (answers, silent)
    }
}

/// What nodes answered, or why they did not.
pub(crate) type Answers = BTreeMap<NodeId, Result<TraceAnswer, &'static str>>;

/// Asks the journals of `nodes` that are within reach of this controller.
pub(crate) async fn ask_all(journals: &Journals, nodes: Vec<NodeId>, query: TraceQuery) -> Answers {
    let mut answers = Answers::new();
    let mut asking = JoinSet::new();
    let by = Instant::now() + PATIENCE;
    for node in nodes {
        if asking.len() >= AT_ONCE
            && let Some(Ok((node, answer))) = asking.join_next().await
        {
            answers.insert(node, answer);
        }
        let (journals, query) = (journals.clone(), query.clone());
        asking.spawn(async move {
            let answer = journals.ask(&node, query, by).await;
            (node, answer)
        });
    }
    while let Some(ended) = asking.join_next().await {
        if let Ok((node, answer)) = ended {
            answers.insert(node, answer);
        }
    }
    answers
}

/// The nodes that have `ip`, or ports of it; and the others, of which each may have had it once.
fn who_may_know(view: &FleetView, ip: IpAddr) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let has = |node: &&Arc<NodeView>| {
        node.public_ips().contains(&ip) || node.grants.iter().any(|grant| grant.public_ip == ip)
    };
    let (having, others): (Vec<_>, Vec<_>) = view.nodes.iter().partition(has);
    let ids = |nodes: Vec<&Arc<NodeView>>| nodes.into_iter().map(|node| node.id.clone()).collect();
    (ids(having), ids(others))
}

/// Why no controller that answered could ask `node`.
fn why_nobody_asked(view: &FleetView, node: &NodeId, silent: &[String]) -> String {
    let is_connected = view.node(node).is_some_and(|node| node.connected);
    match (is_connected, silent) {
        (false, _) => "it has no control session".to_owned(),
        (true, []) => "it keeps no journal, or its control session is new".to_owned(),
        (true, silent) => format!(
            "its control session may be with a controller that gave no answer: {}",
            silent.join(", ")
        ),
    }
}
