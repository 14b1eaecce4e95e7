//! The policy snapshot of one node: everything that it enforces and the fleet agrees on. All of it but its own ports is
//! shared by the nodes of a [`Variant`].

use std::net::IpAddr;

use turnfleet_proto::{NodeId, PortRange, fleet as wire};

use super::Fleet;
use super::record::{Desired, PortGrant};
use super::registry::NodeState;
use super::secrets::Place;
use super::tenants::DEFAULT_TENANT;

/// What makes the fleet-wide part of one node's snapshot differ from another's. There are few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// Where secrets of its region are accepted; empty where none of its own are.
    region: String,
    /// The same of its tenant, also where there is a record of that.
    tenant: Option<String>,
    /// It has the policy from before a rollout.
    runs_base: bool,
}

impl Fleet {
    /// The snapshot of `node`; `None` where there is no such node.
    #[must_use]
    pub fn snapshot(&self, node: &NodeId) -> Option<wire::Snapshot> {
        Some(wire::Snapshot {
            port_grants: self.own_grants(node)?,
            tenants: self.wire_tenants(),
            bans: self.wire_bans().map(|(_, ban)| ban).collect(),
            ..self.fleet_wide(&self.variant(node))?
        })
    }

    /// Which fleet-wide part `node` is sent.
    pub(super) fn variant(&self, node: &NodeId) -> Variant {
        let known = self.nodes.get(node);
        let known = known.filter(|node| node.identity().is_some());
        let Place { region, tenant } = known.map_or_else(Place::default, NodeState::place);
        let of_region = Place {
            region,
            tenant: None,
        };
        let of_tenant = Place { region: "", tenant };
        let has_own = |place| self.secrets.differ(Place::default(), place);
        Variant {
            region: if has_own(of_region) { region } else { "" }.to_owned(),
            tenant: tenant
                .filter(|name| has_own(of_tenant) || self.tenants.id(name).is_some())
                .map(str::to_owned),
            runs_base: self.runs_base(node),
        }
    }

    /// The ports of `node` on the addresses that it has; `None` where it has never said which.
    pub(super) fn own_grants(&self, node: &NodeId) -> Option<Vec<wire::PortGrant>> {
        let node = self.nodes.get(node)?;
        let identity = node.identity()?;
        let own = |grant: &&PortGrant| identity.public_ips.contains(&grant.public_ip);
        let own = node.grants.iter().filter(own);
        Some(own.filter_map(open_grant).collect())
    }

    /// Everything but the ports of one node, and but tenants and bans; `None` before the first start is through.
    pub(super) fn fleet_wide(&self, variant: &Variant) -> Option<wire::Snapshot> {
        let policy = match variant.runs_base {
            true => self.base_policy(),
            false => self.policy.as_ref(),
        }?;
        let place = Place {
            region: &variant.region,
            tenant: variant.tenant.as_deref(),
        };
        Some(wire::Snapshot {
            epoch: self.lineage.epoch.to_vec(),
            generation: self.generation,
            realm: policy.realm.clone(),
            secrets: self.secrets.wire(place),
            revoked_secrets: self.secrets.wire_revoked(place),
            users: self
                .users
                .values()
                .map(|user| wire::StaticUser {
                    username: user.name.clone(),
                    key: user.key.to_vec(),
                    key_sha256: user.key_sha256.map_or_else(Vec::new, Into::into),
                })
                .collect(),
            nonce_keys: self
                .nonce_keys
                .iter()
                .map(|key| wire::NonceKey {
                    id: key.id,
                    key: key.key.to_vec(),
                    staged: key.staged,
                })
                .collect(),
            port_grants: Vec::new(),
            peer_policy: Some(wire::PeerPolicy {
                allow: policy.allow_peers.iter().map(ToString::to_string).collect(),
                deny: policy.deny_peers.iter().map(ToString::to_string).collect(),
                danger_allow_loopback: policy.danger_allow_loopback,
                fleet: self
                    .grants
                    .values()
                    .map(|grant| wire_grant(grant.public_ip, grant.range))
                    .collect(),
            }),
            limits: Some(wire::Limits {
                allocations_per_user: policy.allocations_per_user.into(),
                max_lifetime_seconds: policy.max_lifetime_seconds,
                max_session_seconds: policy.max_session_seconds,
                strict_expiry: policy.strict_expiry,
            }),
            tenant: Some(wire::TenantRules {
                tcp_relaying: policy.tcp_relaying,
                quotas: Some(self.tenants.quotas(DEFAULT_TENANT).wire()),
            }),
            tenants: Vec::new(),
            bans: Vec::new(),
            own_tenant: place
                .tenant
                .and_then(|name| self.tenants.id(name))
                .unwrap_or(DEFAULT_TENANT),
        })
    }

    /// What the operator wants of `node`.
    #[must_use]
    pub fn desired(&self, node: &NodeId) -> Desired {
        self.desired.get(node).copied().unwrap_or_default()
    }

    /// What the operator wants of `node`, in its own terms: a deadline in seconds from `unix`.
    #[must_use]
    pub fn drain_order(&self, node: &NodeId, unix: u64) -> wire::Drain {
        let desired = self.desired(node);
        let left = |deadline: u64| deadline.saturating_sub(unix).max(1);
        wire::Drain {
            draining: desired.draining,
            deadline_seconds: desired.drain_deadline.map_or(0, left),
        }
    }
}

/// What a node may open of `grant`, and on which terms.
fn open_grant(grant: &PortGrant) -> Option<wire::PortGrant> {
    Some(wire::PortGrant {
        fence: grant.fence,
        not_after: grant.not_after.unwrap_or(0),
        ..wire_grant(grant.public_ip, grant.open_range()?)
    })
}

fn wire_grant(public_ip: IpAddr, range: PortRange) -> wire::PortGrant {
    wire::PortGrant {
        public_ip: public_ip.to_string(),
        range: Some(wire::PortRange {
            first: range.first().into(),
            last: range.last().into(),
        }),
        ..wire::PortGrant::default()
    }
}
