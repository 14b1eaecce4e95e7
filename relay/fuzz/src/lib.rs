//! The fuzz targets of the relay. `cargo xtask fuzz` runs them with libFuzzer.
//!
//! [`targets`] are those of the TURN core; `turn/tests/fuzz_replay.rs` runs the same functions on a stable toolchain.
//! [`parsers`] are what else reads bytes of strangers. `seeds/` holds small inputs for each target, named for what they
//! tell. For `client` and `server` an input is a list of choices, read by [`targets`] one after the other.

pub mod parsers;
pub mod targets;
