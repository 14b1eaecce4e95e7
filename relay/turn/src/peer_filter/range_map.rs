//! A value for every address of a family, found by binary search.

use std::net::IpAddr;

use super::cidr::Cidr;

/// The number of an address within its family.
pub(crate) fn key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Values for all keys; each holds from its key up to the one of the next entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeMap<V> {
    /// Ascending; the first key is zero, and neighbours have different values.
    entries: Vec<(u128, V)>,
}

impl<V: Copy + PartialEq> RangeMap<V> {
    /// Each address has the value of the longest block that it is in, or `outside` where it is in none. Of two values for
    /// one block the later one holds. The blocks are of one family.
    pub(crate) fn nested(blocks: impl IntoIterator<Item = (Cidr, V)>, outside: V) -> Self {
        Self::nested_by(blocks, outside, |_, inner| inner)
    }

    /// As [`Self::nested`], where each block has what `inherit` makes of the value around it and its own.
    pub(crate) fn nested_by(
        blocks: impl IntoIterator<Item = (Cidr, V)>,
        outside: V,
        inherit: impl Fn(V, V) -> V,
    ) -> Self {
        let mut blocks: Vec<(Cidr, V)> = blocks.into_iter().collect();
        // An outer block comes before those inside of it, so that at any time the open ones are nested.
        blocks.sort_by_key(|(block, _)| (block.address(), block.prefix()));

        let mut map = Self {
            entries: vec![(0, outside)],
        };
        let mut open: Vec<(u128, V)> = Vec::new();
        for (block, value) in blocks {
            let first = key(block.address());
            map.close(&mut open, outside, |last| last < first);
            let around = open.last().map_or(outside, |&(_, value)| value);
            let value = inherit(around, value);
            map.push(first, value);
            open.push((last_key(block), value));
        }
        map.close(&mut open, outside, |_| true);
        map
    }

    /// What both maps say, made into one value by `merge`.
    pub(crate) fn combine<W: Copy + PartialEq, R: Copy + PartialEq>(
        &self,
        other: &RangeMap<W>,
        merge: impl Fn(V, W) -> R,
    ) -> RangeMap<R> {
        let mine = self.entries.iter().map(|&(first, _)| first);
        let theirs = other.entries.iter().map(|&(first, _)| first);
        let mut borders: Vec<u128> = mine.chain(theirs).collect();
        borders.sort_unstable();

        let mut merged = RangeMap {
            entries: Vec::new(),
        };
        for border in borders {
            merged.push(border, merge(self.at(border), other.at(border)));
        }
        merged
    }

    /// The value at `key`.
    pub(crate) fn at(&self, key: u128) -> V {
        let after = self.entries.partition_point(|&(first, _)| first <= key);
        self.entries[after - 1].1
    }

    /// The ranges of one value, ascending: the first key, the last one, and the value. The last of all ends at `end`.
    pub(crate) fn ranges(&self, end: u128) -> impl Iterator<Item = (u128, u128, V)> + '_ {
        let after = self.entries.iter().skip(1).map(|&(next, _)| next - 1);
        let lasts = after.chain(std::iter::once(end));
        self.entries
            .iter()
            .zip(lasts)
            .map(|(&(first, value), last)| (first, last, value))
    }

    /// Ends the innermost open blocks as long as `is_over` says so of their last key.
    fn close(&mut self, open: &mut Vec<(u128, V)>, outside: V, is_over: impl Fn(u128) -> bool) {
        while let Some(&(last, _)) = open.last()
            && is_over(last)
        {
            open.pop();
            let around = open.last().map_or(outside, |&(_, value)| value);
            if let Some(next) = last.checked_add(1) {
                self.push(next, around);
            }
        }
    }

    /// Gives all keys from `first` on a value; `first` is not below the last border.
    fn push(&mut self, first: u128, value: V) {
        if self
            .entries
            .last()
            .is_some_and(|&(border, _)| border == first)
        {
            self.entries.pop();
        }
        if self
            .entries
            .last()
            .is_none_or(|&(_, before)| before != value)
        {
            self.entries.push((first, value));
        }
    }
}

fn last_key(block: Cidr) -> u128 {
    let bits = match block.address() {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let host_bits = bits - u32::from(block.prefix());
    let hosts = u128::MAX
        .checked_shl(host_bits)
        .map_or(u128::MAX, |mask| !mask);
    key(block.address()) | hosts
}
