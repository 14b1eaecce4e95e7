//! Whether a node lives.

use std::time::Duration;

use super::node::Transport;
use super::vantage::Vantage;

/// Whether a node lives, by its control session and by the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Registered; no probe has succeeded yet.
    Starting,
    /// Its session lives and the probe succeeds.
    Healthy,
    /// Its session is lost and the probe succeeds: cut off from the controller, and serving.
    Unmanaged,
    /// Its session lives and the probe fails.
    Unhealthy,
    /// Neither session nor probe.
    Gone,
}

impl Health {
    /// Every state there is.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Healthy,
        Self::Unmanaged,
        Self::Unhealthy,
        Self::Gone,
    ];

    /// The name in API, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unmanaged => "unmanaged",
            Self::Unhealthy => "unhealthy",
            Self::Gone => "gone",
        }
    }
}

/// How a control session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The stream broke: the node may be dead, or cut off.
    Reset,
    /// The node left on purpose.
    Goodbye,
}

/// What a probe of a node found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Where the node was probed from.
    pub vantage: Vantage,
    /// The round of [`super::view::Probing::Yes`] that the probe was begun in.
    pub round: u64,
    /// How long data took from one relayed address to the other, or why it did not arrive.
    pub result: Result<Duration, ProbeFailure>,
    /// Transports by which an answer came, whatever it was.
    pub reached: Vec<Transport>,
    /// Transports by which none came.
    pub missed: Vec<Transport>,
    /// Transports that failed while another one worked.
    pub broken: Vec<Transport>,
    /// The fleet generation that the node runs at least, as it accepted a credential: that of the secret which the credential
    /// was made with ([`super::FleetView::trial_secret`]). Zero where it was shown none, or did not take it.
    pub shown_generation: u64,
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeFailure {
    /// No listener that a probe can speak to.
    NoListener,
    /// No answer in time.
    NoAnswer,
    /// The connection or its TLS handshake failed.
    Connection,
    /// The relay refused a request, with this error code.
    Refused(u16),
    /// Both allocations are there, and data between them was lost or changed.
    DataLost,
}

impl ProbeFailure {
    /// The name in API, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoListener => "no-listener",
            Self::NoAnswer => "no-answer",
            Self::Connection => "connection",
            Self::Refused(_) => "refused",
            Self::DataLost => "data-lost",
        }
    }
}
