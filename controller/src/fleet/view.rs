//! What is known of the fleet, immutable: lists, credentials and every read of the API are answered from it, so that a
//! request touches memory only.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_proto::probe_name::ProbeKey;

use super::bans::Bans;
use super::certificate::{CertificateState, Validity};
use super::course::Course;
use super::health::Health;
use super::issuance::Issuance;
use super::node::{Capacity, Identity, Incarnation, Listener, Load, Transport};
use super::placement::Candidates;
use super::quota::{QuotaState, Subject};
use super::rates::Rates;
use super::record::{
    ApiToken, ControllerRecord, JoinToken, PortGrant, Rollout, TokenHash, token_hash,
};
use super::restored::Restored;
use super::saturation::Saturation;
use super::secrets::{Minting, Place, SecretView};
use super::sightings::ControllerId;
use super::tenants::Tenants;
use super::trend::Trends;
use super::uris::{Names, Uris};
use super::vantage::Reach;

/// The fleet at one moment.
#[derive(Clone, Debug)]
pub struct FleetView {
    /// The generation of the policy snapshot.
    pub generation: u64,
    /// What says that the store is an old one; nothing is pushed then.
    pub restored: Option<Restored>,
    /// How many values of the store are not believed: they were damaged, or put there by somebody else.
    pub refused: usize,
    /// How far a changed policy has come; `None` where it was never changed.
    pub rollout: Option<Arc<Rollout>>,
    /// The REALM of every relay.
    pub realm: Arc<str>,
    /// The region that lists prefer when none is asked for.
    pub region: Arc<str>,
    /// Which URIs of a list carry names where the caller does not say.
    pub names: Names,
    /// The regions where so much fell silent at once that it is this controller that is suspect.
    pub panics: Vec<String>,
    /// The controllers that live, this one among them, in the order of ids; none where the store is this one's alone.
    pub controllers: Arc<[ControllerView]>,
    /// Every enrolled node, in the order of ids.
    pub nodes: Vec<Arc<NodeView>>,
    /// Ports that are nobody's until their quarantine ends.
    pub quarantined: Vec<PortGrant>,
    /// Whether the store does not answer: what it holds may be old, and nothing can be changed.
    pub store_stale: bool,
    /// Whether this controller does the work that one alone may do.
    pub leads: bool,
    /// The controller that leads; `None` for none, or where there is only one.
    pub leader: Option<NodeId>,
    /// Every generation of the shared secret, in the order of ids.
    pub secrets: Arc<[SecretView]>,
    /// Every tenant that there is a record of.
    pub tenants: Arc<Tenants>,
    /// Every ban.
    pub bans: Arc<Bans>,
    /// The fleet's certificate, where a certificate authority gives one.
    pub issuance: Arc<Issuance>,
    /// How limited tenants stand, and users that have come to the end of what they may have: a second ago at most.
    pub quotas: Arc<BTreeMap<Subject, QuotaState>>,
    pub(super) minting: Minting,
    pub(super) probe_key: Option<ProbeKey>,
    pub(super) api_tokens: Arc<HashMap<TokenHash, ApiToken>>,
    pub(super) join_tokens: Arc<BTreeMap<TokenHash, JoinToken>>,
    pub(super) candidates: Candidates,
    pub(super) trends: Arc<Trends>,
    pub(super) course: Arc<Course>,
}

impl FleetView {
    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Arc<NodeView>> {
        self.nodes
            .binary_search_by(|node| node.id.cmp(id))
            .ok()
            .map(|place| &self.nodes[place])
    }

    /// Every node, with what `other` knows of the same one.
    pub fn beside<'v>(
        &'v self,
        other: &'v Self,
    ) -> impl Iterator<Item = (&'v Arc<NodeView>, Option<&'v Arc<NodeView>>)> {
        let mut others = other.nodes.iter().peekable();
        self.nodes.iter().map(move |node| {
            while others.next_if(|other| other.id < node.id).is_some() {}
            (node, others.next_if(|other| other.id == node.id))
        })
    }

    /// Who bears `token`. The look-up is by the token's SHA-256, so its time tells nothing of it.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Option<&ApiToken> {
        self.api_tokens.get(&token_hash(token))
    }

    /// Who may use the API.
    pub fn api_tokens(&self) -> impl Iterator<Item = &ApiToken> {
        self.api_tokens.values()
    }

    /// What enrols relays.
    pub fn join_tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.join_tokens.values()
    }

    /// The listed nodes that answer for `region` to askers who are nobody's users, or for all regions where none is named: a
    /// region without any is answered for by the first that stands in for it.
    #[must_use]
    pub fn for_everybody(&self, region: Option<&str>) -> Vec<&Arc<NodeView>> {
        self.candidates.for_everybody(region)
    }

    /// The user as whom relays are tried until `expires_at` (Unix seconds): relays know it, and count it for nobody. Without a
    /// nonce key, which comes with the first start, it is none.
    #[must_use]
    pub fn probe_user(&self, expires_at: u64) -> String {
        let key = self.probe_key.as_ref();
        key.map_or_else(String::new, |key| key.user(expires_at))
    }

    /// How many nodes are in lists.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.nodes.iter().filter(|node| node.listed).count()
    }
}

/// A controller of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerView {
    /// Its name.
    pub id: ControllerId,
    /// Where the others reach it, a URL; empty where they do not.
    pub grpc: Arc<str>,
}

impl From<&ControllerRecord> for ControllerView {
    fn from(record: &ControllerRecord) -> Self {
        Self {
            id: record.id.as_str().into(),
            grpc: record.grpc_url.as_str().into(),
        }
    }
}

/// One node at one moment.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its name.
    pub id: NodeId,
    /// What it says of itself.
    pub identity: Arc<Identity>,
    /// The tenant that it is bound to, by its join token or its certificate: it is in the lists of that tenant's users alone.
    pub tenant: Option<Box<str>>,
    /// Which run of its process holds or held the last session; `None` where none has been seen.
    pub incarnation: Option<Incarnation>,
    /// Whether it lives.
    pub health: Health,
    /// Whether its control session is open.
    pub connected: bool,
    /// Whether it is, or shall be, emptied of allocations.
    pub draining: bool,
    /// Unix seconds at which its live allocations may be cut, where an operator drains it and has set a deadline.
    pub drain_deadline: Option<u64>,
    /// Whether lists may name it.
    pub listed: bool,
    /// Whether it is listed behind all others although this controller hears nothing of it: much of its region fell silent
    /// at once.
    pub suspect: bool,
    /// Whether it runs the policy that lists want.
    pub up_to_date: bool,
    /// Whether nothing tells that it accepts the latest secret: its probe shall show it.
    pub secret_unproven: bool,
    /// The ports that it holds.
    pub grants: Arc<[PortGrant]>,
    /// The generation that it runs; zero where unknown.
    pub applied_generation: u64,
    /// Why it refused the last snapshot, where it did.
    pub refusal: Option<Box<str>>,
    /// Unix seconds of its last heartbeat.
    pub last_heartbeat: Option<u64>,
    /// What it does.
    pub load: Load,
    /// What it does a second.
    pub rates: Rates,
    /// How full it is.
    pub saturation: Saturation,
    /// What the last probe found, where one has ended.
    pub probe: Option<Result<(), super::health::ProbeFailure>>,
    /// Whether its session alone speaks for it, because the probe has never reached any node that way.
    pub unseen: bool,
    /// Transports that the last probe found broken while others worked; lists leave them out.
    pub broken: Vec<Transport>,
    pub(super) reached: Reach,
    /// Milliseconds that its wall clock is ahead of the controller's; `None` where unknown.
    pub clock_skew_millis: Option<i64>,
    /// How long lists leave it out for failing again and again.
    pub damped_for: Option<Duration>,
    /// Its faults of the last ten minutes, at most four.
    pub faults: usize,
    /// The part of its weight that it has after a fault, in percent.
    pub ramp: u8,
    /// How the certificate of its TLS listeners stands.
    pub certificate: CertificateState,
    /// When that certificate is valid; `None` where unknown.
    pub validity: Option<Validity>,
    /// Its share of users is in proportion to this, among those of its region.
    pub weight: f64,
    pub(super) uris: Arc<Uris>,
    /// How the prober shall treat it.
    pub probing: Probing,
}

/// What the prober shall do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// Nothing: it has no snapshot yet, or has said goodbye.
    No,
    /// Probe it at the interval, and at once whenever `round` differs from that of the last probe begun. An outcome
    /// carries the round that it was begun in.
    Yes {
        /// Rises when an outcome is wanted at once.
        round: u64,
    },
}

impl NodeView {
    /// Whether clients may be sent to it by `transport`: the probe did not find that broken, and a certificate is not at its end.
    #[must_use]
    pub fn serves(&self, transport: Transport) -> bool {
        let is_trusted = transport != Transport::Tls || self.certificate.is_good();
        is_trusted && !self.broken.contains(&transport)
    }

    /// Where clients may be sent to by `transport`, in the node's own order, IPv4 before IPv6.
    pub fn listeners(&self, transport: Transport) -> impl Iterator<Item = &Listener> {
        let serves = self.serves(transport);
        let of = move |v4: bool| {
            self.identity.listeners.iter().filter(move |listener| {
                serves && listener.transport == transport && listener.address.is_ipv4() == v4
            })
        };
        of(true).chain(of(false))
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            region: &self.identity.region,
            tenant: self.tenant.as_deref(),
        }
    }

    /// The addresses that peers see.
    #[must_use]
    pub fn public_ips(&self) -> &[IpAddr] {
        &self.identity.public_ips
    }

    /// What it can hold.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.identity.capacity
    }
}
