//! Which peers a client may reach: two gates, by IP at permissions and by IP and port wherever data or a connection goes.

use std::net::IpAddr;

/// An address block in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// The compiled peer policy.
#[derive(Clone, Debug, Default)]
pub struct PeerFilter {}
