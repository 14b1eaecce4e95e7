//! What each relay is to have of one limit next, so that the sum stays within it whatever is under way.

use super::targets::{Kind, Taken, targets};

/// Whether a relay can be told anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Yes.
    Open,
    /// It has yet to confirm what it was told.
    Waiting,
    /// No controller hears it; it keeps what it has.
    Away,
}

/// What may be changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct May {
    pub(super) grow: bool,
    pub(super) shrink: bool,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// What each relay is to have, in their order.
    pub(super) amounts: Vec<u64>,
    /// Whether somebody has to give something up for others.
    pub(super) shrinks: bool,
}

/// Computes the next amounts of `limit`. Those of relays that cannot be told anything are what they were.
pub(super) fn next(kind: Kind, limit: u64, relays: &[(Taken, Reach)], may: May) -> Next {
    let counted: u64 = relays.iter().map(|(taken, _)| taken.counted).sum();
    let away = |reach: Reach| reach == Reach::Away;
    let kept: u64 = relays
        .iter()
        .filter(|(_, reach)| away(*reach))
        .map(|(taken, _)| taken.counted)
        .sum();
    let here: Vec<usize> = (0..relays.len())
        .filter(|&at| !away(relays[at].1))
        .collect();
    let mut amounts: Vec<u64> = relays.iter().map(|(taken, _)| taken.counted).collect();
    let taken: Vec<Taken> = here.iter().map(|&at| relays[at].0).collect();
    let targets = targets(kind, limit.saturating_sub(kept), &taken);
    let wants = |place: usize| targets[place] > taken[place].counted && taken[place].is_needy();
    let mut available = limit.saturating_sub(counted);
    let is_asked = (0..here.len()).any(wants);
    // What nobody has is given out when it is worth a word.
    let is_idle = available >= (limit / 16).max(1);
    let excess = counted > limit;
    if !is_asked && !is_idle && !excess {
        return Next {
            amounts,
            shrinks: false,
        };
    }
    let mut unmet = 0;
    let mut order: Vec<usize> = (0..here.len()).collect();
    order.sort_by_key(|&place| !taken[place].is_needy());
    for place in order {
        let (at, gap) = (
            here[place],
            targets[place].saturating_sub(taken[place].counted),
        );
        let is_open = relays[at].1 == Reach::Open;
        let given = if may.grow && is_open {
            gap.min(available)
        } else {
            0
        };
        available -= given;
        amounts[at] += given;
        if wants(place) {
            unmet += gap - given;
        }
    }
    let mut shrinks = false;
    if may.shrink && (excess || unmet > 0) {
        for (place, &at) in here.iter().enumerate() {
            let less = taken[place].counted.saturating_sub(targets[place]);
            // Shares do not flutter for a few.
            let is_worth_it = less * 8 > taken[place].counted || (excess && less > 0);
            if relays[at].1 == Reach::Open && is_worth_it {
                amounts[at] = targets[place];
                shrinks = true;
            }
        }
    }
    Next { amounts, shrinks }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: May = May {
        grow: true,
        shrink: true,
    };

    fn open(counted: u64, used: u64) -> (Taken, Reach) {
        let taken = Taken {
            counted,
            used,
            refused: false,
        };
        (taken, Reach::Open)
    }

    #[test]
    fn nothing_changes_while_everybody_has_enough() {
        let relays = [open(50, 10), open(48, 30)];
        let next = next(Kind::Allocations, 100, &relays, FREE);
        assert_eq!(next.amounts, [50, 48]);
    }

    #[test]
    fn others_shrink_first_and_nobody_grows_into_what_they_have() {
        let relays = [open(25, 25), open(25, 0), open(25, 0), open(25, 0)];
        let after = next(Kind::Allocations, 100, &relays, FREE);
        assert!(after.shrinks);
        assert_eq!(after.amounts[0], 25);
        assert!(after.amounts[1] < 10);
        let shrunk = after.amounts[1..].iter().map(|&has| open(has, 0));
        let relays: Vec<_> = [open(25, 25)].into_iter().chain(shrunk).collect();
        let after = next(Kind::Allocations, 100, &relays, FREE);
        assert!(after.amounts[0] > 75, "{after:?}");
        assert!(after.amounts.iter().sum::<u64>() <= 100);
    }

    #[test]
    fn a_relay_that_nobody_hears_keeps_what_it_has() {
        let mut relays = [open(50, 50), open(50, 0)];
        relays[1].1 = Reach::Away;
        let next = next(Kind::Allocations, 100, &relays, FREE);
        assert_eq!(next.amounts, [50, 50]);
    }

    #[test]
    fn a_lowered_limit_shrinks_without_anybody_asking() {
        let relays = [open(50, 5), open(50, 5)];
        let next = next(Kind::Bandwidth, 40, &relays, FREE);
        assert_eq!(next.amounts.iter().sum::<u64>(), 40);
    }
}
