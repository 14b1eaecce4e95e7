//! How much of one limit each relay should have: what is used stays, and what is free goes where more is wanted.
//!
//! Amounts are allocations or bits a second. Nothing here remembers anything.

/// What one relay does with its share of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// What it may have at this moment, by its own word or by what it was told.
    pub(super) counted: u64,
    /// Allocations that live, or bits a second that somebody wants to send.
    pub(super) used: u64,
    /// An allocation was refused.
    pub(super) refused: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Allocations,
    Bandwidth,
}

/// Parts of a limit that idle relays keep, so that whoever comes to one does not find nothing at all: one in so many, of all
/// of them together.
const IDLE_PART: u64 = 32;

impl Taken {
    /// Whether less than a quarter of its share is left, or nothing was to be had.
    pub(super) fn is_needy(&self) -> bool {
        self.refused
            || self.counted.saturating_sub(self.used) * 4 < self.counted
            || self.counted == 0
    }
}

/// What each relay should have of `limit`; never more than that together.
pub(super) fn targets(kind: Kind, limit: u64, relays: &[Taken]) -> Vec<u64> {
    match kind {
        Kind::Allocations => allocations(limit, relays),
        Kind::Bandwidth => bandwidth(limit, relays),
    }
}

fn allocations(limit: u64, relays: &[Taken]) -> Vec<u64> {
    let used: u64 = relays.iter().map(|relay| relay.used).sum();
    let Some(free) = limit.checked_sub(used) else {
        // A lowered limit: nobody gets another one, and nothing that lives is ended.
        let weights: Vec<_> = relays.iter().map(|relay| relay.used).collect();
        return spread(limit, &weights);
    };
    let count = relays.len() as u64;
    let mut targets: Vec<u64> = relays.iter().map(|relay| relay.used).collect();
    if free < 2 * count {
        // Too little for everybody: whoever was refused one comes first, and then whoever has most.
        let mut order: Vec<usize> = (0..relays.len()).collect();
        order.sort_by_key(|&at| (!relays[at].refused, std::cmp::Reverse(relays[at].used)));
        for place in 0..usize::try_from(free).unwrap_or(usize::MAX) {
            let refused = order.iter().filter(|&&at| relays[at].refused).count();
            let among = if refused > 0 { refused } else { order.len() };
            targets[order[place % among]] += 1;
        }
        return targets;
    }
    let weight = |relay: &Taken| {
        let asked = if relay.refused { limit / 8 } else { 0 };
        1 + relay.used + asked
    };
    let weights: Vec<_> = relays.iter().map(weight).collect();
    for (target, part) in targets.iter_mut().zip(spread(free - count, &weights)) {
        *target += 1 + part;
    }
    targets
}

fn bandwidth(limit: u64, relays: &[Taken]) -> Vec<u64> {
    let count = relays.len() as u64;
    if count == 0 {
        return Vec::new();
    }
    let floor = limit / IDLE_PART / count;
    let want = |relay: &Taken| {
        let margin = relay.used.saturating_add(relay.used / 4);
        // Whoever sends as much as it may would perhaps send more.
        let more = if relay.is_needy() {
            relay.counted.saturating_mul(2)
        } else {
            0
        };
        margin.max(more).max(floor)
    };
    let wants: Vec<_> = relays.iter().map(want).collect();
    let mut targets = fair(limit, &wants);
    let rest = limit - targets.iter().sum::<u64>();
    for (target, part) in targets.iter_mut().zip(spread(rest, &vec![1; relays.len()])) {
        *target += part;
    }
    targets
}

/// Max-min fairness: nobody gets more than it wants, and what one does not want is the others'.
fn fair(limit: u64, wants: &[u64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|&at| wants[at]);
    let mut given = vec![0; wants.len()];
    let mut left = limit;
    for (place, &at) in order.iter().enumerate() {
        let waiting = (order.len() - place) as u64;
        given[at] = wants[at].min(left / waiting);
        left -= given[at];
    }
    given
}

/// Shares out all of `amount` by weight; equally where nobody has any.
fn spread(amount: u64, weights: &[u64]) -> Vec<u64> {
    if weights.is_empty() {
        return Vec::new();
    }
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let count = weights.len() as u64;
    let part = |weight: &u64| match sum {
        0 => amount / count,
        sum => u64::try_from(u128::from(amount) * u128::from(*weight) / sum).unwrap_or(amount),
    };
    let mut parts: Vec<u64> = weights.iter().map(part).collect();
    let mut rest = amount - parts.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(weights[at]));
    for at in order {
        if rest == 0 {
            break;
        }
        parts[at] += 1;
        rest -= 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(counted: u64, used: u64) -> Taken {
        Taken {
            counted,
            used,
            refused: false,
        }
    }

    #[test]
    fn free_allocations_go_where_allocations_are_and_everybody_has_one() {
        let relays = [taken(25, 20), taken(25, 0), taken(25, 0), taken(25, 0)];
        let targets = allocations(100, &relays);
        assert_eq!(targets.iter().sum::<u64>(), 100);
        assert!(targets[0] > 80, "{targets:?}");
        assert!(targets[1..].iter().all(|target| *target >= 1));
    }

    #[test]
    fn the_last_allocations_go_to_whoever_was_refused_one() {
        let mut relays = [taken(25, 25), taken(25, 24), taken(25, 24), taken(25, 24)];
        relays[0].refused = true;
        assert_eq!(allocations(100, &relays), [28, 24, 24, 24]);
    }

    #[test]
    fn a_lowered_limit_gives_nobody_another_one() {
        let targets = allocations(10, &[taken(20, 15), taken(5, 5)]);
        assert_eq!(targets.iter().sum::<u64>(), 10);
        assert!(targets[0] <= 15 && targets[1] <= 5);
    }

    #[test]
    fn one_busy_relay_has_nearly_all_of_the_bandwidth() {
        let relays = [
            taken(2_500, 9_000),
            taken(2_500, 0),
            taken(2_500, 0),
            taken(2_500, 0),
        ];
        let targets = bandwidth(10_000, &relays);
        assert_eq!(targets.iter().sum::<u64>(), 10_000);
        assert!(targets[0] >= 9_600, "{targets:?}");
    }

    #[test]
    fn whoever_wants_little_has_it_and_the_others_share_the_rest() {
        let relays = [
            taken(2_500, 800),
            taken(2_500, 20_000),
            taken(2_500, 20_000),
        ];
        let targets = bandwidth(9_000, &relays);
        assert_eq!(targets, [1_000, 4_000, 4_000]);
    }

    #[test]
    fn an_elastic_sender_is_given_more_until_there_is_no_more() {
        let mut relays = [taken(100, 99), taken(9_900, 0)];
        for _ in 0..12 {
            let targets = bandwidth(10_000, &relays);
            relays[0] = taken(targets[0], targets[0]);
            relays[1].counted = targets[1];
        }
        assert!(relays[0].counted > 9_500, "{relays:?}");
    }

    proptest! {
        #[test]
        fn targets_are_never_more_than_the_limit_together(
            limit in 1u64..1_000_000,
            relays in proptest::collection::vec((0u64..200_000, 0u64..200_000, any::<bool>()), 1..20),
        ) {
            let relays: Vec<_> = relays.into_iter().map(|(counted, used, refused)| Taken { counted, used, refused }).collect();
            for kind in [Kind::Allocations, Kind::Bandwidth] {
                let targets = targets(kind, limit, &relays);
                prop_assert_eq!(targets.iter().sum::<u64>(), limit);
            }
        }
    }
}
