//! The fleet as a value: what the store holds, what relays and probes say, folded into who lives, who owns which ports, and
//! who is in lists. No clock, no I/O, no randomness: time and random bytes come in with the calls.

mod capacity;
mod health;
mod node;
mod placement;
pub mod record;
mod view;

pub use capacity::{FleetCapacity, Gauge, Rates, Saturation, Totals};
pub use health::{Ended, Health, ProbeFailure, ProbeOutcome};
pub use node::{
    Capacity, Counters, Identity, Incarnation, Listener, Load, Registration, RegistrationError,
    Transport,
};
pub use placement::{Ask, MAX_URIS, UriKind};
pub use view::{FleetView, NodeView, Probing};
