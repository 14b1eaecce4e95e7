//! What the shards of one relay share: the ports that are free and the allocations that count against limits. Only
//! Allocate, expiry and policy changes touch it, never a packet.

use std::net::IpAddr;

/// Shared by all [`crate::Server`]s of one relay behind an `Arc`; one lock inside, held for a few hundred nanoseconds.
#[derive(Debug)]
pub struct Ledger {}

/// Ports of one local address from which relayed sockets may be opened. Both ends belong to the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedPorts {
    /// The public address that the grant was made for.
    pub public: IpAddr,
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl Ledger {
    /// A ledger without ports; `seed` drives the choice among free ports.
    #[must_use]
    pub fn new(_seed: [u8; 32]) -> Self {
        Self {}
    }

    /// Replaces the granted ranges. Ports in use outside of them stay with their allocations and are not drawn again.
    pub fn set_granted(&self, _granted: &[GrantedPorts]) {}
}
