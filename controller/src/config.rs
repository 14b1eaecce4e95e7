//! The controller's configuration as files, environment and flags give it. The doc comments are the reference that
//! `docs/configuration.md` is generated from, and every default stands here once. [`Config`] is what remains when it has
//! been checked.

mod abuse;
mod acme;
mod checked;
mod dns;
mod kept;
mod port_plan;
mod tenants;
mod warnings;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::Names;

pub use turnfleet_proto::{ConfigError, ConfigErrors, ConfigWarning};

pub use abuse::{RawAbuse, RawExempt, RawRule, RawVerdict};
pub use acme::{AcmeChallenge, RawAcme};
#[cfg(test)]
pub(crate) use checked::usual_abuse;
pub use checked::{
    AcmeConfig, ApiTokenConfig, Config, ControllerConfig, DnsConfig, ListenerConfig, LogConfig,
    LogFormat, MatrixConfig, NameServer, Opaque, ProbeConfig, RelayCertificates, StoreConfig,
    TlsFiles, WebhookConfig,
};
pub(crate) use checked::{NAME, is_name};
pub use dns::{RawDns, RawNameServer};
pub use port_plan::PortPlan;
pub use tenants::RawNamedTenant;

/// The controller's configuration.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// The directory of the embedded store, of the key that seals the secrets in it, and of the tokens that the controller
    /// leaves for its operator. Made where it is missing. One controller uses it at a time.
    pub state_dir: PathBuf,
    /// Where the fleet's state is kept: in `state_dir`, unless `store.etcd` is set.
    pub store: RawStore,
    /// What this controller is called among those of the fleet: lower-case letters, digits, `-` and `.`. Without it, the
    /// name of the machine.
    pub id: Option<String>,
    /// The HTTP API.
    pub http: RawHttp,
    /// The gRPC listener that relays connect to.
    pub grpc: RawGrpc,
    /// The realm of the fleet's TURN servers. A change makes every client authenticate again.
    pub realm: String,
    /// The region of this controller: lists prefer its relays where the caller names no region.
    pub region: String,
    /// The secret that ephemeral credentials are made with, such as Synapse's `turn_shared_secret`. Without it, or
    /// `shared_secret_file`, one is made at the first start and kept. A change keeps credentials of the previous secret
    /// alive for 24 hours and two minutes: longer than any that the controller mints, and shorter than those of a
    /// homeserver whose `turn_user_lifetime` is above a day.
    pub shared_secret: Option<String>,
    /// A file that holds the shared secret; space around it does not count.
    pub shared_secret_file: Option<PathBuf>,
    /// Users with a password of their own. Exactly these are accepted; the store keeps their keys and no passwords.
    pub users: Vec<RawUser>,
    /// The ports that relays open for clients, FIRST-LAST, on every public address.
    pub relay_ports: String,
    /// How many relays share one public address, each with an equal part of `relay_ports`; 0 to 1024. With 0 nobody has to
    /// know: a relay that is alone on its address has all of `relay_ports`, and gives up a fair part when another one comes.
    pub relays_per_address: u32,
    /// The credentials that the HTTP API mints.
    pub credentials: RawCredentials,
    /// Which peers clients may reach through the relays.
    pub peers: RawPeers,
    /// The life of shared secrets.
    pub secrets: RawSecrets,
    /// Bounds that every relay enforces.
    pub limits: RawLimits,
    /// What the users of the default tenant may do.
    pub tenant: RawTenant,
    /// Tenants with users of their own, beside those that are made by the API.
    pub tenants: Vec<RawNamedTenant>,
    /// The probe that decides whether a relay is in lists.
    pub probe: RawProbe,
    /// How lists of relays are made.
    pub lists: RawLists,
    /// The DNS responder, for clients that are configured with a name once and for all.
    pub dns: RawDns,
    /// The fleet's certificate from a certificate authority.
    pub acme: RawAcme,
    /// Lists for Matrix clients, in the homeserver's place.
    pub matrix: RawMatrix,
    /// The rules that find abuse.
    pub abuse: RawAbuse,
    /// What a relay shows when it comes for the first time; it may be used again and again. Without it, or
    /// `join_token_file`, one is made at the first start and kept. At least 16 characters.
    pub join_token: Option<String>,
    /// A file that holds the join token.
    pub join_token_file: Option<PathBuf>,
    /// Who may use the HTTP API, beside the bearer of the token that the controller makes.
    pub api_tokens: Vec<RawApiToken>,
    /// Shows hashes in the place of the names of users and the addresses of clients: in events, by whichever way, and in lists
    /// of users. Set it at every controller. The same user has the same hash everywhere.
    pub privacy: bool,
    /// Who is told what happens in the fleet.
    pub webhooks: Vec<RawWebhook>,
    /// What is logged.
    pub log: RawLog,
    /// Where traces go.
    pub telemetry: RawTelemetry,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/turnfleet/controller"),
            store: RawStore::default(),
            id: None,
            http: RawHttp::default(),
            grpc: RawGrpc::default(),
            realm: "turnfleet.local".to_owned(),
            region: "local".to_owned(),
            shared_secret: None,
            shared_secret_file: None,
            users: Vec::new(),
            relay_ports: "49152-65535".to_owned(),
            relays_per_address: 0,
            credentials: RawCredentials::default(),
            peers: RawPeers::default(),
            secrets: RawSecrets::default(),
            limits: RawLimits::default(),
            tenant: RawTenant::default(),
            tenants: Vec::new(),
            probe: RawProbe::default(),
            lists: RawLists::default(),
            dns: RawDns::default(),
            acme: RawAcme::default(),
            matrix: RawMatrix::default(),
            abuse: RawAbuse::default(),
            join_token: None,
            join_token_file: None,
            api_tokens: Vec::new(),
            privacy: false,
            webhooks: Vec::new(),
            log: RawLog::default(),
            telemetry: RawTelemetry::default(),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// `error`, `warn`, `info`, `debug` or `trace`, and directives such as `info,turnfleet_controller=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: "text".to_owned(),
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

/// Where the fleet's state is kept.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawStore {
    /// The file with the key that seals secrets in the store: 32 random bytes in base64, for its owner only. Without it,
    /// `store.key` in `state_dir`, made at the first start. Controllers on one etcd need the same key, so it must be named
    /// then; it is made where etcd holds no fleet yet.
    pub key_file: Option<PathBuf>,
    /// The etcd that all controllers of the fleet share.
    pub etcd: Option<RawEtcd>,
}

/// An etcd cluster, 3.4 or later. Everything is kept below `/tf/`.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawEtcd {
    /// The client URLs of its members, such as `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// The certificate authority of its members, a PEM file. Without it etcd is spoken to without TLS.
    pub ca: Option<PathBuf>,
    /// The certificate that this controller shows to etcd, a PEM file.
    pub certificate: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub key: Option<PathBuf>,
    /// The user, where etcd asks for one; its role needs to read and write the prefix `/tf/`.
    pub user: Option<String>,
    /// The password of the user.
    pub password: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
}

/// The HTTP API.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHttp {
    /// Where it listens, `ip:port`. Port 0 takes a free one.
    pub address: String,
    /// Where other controllers reach it, `host:port`. Without it, at the address.
    pub advertise: Option<String>,
    /// Serve HTTPS with this certificate.
    pub tls: Option<RawTls>,
    /// Origins whose pages may call the API from a browser, such as `https://meet.example.org`, or `*`.
    pub cors_origins: Vec<String>,
    /// Networks, or addresses, of reverse proxies before this listener. Where one of them asks for a credential, the client is
    /// the last address in its `X-Forwarded-For` that is not one of these; of all others that header is ignored.
    pub trusted_proxies: Vec<String>,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8080".to_owned(),
            advertise: None,
            tls: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The gRPC listener.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawGrpc {
    /// Where relays connect, `ip:port`. Port 0 takes a free one.
    pub address: String,
    /// Where other controllers, and relays that are sent here by them, reach it, `host:port`. Without it, at the address.
    pub advertise: Option<String>,
    /// The certificate; required unless the address is a loopback address.
    pub tls: Option<RawTls>,
    /// The authority, PEM, that the certificates of other controllers are checked against instead of the public ones.
    pub peer_ca: Option<PathBuf>,
    /// The name that the certificates of other controllers are for, where these are reached at addresses that their
    /// certificates do not name: in Kubernetes, the name of the Service. Without it, the host of `grpc.advertise`.
    pub peer_name: Option<String>,
    /// The authority, PEM, of the certificates that relays may show instead of a join token (their `controller.certificate`).
    /// Whoever it signs a relay's name for is that relay: take one that signs for nobody else. Read again when it changes.
    pub client_ca: Option<PathBuf>,
    /// Takes no relay without such a certificate, and no join token.
    pub require_relay_certificate: bool,
}

impl Default for RawGrpc {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8081".to_owned(),
            advertise: None,
            tls: None,
            peer_ca: None,
            peer_name: None,
            client_ca: None,
            require_relay_certificate: false,
        }
    }
}

/// A certificate with its key.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// The certificate chain, a PEM file, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
}

/// A user with a password of its own.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawUser {
    /// The username, at most 508 bytes.
    pub name: String,
    /// The password.
    pub password: String,
}

/// The credentials that the HTTP API mints.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawCredentials {
    /// How long a credential is good for, in seconds, where the caller does not say. 300 to 86400.
    pub ttl_seconds: u64,
}

impl Default for RawCredentials {
    fn default() -> Self {
        Self { ttl_seconds: 3600 }
    }
}

/// The life of the shared secrets that credentials are minted with.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSecrets {
    /// Rotate a secret when it is so old, in seconds: 3600 to 31536000, or 0 to leave it to `turnfleet fleet secrets rotate`.
    /// Pinned secrets are never rotated.
    pub rotate_every_seconds: u64,
}

/// Which peers clients may reach. Private addresses are refused unless they are allowed here; loopback, link-local, metadata
/// and multicast addresses are refused in any case.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawPeers {
    /// Networks that are allowed although the defaults refuse them, such as `10.1.0.0/16`.
    pub allow: Vec<String>,
    /// Networks that are refused in addition to the defaults.
    pub deny: Vec<String>,
    /// Lets every client reach services on the relays' loopback addresses. For tests only.
    pub danger_allow_loopback: bool,
}

/// Bounds that every relay enforces.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Allocations of one user on one relay. A browser makes one for each URI and network interface.
    pub allocations_per_user: u32,
    /// The largest lifetime that a client is granted, in seconds. 600 to 86400.
    pub max_lifetime_seconds: u32,
    /// How long an allocation lives at most, however often it is refreshed, in seconds: 600 at least, 0 for no end.
    pub max_session_seconds: u32,
    /// Refuse the requests of a live allocation once its ephemeral credential has ended, so that the call ends too.
    pub strict_expiry: bool,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            allocations_per_user: 100,
            max_lifetime_seconds: 3600,
            max_session_seconds: 0,
            strict_expiry: false,
        }
    }
}

/// What the users of the default tenant may do: that is everybody.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTenant {
    /// Clients on TCP and TLS may have TCP relayed transport addresses (RFC 6062), at which peers connect to them and from
    /// which they connect to peers. Relays follow a change without a restart, and allocations that live go on.
    pub tcp_relaying: bool,
}

/// The probe: two authenticated allocations on a relay, and data from one relayed address to the other.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawProbe {
    /// What a probe decides. With `auto` a probe that gets no answer counts only by a transport by which this controller has
    /// ever reached some relay, so that its own firewall unlists nobody; with `on` every failure counts; with `off` there is
    /// no probe, and a relay is listed as long as its control session lives.
    pub mode: ProbeMode,
    /// Milliseconds between two probes of a relay. 200 to 60000.
    pub interval_milliseconds: u64,
    /// The certificate authority, a PEM file, that TLS listeners are checked against. Without it, the probe checks that
    /// the handshake and TURN work, and not whose certificate it is.
    pub ca: Option<PathBuf>,
}

impl Default for RawProbe {
    fn default() -> Self {
        Self {
            mode: ProbeMode::Auto,
            interval_milliseconds: 2000,
            ca: None,
        }
    }
}

/// What a probe decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProbeMode {
    /// Failures count where the controller can reach relays at all.
    #[default]
    Auto,
    /// Every failure counts.
    On,
    /// There is no probe.
    Off,
}

/// How lists of relays are made.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLists {
    /// Which URIs carry the DNS name of their relay: `turns` for those of TLS alone, `all` where each relay has a name of its
    /// own. A caller may ask for either.
    pub names: Names,
    /// The order in which regions stand in for each other, where one has too few relays or more of them are wanted. After the
    /// last comes the first; regions that are not here come behind, by name.
    pub regions: Vec<String>,
}

/// Lists for the users of a Matrix homeserver, whose reverse proxy sends `/_matrix/client/v3/voip/turnServer` here. They are known
/// by their access tokens, about which the homeserver is asked.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawMatrix {
    /// Where the homeserver serves its client API, such as `http://127.0.0.1:8008`. Without it, Matrix clients are not answered.
    pub homeserver: Option<String>,
    /// The authority, PEM, that the certificate of an `https` homeserver is checked against instead of the public ones. Read at
    /// the start.
    pub ca: Option<PathBuf>,
    /// The tenant that its users belong to. Without it, they are of the default one.
    pub tenant: Option<String>,
    /// Guests get lists too, as with Synapse's `turn_allow_guests`.
    pub allow_guests: bool,
    /// How long their credentials are good for, in seconds: clients ask again shortly before they end. 3600 to 86400.
    pub ttl_seconds: u64,
}

impl Default for RawMatrix {
    fn default() -> Self {
        Self {
            homeserver: None,
            ca: None,
            tenant: None,
            allow_guests: true,
            ttl_seconds: 3600,
        }
    }
}

/// A receiver of events, which are posted to it as JSON.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawWebhook {
    /// What the receiver is called; it sees the name in each request.
    pub name: String,
    /// Where events are posted: `https`, or `http` in a network of your own. Redirections are not followed.
    pub url: String,
    /// What requests are signed with, at least 16 characters. The receiver has the same, and checks the signature.
    pub secret: Option<String>,
    /// A file that holds the secret.
    pub secret_file: Option<PathBuf>,
    /// Only events of these kinds: such as `allocation.closed`, or `allocation` for all that begin so. All kinds where it is empty.
    pub kinds: Vec<String>,
    /// Only events that concern this tenant.
    pub tenant: Option<String>,
    /// How long a request may take, in seconds. 1 to 60.
    pub timeout_seconds: u64,
    /// How long an event is tried, in seconds, before it is given up and counted. 10 to 86400.
    pub max_age_seconds: u64,
    /// The certificate authority, a PEM file, that an `https` receiver is checked against instead of the public ones.
    pub ca: Option<PathBuf>,
}

impl Default for RawWebhook {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            secret: None,
            secret_file: None,
            kinds: Vec::new(),
            tenant: None,
            timeout_seconds: 10,
            max_age_seconds: 3600,
            ca: None,
        }
    }
}

/// Somebody who may use the HTTP API.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawApiToken {
    /// What the operator calls the bearer; nothing else refers to it.
    pub name: String,
    /// The token; at least 16 characters. The store keeps its SHA-256 only.
    pub token: Option<String>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// What it opens: `mint`, `viewer`, `operator`, `admin`.
    pub scopes: Vec<String>,
    /// The tenant that it is bound to: it then mints for that tenant's users, and opens nothing else.
    #[serde(default)]
    pub tenant: Option<String>,
}
