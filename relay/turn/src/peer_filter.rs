//! Which peers a client may reach: two gates, by IP at permissions, and by IP and port wherever data goes.
//!
//! Layers decide, the first that has an opinion wins:
//! 1. the fleet's own relayed addresses pass on granted ports, even on loopback and private addresses, and are refused on
//!    every other port, where the fleet's listeners are;
//! 2. what is banned, see [`crate::bans`];
//! 3. what no operator can open: loopback, link-local, metadata services, multicast, every IPv4-in-IPv6 form, the relay
//!    itself and its controllers;
//! 4. the `allow` and `deny` of the client's tenant, then the operator's: of either the longest prefix wins, `deny` where both
//!    are equal; and where none speaks, the special-purpose registries of IANA, which are refused.
//!
//! The rules are compiled into sorted ranges: a check is a few binary searches. What is every tenant's is compiled once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod cidr;
mod overlay;
pub(crate) mod range_map;
mod special;

pub use cidr::{Cidr, CidrError};
pub use overlay::PeerOverlay;

use crate::bans::Bans;
use range_map::{RangeMap, key};

/// What the operator and the fleet say about peers.
#[derive(Clone, Debug, Default)]
pub struct PeerRules {
    /// Opened, as far as an operator can open it.
    pub allow: Vec<Cidr>,
    /// Closed, as far as no longer `allow` entry opens it again.
    pub deny: Vec<Cidr>,
    /// Opens 127.0.0.0/8 and ::1 on every port, those of the fleet's own listeners on loopback included: a filter that
    /// lets test peers on any port of 127.0.0.1 through cannot tell them from listeners.
    pub danger_allow_loopback: bool,
    /// The fleet's own addresses.
    pub fleet: Vec<FleetRange>,
    /// Addresses of the relay itself and of its controllers: closed but for what `fleet` grants, whatever is allowed.
    pub own: Vec<IpAddr>,
}

/// Ports of one of the fleet's public addresses that are granted to relays. An address without granted ports, as one with
/// listeners only, has `first` above `last`, and is refused on every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetRange {
    /// The address as peers see it.
    pub ip: IpAddr,
    /// The lowest granted port.
    pub first: u16,
    /// The highest granted port.
    pub last: u16,
}

/// The rule that refuses a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerDenied {
    /// 0.0.0.0/8 and ::.
    Unspecified,
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// fec0::/10, deprecated by RFC 3879.
    SiteLocal,
    /// A cloud's metadata or control service outside of the link-local range.
    Metadata,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// An IPv6 address that stands for an IPv4 one: mapped, compatible, translated, NAT64, ISATAP.
    EmbedsIpv4,
    /// 2001::/32 (RFC 8656 §21.4).
    Teredo,
    /// 2002::/16 (RFC 8656 §21.4).
    SixToFour,
    /// RFC 1918.
    Private,
    /// fc00::/7.
    UniqueLocal,
    /// 100.64.0.0/10, the shared address space of carriers.
    SharedAddressSpace,
    /// 198.18.0.0/15 and 2001:2::/48.
    Benchmarking,
    /// The ranges for examples in documents.
    Documentation,
    /// Anything else in the special-purpose registries.
    SpecialPurpose,
    /// Not handed out for use: 240.0.0.0/4, and IPv6 outside of 2000::/3.
    Reserved,
    /// An address of the relay itself or of a controller.
    OwnAddress,
    /// The `deny` of the operator, or of the client's tenant.
    Operator,
    /// It is banned.
    Banned,
    /// A fleet address on a port that is not granted to a relay.
    FleetPort,
    /// Port 0.
    PortZero,
    /// A port below 1024, over TCP.
    LowPort,
}

impl PeerDenied {
    /// The name in logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::SiteLocal => "site_local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::EmbedsIpv4 => "embeds_ipv4",
            Self::Teredo => "teredo",
            Self::SixToFour => "6to4",
            Self::Private => "private",
            Self::UniqueLocal => "unique_local",
            Self::SharedAddressSpace => "shared_address_space",
            Self::Benchmarking => "benchmarking",
            Self::Documentation => "documentation",
            Self::SpecialPurpose => "special_purpose",
            Self::Reserved => "reserved",
            Self::OwnAddress => "own_address",
            Self::Operator => "operator",
            Self::Banned => "banned",
            Self::FleetPort => "fleet_port",
            Self::PortZero => "port_zero",
            Self::LowPort => "low_port",
        }
    }

    /// The `allow` entry that would let exactly `ip` through; `None` where the operator cannot open it.
    #[must_use]
    pub fn permitted_by(self, ip: IpAddr) -> Option<Cidr> {
        self.is_allowable().then(|| Cidr::host(ip))
    }

    fn is_allowable(self) -> bool {
        match self {
            Self::Unspecified
            | Self::Loopback
            | Self::LinkLocal
            | Self::SiteLocal
            | Self::Metadata
            | Self::Multicast
            | Self::Broadcast
            | Self::EmbedsIpv4
            | Self::Teredo
            | Self::SixToFour
            | Self::OwnAddress
            | Self::Banned
            | Self::FleetPort
            | Self::PortZero
            | Self::LowPort => false,
            Self::Private
            | Self::UniqueLocal
            | Self::SharedAddressSpace
            | Self::Benchmarking
            | Self::Documentation
            | Self::SpecialPurpose
            | Self::Reserved
            | Self::Operator => true,
        }
    }
}

type Verdict = Result<(), PeerDenied>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Silent,
    Allow,
    Deny,
}

/// What concerns one client or one moment, beside what the filter says to everybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Besides<'a> {
    /// The rules of the client's tenant.
    pub(crate) overlay: Option<&'a PeerOverlay>,
    /// What is banned.
    pub(crate) bans: Option<&'a Bans>,
    /// Unix seconds, by which bans end.
    pub(crate) unix: u64,
}

impl Besides<'_> {
    const NOTHING: Self = Self {
        overlay: None,
        bans: None,
        unix: 0,
    };

    fn wish(&self, ip: IpAddr) -> Wish {
        self.overlay
            .map_or(Wish::Silent, |overlay| overlay.wish(ip))
    }

    fn bans(&self, ip: IpAddr) -> bool {
        self.bans.is_some_and(|bans| bans.of_peer(ip, self.unix))
    }
}

/// A range of addresses that one rule refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first address.
    pub first: IpAddr,
    /// The last one, of the same family.
    pub last: IpAddr,
    /// What refuses them.
    pub rule: PeerDenied,
}

/// The compiled peer policy. The default one has no rules: it refuses what is special and passes the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFilter {
    v4: RangeMap<Verdict>,
    v6: RangeMap<Verdict>,
    /// Sorted by address.
    fleet: Vec<FleetRange>,
    loopback_open: bool,
}

impl Default for PeerFilter {
    fn default() -> Self {
        Self::new(PeerRules::default())
    }
}

impl PeerFilter {
    /// Compiles the rules.
    #[must_use]
    pub fn new(rules: PeerRules) -> Self {
        let PeerRules {
            allow,
            deny,
            danger_allow_loopback,
            mut fleet,
            own,
        } = rules;
        fleet.sort_unstable();
        let compile = |special: &[(Cidr, Verdict)], in_family: fn(&Cidr) -> bool| {
            let own = own.iter().map(|&ip| Cidr::host(ip)).filter(in_family);
            let own = own.map(|host| (host, Err(PeerDenied::OwnAddress)));
            let special = RangeMap::nested(special.iter().copied().chain(own), Ok(()));
            let wishes = wishes_of(&allow, &deny).filter(|(block, _)| in_family(block));
            let wishes = RangeMap::nested(wishes, Wish::Silent);
            special.combine(&wishes, verdict_of)
        };
        Self {
            v4: compile(special::V4, |block| block.address().is_ipv4()),
            v6: compile(special::V6, |block| block.address().is_ipv6()),
            fleet,
            loopback_open: danger_allow_loopback,
        }
    }

    /// Every address that is refused for what it is, as ranges that do not overlap, IPv4 first, ascending. Bans, and the ports
    /// of fleet addresses, are not in it.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        let v4 = self
            .v4
            .ranges(u128::from(u32::MAX))
            .map(|(first, last, verdict)| {
                let address = |key| {
                    let bits = u32::try_from(key).unwrap_or(u32::MAX);
                    IpAddr::V4(Ipv4Addr::from_bits(bits))
                };
                (address(first), address(last), verdict)
            });
        let v6 = self.v6.ranges(u128::MAX).map(|(first, last, verdict)| {
            let address = |key| IpAddr::V6(Ipv6Addr::from_bits(key));
            (address(first), address(last), verdict)
        });
        let ranges = v4.chain(v6);
        ranges
            .filter_map(|(first, last, verdict)| {
                let rule = verdict.err()?;
                Some(Refused { first, last, rule })
            })
            .collect()
    }

    /// The first gate: whether a permission may be installed for `ip`. A fleet address with granted ports passes; which of
    /// its ports, the second gate says.
    ///
    /// # Errors
    /// The rule that refuses it: 403 (RFC 8656 §10.2).
    pub fn check_ip(&self, ip: IpAddr) -> Result<(), PeerDenied> {
        self.check_ip_for(Besides::NOTHING, ip)
    }

    /// [`Self::check_ip`] for one client.
    pub(crate) fn check_ip_for(&self, besides: Besides<'_>, ip: IpAddr) -> Verdict {
        self.decide(besides, ip, |range| range.first <= range.last)
    }

    /// The second gate: whether data may go to `peer`, and be taken from it.
    ///
    /// # Errors
    /// The rule that refuses it: 403 to a ChannelBind (RFC 8656 §12.2), silence to everything else.
    pub fn check(&self, peer: SocketAddr) -> Result<(), PeerDenied> {
        self.check_for(Besides::NOTHING, peer)
    }

    /// [`Self::check`] for one client.
    pub(crate) fn check_for(&self, besides: Besides<'_>, peer: SocketAddr) -> Verdict {
        if peer.port() == 0 {
            return Err(PeerDenied::PortZero);
        }
        self.decide(besides, peer.ip(), |range| {
            (range.first..=range.last).contains(&peer.port())
        })
    }

    fn decide(
        &self,
        besides: Besides<'_>,
        ip: IpAddr,
        is_granted: impl Fn(&FleetRange) -> bool,
    ) -> Verdict {
        let fleet = self.fleet_ranges(ip);
        // Calls between clients, and the probes that find a relay healthy, outlast any ban.
        if fleet.iter().any(is_granted) {
            return Ok(());
        }
        if besides.bans(ip) {
            return Err(PeerDenied::Banned);
        }
        let wish = besides.wish(ip);
        if self.loopback_open && ip.is_loopback() && wish != Wish::Deny {
            return Ok(());
        }
        if !fleet.is_empty() {
            return Err(PeerDenied::FleetPort);
        }
        let verdict = match ip {
            IpAddr::V6(v6) if special::is_isatap(v6) => Err(PeerDenied::EmbedsIpv4),
            IpAddr::V6(_) => self.v6.at(key(ip)),
            IpAddr::V4(_) => self.v4.at(key(ip)),
        };
        verdict_of(verdict, wish)
    }

    fn fleet_ranges(&self, ip: IpAddr) -> &[FleetRange] {
        let first = self.fleet.partition_point(|range| range.ip < ip);
        let rest = &self.fleet[first..];
        &rest[..rest.partition_point(|range| range.ip == ip)]
    }
}

/// What `wish` makes of a verdict: some of them nobody can change.
fn verdict_of(verdict: Verdict, wish: Wish) -> Verdict {
    match (verdict, wish) {
        (Err(rule), _) if !rule.is_allowable() => verdict,
        (_, Wish::Allow) => Ok(()),
        (_, Wish::Deny) => Err(PeerDenied::Operator),
        (_, Wish::Silent) => verdict,
    }
}

/// Rules as wishes, in the order in which the later of two about one block holds.
fn wishes_of(allow: &[Cidr], deny: &[Cidr]) -> impl Iterator<Item = (Cidr, Wish)> {
    let allow = allow.iter().map(|&block| (block, Wish::Allow));
    allow.chain(deny.iter().map(|&block| (block, Wish::Deny)))
}

/// Whether a client comes by Teredo or 6to4, whose addresses may be anybody's (RFC 8656 §21.4).
#[must_use]
pub fn is_transition(ip: IpAddr) -> bool {
    special::TEREDO.contains(ip) || special::SIX_TO_FOUR.contains(ip)
}

#[cfg(test)]
mod tests;
