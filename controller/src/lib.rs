//! The controller: the fleet's state, its store, its APIs and the lists of healthy relays.

pub mod config;
mod error;
pub mod fleet;
pub mod reconcile;
pub mod store;

pub use error::{FleetError, StartError};
