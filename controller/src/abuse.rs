//! Who abuses the fleet: rules that judge what relays and events tell, and what follows from it.
//!
//! [`Engine`] is pure: signals in, findings out, with a bounded memory of its own. [`Watch`] feeds it at every controller, so that
//! whichever leads knows what came before; only the leader tells of findings and acts. A rule that says `observe` tells what it
//! would have done. Nothing here is on the path of lists, credentials or packets.

mod claims;
mod desk;
mod engine;
mod exempt;
mod gather;
mod measure;
mod memory;
mod rule;
mod settings;
mod signals;
mod subject;
mod told;
mod watch;

#[cfg(test)]
mod tests;

pub use claims::Claims;
pub use desk::{AbuseDesk, Suspect};
pub use engine::{Act, Case, Engine, Finding};
pub use exempt::{Exempt, Fleetwide};
pub use rule::Rule;
pub use settings::{RuleSettings, Settings, Verdict};
pub use signals::{NetworkSignals, Signals, UserSignals};
pub use subject::Subject;
pub(crate) use watch::Watch;
