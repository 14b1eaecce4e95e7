//! What requests of the gRPC service say, in the fields of the HTTP API.

use serde_json::{Value, json};
use turnfleet_proto::operator as wire;

use super::given;

/// The fields of [`SET`](crate::api::tenants::SET).
pub(super) fn tenant(asked: wire::SetTenantRequest) -> Value {
    let quotas = asked.quotas.unwrap_or_default();
    json!({
        "realm": given(asked.realm),
        "tls_names": asked.tls_names,
        "allow_peers": asked.allow_peers,
        "deny_peers": asked.deny_peers,
        "tcp_relaying": asked.tcp_relaying,
        "suspended": asked.suspended,
        "quotas": {
            "allocations": quotas.allocations,
            "allocations_per_user": quotas.allocations_per_user,
            "bits_per_second": quotas.bits_per_second,
            "user_bits_per_second": quotas.user_bits_per_second,
            "bytes_per_day": quotas.bytes_per_day,
            "user_bytes_per_day": quotas.user_bytes_per_day,
            "credentials_per_minute": quotas.credentials_per_minute,
        },
    })
}

/// The fields of [`QUERY`](crate::api::bans::QUERY).
pub(super) fn bans(asked: wire::ListBansRequest) -> Value {
    json!({
        "kind": given(asked.kind),
        "limit": Some(asked.limit).filter(|limit| *limit != 0),
        "after": given(asked.after),
    })
}

/// The fields of [`PLACE`](crate::api::bans::PLACE).
pub(super) fn ban(asked: wire::PlaceBanRequest) -> Value {
    json!({
        "user": given(asked.user),
        "tenant": given(asked.tenant),
        "source": given(asked.source),
        "peer": given(asked.peer),
        "seconds": Some(asked.seconds).filter(|seconds| *seconds != 0),
        "reason": given(asked.reason),
        "force": asked.force,
    })
}

/// The fields of [`WHOM`](crate::api::bans::WHOM).
pub(super) fn whom(asked: wire::LiftBanRequest) -> Value {
    json!({
        "user": given(asked.user),
        "tenant": given(asked.tenant),
        "source": given(asked.source),
        "peer": given(asked.peer),
    })
}
