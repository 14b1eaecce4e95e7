//! The node's side of the control session: membership in the fleet, the policy that comes down and the report that goes up.
//!
//! It sees messages and policy only, never a TURN server. A node without its controller goes on with what it has, and
//! tries to get back for as long as it lives.

mod alternates;
mod client;
mod events;
mod fleet_certificate;
mod identity;
mod introduction;
mod outgoing;
mod sections;
mod session;
mod session_error;
mod snapshot_cache;
mod state_dir;
mod status;
mod traces;

pub(crate) use events::{EventCounts, Outbox};
pub(crate) use fleet_certificate::FleetCertificate;
pub(crate) use identity::Identity;
pub(crate) use introduction::Introduction;
pub(crate) use sections::Sections;
pub(crate) use session::{Session, unix_millis};
pub(crate) use snapshot_cache::SnapshotCache;
pub(crate) use state_dir::{StateDir, StateDirError};
pub(crate) use status::{ControlCounts, ControlState, ControlStatus};
