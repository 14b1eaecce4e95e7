//! The panic rule: where much of a region falls silent at once, it is the observer that is suspect.
//!
//! It holds for regions of five relays and more, and for timeouts only: a relay that refuses, resets or says goodbye is
//! believed. When half of a region or more would leave the lists within 30 s, those that fell silent stay in them, behind all
//! proven relays. That ends for each of them when a second place sees it failing or it answers, and for the region when nobody
//! is under suspicion any more, or after 60 s.

use std::collections::BTreeMap;
use std::time::Duration;

use turnfleet_turn::Instant;

/// A smaller region has no panic.
const LEAST_RELAYS: usize = 5;
/// Faults that lie no further apart are one event.
const TOGETHER: Duration = Duration::from_secs(30);
/// How long suspects are held.
const LONGEST: Duration = Duration::from_secs(60);

/// How one node of a region stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// It serves.
    Serves,
    /// It failed then, by timeouts, and this controller alone says so.
    Suspected(Instant),
}

/// The nodes of one region.
#[derive(Default)]
struct Counts {
    serving: usize,
    /// Suspects of the panic that is on.
    held: usize,
    /// Those that fell silent a moment ago.
    recent: usize,
}

/// The regions in panic, each with its beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Panics(BTreeMap<String, Instant>);

impl Panics {
    /// Takes over how the nodes of every region stand.
    pub(super) fn look<'n>(
        &mut self,
        now: Instant,
        nodes: impl Iterator<Item = (&'n str, Footing)>,
    ) {
        let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
        for (region, footing) in nodes {
            let count = counts.entry(region).or_default();
            match footing {
                Footing::Serves => count.serving += 1,
                Footing::Suspected(since) => {
                    count.held += usize::from(self.is_suspect(region, since));
                    count.recent += usize::from(now.since(since) < TOGETHER);
                }
            }
        }
        self.0.retain(|region, begun| {
            let held = counts.get(region.as_str()).map_or(0, |count| count.held);
            held > 0 && now.since(*begun) < LONGEST
        });
        for (
            region,
            Counts {
                serving, recent, ..
            },
        ) in counts
        {
            let relays = serving + recent;
            if relays >= LEAST_RELAYS && recent * 2 >= relays && !self.holds(region) {
                self.0.insert(region.to_owned(), now);
            }
        }
    }

    /// Whether the region is in panic.
    pub(super) fn holds(&self, region: &str) -> bool {
        self.0.contains_key(region)
    }

    /// Whether a node of `region` that failed at `since` by timeouts is kept behind the proven ones.
    pub(super) fn is_suspect(&self, region: &str, since: Instant) -> bool {
        let begun = self.0.get(region);
        begun.is_some_and(|begun| begun.since(since) < TOGETHER)
    }

    /// The regions in panic, in the order of names.
    pub(super) fn regions(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Instant {
        Instant(number * 1_000_000_000)
    }

    /// A region of which so many serve, and the others failed then.
    fn look(panics: &mut Panics, now: u64, serving: usize, failed: &[u64]) -> bool {
        let serving = std::iter::repeat_n(("north", Footing::Serves), serving);
        let failed = failed
            .iter()
            .map(|at| ("north", Footing::Suspected(second(*at))));
        panics.look(second(now), serving.chain(failed));
        panics.holds("north")
    }

    #[test]
    fn half_of_five_relays_and_more_is_a_panic() {
        for (serving, failed, expected) in [
            (2, 2, false),
            (3, 2, false),
            (2, 3, true),
            (4, 4, true),
            (0, 5, true),
        ] {
            let failed = vec![100; failed];
            let held = look(&mut Panics::default(), 100, serving, &failed);
            assert_eq!(held, expected, "{serving} serve, {} failed", failed.len());
        }
    }

    #[test]
    fn what_fails_within_thirty_seconds_is_one_event() {
        assert!(look(&mut Panics::default(), 129, 2, &[100, 110, 129]));
        assert!(!look(&mut Panics::default(), 130, 2, &[100, 110, 130]));
    }

    #[test]
    fn a_panic_ends_after_a_minute_and_does_not_begin_again_by_itself() {
        let mut panics = Panics::default();
        assert!(look(&mut panics, 100, 2, &[100, 100, 100]));
        assert!(look(&mut panics, 159, 2, &[100, 100, 100]));
        assert!(!look(&mut panics, 160, 2, &[100, 100, 100]));
        assert!(!look(&mut panics, 161, 2, &[100, 100, 100]));
    }

    #[test]
    fn a_panic_ends_when_nobody_is_under_suspicion() {
        let mut panics = Panics::default();
        assert!(look(&mut panics, 100, 2, &[100, 100, 100]));
        assert!(look(&mut panics, 110, 4, &[100]));
        assert!(!look(&mut panics, 111, 5, &[]));
    }

    #[test]
    fn who_failed_long_before_is_no_suspect() {
        let mut panics = Panics::default();
        assert!(look(&mut panics, 100, 2, &[10, 90, 95, 100]));
        assert!(panics.is_suspect("north", second(90)));
        assert!(!panics.is_suspect("north", second(10)));
        assert!(!panics.is_suspect("south", second(90)));
    }
}
