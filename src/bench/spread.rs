//! How long the same thing took, many times.

use std::time::Duration;

use serde::Serialize;

/// How long things took, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) all: f64,
}

impl Spread {
    /// Of `times`; `None` without any.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        let at = |percent: usize| times[last * percent / 100].as_secs_f64();
        Some(Self {
            p50: at(50),
            p99: at(99),
            all: at(100),
        })
    }

    /// A line of a table for each figure.
    pub(super) fn lines(&self, name: &str) -> impl Iterator<Item = String> {
        let figures = [("p50", self.p50), ("p99", self.p99), ("all", self.all)];
        figures.into_iter().map(move |(which, seconds)| {
            let title = format!("{name} {which}, s");
            format!("{title:<26}{seconds:>10.3}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_all_times() {
        let times = (1..=100).map(Duration::from_secs).collect();
        let spread = Spread::of(times).unwrap();
        assert_eq!((spread.p50, spread.p99, spread.all), (50.0, 99.0, 100.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
