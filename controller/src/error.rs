//! What can go wrong in the controller. `FleetError` answers a relay or an operator; `api::status` maps it to gRPC and
//! HTTP once, and decides how much of it goes outside. `StartError` is for the person at the terminal.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use turnfleet_proto::{NodeId, PortRange};

use crate::fleet::node::RegistrationError;
use crate::fleet::tokens::TokenError;
use crate::fleet::{Restored, SecretError};
use crate::store::StoreError;

/// Why the fleet refuses a request.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The join token is not one of the fleet's.
    #[error("the join token is not known to this controller")]
    JoinToken,
    /// The join token has ended.
    #[error("the join token has ended: ask for another one")]
    JoinTokenEnded,
    /// The node has no control session here.
    #[error("node {0} has no control session")]
    NoSession(NodeId),
    /// There is no rollout to force.
    #[error("every relay has the policy: there is no rollout to force")]
    NoRollout,
    /// The node credential is not one of the fleet's: the node has to enrol again.
    #[error("the node credential is not known to this controller: enrol with a join token")]
    Credential,
    /// The credential belongs to another node than the one that the Hello names.
    #[error("the credential belongs to node {owner}, and not to {claimed}")]
    NotYours {
        /// Whose credential it is.
        owner: NodeId,
        /// Who the Hello says that it is.
        claimed: NodeId,
    },
    /// The certificate is that of another node than the one that speaks.
    #[error(
        "the certificate (controller.certificate) is that of node {certified}, and not of {claimed}"
    )]
    NotCertified {
        /// Whose certificate it is.
        certified: NodeId,
        /// Who the caller says that it is.
        claimed: NodeId,
    },
    /// A member by its certificate comes without one, or with a join token.
    #[error(
        "node {0} is a member by its certificate, and shows none: expected controller.certificate, or that the node is \
         forgotten (`turnfleet fleet forget {0}`) before a join token enrols it"
    )]
    CertificateNeeded(NodeId),
    /// Somebody asks for the credential of a node whose session is live, or wants it forgotten.
    #[error(
        "node {0} has a live session: it can be enrolled again, or forgotten, when that has ended"
    )]
    Live(NodeId),
    /// No node of that name.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// A step in the life of a shared secret that its state does not allow.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A session that has ended or has been replaced by a later one of the same node.
    #[error("the session has been replaced by a later one of the same node")]
    SessionReplaced,
    /// The Hello holds something that cannot be used.
    #[error("the Hello is not usable: {0}")]
    Registration(#[from] RegistrationError),
    /// No ports of a public address are left for this node.
    #[error(
        "no relay ports are left on {public_ip} for node {node}: {holders} other nodes hold shares of {relay_ports}, \
         of which relays_per_address = {relays_per_address} (0: as many as come); forget those that are gone for good with \
         `turnfleet fleet forget NODE`, set relays_per_address to 0 or higher, widen relay_ports, or give the node an address \
         of its own"
    )]
    PortsExhausted {
        /// Who asked.
        node: NodeId,
        /// The shared address.
        public_ip: IpAddr,
        /// The ports that are shared out.
        relay_ports: PortRange,
        /// How many shares they are divided into.
        relays_per_address: u32,
        /// How many other nodes hold ports of the address.
        holders: usize,
    },
    /// Other nodes are about to give up ports of a public address for this node.
    #[error(
        "node {node} waits for relay ports on {public_ip}: {holders} other nodes hold them, and give up {owed} as soon as \
         they have heard of it and no allocation uses them; forget those that are gone for good with `turnfleet fleet forget \
         NODE`"
    )]
    PortsAwaited {
        /// Who asked.
        node: NodeId,
        /// The shared address.
        public_ip: IpAddr,
        /// How many other nodes hold ports of the address.
        holders: usize,
        /// How many ports are being given up.
        owed: u32,
    },
    /// No grant covers exactly these ports.
    #[error(
        "no node holds exactly the ports {range} of {public_ip}: `turnfleet fleet ports` shows who holds what"
    )]
    UnknownGrant {
        /// The public address.
        public_ip: IpAddr,
        /// The ports.
        range: PortRange,
    },
    /// The fleet holds as many nodes as it can.
    #[error("the fleet holds {limit} nodes, which is as many as one controller serves")]
    TooManyNodes {
        /// The bound.
        limit: usize,
    },
    /// The store is older than what was seen of it.
    #[error(
        "the store is at generation {}, and {} {}: the store was restored from an older backup. \
         Nothing is pushed or given out until an operator confirms with `turnfleet fleet confirm-restore`",
        .0.store, .0.witness(), .0.runs
    )]
    Restored(Restored),
    /// There is no restore to confirm.
    #[error("nothing shows more than the store knows: there is no restore to confirm")]
    NotRestored,
    /// A token cannot be made or revoked.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Others changed the same state again and again.
    #[error("the change lost against {attempts} concurrent ones; try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// Only the controller that leads may do this, and another one leads, or none.
    #[error("this controller does not lead")]
    NotLeader,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The controller is stopping.
    #[error("the controller is stopping")]
    Stopping,
}

impl FleetError {
    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Contended { .. }
            | Self::NotLeader
            | Self::Stopping
            | Self::PortsAwaited { .. } => true,
            Self::Store(error) => error.is_retryable(),
            Self::JoinToken
            | Self::JoinTokenEnded
            | Self::NoSession(_)
            | Self::NoRollout
            | Self::Credential
            | Self::NotYours { .. }
            | Self::NotCertified { .. }
            | Self::CertificateNeeded(_)
            | Self::Live(_)
            | Self::UnknownNode(_)
            | Self::Secret(_)
            | Self::SessionReplaced
            | Self::Registration(_)
            | Self::PortsExhausted { .. }
            | Self::UnknownGrant { .. }
            | Self::Restored(_)
            | Self::NotRestored
            | Self::TooManyNodes { .. }
            | Self::Token(_) => false,
        }
    }
}

/// Why another configuration is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Files that it names cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Files(Vec<StartError>),
    /// The store cannot follow it.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// Why the controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened or read.
    #[error("the state directory {dir} cannot be used")]
    Store {
        /// The state directory.
        dir: PathBuf,
        /// What happened.
        #[source]
        source: StoreError,
    },
    /// The store on etcd cannot be opened or read.
    #[error("the store on etcd cannot be used (store.etcd)")]
    Etcd(#[source] StoreError),
    /// The state of the fleet cannot be prepared.
    #[error("the fleet's state in {dir} cannot be prepared")]
    Fleet {
        /// The state directory.
        dir: PathBuf,
        /// What happened.
        #[source]
        source: FleetError,
    },
    /// A file of the state directory cannot be written.
    #[error("cannot write {path} (state_dir)")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A listener cannot be bound.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused a thread.
    #[error("the operating system refused")]
    System(#[source] std::io::Error),
    /// A certificate or key cannot be used.
    #[error("the file {path} ({key}) cannot be used: {reason}")]
    Tls {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
