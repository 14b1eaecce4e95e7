//! Why lists leave a node out, or one of its transports.

use std::fmt;

use super::health::{Health, ProbeFailure};
use super::node::Transport;
use super::registry::FULL;
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
    /// It is listed, without these transports.
    Broken(&'v [Transport]),
}

impl FleetView {
    /// Why lists leave `node` out; nothing where all is well.
    #[must_use]
    pub fn reason<'v>(&self, node: &'v NodeView) -> Option<Reason<'v>> {
        if let Some(refusal) = &node.refusal {
            return Some(Reason::Refusal(refusal));
        }
        if let Some(Err(failure)) = node.probe {
            return Some(Reason::Probe(failure));
        }
        if !node.connected {
            return Some(Reason::NoSession);
        }
        if node.draining {
            return Some(Reason::Draining);
        }
        if node.listed {
            return (!node.broken.is_empty()).then_some(Reason::Broken(&node.broken));
        }
        Some(match node.health {
            Health::Starting => Reason::NotProbed,
            Health::Unhealthy | Health::Gone => Reason::Recovering,
            Health::Healthy | Health::Unmanaged if node.saturation.instant >= FULL => Reason::Full,
            Health::Healthy | Health::Unmanaged => Reason::Behind {
                runs: node.applied_generation,
                of: self.generation,
            },
        })
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
