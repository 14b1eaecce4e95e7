//! The relay node: the threads and sockets of a TURN server, and its session with the controller.
//!
//! [`shard`] is the data path: one thread, one event loop and one [`turnfleet_turn::Server`] for each shard.

mod driver;
mod listeners;
pub mod shard;
