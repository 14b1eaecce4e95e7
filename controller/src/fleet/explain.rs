//! Why a relay is, or is not, in somebody's list: every condition in the order in which it is looked at.

use std::sync::Arc;

use super::certificate::CertificateState;
use super::health::Health;
use super::list::Ask;
use super::node::Transport;
use super::skew::{CLOCK_LIMIT, is_beyond};
use super::view::{FleetView, NodeView};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// What is looked at.
    pub name: &'static str,
    /// Whether the relay meets it.
    pub open: bool,
    /// What was found, for people.
    pub found: String,
}

/// What there is to say of one relay, for one caller.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The relay.
    pub node: Arc<NodeView>,
    /// Every condition. A relay that fails one is in lists only where no other is left, or as a suspect.
    pub gates: Vec<Gate>,
    /// The caller's number for it: the highest of a region is the first choice. `None` where it is not listed.
    pub score: Option<f64>,
    /// Its place by that number among the listed relays of its region, the first being 1.
    pub rank: Option<usize>,
    /// Its place in the caller's list, the first being 1.
    pub place: Option<usize>,
}

impl FleetView {
    /// Explains `node` to whoever asks so.
    #[must_use]
    pub fn explain(&self, node: &Arc<NodeView>, ask: &Ask<'_>) -> Explanation {
        let scored = self.candidates.score(node, ask.tenant, ask.key());
        let picks = self.picks(ask);
        let place = picks.nodes().position(|picked| picked.id == node.id);
        Explanation {
            gates: self.gates(node, ask),
            score: scored.map(|(score, _)| score),
            rank: scored.map(|(_, rank)| rank),
            place: place.map(|place| place + 1),
            node: Arc::clone(node),
        }
    }

    /// The region whose relays come first for `region`, or for who names none; `None` where no relay is listed.
    #[must_use]
    pub fn region_meant(&self, region: Option<&str>) -> Option<&str> {
        self.candidates.meant(region.unwrap_or(&self.region))
    }

    fn gates(&self, node: &NodeView, ask: &Ask<'_>) -> Vec<Gate> {
        let gate = |name, open, found: String| Gate { name, open, found };
        let proven = matches!(node.health, Health::Healthy | Health::Unmanaged);
        let text = |yes, when, otherwise: &str| if yes { when } else { otherwise }.to_owned();
        let known = node.incarnation.is_some() || !node.identity.listeners.is_empty();
        let (is_for, whose) = match &node.tenant {
            None => (true, "it is for everybody".to_owned()),
            Some(own) => (
                **own == *ask.tenant,
                format!("it is for users of {own} alone"),
            ),
        };
        let mut gates = vec![
            gate("tenant", is_for, whose),
            gate(
                "known",
                known,
                text(
                    known,
                    "it has registered",
                    "it has enrolled, and never registered",
                ),
            ),
            gate(
                "session",
                node.connected || proven,
                text(
                    node.connected,
                    "open",
                    "none; the probe alone speaks for it",
                ),
            ),
        ];
        gates.extend(node.probe_gates());
        gates.push(gate("proven", proven, node.health.name().to_owned()));
        gates.extend(self.wishes(node));
        gates
    }

    /// What lists want of a relay that serves.
    fn wishes(&self, node: &NodeView) -> Vec<Gate> {
        let gate = |name, open, found: String| Gate { name, open, found };
        let text = |yes, when, otherwise: &str| if yes { when } else { otherwise }.to_owned();
        let mut gates = vec![gate(
            "draining",
            !node.draining,
            text(node.draining, "it is being emptied", "it is not"),
        )];
        gates.push(gate(
            "generation",
            node.up_to_date,
            match &node.refusal {
                Some(refusal) => format!("refused a snapshot: {refusal}"),
                None => format!("runs {} of {}", node.applied_generation, self.generation),
            },
        ));
        gates.push(gate(
            "saturation",
            !node.saturation.full,
            format!(
                "{:.2} of 0.9, {} eighths in its weight",
                node.saturation.instant, node.saturation.eighths
            ),
        ));
        gates.push(gate(
            "clock",
            !is_beyond(node.clock_skew_millis, CLOCK_LIMIT),
            node.clock_skew_millis
                .map_or_else(|| "unknown".to_owned(), |it| format!("{it} ms ahead")),
        ));
        gates.push(gate(
            "damping",
            node.damped_for.is_none(),
            match node.damped_for {
                Some(left) => format!(
                    "out for another {} s after {} faults",
                    left.as_secs(),
                    node.faults
                ),
                None => format!("{} of 3 faults in ten minutes", node.faults),
            },
        ));
        gates.push(gate(
            "ramp",
            node.ramp > 0,
            format!("{} % of its weight", node.ramp),
        ));
        gates.push(gate(
            "certificate",
            node.certificate != CertificateState::Withheld,
            node.certificate.name().to_owned(),
        ));
        gates
    }
}

impl NodeView {
    /// One condition for each transport that it serves.
    fn probe_gates(&self) -> Vec<Gate> {
        let serves = |transport: &Transport| {
            let mut listeners = self.identity.listeners.iter();
            listeners.any(|listener| listener.transport == *transport)
        };
        let found = |transport: Transport| {
            if self.broken.contains(&transport) {
                "does not work, while another transport does"
            } else if self.unseen {
                "this controller's probes reach no relay this way"
            } else if let Some(Err(failure)) = self.probe {
                failure.name()
            } else if self.reached.has(transport) {
                "works"
            } else {
                "not tried yet"
            }
        };
        let name = |transport| match transport {
            Transport::Udp => "probe-udp",
            Transport::Tcp => "probe-tcp",
            Transport::Tls => "probe-tls",
            Transport::Dtls => "probe-dtls",
        };
        let failing = matches!(self.probe, Some(Err(_))) && !self.unseen;
        Transport::ALL
            .into_iter()
            .filter(serves)
            .map(|transport| Gate {
                name: name(transport),
                open: !failing && !self.broken.contains(&transport),
                found: found(transport).to_owned(),
            })
            .collect()
    }
}
