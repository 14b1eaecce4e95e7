//! Sets of addresses of one family, as ranges of numbers, and the blocks that ranges are made of. Pure arithmetic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use turnfleet_turn::peer_filter::Cidr;

/// Addresses from the first to the last one, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

/// A first and a last number.
pub(super) type Span = (u128, u128);

impl Range {
    /// Reads `ip`, `ip-ip`, or a block in CIDR notation.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            let range = Self { first, last };
            let ordered = first.is_ipv4() == last.is_ipv4() && first <= last;
            return ordered.then_some(range);
        }
        Some(Self::of(text.trim().parse().ok()?))
    }

    /// All addresses of a block.
    pub(super) fn of(block: Cidr) -> Self {
        let first = block.address();
        let host_bits = bits(first) - u32::from(block.prefix());
        let last = number(first) | ones(host_bits);
        Self {
            first,
            last: address(last, first.is_ipv4()),
        }
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    pub(super) fn span(&self) -> Span {
        (number(self.first), number(self.last))
    }

    /// The fewest blocks that have these addresses and no others.
    pub(super) fn blocks(&self) -> Vec<Cidr> {
        let (mut at, last) = self.span();
        let most = bits(self.first);
        let mut blocks = Vec::new();
        loop {
            let aligned = at.trailing_zeros().min(most);
            let fitting = (last - at)
                .checked_add(1)
                .map_or(128, |count| 127 - count.leading_zeros());
            let host_bits = aligned.min(fitting);
            let prefix = u8::try_from(most - host_bits).unwrap_or(u8::MAX);
            // The address is aligned to the block, so the block is one.
            blocks.extend(Cidr::new(address(at, self.is_ipv4()), prefix));
            let end = at | ones(host_bits);
            if end >= last {
                return blocks;
            }
            at = end + 1;
        }
    }
}

/// `spans` without the numbers of `without`; both may be in any order and overlap.
pub(super) fn minus(spans: &[Span], without: &[Span]) -> Vec<Span> {
    let mut rest = merged(spans);
    for &(first, last) in without {
        rest = rest
            .into_iter()
            .flat_map(|(from, to)| {
                let before = (from < first).then(|| (from, to.min(first.wrapping_sub(1))));
                let after = (to > last).then(|| (from.max(last.wrapping_add(1)), to));
                [before, after]
            })
            .flatten()
            .collect();
    }
    rest
}

/// The numbers that are in both.
pub(super) fn common(spans: &[Span], others: &[Span]) -> Vec<Span> {
    let pairs = spans
        .iter()
        .flat_map(|span| others.iter().map(move |other| (span, other)));
    pairs
        .map(|(span, other)| (span.0.max(other.0), span.1.min(other.1)))
        .filter(|(first, last)| first <= last)
        .collect()
}

/// How many numbers there are; one too many for the type counts as the most.
pub(super) fn count(spans: &[Span]) -> u128 {
    let sizes = merged(spans).into_iter();
    sizes.fold(0_u128, |sum, (first, last)| {
        sum.saturating_add((last - first).saturating_add(1))
    })
}

fn merged(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

/// The address with a number within its family.
pub(super) fn address(number: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        let bits = u32::try_from(number).unwrap_or(u32::MAX);
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn bits(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// A number whose lowest `bits` bits are ones.
fn ones(bits: u32) -> u128 {
    u128::MAX.checked_shl(bits).map_or(u128::MAX, |mask| !mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_blocks(text: &str, expected: &[&str]) {
        let blocks = Range::parse(text).unwrap().blocks();
        let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        assert_eq!(blocks, expected, "{text}");
    }

    #[test]
    fn a_range_is_the_fewest_blocks() {
        assert_blocks("10.0.0.0-10.255.255.255", &["10.0.0.0/8"]);
        assert_blocks("192.0.2.1", &["192.0.2.1/32"]);
        assert_blocks("0.0.0.0-255.255.255.255", &["0.0.0.0/0"]);
        assert_blocks(
            "10.0.0.1 - 10.0.0.4",
            &["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"],
        );
        assert_blocks("172.16.0.0/12", &["172.16.0.0/12"]);
        assert_blocks("255.255.255.254-255.255.255.255", &["255.255.255.254/31"]);
        assert_blocks("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]);
        assert_blocks(
            "fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            &["fe80::/10"],
        );
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-::1",
            "example.org",
            "10.0.0.0/33",
            "-",
        ] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sets_are_taken_from_each_other() {
        assert_eq!(minus(&[(0, 9)], &[(3, 4), (8, 20)]), [(0, 2), (5, 7)]);
        assert_eq!(minus(&[(5, 9), (0, 5)], &[]), [(0, 9)]);
        assert_eq!(minus(&[(0, u128::MAX)], &[(0, u128::MAX)]), []);
        assert_eq!(common(&[(0, 9)], &[(3, 4), (8, 20)]), [(3, 4), (8, 9)]);
        assert_eq!(count(&[(0, 9), (5, 14)]), 15);
        assert_eq!(count(&[(0, u128::MAX)]), u128::MAX);
    }
}
