//! The relay node: sockets and threads around the TURN core, and the session with the controller.
//!
//! [`Node`] is the whole of it. It is given a checked [`config::Config`], opens the listeners, starts one thread for each
//! shard and one task for the control session, and serves from the last policy snapshot that it has, whether the
//! controller can be reached or not.

pub mod config;
mod node;

pub use node::{BoundListener, GrantedRange, Node, NodeError, NodeStatus};
