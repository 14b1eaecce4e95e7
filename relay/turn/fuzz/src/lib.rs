//! The fuzz targets of the TURN core. `tests/fuzz_replay.rs` runs the same functions on a stable toolchain.

pub mod targets;
