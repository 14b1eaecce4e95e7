//! Why lists leave a node out, or one of its transports.

use std::fmt;
use std::time::Duration;

use super::certificate::CertificateState;
use super::health::{Health, ProbeFailure};
use super::node::Transport;
use super::skew::{CLOCK_LIMIT, CLOCK_WARNING, is_beyond};
use super::view::{FleetView, NodeView};

/// The first thing that keeps a node, or one of its transports, out of lists. Its text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'v> {
    /// It does not run the policy snapshot, and says why.
    Refusal(&'v str),
    /// Its last probe failed.
    Probe(ProbeFailure),
    /// It has no control session. Lists name it all the same while its probe succeeds.
    NoSession,
    /// It is, or shall be, emptied of allocations.
    Draining,
    /// It has registered, and no probe has ended.
    NotProbed,
    /// It failed, and has not yet worked for as long as lists want to see.
    Recovering,
    /// It is nearly full.
    Full,
    /// It runs an older generation of the policy.
    Behind {
        /// Which one.
        runs: u64,
        /// Which one it should.
        of: u64,
    },
    /// It failed more than three times within ten minutes, and is left out for so long.
    Flaps(Duration),
    /// Its wall clock is so many milliseconds ahead. Beyond 30 s lists leave it out; before, it is a warning.
    Clock(i64),
    /// It is listed behind all others: much of its region fell silent at once, and it is this controller that is suspect.
    Suspect,
    /// It is listed by its session alone: the probe reaches no node by this node's transports.
    Unseen,
    /// It is listed, without these transports.
    Broken(&'v [Transport]),
    /// It is listed, and its certificate ends soon: `true` where lists leave `turns:` out for it.
    Certificate(bool),
}

impl FleetView {
    /// Why lists leave `node` out; nothing where all is well.
    #[must_use]
    pub fn reason<'v>(&self, node: &'v NodeView) -> Option<Reason<'v>> {
        if let Some(refusal) = &node.refusal {
            return Some(Reason::Refusal(refusal));
        }
        if node.suspect {
            return Some(Reason::Suspect);
        }
        if let Some(Err(failure)) = node.probe
            && !node.unseen
        {
            return Some(Reason::Probe(failure));
        }
        if !node.connected {
            return Some(Reason::NoSession);
        }
        if node.draining {
            return Some(Reason::Draining);
        }
        let clock = node.clock_skew_millis.map(Reason::Clock);
        let is_off = |limit| is_beyond(node.clock_skew_millis, limit);
        let serves = matches!(node.health, Health::Healthy | Health::Unmanaged);
        if serves && let Some(left) = node.damped_for {
            return Some(Reason::Flaps(left));
        }
        if serves && is_off(CLOCK_LIMIT) {
            return clock;
        }
        if node.listed {
            return if !node.broken.is_empty() {
                Some(Reason::Broken(&node.broken))
            } else if is_off(CLOCK_WARNING) {
                clock
            } else {
                node.shortcoming()
            };
        }
        Some(match node.health {
            Health::Starting => Reason::NotProbed,
            Health::Unhealthy | Health::Gone => Reason::Recovering,
            Health::Healthy | Health::Unmanaged if node.saturation.full => Reason::Full,
            Health::Healthy | Health::Unmanaged => Reason::Behind {
                runs: node.applied_generation,
                of: self.generation,
            },
        })
    }
}

impl NodeView {
    /// What is not as it should be with a node that is listed with all its transports.
    fn shortcoming<'v>(&self) -> Option<Reason<'v>> {
        match self.certificate {
            CertificateState::Withheld => Some(Reason::Certificate(true)),
            CertificateState::Ending => Some(Reason::Certificate(false)),
            CertificateState::Unknown | CertificateState::Good => {
                self.unseen.then_some(Reason::Unseen)
            }
        }
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => write!(f, "refused the policy snapshot: {refusal}"),
            Self::Probe(failure) => write!(f, "probe: {failure}"),
            Self::NoSession => f.write_str("no control session"),
            Self::Draining => f.write_str("draining"),
            Self::NotProbed => f.write_str("no probe has succeeded yet"),
            Self::Recovering => f.write_str("recovering: three good probes over 10 s are wanted"),
            Self::Full => f.write_str("saturated"),
            Self::Behind { runs, of } => write!(f, "runs generation {runs} of {of}"),
            Self::Flaps(left) => {
                let seconds = left.as_secs();
                write!(
                    f,
                    "failed more than three times in ten minutes: out for another {seconds} s"
                )
            }
            Self::Clock(millis) => {
                let way = if *millis < 0 { "behind" } else { "ahead" };
                let seconds = millis.unsigned_abs() as f64 / 1000.0;
                write!(f, "its clock is {seconds:.1} s {way}")
            }
            Self::Suspect => f.write_str(
                "silent, with much of its region: listed last, as this controller may be cut off",
            ),
            Self::Unseen => f.write_str(
                "listed by its session alone: this controller's probes reach no relay that way",
            ),
            Self::Certificate(withheld) => f.write_str(if *withheld {
                "its certificate is at its end: listed without turns:"
            } else {
                "its certificate ends soon"
            }),
            Self::Broken(transports) => {
                let names: Vec<_> = transports.iter().map(|it| it.name()).collect();
                write!(f, "probe: {} does not work", names.join(", "))
            }
        }
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListener => f.write_str("the node has no listener by UDP, TCP or TLS"),
            Self::NoAnswer => f.write_str("no answer in time"),
            Self::Connection => f.write_str("the connection or its TLS handshake failed"),
            Self::Refused(code) => write!(f, "the relay refused a request with {code}"),
            Self::DataLost => f.write_str("data between two allocations was lost"),
        }
    }
}
