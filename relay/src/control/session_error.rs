//! Why a control session could not be opened, or has ended, and what that says of the way to the controller.
//!
//! What to do about it is the session's.

use super::client::ClientError;
use super::session::FIRST_SNAPSHOT;
use super::status::ControlState;

/// Why an attempt or a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    JoinToken(String),
    #[error("the controller ended the session")]
    Closed,
    #[error("the controller does not read what the node reports")]
    Stalled,
    #[error("no snapshot within {FIRST_SNAPSHOT:?}")]
    NoSnapshot,
    #[error("the controller sends this node to another one")]
    Redirected {
        /// The place in the list of endpoints.
        to: usize,
    },
    #[error("the node listens elsewhere, or has another name")]
    Moved,
}

impl SessionError {
    /// What the end says of the way to the controller.
    pub(super) fn state(&self) -> ControlState {
        match self {
            Self::Client(error) if error.is_refusal() => ControlState::Refused,
            Self::JoinToken(_) => ControlState::Refused,
            Self::Client(_)
            | Self::Closed
            | Self::Stalled
            | Self::NoSnapshot
            | Self::Redirected { .. }
            | Self::Moved => ControlState::Unreachable,
        }
    }
}
