//! What controllers tell each other of the nodes: what this one sees by itself, and how what others see is folded in.
//!
//! A node has its control session with one controller; the others know it by that one's word. The freshest heartbeat speaks
//! for the node, whoever heard it. A session that breaks elsewhere is treated as one that broke here, unless somebody still
//! hears the node; one that nobody speaks of any more falls silent like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_proto::fleet as wire;
use turnfleet_proto::fleet::sighting::Session;
use turnfleet_turn::{Instant, Now};

use super::Fleet;
use super::certificate::Validity;
use super::health::Ended;
use super::liveness::{HEARTBEATS_LOST, Word};
use super::node::{Incarnation, Load, Vitals, port_uses};
use super::port_grants::PortReport;
use super::registry::NodeState;
use super::vantage::Vantage;

/// The most controllers whose word is kept.
const MAX_CONTROLLERS: usize = 64;

/// The name of a controller.
pub type ControllerId = Arc<str>;

/// This controller's own session with a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OwnSession {
    /// None since this controller started.
    #[default]
    Never,
    Open {
        heard: Instant,
    },
    Ended(Ended),
}

/// What other controllers say of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere(BTreeMap<ControllerId, Other>);

#[derive(Clone, Debug)]
struct Other {
    session: Session,
    heard: Instant,
    /// The number of the last word of its probe that was folded.
    word: u64,
    /// Told while the store is an old one.
    port_report: Option<PortReport>,
}

impl Elsewhere {
    /// What the node said last of its ports to a controller that told it on.
    pub(super) fn port_report(&self) -> Option<&PortReport> {
        let told = self.0.values().filter(|other| other.port_report.is_some());
        told.max_by_key(|other| other.heard)?.port_report.as_ref()
    }

    /// When the node was heard last by a controller that has its session.
    fn heard(&self) -> Option<Instant> {
        let open = self
            .0
            .values()
            .filter(|other| other.session == Session::Open);
        open.map(|other| other.heard).max()
    }

    /// Whether some controller hears the node.
    pub(super) fn hears(&self, now: Instant) -> bool {
        self.heard()
            .is_some_and(|heard| now.since(heard) < HEARTBEATS_LOST)
    }
}

/// A sighting that has been checked.
#[derive(Clone, Debug)]
pub struct Sighting {
    node: NodeId,
    incarnation: Option<Incarnation>,
    session: Session,
    silence: Duration,
    applied_generation: u64,
    refusal: Option<Box<str>>,
    draining: bool,
    load: Load,
    vitals: Vitals,
    /// The number of the last word of its probe, the word, and how old it is.
    word: Option<(u64, Word, Duration)>,
    port_report: Option<PortReport>,
}

impl Sighting {
    /// Takes what came from another controller; `None` for a node that no controller could speak of.
    #[must_use]
    pub fn read(sighting: wire::Sighting) -> Option<Self> {
        let session = sighting.session();
        let incarnation = Incarnation::try_from(sighting.incarnation.as_slice()).ok();
        let uses = port_uses(&sighting.port_uses);
        let port_report = PortReport {
            kept_generation: 0,
            uses,
        };
        Some(Self {
            port_report: Some(port_report).filter(|report| !report.uses.is_empty()),
            node: sighting.node_id.parse().ok()?,
            incarnation,
            session: match incarnation {
                None => Session::Unspecified,
                Some(_) => session,
            },
            silence: Duration::from_millis(sighting.silence_ms.into()),
            applied_generation: sighting.applied_generation,
            refusal: Some(sighting.refusal)
                .filter(|refusal| !refusal.is_empty())
                .map(Into::into),
            draining: sighting.draining,
            load: sighting.load.unwrap_or_default().into(),
            vitals: Vitals {
                clock_skew_millis: sighting.clock_skew_ms,
                certificate: sighting.tls_certificate.as_ref().and_then(Validity::read),
            },
            word: sighting.probe.map(|probe| {
                let word = match probe.good {
                    true => Word::Good,
                    false => Word::Bad {
                        silent: probe.silent,
                    },
                };
                let age = Duration::from_millis(probe.age_ms.into());
                (probe.number, word, age)
            }),
        })
    }
}

impl Fleet {
    /// What this controller sees by itself.
    #[must_use]
    pub fn sightings(&self, now: Instant) -> wire::Sightings {
        let nodes = self.nodes.iter();
        // Whoever confirms the store has to know who holds which ports.
        let is_old = self.restored.is_some();
        wire::Sightings {
            nodes: nodes
                .filter_map(|(id, node)| {
                    let mut sighting = node.sighting(id, now)?;
                    let report = node.port_report.as_ref().filter(|_| is_old);
                    sighting.port_uses = report.map(PortReport::wire).unwrap_or_default();
                    Some(sighting)
                })
                .collect(),
            ..wire::Sightings::default()
        }
    }

    /// Folds what `controller` sees, which replaces what it said before.
    pub(super) fn sighted(
        &mut self,
        now: Now,
        controller: &ControllerId,
        sightings: Vec<Sighting>,
    ) {
        let known = |node: &NodeState| node.elsewhere.0.contains_key(controller);
        let mut unspoken: BTreeSet<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| known(node))
            .map(|(id, _)| id.clone())
            .collect();
        for sighting in sightings {
            unspoken.remove(&sighting.node);
            if let Some(node) = self.nodes.get_mut(&sighting.node) {
                node.sighted(now, controller, sighting);
            }
        }
        for id in unspoken {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.elsewhere.0.remove(controller);
            }
        }
    }
}

impl NodeState {
    fn sighting(&self, id: &NodeId, now: Instant) -> Option<wire::Sighting> {
        let (session, silence) = match self.own {
            OwnSession::Never => (Session::Unspecified, Duration::ZERO),
            OwnSession::Open { heard } => (Session::Open, now.since(heard)),
            OwnSession::Ended(Ended::Reset) => (Session::Reset, Duration::ZERO),
            OwnSession::Ended(Ended::Goodbye) => (Session::Goodbye, Duration::ZERO),
        };
        if session == Session::Unspecified && self.word.is_none() {
            return None;
        }
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let vitals = match session {
            Session::Open => self.vitals(),
            Session::Reset | Session::Goodbye | Session::Unspecified => Vitals::default(),
        };
        Some(wire::Sighting {
            node_id: id.to_string(),
            incarnation: self
                .incarnation
                .map_or_else(Vec::new, |known| known.to_vec()),
            session: session.into(),
            silence_ms: millis(silence),
            applied_generation: self.applied_generation,
            refusal: self.refusal.as_deref().unwrap_or_default().to_owned(),
            draining: self.draining,
            load: Some(self.load.into()),
            probe: self.word.map(|(number, word, at)| wire::ProbeWord {
                number,
                good: word == Word::Good,
                silent: word == Word::Bad { silent: true },
                age_ms: millis(now.since(at)),
            }),
            clock_skew_ms: vitals.clock_skew_millis,
            tls_certificate: vitals.certificate.map(Validity::wire),
            port_uses: Vec::new(),
        })
    }

    fn sighted(&mut self, now: Now, controller: &ControllerId, sighting: Sighting) {
        let heard = before(now.instant, sighting.silence);
        let known = self.elsewhere.0.get(controller);
        let (said, folded) = (
            known.map(|other| other.session),
            known.map(|other| other.word),
        );
        let freshest = self.elsewhere.heard();
        if said.is_none() && self.elsewhere.0.len() >= MAX_CONTROLLERS {
            return;
        }
        let word = sighting.word.filter(|(number, ..)| {
            let same = self.incarnation == sighting.incarnation;
            // A word that was there before this controller listened may be old.
            same && folded.is_some_and(|folded| folded < *number)
        });
        let other = Other {
            session: sighting.session,
            heard,
            word: sighting.word.map_or(0, |(number, ..)| number),
            port_report: sighting.port_report.clone(),
        };
        self.elsewhere.0.insert(Arc::clone(controller), other);
        match sighting.session {
            Session::Open => {
                let own = match self.own {
                    OwnSession::Open { heard } => Some(heard),
                    OwnSession::Never | OwnSession::Ended(_) => None,
                };
                if own.max(freshest).is_none_or(|known| known <= heard) {
                    if said != Some(Session::Open) {
                        self.is_told(now.instant);
                    }
                    self.heard_elsewhere(now, heard, sighting);
                }
            }
            Session::Reset | Session::Goodbye => {
                let same = self.incarnation.is_none() || self.incarnation == sighting.incarnation;
                let news = said == Some(Session::Open) && same;
                let own = matches!(self.own, OwnSession::Open { .. });
                if news && !own && !self.elsewhere.hears(now.instant) {
                    let ended = match sighting.session {
                        Session::Goodbye => Ended::Goodbye,
                        Session::Reset | Session::Open | Session::Unspecified => Ended::Reset,
                    };
                    self.lost(now, ended);
                }
            }
            Session::Unspecified => {}
        }
        if let Some((_, word, age)) = word {
            let vantage = Vantage::of(controller);
            let spoken = before(now.instant, age);
            if word != Word::Good || !self.liveness.is_lost_since(spoken) {
                self.liveness.probed(now.instant, vantage, u64::MAX, word);
            }
        }
    }

    fn heard_elsewhere(&mut self, now: Now, heard: Instant, sighting: Sighting) {
        if sighting.silence >= HEARTBEATS_LOST {
            return;
        }
        let same = self.incarnation.is_none() || self.incarnation == sighting.incarnation;
        if !self.liveness.is_connected() || !same {
            self.begin(now, sighting.incarnation, same);
        }
        let heard = Now {
            instant: heard,
            unix: now.unix.saturating_sub(sighting.silence.as_secs()),
        };
        self.refusal = sighting.refusal;
        self.take_vitals(sighting.vitals);
        self.reported(
            heard,
            sighting.applied_generation,
            Some(sighting.load),
            sighting.draining,
        );
    }
}

/// The time so long before `now`.
fn before(now: Instant, ago: Duration) -> Instant {
    let nanos = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    Instant(now.0.saturating_sub(nanos))
}
