//! Tenants and bans.

use ipnet::{AddrParseError, IpNet};
use turnfleet_proto::store as wire;
use wire::ban_record::Whom as Kept;

use crate::fleet::record::{Ban, Quotas, Tenant, Terms, Whom};

pub(super) fn encode_tenant(tenant: &Tenant) -> wire::TenantRecord {
    let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect();
    let terms = &tenant.terms;
    wire::TenantRecord {
        id: tenant.id,
        name: tenant.name.clone(),
        realm: terms.realm.clone().unwrap_or_default(),
        tls_names: terms.tls_names.clone(),
        allow_peers: texts(&terms.allow_peers),
        deny_peers: texts(&terms.deny_peers),
        tcp_relaying: terms.tcp_relaying,
        suspended: terms.suspended,
        quotas: Some(encode_quotas(&terms.quotas)),
        created_at: tenant.created_at,
        since_generation: tenant.since_generation,
        configured: tenant.configured,
    }
}

pub(super) fn tenant(message: wire::TenantRecord) -> Result<Tenant, AddrParseError> {
    let nets = |texts: &[String]| -> Result<Vec<IpNet>, AddrParseError> {
        texts.iter().map(|text| text.parse()).collect()
    };
    let terms = Terms {
        realm: Some(message.realm).filter(|realm| !realm.is_empty()),
        tls_names: message.tls_names,
        allow_peers: nets(&message.allow_peers)?,
        deny_peers: nets(&message.deny_peers)?,
        tcp_relaying: message.tcp_relaying,
        suspended: message.suspended,
        quotas: quotas(message.quotas.unwrap_or_default()),
    };
    Ok(Tenant {
        id: message.id,
        name: message.name,
        terms,
        created_at: message.created_at,
        since_generation: message.since_generation,
        configured: message.configured,
    })
}

fn encode_quotas(quotas: &Quotas) -> wire::QuotasRecord {
    wire::QuotasRecord {
        allocations: quotas.allocations,
        allocations_per_user: quotas.allocations_per_user,
        bits_per_second: quotas.bits_per_second,
        user_bits_per_second: quotas.user_bits_per_second,
        bytes_per_day: quotas.bytes_per_day,
        user_bytes_per_day: quotas.user_bytes_per_day,
        credentials_per_minute: quotas.credentials_per_minute,
    }
}

fn quotas(message: wire::QuotasRecord) -> Quotas {
    Quotas {
        allocations: message.allocations,
        allocations_per_user: message.allocations_per_user,
        bits_per_second: message.bits_per_second,
        user_bits_per_second: message.user_bits_per_second,
        bytes_per_day: message.bytes_per_day,
        user_bytes_per_day: message.user_bytes_per_day,
        credentials_per_minute: message.credentials_per_minute,
    }
}

pub(super) fn encode_ban(ban: &Ban) -> wire::BanRecord {
    let whom = match &ban.whom {
        Whom::User { tenant, user } => Kept::User(wire::BannedUserRecord {
            tenant: *tenant,
            user: user.clone(),
        }),
        Whom::Tenant(tenant) => Kept::Tenant(*tenant),
        Whom::Source(network) => Kept::Source(network.to_string()),
        Whom::Peer(network) => Kept::Peer(network.to_string()),
    };
    wire::BanRecord {
        whom: Some(whom),
        reason: ban.reason.clone(),
        by: ban.by.clone(),
        since: ban.since,
        until: ban.until.unwrap_or(0),
        automatic: ban.automatic,
    }
}

/// An error where it bans nothing that this version knows.
pub(super) fn ban(message: wire::BanRecord) -> Result<Ban, ()> {
    let network = |text: String| text.parse().map_err(|_: AddrParseError| ());
    let whom = match message.whom.ok_or(())? {
        Kept::User(wire::BannedUserRecord { tenant, user }) => Whom::User { tenant, user },
        Kept::Tenant(tenant) => Whom::Tenant(tenant),
        Kept::Source(text) => Whom::Source(network(text)?),
        Kept::Peer(text) => Whom::Peer(network(text)?),
    };
    Ok(Ban {
        whom,
        reason: message.reason,
        by: message.by,
        since: message.since,
        until: Some(message.until).filter(|until| *until != 0),
        automatic: message.automatic,
    })
}
