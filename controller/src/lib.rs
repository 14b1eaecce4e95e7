//! The controller: the fleet's state, its store, its APIs and the lists of healthy relays.

mod api;
pub mod config;
mod error;
pub mod fleet;
mod metrics;
mod probe;
pub mod reconcile;
pub mod store;

pub use error::{FleetError, StartError};
