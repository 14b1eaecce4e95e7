//! The fleet as a value, in virtual time: who is listed, and which relays a user is given.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod families;
mod health;
mod lists;
mod load;
mod restart;
mod sightings;
mod simulation;
mod snapshots;
mod stage;
