//! What a relay node says of itself, checked: nothing behind this file looks at its messages again.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use turnfleet_proto::{NodeId, PortRange, fleet as wire};

use super::port_grants::{PortReport, PortUse};

use super::certificate::Validity;
use super::record::Epoch;

/// The most listeners and the most public addresses of one node.
const MAX_ADDRESSES: usize = 64;

/// The longest region, zone, version or host name.
const MAX_TEXT: usize = 253;

/// What a node is and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The region that lists prefer nodes by.
    pub region: String,
    /// Two relays of one list come from different zones where that is possible.
    pub zone: String,
    /// The version of its program.
    pub version: String,
    /// The DNS name that `turns:` URIs carry.
    pub hostname: Option<String>,
    /// Where clients reach it, in its own order of preference.
    pub listeners: Vec<Listener>,
    /// The addresses that peers see.
    pub public_ips: Vec<IpAddr>,
    /// What it can hold.
    pub capacity: Capacity,
    /// Whether it shows the fleet's certificate, and answers challenges for it.
    pub takes_certificates: bool,
}

/// A place where clients reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// How clients reach it.
    pub transport: Transport,
    /// The address that clients see.
    pub address: SocketAddr,
    /// The address that it listens on, where that is one of the controller's own machine.
    pub local: Option<SocketAddr>,
}

/// How clients reach a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Plain UDP.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// Every transport there is.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// The name in configuration, API and store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|transport| transport.name() == text)
            .ok_or(())
    }
}

/// What a node can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Allocations; zero means that only ports and descriptors bound them.
    pub allocations: u64,
    /// File descriptors; zero means unknown.
    pub file_descriptors: u64,
    /// Bytes of memory; zero means unknown.
    pub memory_bytes: u64,
}

/// What a node does at this moment. Counters rise while its process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Live allocations.
    pub allocations: u64,
    /// Relayed ports in use.
    pub relayed_ports_used: u64,
    /// Relayed ports granted.
    pub relayed_ports_total: u64,
    /// Open file descriptors.
    pub file_descriptors_used: u64,
    /// Bytes of memory in use; zero means unknown.
    pub memory_bytes: u64,
    /// How busy its busiest shard is, in thousandths of one processor.
    pub cpu_permille: u64,
    /// What has happened so far.
    pub counters: Counters,
}

/// Cumulative counts since the start of a node's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of fleet.proto's Load")]
pub struct Counters {
    pub bytes_from_clients: u64,
    pub bytes_to_clients: u64,
    pub packets_from_clients: u64,
    pub packets_to_clients: u64,
    pub packets_dropped: u64,
    pub allocations_opened: u64,
    pub requests_rejected: u64,
    pub authentication_failures: u64,
}

impl From<wire::Load> for Load {
    fn from(load: wire::Load) -> Self {
        Self {
            allocations: load.allocations,
            relayed_ports_used: load.relayed_ports_used,
            relayed_ports_total: load.relayed_ports_total,
            file_descriptors_used: load.file_descriptors_used,
            memory_bytes: load.memory_bytes,
            cpu_permille: load.busiest_shard_permille.into(),
            counters: Counters {
                bytes_from_clients: load.bytes_from_clients,
                bytes_to_clients: load.bytes_to_clients,
                packets_from_clients: load.packets_from_clients,
                packets_to_clients: load.packets_to_clients,
                packets_dropped: load.packets_dropped,
                allocations_opened: load.allocations_opened,
                requests_rejected: load.requests_rejected,
                authentication_failures: load.authentication_failures,
            },
        }
    }
}

/// What a heartbeat says of ports. What does not read as an address or a range of ports is left out.
pub(crate) fn port_report(heartbeat: &wire::Heartbeat) -> PortReport {
    PortReport {
        kept_generation: heartbeat.kept_generation,
        uses: port_uses(&heartbeat.port_uses),
    }
}

/// The ports of each address that can be read.
pub(super) fn port_uses(uses: &[wire::PortUse]) -> Vec<PortUse> {
    let range = |range: &wire::PortRange| {
        let port = |port: u32| u16::try_from(port).ok();
        PortRange::new(port(range.first)?, port(range.last)?).ok()
    };
    let read = |ports: &wire::PortUse| {
        Some(PortUse {
            public_ip: ports.public_ip.parse().ok()?,
            used: ports.used,
            open: ports.open.iter().filter_map(range).collect(),
            withdrawn: ports.withdrawn.iter().filter_map(range).collect(),
        })
    };
    let uses = uses.iter().take(MAX_ADDRESSES);
    uses.filter_map(read).collect()
}

/// What a node says in a heartbeat beside what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Milliseconds that its wall clock is ahead of the controller's.
    pub clock_skew_millis: Option<i64>,
    /// The certificate that its TLS listeners show.
    pub certificate: Option<Validity>,
}

impl Vitals {
    /// What `heartbeat` says, received at `unix` seconds: differences of less than a second are not seen.
    #[must_use]
    pub fn read(heartbeat: &wire::Heartbeat, unix: u64) -> Self {
        let ahead = |wall: u64| {
            let millis = i128::from(wall) - i128::from(unix) * 1000 - 500;
            i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX })
        };
        let wall = Some(heartbeat.wall_millis).filter(|wall| *wall > 0);
        Self {
            clock_skew_millis: wall.map(ahead),
            certificate: heartbeat.tls_certificate.as_ref().and_then(Validity::read),
        }
    }
}

impl From<Load> for wire::Load {
    fn from(load: Load) -> Self {
        let counters = load.counters;
        Self {
            allocations: load.allocations,
            relayed_ports_used: load.relayed_ports_used,
            relayed_ports_total: load.relayed_ports_total,
            file_descriptors_used: load.file_descriptors_used,
            memory_bytes: load.memory_bytes,
            busiest_shard_permille: u32::try_from(load.cpu_permille).unwrap_or(u32::MAX),
            bytes_from_clients: counters.bytes_from_clients,
            bytes_to_clients: counters.bytes_to_clients,
            packets_from_clients: counters.packets_from_clients,
            packets_to_clients: counters.packets_to_clients,
            packets_dropped: counters.packets_dropped,
            allocations_opened: counters.allocations_opened,
            requests_rejected: counters.requests_rejected,
            authentication_failures: counters.authentication_failures,
        }
    }
}

/// Drawn by a node at each start of its process.
pub type Incarnation = [u8; 16];

/// The policy that a node runs by its own word, and how it wants to be told of another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Zero where it has none.
    pub generation: u64,
    /// The epoch of the generation; `None` for a node that knows of no epochs.
    pub epoch: Option<Epoch>,
    /// What the snapshot holds.
    pub sha256: Option<[u8; 32]>,
    /// Whether it takes deltas, and the messages that came with them.
    pub takes_deltas: bool,
}

/// A Hello that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The node's name.
    pub id: NodeId,
    /// Which run of its process speaks.
    pub incarnation: Incarnation,
    /// What it is and where it is reached.
    pub identity: Identity,
    /// The policy that it runs.
    pub running: Running,
    /// Allocations that live at this moment.
    pub allocations: u64,
}

/// The part of a Hello that is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}")]
pub struct RegistrationError {
    /// The field of the message.
    pub field: &'static str,
    /// What stands there in a good one.
    pub expected: &'static str,
}

impl TryFrom<wire::Hello> for Registration {
    type Error = RegistrationError;

    fn try_from(hello: wire::Hello) -> Result<Self, RegistrationError> {
        let bad = |field, expected| RegistrationError { field, expected };
        let capacity = hello.capacity.unwrap_or_default();
        Ok(Self {
            id: hello
                .node_id
                .parse()
                .map_err(|_| bad("node_id", "a node id"))?,
            incarnation: Incarnation::try_from(hello.incarnation.as_slice())
                .map_err(|_| bad("incarnation", "16 bytes"))?,
            identity: Identity {
                region: text("region", hello.region)?,
                zone: text("zone", hello.zone)?,
                version: text("version", hello.version)?,
                hostname: hostname(hello.hostname)?,
                listeners: listeners(&hello.listeners)?,
                public_ips: public_ips(&hello.public_ips)?,
                capacity: Capacity {
                    allocations: capacity.allocations,
                    file_descriptors: capacity.file_descriptors,
                    memory_bytes: capacity.memory_bytes,
                },
                takes_certificates: hello.takes_certificates,
            },
            running: Running {
                generation: hello.applied_generation,
                epoch: hello.applied_epoch.try_into().ok(),
                sha256: hello.applied_sha256.try_into().ok(),
                takes_deltas: hello.protocol >= 1,
            },
            allocations: hello.allocations,
        })
    }
}

fn text(field: &'static str, text: String) -> Result<String, RegistrationError> {
    if text.len() <= MAX_TEXT && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(RegistrationError {
            field,
            expected: "at most 253 bytes without control characters",
        })
    }
}

fn hostname(name: String) -> Result<Option<String>, RegistrationError> {
    if name.is_empty() {
        return Ok(None);
    }
    match format!("turns:{name}").parse::<turnfleet_proto::TurnUri>() {
        Ok(uri) if uri.host.eq_ignore_ascii_case(&name) => Ok(Some(name)),
        Ok(_) | Err(_) => Err(RegistrationError {
            field: "hostname",
            expected: "a DNS name",
        }),
    }
}

fn listeners(listeners: &[wire::Listener]) -> Result<Vec<Listener>, RegistrationError> {
    use wire::listener::Transport as Wire;
    let bad = |expected| RegistrationError {
        field: "listeners",
        expected,
    };
    if listeners.len() > MAX_ADDRESSES {
        return Err(bad("at most 64"));
    }
    listeners
        .iter()
        .map(|listener| {
            let transport = match listener.transport() {
                Wire::Udp => Transport::Udp,
                Wire::Tcp => Transport::Tcp,
                Wire::Tls => Transport::Tls,
                Wire::Dtls => Transport::Dtls,
                Wire::Unspecified => return Err(bad("a transport")),
            };
            let address: SocketAddr = listener
                .address
                .parse()
                .map_err(|_| bad("an address of the form ip:port"))?;
            if address.port() == 0 || address.ip().is_unspecified() {
                return Err(bad("an address that clients can reach"));
            }
            let local = Some(&listener.local_address).filter(|text| !text.is_empty());
            let local = local.map(|text| text.parse()).transpose();
            Ok(Listener {
                transport,
                address,
                local: local.map_err(|_| bad("a local address of the form ip:port"))?,
            })
        })
        .collect()
}

fn public_ips(texts: &[String]) -> Result<Vec<IpAddr>, RegistrationError> {
    let bad = |expected| RegistrationError {
        field: "public_ips",
        expected,
    };
    if texts.len() > MAX_ADDRESSES {
        return Err(bad("at most 64"));
    }
    let mut ips = Vec::with_capacity(texts.len());
    for text in texts {
        let ip: IpAddr = text.parse().map_err(|_| bad("IP addresses"))?;
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(bad("addresses of one machine"));
        }
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}
