//! What relay nodes, the controller and callers agree on: the messages between them, node identities, port ranges, TURN
//! URIs, how a mistake in a configuration is told, how a private file is kept and a changed one noticed, the certificates
//! that servers show and a client that believes each, how spans for a trace are marked and counted, the shared secret with the
//! ephemeral credentials made from it, and the name of the probe.
//!
//! A leaf: it depends on no other crate of the project, opens no socket and reads no clock.

pub mod certificate;
mod config_error;
pub mod credentials;
mod danger_anybody;
pub mod file_watch;
pub mod granted_range;
mod node_id;
mod port_range;
pub mod private_file;
pub mod probe_name;
pub mod spans;
mod turn_uri;
pub mod user_hash;

/// Messages and services of `turnfleet.fleet.v1`: the control session between relay node and controller.
#[allow(
    warnings,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    reason = "generated from proto/turnfleet/fleet/v1"
)]
pub mod fleet {
    include!("generated/turnfleet.fleet.v1.rs");
}

/// Messages and the service of `turnfleet.api.v1`: what operators and their programs ask a controller for.
#[allow(
    warnings,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    reason = "generated from proto/turnfleet/api/v1"
)]
pub mod operator {
    include!("generated/turnfleet.api.v1.rs");
}

/// Messages of `turnfleet.store.v1`: the values in the controller's store.
#[allow(
    warnings,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    reason = "generated from proto/turnfleet/store/v1"
)]
pub mod store {
    include!("generated/turnfleet.store.v1.rs");
}

pub use config_error::{ConfigError, ConfigErrors, ConfigWarning};
pub use danger_anybody::DangerAnybody;
pub use granted_range::GrantedRange;
pub use node_id::{NodeId, NodeIdError};
pub use port_range::{PortRange, PortRangeError};
pub use turn_uri::{Scheme, TurnUri, TurnUriError, UriTransport};
