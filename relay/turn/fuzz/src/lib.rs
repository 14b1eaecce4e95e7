//! The fuzz targets of the TURN core. `cargo xtask fuzz` runs them with libFuzzer, `tests/fuzz_replay.rs` runs the same
//! functions on a stable toolchain.
//!
//! `seeds/` holds small inputs for each target, named for what they tell. For `client` and `server` an input is a list of
//! choices, read by [`targets`] one after the other.

pub mod targets;
