//! How the ports of a public address are cut into parts: shares of equal size where the operator says how many relays an
//! address has, blocks of a power of two where that is found out as they come.

use turnfleet_proto::PortRange;

/// The largest block; 49152-65535 has 32 of them.
const MAX_BLOCK: u32 = 512;
/// A range has about this many blocks, or more.
const BLOCKS: u32 = 32;

/// How the ports of a public address are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The ports.
    pub range: PortRange,
    /// How many relays share an address, each with at least two ports; zero where that is found out as they come.
    pub relays_per_address: u32,
}

impl PortPlan {
    /// Whether relays share an address as they come.
    #[must_use]
    pub fn is_automatic(self) -> bool {
        self.relays_per_address == 0
    }

    /// How many ports each relay of an address gets where their number is known: the whole range for a sole one, an even
    /// number otherwise, so that EVEN-PORT finds pairs.
    #[must_use]
    pub fn share(self) -> u32 {
        if self.relays_per_address <= 1 {
            return self.range.len();
        }
        let usable = (u32::from(self.range.last()) + 1).saturating_sub(self.first());
        (usable / self.relays_per_address) & !1
    }

    /// Whether a node may go on with `range`: it lies within the range that is shared out, and is as large as a share where
    /// those are of one size.
    #[must_use]
    pub fn fits(self, range: PortRange) -> bool {
        self.holds(range) && (self.is_automatic() || range.len() == self.share())
    }

    /// Whether `range` lies within the range that is shared out.
    pub(crate) fn holds(self, range: PortRange) -> bool {
        self.range.first() <= range.first() && range.last() <= self.range.last()
    }

    /// The first port of the first share.
    pub(crate) fn first(self) -> u32 {
        self.align(self.range.first().into())
    }

    /// The lowest port from `port` on that a share may begin at.
    pub(crate) fn align(self, port: u32) -> u32 {
        if self.relays_per_address <= 1 {
            port
        } else {
            port.next_multiple_of(2)
        }
    }

    /// The ports of a block: a power of two, at least two.
    pub(crate) fn block(self) -> u32 {
        let most = (self.range.len() / BLOCKS).clamp(2, MAX_BLOCK);
        1 << most.ilog2()
    }

    /// The first port behind the block that `port` lies in. Blocks begin at even ports; the first and the last one take in
    /// what is left over at the ends of the range.
    pub(crate) fn block_end(self, port: u16) -> u32 {
        let (port, end) = (u32::from(port), u32::from(self.range.last()) + 1);
        let origin = u32::from(self.range.first()).next_multiple_of(2);
        let block = self.block();
        let blocks = end.saturating_sub(origin) / block;
        let following = port.saturating_sub(origin) / block + 1;
        if following >= blocks {
            end
        } else {
            origin + following * block
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(range: &str) -> Vec<u32> {
        let range: PortRange = range.parse().unwrap();
        let plan = PortPlan {
            range,
            relays_per_address: 0,
        };
        let (mut ends, mut port) = (Vec::new(), u32::from(range.first()));
        while let Ok(at) = u16::try_from(port)
            && at <= range.last()
        {
            port = plan.block_end(at);
            ends.push(port);
        }
        ends
    }

    #[test]
    fn blocks_are_even_aligned_and_leave_no_port_out() {
        assert_eq!(blocks("50000-50007"), [50002, 50004, 50006, 50008]);
        assert_eq!(blocks("50001-50008"), [50004, 50006, 50009]);
        assert_eq!(blocks("50001-50001"), [50002]);
        let dynamic = blocks("49152-65535");
        assert_eq!((dynamic.len(), dynamic[0]), (32, 49664));
        assert_eq!(blocks("10000-65535").len(), 108);
    }
}
