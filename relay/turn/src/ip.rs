//! The fields of IP headers that outlive relaying (RFC 8656 §13 to §16): what a datagram came with, and what it leaves with.

use crate::addr::{AddressFamily, Transport};

/// What stands in the IP header of a datagram. The default is a header of which nothing is known, and one that the system
/// fills in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpMeta {
    /// The time to live, or hop limit. `None` where the platform cannot tell; on the way out it is the system's default.
    pub ttl: Option<u8>,
    /// The type of service, or traffic class: six bits of DSCP, two of ECN. `None` where the platform cannot tell; on the
    /// way out it is zero, for best effort and Not-ECT. Of a stream it is what its packets come with.
    pub tos: Option<u8>,
    /// Whether nobody may fragment it: the DF bit. False where the platform cannot tell (RFC 8656 §14, alternate behaviour).
    pub dont_fragment: bool,
}

/// The bits of a type of service that are the DSCP; the others are ECN.
const DSCP: u8 = 0xFC;

/// One side of the way that application data takes through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Datagrams of a family.
    Datagrams(AddressFamily),
    /// A byte stream, whose packets have nothing to do with what they carry.
    Stream,
}

impl Leg {
    /// The side of a client on `transport`, reached by addresses of `family`.
    pub(crate) fn of_client(transport: Transport, family: AddressFamily) -> Self {
        if transport.is_stream() {
            Self::Stream
        } else {
            Self::Datagrams(family)
        }
    }
}

impl IpMeta {
    /// What data leaves with on `to` that came with `self` on `from`; `asked` says whether it came with DONT-FRAGMENT.
    /// `None` where its time to live is over.
    pub(crate) fn relayed(self, from: Leg, to: Leg, asked: bool) -> Option<Self> {
        match (from, to) {
            // §16: a stream has header fields of its own.
            (_, Leg::Stream) => Some(Self::default()),
            // §15: the DSCP of the stream, Not-ECT, DF where it was asked for, and nothing is translated.
            (Leg::Stream, Leg::Datagrams(_)) => Some(Self {
                ttl: None,
                tos: self.tos.map(|tos| tos & DSCP),
                dont_fragment: asked,
            }),
            (Leg::Datagrams(from), Leg::Datagrams(to)) => Some(Self {
                // §13, §21.1.7: as a router does, also between IPv4 and IPv4, so that a loop ends.
                ttl: match self.ttl {
                    Some(ttl) => Some(ttl.checked_sub(1).filter(|left| *left > 0)?),
                    None => None,
                },
                tos: self.tos,
                // §14 for IPv4 on both sides. §13: elsewhere DONT-FRAGMENT is ignored, and the system fragments as usual.
                dont_fragment: (from, to) == (AddressFamily::V4, AddressFamily::V4)
                    && (asked || self.dont_fragment),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Leg = Leg::Datagrams(AddressFamily::V4);
    const V6: Leg = Leg::Datagrams(AddressFamily::V6);

    #[test]
    fn unknown_fields_stay_unknown() {
        for (from, to) in [(V4, V4), (V4, V6), (V6, V4), (V6, V6), (V4, Leg::Stream)] {
            let unknown = IpMeta::default();
            assert_eq!(unknown.relayed(from, to, false), Some(unknown));
        }
    }

    #[test]
    fn a_time_to_live_of_one_or_none_is_over() {
        for (ttl, left) in [(0, None), (1, None), (2, Some(1)), (255, Some(254))] {
            let ip = IpMeta {
                ttl: Some(ttl),
                ..IpMeta::default()
            };
            assert_eq!(ip.relayed(V4, V6, false).and_then(|ip| ip.ttl), left);
            assert_eq!(ip.relayed(V6, Leg::Stream, false), Some(IpMeta::default()));
        }
    }

    #[test]
    fn a_known_df_bit_is_copied_between_ipv4_and_ipv4_only() {
        let ip = IpMeta {
            dont_fragment: true,
            ..IpMeta::default()
        };
        for (from, to, copied) in [(V4, V4, true), (V4, V6, false), (V6, V4, false)] {
            let relayed = ip.relayed(from, to, false);
            assert_eq!(relayed.map(|ip| ip.dont_fragment), Some(copied));
        }
    }
}
