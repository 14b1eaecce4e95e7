//! The one table of addresses that are special: the IANA special-purpose registries of IPv4 and IPv6, multicast, and the
//! metadata services that clouds put elsewhere than into the link-local range. The longest block that holds an address
//! decides.

use std::net::Ipv6Addr;

use super::cidr::Cidr;
use super::{PeerDenied, Verdict};

/// Teredo (RFC 4380).
pub(super) const TEREDO: Cidr = Cidr::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
/// 6to4 (RFC 3056).
pub(super) const SIX_TO_FOUR: Cidr = Cidr::v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

const fn v4(octets: [u8; 4], prefix: u8, rule: PeerDenied) -> (Cidr, Verdict) {
    (Cidr::v4(octets, prefix), Err(rule))
}

const fn v6(segments: [u16; 8], prefix: u8, rule: PeerDenied) -> (Cidr, Verdict) {
    (Cidr::v6(segments, prefix), Err(rule))
}

/// Special IPv4 addresses.
pub(super) const V4: &[(Cidr, Verdict)] = &[
    v4([0, 0, 0, 0], 8, PeerDenied::Unspecified),
    v4([10, 0, 0, 0], 8, PeerDenied::Private),
    v4([100, 64, 0, 0], 10, PeerDenied::SharedAddressSpace),
    // Alibaba Cloud's metadata service.
    v4([100, 100, 100, 200], 32, PeerDenied::Metadata),
    v4([127, 0, 0, 0], 8, PeerDenied::Loopback),
    // Azure's wire server: certificates and settings of the machine behind a public-looking address.
    v4([168, 63, 129, 16], 32, PeerDenied::Metadata),
    v4([169, 254, 0, 0], 16, PeerDenied::LinkLocal),
    v4([172, 16, 0, 0], 12, PeerDenied::Private),
    v4([192, 0, 0, 0], 24, PeerDenied::SpecialPurpose),
    // Oracle Cloud's metadata service of its classic machines.
    v4([192, 0, 0, 192], 32, PeerDenied::Metadata),
    v4([192, 0, 2, 0], 24, PeerDenied::Documentation),
    // AS112, and AMT relays, which tunnel what they are sent.
    v4([192, 31, 196, 0], 24, PeerDenied::SpecialPurpose),
    v4([192, 52, 193, 0], 24, PeerDenied::SpecialPurpose),
    // The anycast address of 6to4 relays.
    v4([192, 88, 99, 0], 24, PeerDenied::SpecialPurpose),
    v4([192, 168, 0, 0], 16, PeerDenied::Private),
    v4([192, 175, 48, 0], 24, PeerDenied::SpecialPurpose),
    v4([198, 18, 0, 0], 15, PeerDenied::Benchmarking),
    v4([198, 51, 100, 0], 24, PeerDenied::Documentation),
    v4([203, 0, 113, 0], 24, PeerDenied::Documentation),
    v4([224, 0, 0, 0], 4, PeerDenied::Multicast),
    v4([240, 0, 0, 0], 4, PeerDenied::Reserved),
    v4([255, 255, 255, 255], 32, PeerDenied::Broadcast),
];

/// Special IPv6 addresses: all but the global unicast space, and exceptions in it.
pub(super) const V6: &[(Cidr, Verdict)] = &[
    v6([0, 0, 0, 0, 0, 0, 0, 0], 0, PeerDenied::Reserved),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, PeerDenied::Unspecified),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, PeerDenied::Loopback),
    // IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 2765), and NAT64's two prefixes (RFC 6052, RFC 8215).
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, PeerDenied::EmbedsIpv4),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, PeerDenied::EmbedsIpv4),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, PeerDenied::EmbedsIpv4),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, PeerDenied::EmbedsIpv4),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, PeerDenied::EmbedsIpv4),
    // Discard-only, and the dummy prefix.
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, PeerDenied::SpecialPurpose),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, PeerDenied::SpecialPurpose),
    (Cidr::v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), Ok(())),
    // IETF protocol assignments: anycast services, AMT, AS112, ORCHID and ORCHIDv2, drone identifiers.
    v6(
        [0x2001, 0, 0, 0, 0, 0, 0, 0],
        23,
        PeerDenied::SpecialPurpose,
    ),
    (TEREDO, Err(PeerDenied::Teredo)),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, PeerDenied::Benchmarking),
    v6(
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],
        32,
        PeerDenied::Documentation,
    ),
    (SIX_TO_FOUR, Err(PeerDenied::SixToFour)),
    // AS112.
    v6(
        [0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0],
        48,
        PeerDenied::SpecialPurpose,
    ),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, PeerDenied::Documentation),
    // Segment identifiers of SRv6.
    v6(
        [0x5f00, 0, 0, 0, 0, 0, 0, 0],
        16,
        PeerDenied::SpecialPurpose,
    ),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PeerDenied::UniqueLocal),
    // The local services of AWS, Google, Oracle and Scaleway machines, metadata among them.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, PeerDenied::Metadata),
    v6(
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],
        128,
        PeerDenied::Metadata,
    ),
    v6(
        [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe],
        128,
        PeerDenied::Metadata,
    ),
    v6(
        [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42],
        128,
        PeerDenied::Metadata,
    ),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, PeerDenied::LinkLocal),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, PeerDenied::SiteLocal),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, PeerDenied::Multicast),
];

/// Whether the interface identifier is one of ISATAP's (RFC 5214 §6.1), whatever the prefix: 0000:5EFE and an IPv4
/// address, with the two bits that mark universal and group identifiers set or not.
pub(super) fn is_isatap(ip: Ipv6Addr) -> bool {
    let [_, _, _, _, marker, kind, _, _] = ip.segments();
    marker & 0xfcff == 0 && kind == 0x5efe
}
