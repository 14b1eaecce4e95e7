//! The control plane in virtual time: real reconcilers on a modelled store, and relays that decide with the relay's own
//! code, under crashes, partitions, stops, slow and lost answers. Every run follows from its seed; one that breaks an
//! invariant prints how it is run again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chance;
mod clients;
mod faults;
mod invariants;
mod peers;
mod process;
mod relay;
mod secrets;
mod session;
mod site;
mod storage;
mod trace;
mod wire;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::{Plan, Report, run};

/// The runs of the small fleet and of the large one, each from seed 1 on: a few while somebody works on the code, and with
/// `TURNFLEET_SIM=full`, as CI has it, all of them. `TURNFLEET_SIM_SEEDS` asks for another number, and `TURNFLEET_SIM_SEED` for
/// one seed.
const SMALL: Seeds = Seeds { few: 20, all: 200 };
const LARGE: Seeds = Seeds { few: 1, all: 3 };

struct Seeds {
    few: u64,
    all: u64,
}

impl Seeds {
    fn range(&self) -> std::ops::Range<u64> {
        let number = |name| {
            std::env::var(name)
                .ok()
                .map(|text| text.parse::<u64>().unwrap())
        };
        if let Some(seed) = number("TURNFLEET_SIM_SEED") {
            return seed..seed + 1;
        }
        let own = if is_full() { self.all } else { self.few };
        1..1 + number("TURNFLEET_SIM_SEEDS").unwrap_or(own)
    }
}

fn is_full() -> bool {
    std::env::var("TURNFLEET_SIM").is_ok_and(|text| text == "full")
}

fn small(seed: u64) -> Plan {
    Plan {
        seed,
        relays: 12,
        controllers: 3,
        sharing: 3,
        warm: seed.is_multiple_of(2),
        stormy: Duration::from_secs(45),
        calm: Duration::from_secs(30),
        fault_gap: 2_000,
        client_gap: 200,
    }
}

fn large(seed: u64) -> Plan {
    Plan {
        relays: if is_full() { 1_000 } else { 300 },
        sharing: 4,
        warm: true,
        stormy: Duration::from_secs(15),
        fault_gap: 200,
        client_gap: 100,
        ..small(seed)
    }
}

/// Runs the plans of `seeds` on every core, and fails with the first that breaks.
#[expect(
    clippy::print_stdout,
    reason = "how many runs a machine manages is a figure"
)]
fn all(name: &str, seeds: &Seeds, plan: fn(u64) -> Plan) {
    let seeds = seeds.range();
    let next = AtomicU64::new(seeds.start);
    let broken = Mutex::new(None);
    let begun = Instant::now();
    let allocations = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || broken.lock().unwrap().is_some() {
                        return;
                    }
                    match run(plan(seed)) {
                        Ok(report) => {
                            allocations.fetch_add(report.allocations, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            broken.lock().unwrap().get_or_insert((seed, failure));
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, failure)) = broken.into_inner().unwrap() {
        let full = if is_full() { "TURNFLEET_SIM=full " } else { "" };
        panic!(
            "{failure}\nseed {seed} broke; again: {full}TURNFLEET_SIM_SEED={seed} cargo test -p turnfleet-controller --test \
             simulation {name}"
        );
    }
    let allocations = allocations.into_inner();
    assert!(allocations > 0, "no client got an allocation");
    let (count, took) = (seeds.end - seeds.start, begun.elapsed());
    println!("{name}: {count} seeds, {allocations} allocations, {took:?}");
}

#[test]
fn a_small_fleet_keeps_its_invariants() {
    all("a_small_fleet_keeps_its_invariants", &SMALL, small);
}

#[test]
fn a_large_fleet_keeps_its_invariants() {
    all("a_large_fleet_keeps_its_invariants", &LARGE, large);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let runs: Vec<Report> = (0..2).map(|_| run(small(7)).unwrap()).collect();
    assert_eq!(runs[0], runs[1]);
}
