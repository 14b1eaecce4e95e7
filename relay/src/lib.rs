//! The relay node: the threads and sockets of a TURN server, and its session with the controller.
//!
//! [`Node`] is the whole of it. It is given a checked [`config::Config`], opens the listeners, starts one thread for each
//! shard and one task for the control session, and serves by the last policy snapshot that it has, whether the controller
//! can be reached or not. [`shard`] is the data path: one thread, one event loop and one [`turnfleet_turn::Server`] for
//! each shard.

mod addressing;
pub mod agreement;
mod budget;
mod challenges;
pub mod config;
mod control;
mod controllers;
mod driver;
mod grants;
mod journal;
mod listeners;
mod machine;
pub mod metrics;
mod node;
mod policy;
mod process;
mod quota;
mod serving;
pub mod shard;
mod usage;

/// Datagrams in batches, as the data path reads and writes them, and what the network says of them: for programs beside the
/// relay that measure and examine it.
pub mod datagram {
    pub use crate::driver::batch::{Flushed, ReceiveBatch, SendBatch};
    pub use crate::driver::error_queue::{PeerError, take as take_error};
    pub use crate::driver::ip_options::{Standing, keep_errors, prepare, set_dont_fragment};
}

pub use machine::Machine;
pub use node::{BoundListener, Node, NodeError, NodeStatus};
pub use policy::RelayPolicy;
pub use turnfleet_proto::GrantedRange;
