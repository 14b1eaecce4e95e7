//! What happened lately: sums over a time that ends now.

use turnfleet_turn::usage::Bytes;

/// The sums of the last `N` spans of time, each of `SPAN` milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Window<V, const N: usize, const SPAN: u64> {
    spans: [V; N],
    /// The number of the latest span, counted from the Unix epoch.
    latest: u64,
}

/// What windows sum.
pub(super) trait Sum: Copy + Default {
    fn plus(self, other: Self) -> Self;
}

impl Sum for u64 {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl Sum for Bytes {
    fn plus(mut self, other: Self) -> Self {
        self.add(other);
        self
    }
}

impl<V: Sum, const N: usize, const SPAN: u64> Default for Window<V, N, SPAN> {
    fn default() -> Self {
        Self {
            spans: [V::default(); N],
            latest: 0,
        }
    }
}

impl<V: Sum, const N: usize, const SPAN: u64> Window<V, N, SPAN> {
    /// Adds what happened at `millis`. A clock that was set back counts as standing still.
    pub(super) fn add(&mut self, millis: u64, value: V) {
        self.advance(millis);
        let span = &mut self.spans[place::<N>(self.latest)];
        *span = span.plus(value);
    }

    /// What happened within the window that ends at `millis`.
    pub(super) fn sum(&mut self, millis: u64) -> V {
        self.advance(millis);
        self.spans.iter().copied().fold(V::default(), V::plus)
    }

    fn advance(&mut self, millis: u64) {
        let now = millis / SPAN;
        if now <= self.latest {
            return;
        }
        let passed = (now - self.latest).min(N as u64);
        for back in 0..passed {
            self.spans[place::<N>(now - back)] = V::default();
        }
        self.latest = now;
    }
}

fn place<const N: usize>(span: u64) -> usize {
    usize::try_from(span % N as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_older_than_it_is_long() {
        let mut window = Window::<u64, 3, 1000>::default();
        window.add(10_500, 1);
        window.add(11_500, 2);
        window.add(12_999, 4);
        assert_eq!(window.sum(12_999), 7);
        assert_eq!(window.sum(13_000), 6);
        assert_eq!(window.sum(14_000), 4);
        window.add(9_000, 8);
        assert_eq!(window.sum(14_000), 12);
        assert_eq!(window.sum(900_000), 0);
    }
}
