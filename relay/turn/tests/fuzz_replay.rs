//! The fuzz targets on a stable toolchain: the committed seeds, and mutations of them.
//!
//! `FUZZ_REPLAY_RUNS` sets the number of mutations for each target.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

#[path = "../../fuzz/src/targets/mod.rs"]
#[expect(unreachable_pub, reason = "the binaries of the fuzz crate reach it")]
mod targets;

/// As many as take a second or two without optimization.
const DEFAULT_RUNS: u64 = 2_000;

/// Mutations do not grow beyond it.
const MAX_LEN: usize = 1024;

#[test]
fn wire_message_holds() {
    replay("wire_message", targets::wire_message::run);
}

#[test]
fn channel_data_holds() {
    replay("channel_data", targets::channel_data::run);
}

#[test]
fn deframer_holds() {
    replay("deframer", targets::deframer::run);
}

#[test]
fn client_holds() {
    replay("client", targets::client::run);
}

#[test]
fn server_holds() {
    replay("server", targets::server::run);
}

#[track_caller]
fn replay(name: &str, target: fn(&[u8])) {
    let seeds = seeds(name);
    for input in &seeds {
        try_input(target, input);
    }
    let runs = std::env::var("FUZZ_REPLAY_RUNS").map_or(DEFAULT_RUNS, |runs| {
        runs.parse().expect("FUZZ_REPLAY_RUNS is a number")
    });
    for run in 0..runs {
        try_input(target, &mutated(&seeds, &mut Random(run)));
    }
}

#[track_caller]
fn try_input(target: fn(&[u8]), input: &[u8]) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "fails with the input {input:02x?}");
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(name);
    let entries = fs::read_dir(&folder).expect("each target has seeds");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("the seeds can be listed").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds for {name}");
    paths
        .iter()
        .map(|path| fs::read(path).expect("the seeds can be read"))
        .collect()
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        match random.below(5) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = other.len().min(from + random.below(64));
                input.splice(at..at, other[from..to].iter().copied());
            }
            3 => input.insert(at, random.byte()),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.byte();
                }
            }
        }
    }
    input.truncate(MAX_LEN);
    input
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a length fits");
        usize::try_from(self.next() % bound).expect("below a length")
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.next().to_le_bytes();
        byte
    }
}
