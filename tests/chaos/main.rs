//! A whole fleet in real processes, and what befalls it: three etcd members, three controllers and eight relays in a network
//! namespace of their own, calls that relay numbered words all the while, and one experiment of `docs/reliability.md` after
//! the other.
//!
//! `cargo test -p turnfleet --test chaos r04` runs one. Each prints what it measured as one line of JSON.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod api;
mod calls;
#[path = "../client/mod.rs"]
#[expect(dead_code, reason = "other test programs share it, and use more of it")]
mod client;
mod clocks;
#[path = "../../controller/tests/controller/cluster/mod.rs"]
#[expect(dead_code, reason = "other test programs share it, and use more of it")]
mod cluster;
mod controllers_die;
mod cuts;
mod figures;
mod fleet;
mod frozen;
mod herd;
mod impairer;
#[path = "../interop/netns.rs"]
#[expect(dead_code, reason = "other test programs share it, and use more of it")]
mod netns;
mod newcomers;
mod nonces;
mod onlookers;
mod packets;
mod partitions;
mod process;
mod quotas;
mod relays_die;
mod stores_die;
#[path = "../interop/tools.rs"]
mod tools;
mod upgrades;
mod usage;
