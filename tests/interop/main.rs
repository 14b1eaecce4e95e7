//! The fleet against software that is not ours: coturn's tools, Chromium, network namespaces with NAT.
//!
//! A test whose tool is missing says so and passes, unless `TURNFLEET_REQUIRE_TOOLS` is set, as `cargo xtask test` does
//! where it has installed them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
mod coturn;
mod fleet;
mod namespaces;
mod netns;
mod tools;
mod webdriver;
