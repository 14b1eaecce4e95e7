//! Which peers a client may reach: two gates, by IP at permissions, and by IP and port wherever data goes.

use std::net::{IpAddr, SocketAddr};

mod cidr;

pub use cidr::{Cidr, CidrError};

/// What the operator and the fleet say about peers.
#[derive(Clone, Debug, Default)]
pub struct PeerRules {
    /// allow
    pub allow: Vec<Cidr>,
    /// deny
    pub deny: Vec<Cidr>,
    /// loopback
    pub danger_allow_loopback: bool,
    /// fleet
    pub fleet: Vec<FleetRange>,
}

/// Ports of a fleet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetRange {
    /// ip
    pub ip: IpAddr,
    /// first
    pub first: u16,
    /// last
    pub last: u16,
}

/// Rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerDenied {
    /// stub
    Loopback,
}

/// The compiled peer policy.
#[derive(Clone, Debug, Default)]
pub struct PeerFilter {}

impl PeerFilter {
    /// Compiles the rules.
    #[must_use]
    pub fn new(_rules: PeerRules) -> Self {
        Self {}
    }

    /// First gate.
    #[expect(clippy::missing_errors_doc, reason = "stub")]
    pub fn check_ip(&self, _ip: IpAddr) -> Result<(), PeerDenied> {
        Ok(())
    }

    /// Second gate, in both directions: where data goes to, and where a datagram comes from.
    #[expect(clippy::missing_errors_doc, reason = "stub")]
    pub fn check(&self, _peer: SocketAddr) -> Result<(), PeerDenied> {
        Ok(())
    }
}

/// Whether a client comes from Teredo or 6to4 (RFC 8656 §21.4).
#[must_use]
pub fn is_transition(_ip: IpAddr) -> bool {
    false
}
