//! What the store keeps of a fleet, as values. The bytes of them are `store::codec`'s matter.

use std::net::IpAddr;

use ipnet::IpNet;
use turnfleet_proto::{NodeId, PortRange};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::admission::Certified;
pub use super::bans::{Ban, Whom};
use super::node::{Identity, Incarnation};
pub use super::secrets::{SecretGeneration, SecretScope, SecretState};
pub use super::tenants::{Quotas, Tenant, Terms};

/// SHA-256 of a token that only its holder knows.
pub type TokenHash = [u8; 32];

/// Which store it is: random bytes, made with the store.
pub type Epoch = [u8; 16];

/// Which store it is, and what it was restored from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The store.
    pub epoch: Epoch,
    /// The epochs of which it was restored, each with the last generation that the backup knows; none once an operator has
    /// confirmed that relays which know more shall follow it.
    pub former: Vec<(Epoch, u64)>,
}

impl From<Epoch> for Lineage {
    fn from(epoch: Epoch) -> Self {
        let former = Vec::new();
        Self { epoch, former }
    }
}

/// One value of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Which store this is. Generations of one epoch only rise; between two epochs they mean nothing.
    Epoch(Lineage),
    /// The controller that leads. Written by the election, and not by plans.
    Leader(NodeId),
    /// A controller, as long as it lives. Written by the election, and not by plans.
    Controller(ControllerRecord),
    /// The generation of the policy snapshot.
    Generation(u64),
    /// What the configuration says and relay nodes enforce.
    Policy(Policy),
    /// How far a changed policy has come.
    Rollout(Rollout),
    /// A relay node.
    Node(NodeRecord),
    /// What the operator wants of a node.
    Desired(NodeId, Desired),
    /// Ports of a public address that one node alone uses.
    Grant(PortGrant),
    /// One generation of the shared secret.
    Secret(SecretGeneration),
    /// A key of nonces.
    NonceKey(NonceKey),
    /// A user with a long-term key.
    User(StaticUser),
    /// Who may use the HTTP API.
    ApiToken(TokenHash, ApiToken),
    /// What enrols a node.
    JoinToken(TokenHash, JoinToken),
    /// A text that the controller made and keeps.
    Setting(Setting, String),
    /// The highest number of a tenant that was ever given.
    LastTenant(u32),
    /// Whoever has users of their own.
    Tenant(Tenant),
    /// Who is not let in.
    Ban(Ban),
}

impl Record {
    /// Where the store keeps this value.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Epoch(_) => RecordKey::Epoch,
            Self::Leader(_) => RecordKey::Leader,
            Self::Controller(controller) => RecordKey::Controller(controller.id.clone()),
            Self::Generation(_) => RecordKey::Generation,
            Self::Policy(_) => RecordKey::Policy,
            Self::Rollout(_) => RecordKey::Rollout,
            Self::Node(node) => RecordKey::Node(node.id.clone()),
            Self::Desired(node, _) => RecordKey::Desired(node.clone()),
            Self::Grant(grant) => grant.key(),
            Self::Secret(secret) => secret.key(),
            Self::NonceKey(key) => RecordKey::NonceKey(key.id),
            Self::User(user) => RecordKey::User(user.name_hash()),
            Self::ApiToken(hash, _) => RecordKey::ApiToken(*hash),
            Self::JoinToken(hash, _) => RecordKey::JoinToken(*hash),
            Self::Setting(name, _) => RecordKey::Setting(*name),
            Self::LastTenant(_) => RecordKey::LastTenant,
            Self::Tenant(tenant) => RecordKey::Tenant(tenant.id),
            Self::Ban(ban) => RecordKey::Ban(ban.whom.hash()),
        }
    }
}

/// The place of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "each variant is the place of the record of its name"
)]
pub enum RecordKey {
    Epoch,
    Leader,
    Controller(NodeId),
    Generation,
    Policy,
    Rollout,
    Node(NodeId),
    Desired(NodeId),
    Grant(IpAddr, u16),
    Secret(SecretScope, u32),
    NonceKey(u32),
    User(TokenHash),
    ApiToken(TokenHash),
    JoinToken(TokenHash),
    Setting(Setting),
    LastTenant,
    Tenant(u32),
    Ban(TokenHash),
}

/// The texts that the controller keeps sealed from one start to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// The API token that `up` prints.
    ApiToken,
    /// The join token that `up` gives its relays.
    JoinToken,
    /// The SHA-256 of the shared secret that a configuration named last: it is adopted once, and then rotated like any other.
    ConfiguredSecret,
    /// The account at the certificate authority.
    AcmeAccount,
    /// The fleet's certificate, with its private key.
    AcmeCertificate,
    /// The order of the next one, and what came of those before.
    AcmeAttempt,
}

impl Setting {
    /// Every setting there is.
    pub const ALL: [Self; 6] = [
        Self::ApiToken,
        Self::JoinToken,
        Self::ConfiguredSecret,
        Self::AcmeAccount,
        Self::AcmeCertificate,
        Self::AcmeAttempt,
    ];

    /// The name in the store's key.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiToken => "api-token",
            Self::JoinToken => "join-token",
            Self::ConfiguredSecret => "configured-secret",
            Self::AcmeAccount => "acme-account",
            Self::AcmeCertificate => "acme-certificate",
            Self::AcmeAttempt => "acme-attempt",
        }
    }
}

/// What the configuration says and every relay node enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The REALM of every relay, RFC 8489 §9.2.
    pub realm: String,
    /// Peers allowed although the relays' defaults refuse them.
    pub allow_peers: Vec<IpNet>,
    /// Peers refused in addition to the defaults.
    pub deny_peers: Vec<IpNet>,
    /// Lets clients reach the relays' own machine.
    pub danger_allow_loopback: bool,
    /// Allocations of one user on one relay.
    pub allocations_per_user: u32,
    /// The largest lifetime of an allocation, in seconds.
    pub max_lifetime_seconds: u32,
    /// How long an allocation lives at most, in seconds; zero for no end.
    pub max_session_seconds: u32,
    /// Whether requests about a live allocation are refused once its credential has ended.
    pub strict_expiry: bool,
    /// Whether clients may have TCP relayed transport addresses (RFC 6062).
    pub tcp_relaying: bool,
}

/// What a controller tells the others of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerRecord {
    /// Its name.
    pub id: NodeId,
    /// Where relays and other controllers reach it, a URL.
    pub grpc_url: String,
    /// Where its HTTP API is, `host:port`.
    pub http_address: String,
    /// Its region.
    pub region: String,
    /// The version of its software.
    pub version: String,
}

/// A relay node as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its name.
    pub id: NodeId,
    /// SHA-256 of the credential that its sessions carry.
    pub credential: TokenHash,
    /// What it said of itself at its last Hello; `None` until the first.
    pub identity: Option<Identity>,
    /// What it became a member by.
    pub membership: Membership,
}

impl NodeRecord {
    /// SHA-256 of every credential that is good.
    pub fn credentials(&self) -> impl Iterator<Item = TokenHash> + use<> {
        [Some(self.credential), self.membership.next]
            .into_iter()
            .flatten()
    }
}

/// What a node became a member by, and how it stays one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The region that its join token or its certificate bound it to.
    pub region: Option<String>,
    /// The tenant that they bound it to.
    pub tenant: Option<String>,
    /// Whether it is a member by its certificate, which it then shows for each session.
    pub certified: bool,
    /// Unix seconds since which its credential is the one.
    pub since: u64,
    /// SHA-256 of the credential that it was given last, until it uses it.
    pub next: Option<TokenHash>,
}

impl Membership {
    /// The same, bound to what a certificate says.
    #[must_use]
    pub(super) fn certified(self, certified: &Certified) -> Self {
        Self {
            region: Some(certified.region.clone()),
            tenant: certified.tenant.clone(),
            certified: true,
            ..self
        }
    }
}

/// What enrols nodes, and what it binds them to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinToken {
    /// What the operator calls it.
    pub name: String,
    /// The region of its nodes, whatever they say; `None` lets them say it.
    pub region: Option<String>,
    /// The tenant that its nodes are for.
    pub tenant: Option<String>,
    /// The first Unix second at which it enrols nobody.
    pub expires_at: Option<u64>,
    /// Made by an operator, and not by the configuration.
    pub by_operator: bool,
}

/// How far a changed policy has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// What relays enforce that it has not reached.
    pub base: Policy,
    /// How far it has come.
    pub stage: Stage,
    /// The generation of this stage.
    pub generation: u64,
    /// Canaries that went away without a word.
    pub lost: u32,
}

/// How far a changed policy has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No relay has it.
    Pending,
    /// One tries it.
    Canary {
        /// Which one.
        node: NodeId,
    },
    /// Every relay has it.
    All,
    /// No relay has it, and none will get it: an operator gives another policy, or forces this one.
    Stopped {
        /// The relay that refused it, or was lost with it.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

impl Stage {
    /// Every name there is.
    pub const NAMES: [&str; 4] = ["pending", "canary", "all", "stopped"];

    /// The name in the API and as a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Canary { .. } => "canary",
            Self::All => "all",
            Self::Stopped { .. } => "stopped",
        }
    }
}

/// What the operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Give it no allocations.
    pub draining: bool,
    /// Unix seconds at which live allocations may be cut; `None` for never.
    pub drain_deadline: Option<u64>,
    /// The run of its process that shall end.
    pub kill: Option<Incarnation>,
}

/// Ports of a public address that one node alone uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortGrant {
    /// The node.
    pub node: NodeId,
    /// The address that peers see.
    pub public_ip: IpAddr,
    /// The ports.
    pub range: PortRange,
    /// What the node gives back of it.
    pub ceded: Option<Cession>,
    /// Unix seconds at which the grant ends; `None` for never. Only on an address that several nodes share.
    pub not_after: Option<u64>,
    /// The generation that the node has to run and keep before `ceded` and `not_after` bind it; `None` once it does.
    pub unconfirmed: Option<u64>,
    /// Unix seconds until which the ports are nobody's but for the same node; `None` while it holds them.
    pub quarantined_until: Option<u64>,
    /// The generation that wrote it.
    pub fence: u64,
}

/// The upper ports of a grant, given back once none of them is in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cession {
    /// The lowest of them.
    pub from: u16,
    /// Who gets them; `None` for whoever asks first.
    pub to: Option<NodeId>,
}

impl PortGrant {
    /// Ports that `node` holds without an end.
    #[must_use]
    pub fn held(node: NodeId, public_ip: IpAddr, range: PortRange) -> Self {
        Self {
            node,
            public_ip,
            range,
            ceded: None,
            not_after: None,
            unconfirmed: None,
            quarantined_until: None,
            fence: 0,
        }
    }

    /// The ports that the node may open; `None` where it gives all of them back, or holds them no longer.
    #[must_use]
    pub fn open_range(&self) -> Option<PortRange> {
        if self.quarantined_until.is_some() {
            return None;
        }
        match &self.ceded {
            None => Some(self.range),
            Some(ceded) => PortRange::new(self.range.first(), ceded.from.checked_sub(1)?).ok(),
        }
    }

    /// Where the store keeps it.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::Grant(self.public_ip, self.range.first())
    }
}

/// A key of nonces, which the whole fleet shares.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct NonceKey {
    /// Rises with each key; of those that are not staged the highest signs.
    pub id: u32,
    /// The key.
    pub key: [u8; 32],
    /// Unix seconds.
    pub created_at: u64,
    /// Signs nothing yet.
    pub staged: bool,
    /// The fleet generation that brought it to the relays.
    pub since_generation: u64,
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NonceKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A user with a long-term key.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticUser {
    /// The USERNAME.
    pub name: String,
    /// MD5(name ":" realm ":" password), RFC 8489 §9.2.2.
    pub key: [u8; 16],
    /// SHA-256 of the same, RFC 8489 §18.5.1.2; records of earlier versions lack it until the next start.
    pub key_sha256: Option<[u8; 32]>,
}

impl StaticUser {
    /// The name's SHA-256: store keys hold no text that a user chose.
    #[must_use]
    pub fn name_hash(&self) -> TokenHash {
        token_hash(&self.name)
    }
}

impl std::fmt::Debug for StaticUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a bearer of an API token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// What the operator calls it.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// The tenant that it is bound to: it mints for that tenant's users, and opens nothing else.
    pub tenant: Option<String>,
    /// Unix seconds from which on it opens nothing.
    pub expires_at: Option<u64>,
    /// Made by an operator, and not by the configuration: it stays until it is revoked.
    pub by_operator: bool,
}

/// One thing that an API token opens. `Admin` opens everything, `Operator` also what `Viewer` sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Ask for credentials.
    Mint,
    /// See nodes and capacity.
    Viewer,
    /// Drain and forget nodes.
    Operator,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 4] = [Self::Mint, Self::Viewer, Self::Operator, Self::Admin];

    /// The name in configuration and store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether holding this scope opens what `wanted` asks for.
    #[must_use]
    pub fn opens(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin || (self == Self::Operator && wanted == Self::Viewer)
    }
}

impl std::str::FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or(())
    }
}

impl ApiToken {
    /// Whether it has come to its end.
    #[must_use]
    pub fn has_ended(&self, unix: u64) -> bool {
        self.expires_at.is_some_and(|end| end <= unix)
    }

    /// Whether the bearer may do what `wanted` asks for.
    #[must_use]
    pub fn opens(&self, wanted: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.opens(wanted))
    }
}

/// SHA-256 of a token or a name.
#[must_use]
pub fn token_hash(token: &str) -> TokenHash {
    use sha2::Digest as _;
    sha2::Sha256::digest(token.as_bytes()).into()
}
