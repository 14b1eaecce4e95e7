//! The fleet as a value, in virtual time: who is listed, and which relays a user is given.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod capacity;
mod dns;
mod families;
mod health;
mod hot_spot;
mod lists;
mod load;
mod names;
mod panic;
mod restart;
mod rollout;
mod secrets;
mod sightings;
mod simulation;
mod snapshots;
mod spares;
mod stage;
mod tenants;
mod trust;
