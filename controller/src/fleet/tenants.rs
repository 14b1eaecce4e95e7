//! Tenants: whoever has users of their own, what holds for them, and what is written for a change of one.
//!
//! A tenant is known by a number that is never used again, and by a name that usernames carry. The default tenant is the
//! configuration's; there is a record of it only where an operator gave it quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use turnfleet_proto::fleet as wire;

use super::record::{Record, RecordKey};
use super::secrets::SecretScope;
use super::{Fleet, Plan};
use crate::error::FleetError;

/// The number of the default tenant.
pub const DEFAULT_TENANT: u32 = 0;
/// What it is called.
pub const DEFAULT_NAME: &str = "default";
/// The most tenants of a fleet.
pub const MAX_TENANTS: usize = 1000;
/// The most server names of TLS of one tenant.
pub const MAX_TLS_NAMES: usize = 16;
/// The most networks in one list of one tenant.
pub const MAX_NETWORKS: usize = 64;
/// The longest name.
const MAX_NAME: usize = 63;
/// The longest REALM, in characters (RFC 8489 §14.9).
const MAX_REALM: usize = 127;
/// The longest name in the DNS.
const MAX_TLS_NAME: usize = 253;
/// The most records of secrets that go with a tenant in one transaction.
const MAX_GONE: usize = 96;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What holds for its users.
    pub terms: Terms,
    /// Unix seconds.
    pub created_at: u64,
    /// The fleet generation that brought it to the relays.
    pub since_generation: u64,
    /// The configuration names it.
    pub configured: bool,
}

/// What holds for the users of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What its clients may be challenged with; `None` for the fleet's.
    pub realm: Option<String>,
    /// The server names of TLS that its clients ask for, in lower case.
    pub tls_names: Vec<String>,
    /// Peers allowed although the fleet's rules refuse them.
    pub allow_peers: Vec<IpNet>,
    /// Peers refused in addition to the fleet's rules.
    pub deny_peers: Vec<IpNet>,
    /// Whether its clients may have TCP relayed transport addresses (RFC 6062).
    pub tcp_relaying: bool,
    /// Lets nobody in.
    pub suspended: bool,
    /// What its users may take of the fleet.
    pub quotas: Quotas,
}

/// What users may take of the whole fleet; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Allocations of all users together.
    pub allocations: u64,
    /// Allocations of one user.
    pub allocations_per_user: u64,
    /// Bits a second of all users together, in each direction.
    pub bits_per_second: u64,
    /// Bits a second of one user, in each direction.
    pub user_bits_per_second: u64,
    /// Bytes a day of all users together, both directions.
    pub bytes_per_day: u64,
    /// Bytes a day of one user, both directions.
    pub user_bytes_per_day: u64,
    /// Credentials a minute that are minted for all users together.
    pub credentials_per_minute: u64,
}

impl Quotas {
    /// What relays hear of it: what takes a controller to count is not theirs.
    #[must_use]
    pub(super) fn wire(&self) -> wire::Quotas {
        wire::Quotas {
            allocations: self.allocations,
            bits_per_second: self.bits_per_second,
            allocations_per_user: self.allocations_per_user,
            user_bits_per_second: self.user_bits_per_second,
        }
    }
}

/// Why a tenant is not made, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// There is none of that name.
    #[error("there is no tenant {0}: `turnfleet fleet tenants set {0}` makes it")]
    Unknown(String),
    /// Something that is said of it cannot be.
    #[error("{what} of the tenant {tenant}: expected {expected}")]
    Unfit {
        /// Which tenant.
        tenant: String,
        /// What is wrong.
        what: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// Another one has this realm or server name.
    #[error("{what} {value:?} is that of the tenant {owner} already")]
    Taken {
        /// A realm or a server name.
        what: &'static str,
        /// Which.
        value: String,
        /// Whose it is.
        owner: String,
    },
    /// The configuration says what holds for it.
    #[error("the tenant {0} is the configuration's: change it there")]
    Configured(String),
    /// Something refers to it.
    #[error(
        "{what} {name} is bound to the tenant {tenant}: revoke it before the tenant is removed"
    )]
    InUse {
        /// What refers to it.
        what: &'static str,
        /// Which one.
        name: String,
        /// The tenant.
        tenant: String,
    },
    /// There are as many as there can be.
    #[error("there are {limit} tenants, which is as many as a fleet has; remove some")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

impl Tenant {
    /// Whether there is nothing in it that the configuration does not say.
    fn is_default(&self) -> bool {
        self.id == DEFAULT_TENANT
    }
}

/// Whether `name` can be that of a tenant: 1 to 63 lower-case letters, digits, `-`, `_` and `.`, the first one a letter or a
/// digit.
#[must_use]
pub fn is_tenant_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME
        && bytes.next().is_some_and(plain)
        && bytes.all(|byte| plain(byte) || b"-_.".contains(&byte))
}

impl Terms {
    /// The same in the form in which they are kept: names in lower case, networks by their first address, nothing twice.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.realm = self.realm.filter(|realm| !realm.is_empty());
        for name in &mut self.tls_names {
            *name = name.trim_end_matches('.').to_ascii_lowercase();
        }
        self.tls_names.sort_unstable();
        self.tls_names.dedup();
        for networks in [&mut self.allow_peers, &mut self.deny_peers] {
            for network in networks.iter_mut() {
                *network = network.trunc();
            }
            networks.sort_unstable();
            networks.dedup();
        }
        self
    }

    /// Whether they can hold for the tenant `name`.
    ///
    /// # Errors
    /// With the first thing that cannot be.
    pub fn check(&self, name: &str) -> Result<(), TenantError> {
        let unfit = |what, expected| {
            Err(TenantError::Unfit {
                tenant: name.chars().take(MAX_NAME).collect(),
                what,
                expected,
            })
        };
        if !is_tenant_name(name) {
            return unfit(
                "the name",
                "1 to 63 lower-case letters, digits, '-', '_' and '.', beginning with a letter or a digit",
            );
        }
        let only_quotas = Self {
            quotas: self.quotas,
            ..Self::default()
        };
        if name == DEFAULT_NAME && *self != only_quotas {
            return unfit(
                "the terms",
                "quotas alone: the controller's configuration says all else of the default tenant",
            );
        }
        let fits = |realm: &String| {
            realm.chars().count() <= MAX_REALM && !realm.chars().any(char::is_control)
        };
        if !self.realm.as_ref().is_none_or(fits) {
            return unfit(
                "the realm",
                "at most 127 characters without control characters",
            );
        }
        if self.tls_names.len() > MAX_TLS_NAMES || !self.tls_names.iter().all(|it| is_dns_name(it))
        {
            return unfit(
                "the TLS names",
                "at most 16 DNS names, such as turn.acme.example",
            );
        }
        let longest = self.allow_peers.len().max(self.deny_peers.len());
        if longest > MAX_NETWORKS {
            return unfit("the peer networks", "at most 64 in each list");
        }
        Ok(())
    }
}

/// Whether `name` can be that of a server, without a dot at its end.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
    name.len() <= MAX_TLS_NAME && name.split('.').all(is_label)
}

/// Every tenant that there is a record of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants {
    by_id: BTreeMap<u32, Arc<Tenant>>,
    ids: BTreeMap<String, u32>,
    /// The highest number that was ever given.
    last: u32,
}

impl Tenants {
    pub(super) fn insert(&mut self, tenant: Tenant) {
        self.remove(tenant.id);
        self.ids.insert(tenant.name.clone(), tenant.id);
        self.by_id.insert(tenant.id, Arc::new(tenant));
    }

    /// Gives the name of the one that was there.
    pub(super) fn remove(&mut self, id: u32) -> Option<Arc<Tenant>> {
        let gone = self.by_id.remove(&id)?;
        self.ids.remove(&gone.name);
        Some(gone)
    }

    pub(super) fn given(&mut self, last: u32) {
        self.last = last;
    }

    /// The one of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.by_id.get(self.ids.get(name)?)
    }

    /// The one of that number.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Arc<Tenant>> {
        self.by_id.get(&id)
    }

    /// The name of the one of that number, which may be the default one.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&str> {
        match id {
            DEFAULT_TENANT => Some(DEFAULT_NAME),
            id => self.get(id).map(|tenant| tenant.name.as_str()),
        }
    }

    /// What operators are shown of the one of that number: its name, or `#` and the number where it has been removed.
    #[must_use]
    pub fn label(&self, id: u32) -> String {
        let name = self.name(id).map(str::to_owned);
        name.unwrap_or_else(|| format!("#{id}"))
    }

    /// The number of the one of that name, which may be the default one.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<u32> {
        match name {
            DEFAULT_NAME => Some(DEFAULT_TENANT),
            name => self.ids.get(name).copied(),
        }
    }

    /// The same for one that has to be there.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn known(&self, name: &str) -> Result<u32, TenantError> {
        let unknown = || TenantError::Unknown(name.to_owned());
        self.id(name).ok_or_else(unknown)
    }

    /// What the users of the one of that number may take, which may be the default one.
    #[must_use]
    pub fn quotas(&self, id: u32) -> Quotas {
        self.get(id)
            .map(|tenant| tenant.terms.quotas)
            .unwrap_or_default()
    }

    /// All of them, by name.
    pub fn by_name(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.ids.values().filter_map(|id| self.by_id.get(id))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn others<'t>(&'t self, name: &'t str) -> impl Iterator<Item = &'t Tenant> {
        let others = self.by_id.values().filter(move |it| it.name != name);
        others.map(AsRef::as_ref)
    }
}

impl Fleet {
    /// Every tenant that there is a record of.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Whether something may be bound to the tenant `name`. Where there are tenants, a name that nothing knows is likely a slip;
    /// without any, a name is enough.
    ///
    /// # Errors
    /// When nothing knows it.
    pub(super) fn require_tenant(&self, name: &str) -> Result<(), TenantError> {
        let names = |tenant: Option<&str>| tenant == Some(name);
        let mut tokens = self.api_tokens.values().map(|it| it.tenant.as_deref());
        let mut join_tokens = self.join_tokens.values().map(|it| it.tenant.as_deref());
        let scope = SecretScope::Tenant(name.into());
        let is_known = self.tenants.by_id.keys().all(|id| *id == DEFAULT_TENANT)
            || self.tenants.id(name).is_some()
            || self.secrets.of(&scope).next().is_some()
            || tokens.any(names)
            || join_tokens.any(names)
            || self.nodes.values().any(|node| names(node.tenant()));
        match is_known {
            true => Ok(()),
            false => Err(TenantError::Unknown(name.to_owned())),
        }
    }

    /// Makes a tenant, or changes what holds for it.
    ///
    /// # Errors
    /// When `terms` cannot be, or are another tenant's, there are too many, or the configuration says what holds for it.
    pub fn plan_tenant(&self, name: &str, terms: Terms, unix: u64) -> Result<Plan, FleetError> {
        let terms = terms.normalized();
        terms.check(name)?;
        self.free_for(name, &terms)?;
        if self.tenants.named(name).is_some_and(|it| it.configured) {
            return Err(TenantError::Configured(name.to_owned()).into());
        }
        let puts = self.tenant_records([(name, &terms)], false, unix)?;
        Ok(self.plan(puts, Vec::new()))
    }

    /// What is written for the tenants that a configuration names. Those that it names no more are an operator's.
    pub(super) fn configured_tenants(&self, wanted: &[(String, Terms)], unix: u64) -> Vec<Record> {
        let named = |tenant: &&Arc<Tenant>| wanted.iter().any(|(name, _)| *name == tenant.name);
        let left = self.tenants.by_id.values();
        let left = left.filter(|it| it.configured && !named(it)).map(|tenant| {
            Record::Tenant(Tenant {
                configured: false,
                ..(**tenant).clone()
            })
        });
        let wanted = wanted.iter().map(|(name, terms)| (name.as_str(), terms));
        let records = self.tenant_records(wanted, true, unix);
        // Of a configuration those are left out that do not fit beside what operators made.
        records
            .unwrap_or_default()
            .into_iter()
            .chain(left)
            .collect()
    }

    pub(super) fn store_tenant(&mut self, tenant: Tenant) {
        if let Some(before) = self.tenants.get(tenant.id).cloned() {
            self.secrets.carry(&before.name, None);
        }
        if !tenant.is_default() {
            self.secrets
                .carry(&tenant.name, Some(tenant.since_generation));
        }
        Arc::make_mut(&mut self.tenants).insert(tenant);
    }

    pub(super) fn forget_tenant(&mut self, id: u32) {
        if let Some(gone) = Arc::make_mut(&mut self.tenants).remove(id) {
            self.secrets.carry(&gone.name, None);
        }
    }

    /// What is written so that these tenants are there, in the terms that are said.
    pub(super) fn tenant_records<'t>(
        &self,
        wanted: impl IntoIterator<Item = (&'t str, &'t Terms)>,
        configured: bool,
        unix: u64,
    ) -> Result<Vec<Record>, TenantError> {
        let mut puts = Vec::new();
        let (mut last, mut count) = (self.tenants.last, self.tenants.len());
        for (name, terms) in wanted {
            let tenant = if let Some(known) = self.tenants.named(name) {
                Tenant {
                    terms: terms.clone(),
                    configured,
                    ..(**known).clone()
                }
            } else {
                let limit = MAX_TENANTS;
                if count >= limit && configured {
                    continue;
                } else if count >= limit {
                    return Err(TenantError::TooMany { limit });
                }
                count += 1;
                let id = match name {
                    DEFAULT_NAME => DEFAULT_TENANT,
                    _ => {
                        last += 1;
                        last
                    }
                };
                Tenant {
                    id,
                    name: name.to_owned(),
                    terms: terms.clone(),
                    created_at: unix,
                    since_generation: self.generation + 1,
                    configured,
                }
            };
            let known = self.tenants.get(tenant.id);
            if known.is_none_or(|known| **known != tenant) {
                puts.push(Record::Tenant(tenant));
            }
        }
        if last != self.tenants.last {
            puts.insert(0, Record::LastTenant(last));
        }
        Ok(puts)
    }

    /// Whether no other tenant has the realm or the server names of `terms`: they tell whose a request is.
    fn free_for(&self, name: &str, terms: &Terms) -> Result<(), TenantError> {
        let taken = |what, value: &str, owner: &Tenant| {
            Err(TenantError::Taken {
                what,
                value: value.to_owned(),
                owner: owner.name.clone(),
            })
        };
        if let (Some(realm), Some(policy)) = (&terms.realm, &self.policy)
            && *realm == policy.realm
        {
            return Err(TenantError::Taken {
                what: "the realm",
                value: realm.clone(),
                owner: DEFAULT_NAME.to_owned(),
            });
        }
        for other in self.tenants.others(name) {
            if let Some(realm) = &terms.realm
                && other.terms.realm.as_ref() == Some(realm)
            {
                return taken("the realm", realm, other);
            }
            let theirs = &other.terms.tls_names;
            if let Some(shared) = terms.tls_names.iter().find(|it| theirs.contains(it)) {
                return taken("the TLS name", shared, other);
            }
        }
        Ok(())
    }

    /// Removes a tenant, with its secrets. Its number is not used again; who comes with its name is a user of the default
    /// tenant from then on.
    ///
    /// # Errors
    /// When there is none of that name, it is the configuration's, or a token names it.
    pub fn plan_remove_tenant(&self, name: &str) -> Result<Plan, FleetError> {
        let Some(tenant) = self.tenants.named(name) else {
            return Err(TenantError::Unknown(name.to_owned()).into());
        };
        if tenant.configured {
            return Err(TenantError::Configured(name.to_owned()).into());
        }
        let in_use = |what, by: &str| TenantError::InUse {
            what,
            name: by.to_owned(),
            tenant: name.to_owned(),
        };
        let names = |tenant: &Option<String>| tenant.as_deref() == Some(name);
        if let Some(token) = self.api_tokens.values().find(|it| names(&it.tenant)) {
            return Err(in_use("the API token", &token.name).into());
        }
        if let Some(token) = self.join_tokens.values().find(|it| names(&it.tenant)) {
            return Err(in_use("the join token", &token.name).into());
        }
        let scope = SecretScope::Tenant(name.into());
        let secrets = self.secrets.of(&scope).map(|it| it.key()).take(MAX_GONE);
        let mut deletes = vec![RecordKey::Tenant(tenant.id)];
        if !tenant.is_default() {
            deletes.extend(secrets);
        }
        Ok(self.plan(Vec::new(), deletes))
    }

    /// What relays are told of every tenant but the default one. They refuse what two tenants claim: a configuration may name
    /// what an operator gave to another one, and the one that was made first then has it.
    pub(super) fn wire_tenants(&self) -> Vec<wire::Tenant> {
        let mut claimed = BTreeSet::new();
        let told = self.tenants.by_id.values().filter(|it| !it.is_default());
        let told = told.map(|tenant| {
            let terms = &tenant.terms;
            let mut tls_names = terms.tls_names.clone();
            tls_names.retain(|name| claimed.insert(("TLS name", name.clone())));
            let realm = terms.realm.clone();
            let realm = realm.filter(|realm| claimed.insert(("realm", realm.clone())));
            wire::Tenant {
                realm: realm.unwrap_or_default(),
                tls_names,
                ..self.wire_tenant(tenant)
            }
        });
        told.collect()
    }

    fn wire_tenant(&self, tenant: &Tenant) -> wire::Tenant {
        let Tenant {
            id, name, terms, ..
        } = tenant;
        let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect();
        wire::Tenant {
            id: *id,
            name: name.clone(),
            secrets: self
                .secrets
                .wire_of(&SecretScope::Tenant(name.as_str().into())),
            allow_peers: texts(&terms.allow_peers),
            deny_peers: texts(&terms.deny_peers),
            rules: Some(wire::TenantRules {
                tcp_relaying: terms.tcp_relaying,
                quotas: Some(terms.quotas.wire()),
            }),
            allocations_per_user: terms.quotas.allocations_per_user,
            suspended: terms.suspended,
            ..wire::Tenant::default()
        }
    }
}
