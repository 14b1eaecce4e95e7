//! From the tenants of a snapshot to whose user somebody is, and what holds for the users of each.
//!
//! Whose user a request is of is told, in this order, by the tenant that the node is bound to, by the name that the client's
//! TLS handshake asks for, by the username, and by the realm; else it is the default tenant's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use turnfleet_proto::fleet;
use turnfleet_turn::peer_filter::PeerOverlay;
use turnfleet_turn::{Identity, TenantId, TenantPolicy, Tenants};

use super::key_ring::{Generation, Ring, SecretUses};
use super::{LocalPolicy, SnapshotError, blocks, bounded, realm, tcp_relaying};

/// Tenants beside the default one.
const MAX_TENANTS: usize = 1000;
/// Names in TLS handshakes that are one tenant's.
const MAX_TLS_NAMES: usize = 64;
/// RFC 1035 §2.3.4: the longest name of a server.
const MAX_TLS_NAME_BYTES: usize = 253;
/// The longest name of a tenant.
const MAX_NAME_BYTES: usize = 63;
/// Generations of a tenant's own secret that are accepted at once.
const MAX_SECRETS: usize = 32;

/// The names of tenants, for those who read logs.
#[derive(Clone, Debug, Default)]
pub struct TenantNames(HashMap<TenantId, Box<str>>);

impl TenantNames {
    /// The name of `tenant`; `None` for the default one, and for one that is gone.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Option<&str> {
        self.0.get(&tenant).map(AsRef::as_ref)
    }
}

/// Which tenant is meant by which name, and the secrets of each.
#[derive(Default)]
pub(super) struct Directory {
    /// The tenant that the node is bound to.
    own: Option<TenantId>,
    tenants: HashMap<TenantId, Member>,
    by_name: HashMap<Box<str>, TenantId>,
    by_tls_name: HashMap<Box<str>, TenantId>,
    by_realm: HashMap<Box<str>, TenantId>,
    /// The most secrets that any tenant has of its own.
    most_secrets: usize,
}

struct Member {
    /// Where it is not the fleet's.
    realm: Option<Box<str>>,
    secrets: Ring,
}

/// Whose user a request is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Belonging {
    pub(super) tenant: TenantId,
    /// What the username says for itself.
    pub(super) named: TenantId,
    /// The part of the username that counts against the limit per user.
    pub(super) user: Option<Range<usize>>,
}

/// What comes of the tenants of a snapshot.
pub(super) struct Known {
    pub(super) policies: Tenants,
    pub(super) names: TenantNames,
    pub(super) directory: Directory,
}

/// # Errors
/// For the first tenant that does not fit.
pub(super) fn tenants(
    snapshot: &fleet::Snapshot,
    local: &LocalPolicy,
) -> Result<Known, SnapshotError> {
    let list = &snapshot.tenants;
    bounded("tenants", list, MAX_TENANTS)?;
    let mut policies = Vec::with_capacity(list.len());
    let mut names = TenantNames::default();
    let mut directory = Directory::default();
    for tenant in list {
        let id = TenantId(tenant.id);
        directory.add(id, tenant, &snapshot.realm, &local.secret_uses)?;
        names.0.insert(id, tenant.name.as_str().into());
        policies.push((id, policy(tenant, local)?));
    }
    let own = TenantId(snapshot.own_tenant);
    directory.own = directory.tenants.contains_key(&own).then_some(own);
    Ok(Known {
        policies: policies.into_iter().collect(),
        names,
        directory,
    })
}

fn policy(tenant: &fleet::Tenant, local: &LocalPolicy) -> Result<TenantPolicy, SnapshotError> {
    let allow = blocks("tenants.allow_peers", &tenant.allow_peers)?;
    let deny = blocks("tenants.deny_peers", &tenant.deny_peers)?;
    let limit = u32::try_from(tenant.allocations_per_user).unwrap_or(u32::MAX);
    Ok(TenantPolicy {
        allocations_per_user: Some(limit).filter(|limit| *limit > 0),
        tcp_relaying: tcp_relaying(tenant.rules.unwrap_or_default(), local),
        peers: PeerOverlay::new(&allow, &deny),
        suspended: tenant.suspended,
    })
}

impl Directory {
    fn add(
        &mut self,
        id: TenantId,
        tenant: &fleet::Tenant,
        fleets_realm: &str,
        uses: &SecretUses,
    ) -> Result<(), SnapshotError> {
        if id == TenantId::DEFAULT {
            return Err(SnapshotError::Value {
                field: "tenants.id",
                expected: "above zero",
            });
        }
        let name = tenant.name.as_str();
        if !is_name(name) {
            let reason = "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit";
            return Err(SnapshotError::text("tenants.name", name, reason));
        }
        claim("tenants.name", &mut self.by_name, name, id)?;
        bounded("tenants.tls_names", &tenant.tls_names, MAX_TLS_NAMES)?;
        for text in &tenant.tls_names {
            if text.is_empty() || text.len() > MAX_TLS_NAME_BYTES {
                let reason = "1 to 253 bytes";
                return Err(SnapshotError::text("tenants.tls_names", text, reason));
            }
            let name = text.trim_end_matches('.').to_ascii_lowercase();
            claim("tenants.tls_names", &mut self.by_tls_name, &name, id)?;
        }
        // A realm that is everybody's tells nobody apart.
        let own_realm = Some(tenant.realm.as_str()).filter(|it| !it.is_empty());
        let own_realm = own_realm.filter(|it| *it != fleets_realm);
        let own_realm = own_realm
            .map(|text| realm("tenants.realm", text))
            .transpose()?;
        if let Some(realm) = &own_realm {
            claim("tenants.realm", &mut self.by_realm, realm, id)?;
        }
        let secrets = Ring::new("tenants.secrets", &tenant.secrets, MAX_SECRETS, uses)?;
        self.most_secrets = self.most_secrets.max(secrets.len());
        let member = Member {
            realm: own_realm,
            secrets,
        };
        match self.tenants.entry(id) {
            Entry::Vacant(place) => place.insert(member),
            Entry::Occupied(_) => {
                return Err(SnapshotError::text("tenants.id", name, "an id twice"));
            }
        };
        Ok(())
    }

    /// The realm for a client that asks for a server by `server_name`, or that has `asked` for a realm.
    pub(super) fn realm(&self, server_name: Option<&str>, asked: Option<&str>) -> Option<&str> {
        let served = |id: &TenantId| self.own.is_none_or(|own| own == *id);
        let shown = server_name.and_then(|name| self.by_tls_name.get(name));
        let shown = shown.filter(|id| served(id));
        let of_name = shown.and_then(|id| self.tenants.get(id)?.realm.as_deref());
        of_name.or_else(|| {
            let (realm, _) = self.by_realm.get_key_value(asked?)?;
            self.by_realm.get(realm).filter(|id| served(id))?;
            Some(realm)
        })
    }

    /// Whose user `identity` is, whose username is an ephemeral one with the part `user`. `None` where the username names
    /// another tenant than the node or the server's name does: it is nobody's there.
    pub(super) fn belonging(
        &self,
        identity: Identity<'_>,
        user: Option<&str>,
    ) -> Option<Belonging> {
        let end = identity.username.len();
        let whole = user.map(|user| end - user.len()..end);
        let named = user.and_then(|user| user.split_once('/'));
        let named = named.and_then(|(name, rest)| Some((*self.by_name.get(name)?, rest)));
        let shown = self
            .own
            .or_else(|| self.by_tls_name.get(identity.server_name?).copied());
        let (tenant, named, user) = match (shown, named) {
            (Some(shown), Some((named, _))) if shown != named => return None,
            (_, Some((named, rest))) => (named, named, Some(end - rest.len()..end)),
            (Some(shown), None) => (shown, TenantId::DEFAULT, whole),
            (None, None) => {
                let by_realm = self.by_realm.get(identity.realm).copied();
                (by_realm.unwrap_or_default(), TenantId::DEFAULT, whole)
            }
        };
        Some(Belonging {
            tenant,
            named,
            user: user.filter(|user| !user.is_empty()),
        })
    }

    /// The secrets of `tenant` alone.
    pub(super) fn secrets(&self, tenant: TenantId) -> &[Generation] {
        self.tenants
            .get(&tenant)
            .map_or(&[], |member| member.secrets.generations())
    }

    /// The most secrets that any tenant has of its own.
    pub(super) fn most_secrets(&self) -> usize {
        self.most_secrets
    }

    /// Every secret of every tenant.
    pub(super) fn all_secrets(&self) -> impl Iterator<Item = &Generation> {
        let members = self.tenants.values();
        members.flat_map(|member| member.secrets.generations())
    }
}

fn is_name(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    };
    begins && text.len() <= MAX_NAME_BYTES && text.bytes().all(fits)
}

/// Gives `name` to a tenant; two of them cannot have it.
fn claim(
    field: &'static str,
    names: &mut HashMap<Box<str>, TenantId>,
    name: &str,
    id: TenantId,
) -> Result<(), SnapshotError> {
    match names.entry(name.into()) {
        Entry::Vacant(place) => place.insert(id),
        Entry::Occupied(_) => return Err(SnapshotError::text(field, name, "named twice")),
    };
    Ok(())
}
