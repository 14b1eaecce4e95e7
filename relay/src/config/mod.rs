//! The relay's configuration: as it is written ([`RawConfig`]), and checked ([`Config`]), after which nothing downstream
//! checks again.
//!
//! Layering (file, environment, flags) is the process shell's. What the machine has to say (its addresses behind a
//! wildcard, whether a port is free) is found out when the node starts.

mod findings;
mod fixed;
mod listeners;
mod raw;
mod tls;
mod validate;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_turn::peer_filter::Cidr;

pub use crate::listeners::{Front, Listener};
pub(crate) use findings::Findings;
pub(crate) use fixed::Fixed;
pub use raw::{
    RawConfig, RawController, RawJournal, RawLimits, RawListener, RawLog, RawMetrics, RawStream,
    RawTcpRelaying, RawTelemetry, RawTls, Secret,
};
pub use turnfleet_proto::{ConfigError, ConfigErrors, ConfigWarning};

/// A configuration without mistakes. Made from a [`RawConfig`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_id: NodeId,
    /// The region that it serves.
    pub region: String,
    /// Its failure domain; may be empty.
    pub zone: String,
    /// DNS names of the node.
    pub hostnames: Vec<String>,
    /// Where the node credential and the last snapshot are kept.
    pub state_dir: PathBuf,
    /// The way to the controller.
    pub controller: ControllerConfig,
    /// Where clients reach the node; wildcard addresses still stand for themselves.
    pub listeners: Vec<Listener>,
    /// External addresses of 1:1 NAT.
    pub public_ips: Vec<PublicIp>,
    /// The certificate; present where a listener needs it, and it is not the fleet's.
    pub tls: Option<TlsConfig>,
    /// Whether the certificate is the fleet's, and where challenges are answered by HTTP; present where a listener needs it.
    pub fleet_tls: Option<FleetTlsConfig>,
    /// Threads that relay, at least one.
    pub shards: u8,
    /// How many nodes run in the process and share its file descriptors. No key: the process shell knows it.
    pub nodes_in_process: NonZeroU64,
    /// Accepts channel numbers up to 0x7FFF.
    pub rfc5766_channel_numbers: bool,
    /// Whether data between two clients of the node goes without a trip through the kernel.
    pub short_cut: bool,
    /// Whether clients that may have TCP relayed reach ports below 1024 of peers, too.
    pub tcp_low_peer_ports: bool,
    /// Sources whose unauthenticated requests are always answered.
    pub trusted_sources: Vec<Cidr>,
    /// Bounds on what the node holds.
    pub limits: NodeLimits,
    /// Connections of TCP and TLS clients.
    pub stream: StreamConfig,
    /// How long a nonce is good for.
    pub nonce_lifetime: Duration,
    /// How long a drain lasts; `None` for no end.
    pub drain_deadline: Option<Duration>,
    /// What the journal of allocations may keep; `None` where none is kept.
    pub journal: Option<JournalConfig>,
    /// Where the process shell serves metrics and health.
    pub metrics_address: Option<SocketAddr>,
    /// What the process shell logs, and how.
    pub log: LogConfig,
    /// The collector that the process shell sends traces to.
    pub otlp_endpoint: Option<String>,
    /// What is skipped or has no effect.
    pub warnings: Vec<ConfigWarning>,
}

/// The way to the controller.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// At least one; plain HTTP on loopback only.
    pub endpoints: Vec<ControllerEndpoint>,
    /// The CA certificates that `https` endpoints are checked against.
    pub ca: Option<PathBuf>,
    /// What the node shows to `https` endpoints.
    pub certificate: Option<TlsConfig>,
    /// What turns this machine into a node of the fleet.
    pub join_token: Option<JoinToken>,
}

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerEndpoint {
    /// Scheme, host and port.
    pub uri: http::Uri,
    /// Whether the scheme is `https`.
    pub tls: bool,
}

/// Where the join token is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinToken {
    /// In the configuration.
    Value(Secret),
    /// In a file, which may be renewed while the node runs.
    File(PathBuf),
}

/// An external address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicIp {
    /// What peers and clients see.
    pub public: IpAddr,
    /// The listen address behind it; `None` where the order says which. Same family.
    pub local: Option<IpAddr>,
}

/// Files of a certificate of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// A certificate that comes from the controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetTlsConfig {
    /// Where challenges are answered by HTTP.
    pub http_challenges: Vec<SocketAddr>,
}

/// Bounds on what the node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Allocations; `None` for as many as the file descriptors allow.
    pub allocations: Option<u32>,
    /// Permissions of one allocation.
    pub permissions_per_allocation: u16,
    /// Channels of one allocation.
    pub channels_per_allocation: u16,
    /// Peer data connections of one allocation.
    pub connections_per_allocation: u16,
    /// Peer data connections of one user.
    pub connections_per_user: u32,
}

/// Connections of TCP and TLS clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// How long a connection may live without an allocation.
    pub unauthenticated_timeout: Duration,
    /// Connections without an allocation, over the whole node.
    pub unauthenticated_connections: usize,
    /// How many of these may come from one source.
    pub unauthenticated_connections_per_source: usize,
    /// Bytes that may wait for one slow reader.
    pub write_queue_bytes: usize,
    /// Connections that are passed on to HTTPS servers at a time, over the whole node.
    pub https_connections: usize,
}

/// What the journal of allocations may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// For how long.
    pub retention: Duration,
    /// The most bytes of its files.
    pub bytes: u64,
}

/// What the process shell logs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Level and directives.
    pub filter: String,
    /// Text or JSON.
    pub format: LogFormat,
    /// Hashes addresses and usernames in the lines about allocations.
    pub privacy: bool,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// What is skipped or has no effect, worth a line at start.
    #[must_use]
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests;
