//! `GET /v1/tenants`, and `GET`, `PUT` and `DELETE /v1/tenants/{name}`: whoever has users of their own. What is put is all that
//! holds: what is left out is as in a tenant that nothing is said of.

use std::collections::BTreeSet;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::actor::Actor;
use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind, Values};
use crate::fleet::FleetView;
use crate::fleet::bans::network;
use crate::fleet::record::{Quotas, SecretScope, SecretState, Tenant, Terms};
use crate::fleet::tenants::{MAX_NETWORKS, MAX_TLS_NAMES, TenantError};
use crate::reconcile::Handle;

const QUOTAS: &[Field] = &[
    quota("allocations", "Allocations of all users together."),
    quota("allocations_per_user", "Allocations of one user."),
    quota(
        "bits_per_second",
        "Of all users together, in each direction.",
    ),
    quota("user_bits_per_second", "Of one user, in each direction."),
    quota("bytes_per_day", "Of all users together, both directions."),
    quota("user_bytes_per_day", "Of one user, both directions."),
    quota(
        "credentials_per_minute",
        "Credentials that are minted for all users together.",
    ),
];

/// What the body says of a tenant.
pub(super) const SET: &[Field] = &[
    Field::new(
        "realm",
        Kind::Text(127),
        "What its clients may be challenged with; the fleet's where it is left out.",
    ),
    Field::new(
        "tls_names",
        Kind::List(&Kind::DnsName, MAX_TLS_NAMES),
        "The server names that its TLS clients ask for.",
    ),
    Field::new(
        "allow_peers",
        Kind::List(&Kind::Network, MAX_NETWORKS),
        "Networks of peers that its users may reach although the fleet's rules refuse them.",
    ),
    Field::new(
        "deny_peers",
        Kind::List(&Kind::Network, MAX_NETWORKS),
        "Networks of peers that they may not reach, in addition to the fleet's.",
    ),
    Field::new(
        "tcp_relaying",
        Kind::Flag,
        "Whether its clients may have TCP relayed transport addresses (RFC 6062).",
    ),
    Field::new(
        "suspended",
        Kind::Flag,
        "Lets none of its users in, and ends what they have.",
    ),
    Field::new(
        "quotas",
        Kind::Object(QUOTAS),
        "What its users may take of the whole fleet; 0 is no limit. All that can be said of the tenant `default`.",
    ),
];

const fn quota(name: &'static str, says: &'static str) -> Field {
    Field::new(name, Kind::Whole(0, u64::MAX), says)
}

/// Whoever has users of their own, by name.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tenants")]
pub(super) struct Answer<'v> {
    tenants: Vec<Shown<'v>>,
    /// Names that tokens, join tokens, relays or secrets are bound to, without a tenant: their users are the default tenant's.
    unrecorded: BTreeSet<&'v str>,
}

/// A tenant.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tenant")]
pub(super) struct Shown<'v> {
    /// What relays and reports know it by; never used again.
    pub(super) id: u32,
    pub(super) name: &'v str,
    /// What its clients may be challenged with; `null` for the fleet's.
    pub(super) realm: Option<&'v str>,
    pub(super) tls_names: &'v [String],
    pub(super) allow_peers: Vec<String>,
    pub(super) deny_peers: Vec<String>,
    pub(super) tcp_relaying: bool,
    /// Whether it lets none of its users in.
    pub(super) suspended: bool,
    pub(super) quotas: Quotas,
    /// Unix seconds.
    pub(super) created_at: u64,
    /// Whether the configuration names it; it cannot be changed by this API then.
    pub(super) configured: bool,
    /// Whether it has a secret of its own: `/v1/secrets` shows it as `tenant:NAME`.
    pub(super) has_secret: bool,
}

/// The tenant that was removed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RemovedTenant")]
pub(super) struct Removed<'v> {
    name: &'v str,
}

/// Makes the tenant `name`, or changes it, as `asked` in the fields of [`SET`].
pub(super) async fn put(
    handle: &Handle,
    actor: &Actor,
    name: &str,
    asked: &Values,
) -> Result<(), ApiError> {
    let terms = terms(asked);
    let target = excerpt(name);
    let handle = actor.changing(handle, "set tenant", &target, detail(&terms))?;
    let name = name.to_owned();
    let change = handle.change(move |fleet, now| fleet.plan_tenant(&name, terms.clone(), now.unix));
    Ok(change.await?)
}

/// Removes the tenant `name`.
pub(super) async fn take_away(handle: &Handle, actor: &Actor, name: &str) -> Result<(), ApiError> {
    let target = excerpt(name);
    let handle = actor.changing(handle, "remove tenant", &target, String::new())?;
    let name = name.to_owned();
    let change = handle.change(move |fleet, _| fleet.plan_remove_tenant(&name));
    Ok(change.await?)
}

fn terms(asked: &Values) -> Terms {
    let networks = |name| {
        asked
            .texts(name)
            .iter()
            .filter_map(|it| network(it))
            .collect()
    };
    let quotas = asked.object("quotas").cloned().unwrap_or_default();
    let quota = |name| quotas.whole(name).unwrap_or(0);
    Terms {
        realm: asked.text("realm").map(str::to_owned),
        tls_names: asked.texts("tls_names").to_vec(),
        allow_peers: networks("allow_peers"),
        deny_peers: networks("deny_peers"),
        tcp_relaying: asked.flag("tcp_relaying"),
        suspended: asked.flag("suspended"),
        quotas: Quotas {
            allocations: quota("allocations"),
            allocations_per_user: quota("allocations_per_user"),
            bits_per_second: quota("bits_per_second"),
            user_bits_per_second: quota("user_bits_per_second"),
            bytes_per_day: quota("bytes_per_day"),
            user_bytes_per_day: quota("user_bytes_per_day"),
            credentials_per_minute: quota("credentials_per_minute"),
        },
    }
}

/// What the audit log says of a change.
fn detail(terms: &Terms) -> String {
    let list = |name: &str, items: Vec<String>| {
        (!items.is_empty()).then(|| format!("{name} {}", items.join(" ")))
    };
    let quotas = &terms.quotas;
    let flag = |is_set: bool, name: &str| is_set.then(|| name.to_owned());
    let quotas = [
        ("allocations", quotas.allocations),
        ("allocations per user", quotas.allocations_per_user),
        ("bit/s", quotas.bits_per_second),
        ("bit/s per user", quotas.user_bits_per_second),
        ("bytes a day", quotas.bytes_per_day),
        ("bytes a day per user", quotas.user_bytes_per_day),
        ("credentials a minute", quotas.credentials_per_minute),
    ];
    let quotas = quotas.into_iter().filter(|(_, limit)| *limit > 0);
    let parts = [
        terms.realm.as_ref().map(|realm| format!("realm {realm}")),
        list("tls_names", terms.tls_names.clone()),
        list(
            "allow",
            terms.allow_peers.iter().map(ToString::to_string).collect(),
        ),
        list(
            "deny",
            terms.deny_peers.iter().map(ToString::to_string).collect(),
        ),
        flag(terms.tcp_relaying, "tcp_relaying"),
        flag(terms.suspended, "suspended"),
    ];
    let parts = parts.into_iter().flatten();
    let quotas = quotas.map(|(name, limit)| format!("{limit} {name}"));
    parts.chain(quotas).collect::<Vec<_>>().join(", ")
}

/// The tenant of that name.
pub(super) fn found<'v>(view: &'v FleetView, name: &str) -> Result<Shown<'v>, ApiError> {
    let tenant = view.tenants.named(name);
    let tenant = tenant.ok_or_else(|| TenantError::Unknown(name.to_owned()));
    Ok(shown(view, tenant.map_err(crate::FleetError::from)?))
}

/// Every tenant, by name.
pub(super) fn in_order(view: &FleetView) -> Vec<Shown<'_>> {
    let with_secret = secret_owners(view);
    let tenants = view.tenants.by_name();
    tenants
        .map(|tenant| described(tenant, with_secret.contains(tenant.name.as_str())))
        .collect()
}

fn shown<'v>(view: &FleetView, tenant: &'v Tenant) -> Shown<'v> {
    described(tenant, secret_owners(view).contains(tenant.name.as_str()))
}

/// The tenants that have a secret which relays accept.
fn secret_owners(view: &FleetView) -> BTreeSet<&str> {
    let accepted = view.secrets.iter().filter(|it| it.state.is_accepted());
    accepted
        .filter_map(|secret| match &secret.scope {
            SecretScope::Tenant(name) if secret.state != SecretState::Staged => Some(&**name),
            SecretScope::Tenant(_) | SecretScope::Fleet | SecretScope::Region(_) => None,
        })
        .collect()
}

fn described(tenant: &Tenant, has_secret: bool) -> Shown<'_> {
    let terms = &tenant.terms;
    let texts = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect();
    Shown {
        id: tenant.id,
        name: &tenant.name,
        realm: terms.realm.as_deref(),
        tls_names: &terms.tls_names,
        allow_peers: texts(&terms.allow_peers),
        deny_peers: texts(&terms.deny_peers),
        tcp_relaying: terms.tcp_relaying,
        suspended: terms.suspended,
        quotas: terms.quotas,
        created_at: tenant.created_at,
        configured: tenant.configured,
        has_secret,
    }
}

/// Names that something is bound to, without a tenant.
fn unrecorded(view: &FleetView) -> BTreeSet<&str> {
    let tokens = view.api_tokens().filter_map(|it| it.tenant.as_deref());
    let join_tokens = view.join_tokens().filter_map(|it| it.tenant.as_deref());
    let nodes = view.nodes.iter().filter_map(|it| it.tenant.as_deref());
    let names = tokens.chain(join_tokens).chain(nodes);
    let names = names.chain(secret_owners(view));
    names
        .filter(|name| view.tenants.named(name).is_none())
        .collect()
}

/// `GET /v1/tenants`.
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let view = &call.view;
    Ok(answer_json(&Answer {
        tenants: in_order(view),
        unrecorded: unrecorded(view),
    }))
}

/// `GET /v1/tenants/{name}`.
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&found(&call.view, call.part("name"))?))
}

/// `PUT /v1/tenants/{name}`.
pub(crate) async fn set(call: Call) -> Result<Response, ApiError> {
    let name = call.part("name");
    put(&call.app.handle, &call.actor, name, &call.body).await?;
    Ok(answer_json(&found(&call.app.handle.view(), name)?))
}

/// `DELETE /v1/tenants/{name}`.
pub(crate) async fn remove(call: Call) -> Result<Response, ApiError> {
    let name = call.part("name");
    take_away(&call.app.handle, &call.actor, name).await?;
    Ok(answer_json(&Removed { name }))
}
