//! Properties of the port pool: what it may never do, and how unpredictable it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use turnfleet_turn::Instant;
use turnfleet_turn::ports::{PortPool, PortRequest};
use turnfleet_turn::random::Random;

const SECOND: u64 = 1_000_000_000;
const FIRST: u16 = 49152;

fn pool(range: std::ops::RangeInclusive<u16>) -> (PortPool, Random) {
    let mut pool = PortPool::new();
    pool.set_granted([range]);
    (pool, Random::new([42; 32]))
}

#[derive(Clone, Debug)]
enum Step {
    Draw(PortRequest),
    Release(usize),
    MarkUnavailable(usize),
    Grant(Vec<(u16, u16)>),
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![
        Just(PortRequest::Any),
        Just(PortRequest::Even),
        Just(PortRequest::EvenWithNext),
    ];
    let range = (0..200u16, 0..40u16).prop_map(|(first, len)| (first, first + len));
    prop_oneof![
        8 => request.prop_map(Step::Draw),
        5 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::MarkUnavailable),
        1 => prop::collection::vec(range, 0..4).prop_map(Step::Grant),
    ]
}

proptest! {
    #[test]
    fn a_port_is_drawn_from_the_grants_once_and_whenever_one_fits(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let (mut pool, mut random) = pool(2..=41);
        let mut granted: BTreeSet<u16> = (2..=41).collect();
        let mut used = Vec::new();
        for (now, step) in (0..).map(|second| Instant(second * SECOND)).zip(steps) {
            match step {
                Step::Draw(request) => {
                    let free: BTreeSet<u16> =
                        granted.iter().filter(|port| !used.contains(*port)).copied().collect();
                    let fits = |port: u16| match request {
                        PortRequest::Any => free.contains(&port),
                        PortRequest::Even => port.is_multiple_of(2) && free.contains(&port),
                        PortRequest::EvenWithNext => {
                            port.is_multiple_of(2) && free.contains(&port) && free.contains(&(port + 1))
                        }
                    };
                    match pool.draw(request, &mut random, now) {
                        Some(port) => {
                            prop_assert!(fits(port), "{port} for {request:?} of {free:?}");
                            used.push(port);
                            if request == PortRequest::EvenWithNext {
                                used.push(port + 1);
                            }
                        }
                        None => prop_assert!(!free.iter().any(|&port| fits(port))),
                    }
                }
                Step::Release(pick) if !used.is_empty() => {
                    pool.release(used.swap_remove(pick % used.len()), now);
                }
                Step::MarkUnavailable(pick) if !used.is_empty() => {
                    pool.mark_unavailable(used.swap_remove(pick % used.len()), now);
                }
                Step::Release(_) | Step::MarkUnavailable(_) => {}
                Step::Grant(ranges) => {
                    granted = ranges.iter().flat_map(|&(first, last)| first..=last).collect();
                    granted.retain(|&port| port > 1);
                    pool.set_granted(ranges.iter().map(|&(first, last)| first..=last));
                }
            }
            prop_assert_eq!(pool.granted() as usize, granted.len());
            prop_assert_eq!(pool.used() as usize, used.len());
            let free = granted.iter().filter(|port| !used.contains(*port)).count();
            prop_assert_eq!(pool.free() as usize, free);
        }
    }
}

#[test]
fn every_granted_port_can_be_drawn_up_to_the_last_one_there_is() {
    let (mut pool, mut random) = pool(0..=u16::MAX);
    let drawn: HashSet<u16> =
        std::iter::from_fn(|| pool.draw(PortRequest::Any, &mut random, Instant(0))).collect();
    assert_eq!(drawn.len(), 65534);
    assert!(!drawn.contains(&0) && !drawn.contains(&1));
    assert_eq!(
        (pool.free(), pool.used(), pool.reused_at_once()),
        (0, 65534, 0)
    );
}

#[test]
fn ten_thousand_even_port_cycles_leave_the_pool_full() {
    let (mut pool, mut random) = pool(FIRST..=FIRST + 511);
    for cycle in 0..10_000 {
        let now = Instant(cycle * SECOND);
        let even = pool.draw(PortRequest::Even, &mut random, now).unwrap();
        assert_eq!((even % 2, pool.used()), (0, 1), "R = 0 takes one port");
        pool.release(even, now);

        let pair = pool
            .draw(PortRequest::EvenWithNext, &mut random, now)
            .unwrap();
        assert_eq!((pair % 2, pool.used()), (0, 2));
        pool.release(pair, now);
        pool.release(pair + 1, now);
    }
    assert_eq!((pool.used(), pool.free(), pool.granted()), (0, 512, 512));
    for left in (0..512).rev() {
        pool.draw(PortRequest::Any, &mut random, Instant(0))
            .unwrap();
        assert_eq!(pool.free(), left);
    }
}

#[test]
fn a_port_rests_while_half_of_the_free_ones_of_its_parity_rested_longer() {
    for request in [PortRequest::Any, PortRequest::Even] {
        let (mut pool, mut random) = pool(FIRST..=FIRST + 99);
        let mut recent = [Vec::new(), Vec::new()];
        for cycle in 0..10_000 {
            let now = Instant(cycle * SECOND);
            let port = pool.draw(request, &mut random, now).unwrap();
            pool.release(port, now);
            let recent = &mut recent[usize::from(port % 2)];
            assert!(!recent.contains(&port), "{port} again at {cycle}");
            recent.push(port);
            if recent.len() == 25 {
                recent.remove(0);
            }
        }
    }
}

/// Pools with one history and different randomness from then on: the history does not give the next port away.
#[test]
fn whatever_was_asked_for_until_then_the_next_port_is_one_of_many() {
    for request in [
        PortRequest::Any,
        PortRequest::Even,
        PortRequest::EvenWithNext,
    ] {
        let mut next = HashSet::new();
        for seed in 0..200 {
            let (mut pool, mut history) = pool(FIRST..=FIRST + 1023);
            let cycle = |pool: &mut PortPool, random: &mut Random| {
                let port = pool.draw(request, random, Instant(0)).unwrap();
                pool.release(port, Instant(0));
                if request == PortRequest::EvenWithNext {
                    pool.release(port + 1, Instant(0));
                }
                port
            };
            for _ in 0..1500 {
                cycle(&mut pool, &mut history);
            }
            next.insert(cycle(&mut pool, &mut Random::new([seed; 32])));
        }
        // 200 draws of 512, 256 and 256 ports or pairs give 165, 139 and 139 different ones on average.
        assert!(next.len() > 120, "{request:?}: {}", next.len());
    }
}

#[test]
fn under_pressure_a_port_is_reused_at_once_and_counted() {
    let (mut pool, mut random) = pool(FIRST..=FIRST);
    let draw = |pool: &mut PortPool, random: &mut Random, second: u64| {
        pool.draw(PortRequest::Any, random, Instant(second * SECOND))
    };
    assert_eq!(draw(&mut pool, &mut random, 0), Some(FIRST));
    assert_eq!(draw(&mut pool, &mut random, 0), None);
    for (released, drawn, reused_at_once) in [(10, 10, 1), (20, 79, 2), (100, 160, 2)] {
        pool.release(FIRST, Instant(released * SECOND));
        assert_eq!(draw(&mut pool, &mut random, drawn), Some(FIRST));
        assert_eq!(pool.reused_at_once(), reused_at_once);
    }
}

#[test]
fn an_unavailable_port_is_the_last_of_its_parity_to_be_tried_again() {
    let (mut pool, mut random) = pool(FIRST..=FIRST + 19);
    let mut draw = |pool: &mut PortPool| {
        pool.draw(PortRequest::Even, &mut random, Instant(0))
            .unwrap()
    };
    let taken = draw(&mut pool);
    pool.mark_unavailable(taken, Instant(0));
    for _ in 0..9 {
        assert_ne!(draw(&mut pool), taken);
    }
    assert_eq!(draw(&mut pool), taken);
    assert_eq!(pool.unavailable(), 1);
}

#[test]
fn a_hundred_thousand_draws_are_spread_evenly_and_do_not_follow_each_other() {
    let (mut pool, mut random) = pool(FIRST..=u16::MAX);
    let mut drawn = Vec::new();
    for cycle in 0..100_000u64 {
        let now = Instant(cycle * SECOND / 1000);
        let port = pool.draw(PortRequest::Any, &mut random, now).unwrap();
        pool.release(port, now);
        drawn.push(port);
    }
    let draws = drawn.len() as f64;
    let mut counts = BTreeMap::new();
    let mut bins = [0u32; 256];
    for port in &drawn {
        *counts.entry(port).or_insert(0.0) += 1.0 / draws;
        bins[usize::from((port - FIRST) / 64)] += 1;
    }
    let bits: f64 = counts
        .values()
        .map(|share: &f64| -share * share.log2())
        .sum();
    assert!(bits >= 13.0, "{bits} bits of 14");

    let expected = draws / 256.0;
    let chi_square: f64 = bins
        .iter()
        .map(|&n| (f64::from(n) - expected).powi(2) / expected)
        .sum();
    // 255 degrees of freedom: exceeded once in a thousand. Resting ports make the spread more even than chance.
    assert!(chi_square < 330.5, "{chi_square}");

    let mean = drawn.iter().map(|&port| f64::from(port)).sum::<f64>() / draws;
    let off: Vec<f64> = drawn.iter().map(|&port| f64::from(port) - mean).collect();
    let variance: f64 = off.iter().map(|off| off * off).sum();
    let covariance: f64 = off.windows(2).map(|pair| pair[0] * pair[1]).sum();
    assert!(
        (covariance / variance).abs() < 0.01,
        "{}",
        covariance / variance
    );
}
