//! The fleet in the world: coturn's tools, Chromium, networks with NAT, and those who mean harm.
//!
//! A test whose tool is missing says so and passes, unless `TURNFLEET_REQUIRE_TOOLS` is set, as `cargo xtask test` does
//! where it has installed them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
#[path = "../client/mod.rs"]
#[expect(dead_code, reason = "other test programs share it, and use more of it")]
mod client;
mod conformance;
mod coturn;
mod dashboard;
mod dns;
mod doctor;
mod embedding;
mod fleet;
mod guide;
mod guides;
mod haproxy;
mod import;
mod independent;
mod matrix;
mod names;
mod namespaces;
mod nat;
mod netns;
mod nginx;
mod outpost;
mod path_mtu;
mod peers;
mod prosody;
mod reflection;
mod schemas;
mod shells;
mod strangers;
mod synapse;
mod tools;
mod webdriver;
