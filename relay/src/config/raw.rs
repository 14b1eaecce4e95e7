//! The relay's configuration as it is written: every key with its default and what it is for. The reference in
//! `docs/configuration.md` is printed from the comments of these structs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of `turnfleet relay`.
///
/// What the fleet must agree on (realm, secrets, users, port grants, peer policy, limits of a user) is not here: it comes
/// from the controller.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// The node's name, unique in its fleet and stable over restarts: 1 to 63 characters of a-z, 0-9, '-' and '.'.
    /// Empty: the machine's host name.
    pub node_id: String,
    /// The region that the node serves: 1 to 63 characters of A-Z, a-z, 0-9, '-', '_' and '.'.
    pub region: String,
    /// The failure domain within the region; lists prefer relays of different zones. Empty: none is told.
    pub zone: String,
    /// DNS names of this node; `turns:` URIs carry the first. Empty: the first DNS name of the TLS certificate, or else
    /// the IP address.
    pub hostname: Vec<String>,
    /// The folder in which the node keeps its credential and the last policy snapshot. Made when it is missing.
    pub state_dir: String,
    /// How the node reaches its controller.
    pub controller: RawController,
    /// Where clients reach the node. A wildcard address stands for the machine's public addresses of its
    /// family; where it has none, for the private one of its default route and those named in `public_ips`.
    pub listeners: Vec<RawListener>,
    /// The addresses that peers and clients see, where they differ from the listen addresses (1:1 NAT): `EXTERNAL/LOCAL`
    /// pairs, or bare external addresses, of which the n-th of a family belongs to the n-th listen address of that family.
    pub public_ips: Vec<String>,
    /// The certificate of `tls` listeners.
    pub tls: RawTls,
    /// Threads that relay, at most 64. 0: one for each processor core.
    pub shards: u8,
    /// Accepts channel numbers up to 0x7FFF, which RFC 5766 had and some old clients draw; RFC 8656 ends them at 0x4FFF.
    pub rfc5766_channel_numbers: bool,
    /// Passes data between two clients of this node from the one to the other without a trip through the kernel. Off: it
    /// goes by the loopback interface, where firewall rules and packet captures of the machine see it.
    pub short_cut: bool,
    /// TCP between the node and peers (RFC 6062), where the controller lets clients have it.
    pub tcp_relaying: RawTcpRelaying,
    /// Address blocks (CIDR) of balancers that hide many clients behind one address: their unauthenticated requests are
    /// always answered.
    pub trusted_sources: Vec<String>,
    /// Bounds on what this node holds.
    pub limits: RawLimits,
    /// Connections of TCP and TLS clients.
    pub stream: RawStream,
    /// How long a nonce is good for, in seconds, 60 to 3600; clients renew it without noticing.
    pub nonce_lifetime_seconds: u32,
    /// How long allocations may live on after the first SIGTERM, in seconds. 0: until the last one ends by itself.
    pub drain_deadline_seconds: u64,
    /// The journal of allocations, which `turnfleet fleet trace` searches.
    pub journal: RawJournal,
    /// The listener of `/metrics`, `/livez` and `/readyz`.
    pub metrics: RawMetrics,
    /// What is logged, and how.
    pub log: RawLog,
    /// Where traces go.
    pub telemetry: RawTelemetry,
}

impl Default for RawConfig {
    fn default() -> Self {
        let listener = |transport: &str, address: &str| RawListener {
            transport: transport.into(),
            address: address.into(),
            ..RawListener::default()
        };
        Self {
            node_id: String::new(),
            region: "local".into(),
            zone: String::new(),
            hostname: Vec::new(),
            state_dir: "/var/lib/turnfleet/relay".into(),
            controller: RawController::default(),
            listeners: vec![
                listener("udp", "0.0.0.0:3478"),
                listener("udp", "[::]:3478"),
                listener("tcp", "0.0.0.0:3478"),
                listener("tcp", "[::]:3478"),
            ],
            public_ips: Vec::new(),
            tls: RawTls::default(),
            shards: 0,
            rfc5766_channel_numbers: false,
            short_cut: true,
            tcp_relaying: RawTcpRelaying::default(),
            trusted_sources: Vec::new(),
            limits: RawLimits::default(),
            stream: RawStream::default(),
            nonce_lifetime_seconds: 3600,
            drain_deadline_seconds: 3600,
            journal: RawJournal::default(),
            metrics: RawMetrics::default(),
            log: RawLog::default(),
            telemetry: RawTelemetry::default(),
        }
    }
}

/// How the node reaches its controller.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawController {
    /// The controllers, `https://host:port`; the node holds a session with one of them at a time. `http://` only for a
    /// controller on loopback.
    pub endpoints: Vec<String>,
    /// The file with the CA certificates (PEM) that the controller's certificate is checked against; needed for `https`.
    pub ca: String,
    /// The file with the certificate (PEM, the node's own first) that the node shows to the controller, from an authority that the
    /// controller knows (its `grpc.client_ca`). It takes the place of a join token, and names the node, its region and its
    /// tenant in a URI: `spiffe://DOMAIN/turnfleet/region/REGION/relay/NODE_ID`, or `…/region/REGION/tenant/TENANT/relay/NODE_ID`.
    /// Read again for each connection, so that a renewed one is used from the next on.
    pub certificate: String,
    /// The file with its private key (PEM).
    pub key: String,
    /// The token that makes this node a member of the fleet. Used until the controller has given it a credential of its
    /// own. Not needed with a certificate.
    pub join_token: Secret,
    /// A file that holds the join token; read again whenever it is needed.
    pub join_token_file: String,
}

impl Default for RawController {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:8081".into()],
            ca: String::new(),
            certificate: String::new(),
            key: String::new(),
            join_token: Secret::default(),
            join_token_file: String::new(),
        }
    }
}

/// One listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawListener {
    /// `udp`, `tcp`, `tls` (TLS over TCP), or `tcp+tls` for both on one port, told apart by a connection's first bytes. A
    /// node with a `tls` listener takes TLS on its `tcp` listeners too, without announcing it.
    pub transport: String,
    /// `ip:port` or `[ip]:port`. Port 0: one that the system chooses.
    pub address: String,
    /// Address blocks (CIDR) of balancers that put a PROXY protocol header (version 1 or 2) before each connection; the
    /// client is then the one that the header names. Connections from elsewhere, and those without the header, are
    /// closed, and no client is sent to this listener. Empty: no header. Not for `udp`.
    #[serde(default)]
    pub proxy_protocol_from: Vec<String>,
    /// The HTTPS server, `ip:port` or `[ip]:port`, that connections are passed on to as they come when their TLS asks for
    /// `h2` or `http/1.1` (ALPN), so that relay and site share port 443. Empty: none. For `tls` and `tcp+tls`.
    #[serde(default)]
    pub https_backend: String,
}

/// The certificate of `tls` listeners: of two files, which are read again when they change, or the fleet's. Live connections
/// stay when it is replaced.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTls {
    /// The file with the certificate chain (PEM), the node's own certificate first.
    pub certificate: String,
    /// The file with the private key (PEM).
    pub key: String,
    /// Takes the certificate that the controllers order (their section `acme`), in the place of `certificate` and `key`, and
    /// answers the challenges of its authority. Until the first one is there, TLS handshakes fail.
    pub from_fleet: bool,
    /// Where challenges are answered over plain HTTP, `ip:port`, for `challenge = "http-01"` of the controllers: the
    /// authority asks at port 80. Nothing else is served there. Empty: nowhere.
    pub http_challenges: Vec<String>,
}

/// Bounds on what this node holds; each has a metric that tells when it is hit.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Allocations on this node; more are refused with 508. 0: as many as the file descriptors allow.
    pub allocations: u32,
    /// Permissions of one allocation; more are refused with 508.
    pub permissions_per_allocation: u16,
    /// Channels of one allocation; more are refused with 508.
    pub channels_per_allocation: u16,
    /// Peer data connections of one allocation (RFC 6062); more are refused with 508.
    pub connections_per_allocation: u16,
    /// Peer data connections of one user on this node; more are refused with 486. All users together have as many as a
    /// quarter of the file descriptors allows.
    pub connections_per_user: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            allocations: 0,
            permissions_per_allocation: 1024,
            channels_per_allocation: 1024,
            connections_per_allocation: 64,
            connections_per_user: 256,
        }
    }
}

/// TCP between the node and peers (RFC 6062).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTcpRelaying {
    /// Clients may connect to ports below 1024 of peers, too: to mail servers and SSH, for example.
    pub low_peer_ports: bool,
}

/// Connections of TCP and TLS clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawStream {
    /// How long a connection may live without an allocation, in seconds, 1 to 300. One that has not shown within 5 seconds
    /// that it is TURN is closed then.
    pub unauthenticated_seconds: u32,
    /// Connections without an allocation, over the whole node; the oldest is closed for one beyond.
    pub unauthenticated_connections: u32,
    /// How many of these may come from one source, an IPv4 address or an IPv6 /64; beyond it the oldest of that source is
    /// closed. By the client's own address where a balancer names it (`proxy_protocol_from`), and not for
    /// `trusted_sources`.
    pub unauthenticated_connections_per_source: u32,
    /// Bytes that may wait for one slow reader, 16384 at least; what comes on top is lost, as it would be with UDP.
    pub write_queue_bytes: u32,
    /// Connections that are passed on to an `https_backend` at a time, over the whole node; beyond it the one that is
    /// silent for longest is closed. Each takes two file descriptors, and all of them at most a quarter of the node's.
    pub https_connections: u32,
}

impl Default for RawStream {
    fn default() -> Self {
        Self {
            unauthenticated_seconds: 10,
            unauthenticated_connections: 4096,
            unauthenticated_connections_per_source: 1024,
            write_queue_bytes: 262_144,
            https_connections: 1024,
        }
    }
}

/// The journal of allocations, in the folder `journal` of `state_dir`: who had which relayed address when. It holds the
/// client's address, the tenant and a keyed hash of the user, and neither peers nor payloads.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawJournal {
    /// For how many days it is kept, at most 366. 0: none is kept, and what an earlier run kept is deleted.
    pub retention_days: u32,
    /// The most megabytes (2^20 bytes) of its files, 16 to 1048576; the oldest go first. An allocation takes some 90 bytes, and
    /// 115 where it has IPv6: the default holds seven days of ten allocations a second.
    pub max_megabytes: u32,
}

impl Default for RawJournal {
    fn default() -> Self {
        Self {
            retention_days: 7,
            max_megabytes: 512,
        }
    }
}

/// The listener of `/metrics`, `/livez` and `/readyz`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawMetrics {
    /// `ip:port`. Empty: no listener.
    pub address: String,
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:9641".into(),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// `error`, `warn`, `info`, `debug` or `trace`, and directives such as `info,turnfleet_relay=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: String,
    /// Replaces addresses and usernames in the lines about allocations by keyed hashes, the same while the process lives.
    pub privacy: bool,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: "text".into(),
            privacy: false,
        }
    }
}

/// Where traces go.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTelemetry {
    /// The collector that takes traces as OTLP by gRPC, such as `http://127.0.0.1:4317`; without it none are made. The environment's
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and `--otlp-endpoint` stand over it.
    pub otlp_endpoint: String,
}

/// A value that `Debug` does not show.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
