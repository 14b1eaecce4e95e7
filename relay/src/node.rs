//! A relay node from start to stop.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use turnfleet_proto::{NodeId, PortRange};
use turnfleet_turn::Transport;

use crate::config::{Config, ConfigErrors};

/// A running relay node.
#[derive(Debug)]
pub struct Node {}

/// A listener that clients can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// Over what.
    pub transport: Transport,
    /// The address of this machine, with the port that the system chose where none was asked for.
    pub address: SocketAddr,
    /// The address that clients see; differs behind 1:1 NAT only.
    pub public: SocketAddr,
}

/// Ports that the controller has granted to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedRange {
    /// The address that peers see.
    pub public: IpAddr,
    /// The ports of relayed transport addresses on it.
    pub range: PortRange,
}

/// What a node can say of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name in the fleet.
    pub node_id: NodeId,
    /// The generation of the policy snapshot that it serves by; zero for none.
    pub applied_generation: u64,
    /// The ports that it may use.
    pub granted: Vec<GrantedRange>,
    /// Allocations that live.
    pub allocations: u64,
    /// Whether allocations are refused because the node is about to leave.
    pub draining: bool,
    /// Whether a controller answers.
    pub connected: bool,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration does not fit this machine.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The state folder cannot be used.
    #[error("cannot use {path} (state_dir)")]
    StateDir {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Node {
    /// Opens the listeners, starts the shards and the control session, and returns before the controller is reached.
    ///
    /// # Errors
    /// When a listener cannot be opened, or the configuration does not fit the machine.
    #[expect(clippy::unused_async, reason = "starts tasks")]
    pub async fn start(_config: Config) -> Result<Self, NodeError> {
        Ok(Self {})
    }

    /// The listeners, in the order of the configuration.
    #[must_use]
    pub fn listeners(&self) -> &[BoundListener] {
        &[]
    }

    /// Whether clients can be served: a policy is applied, and the node is not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        false
    }

    /// What the node can say of itself.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        unimplemented!()
    }

    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        String::new()
    }

    /// Refuses allocations from here on; live ones go on until they end, at most until `deadline` from here.
    pub fn drain(&self, _deadline: Option<Duration>) {}

    /// Resolves when a drain is over: no allocation lives, or the deadline has passed.
    pub async fn drained(&self) {}

    /// Ends every allocation, takes leave of the controller, and returns when all threads have ended.
    pub async fn stop(self) {}
}
