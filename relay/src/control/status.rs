//! Where the control session stands: for the log (once for each change), for metrics and for the process shell.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Where the control session stands. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlState {
    /// The first attempt is under way.
    Connecting,
    /// A session is open and its snapshot was taken.
    Connected,
    /// No controller answers.
    Unreachable,
    /// A controller answers, and does not take this node.
    Refused,
}

impl ControlState {
    pub(crate) const ALL: [Self; 4] = [
        Self::Connecting,
        Self::Connected,
        Self::Unreachable,
        Self::Refused,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

/// State and counts of the control session.
#[derive(Debug)]
pub(crate) struct ControlStatus {
    state: watch::Sender<ControlState>,
    sessions: AtomicU64,
    failures: AtomicU64,
    applied: AtomicU64,
    refused: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ControlCounts {
    pub(crate) sessions: u64,
    pub(crate) failures: u64,
    pub(crate) applied: u64,
    pub(crate) refused: u64,
}

impl ControlStatus {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(ControlState::Connecting),
            sessions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> ControlState {
        *self.state.borrow()
    }

    pub(crate) fn counts(&self) -> ControlCounts {
        ControlCounts {
            sessions: self.sessions.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            applied: self.applied.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// A session is open.
    pub(super) fn connected(&self, controller: &str) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.state.send_replace(ControlState::Connected);
        tracing::info!(controller, "control session open");
    }

    /// An attempt failed or a session ended.
    pub(super) fn failed(&self, state: ControlState, controller: &str, error: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let before = self.state.send_replace(state);
        if before == state {
            tracing::debug!(controller, error, state = state.name(), "control session");
        } else if state == ControlState::Refused {
            tracing::warn!(
                controller,
                error,
                "the controller refuses this node; trying on"
            );
        } else {
            tracing::warn!(
                controller,
                error,
                "no control session; serving with what is here, trying on"
            );
        }
    }

    pub(super) fn snapshot_applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}
