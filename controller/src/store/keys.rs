//! The keys of the store: the place of every record, as text below one prefix. Backups rely on them, so a change here is a
//! change of the schema.
//!
//! | key below `/tf/v1/` | value |
//! |---|---|
//! | `meta/schema` | `SchemaRecord` |
//! | `meta/epoch` | `EpochRecord` |
//! | `meta/restore` | `RestoreRecord`, as long as a fleet is being written here |
//! | `leader` | `LeaderRecord`, with the leader's lease |
//! | `controllers/{controller}` | `ControllerRecord`, with the controller's lease |
//! | `gen` | `GenerationRecord` |
//! | `policy` | `PolicyRecord` |
//! | `rollout` | `RolloutRecord` |
//! | `nodes/{node}` | `NodeRecord` |
//! | `desired/{node}` | `DesiredRecord` |
//! | `ports/{public ip}/{first}` | `PortGrantRecord` |
//! | `secrets/{scope}/{id}` | `SecretRecord`, sealed |
//! | `noncekeys/{id}` | `NonceKeyRecord`, sealed |
//! | `users/{sha256 of the name}` | `StaticUserRecord`, sealed |
//! | `apitokens/{sha256}` | `ApiTokenRecord` |
//! | `jointokens/{sha256}` | `JoinTokenRecord` |
//! | `settings/{name}` | `SettingRecord`, sealed |
//! | `tenantids` | `LastTenantRecord` |
//! | `tenants/{id}` | `TenantRecord` |
//! | `bans/{sha256 of what is banned}` | `BanRecord` |

use std::fmt::Write as _;

use crate::fleet::record::{RecordKey, Setting, TokenHash};

/// Every key of the fleet begins with it.
pub const PREFIX: &str = "/tf/v1/";
/// The version of keys and values.
pub const SCHEMA: &str = "/tf/v1/meta/schema";
/// The mark of a fleet that is being written; it has no schema before all of it is there.
pub const RESTORE: &str = "/tf/v1/meta/restore";
/// Everything that says what the store is.
pub(crate) const META: &str = "/tf/v1/meta/";
/// Who leads; the revision that wrote it is the fence of the term.
pub const LEADER: &str = "/tf/v1/leader";
/// Which store this is.
pub const EPOCH: &str = "/tf/v1/meta/epoch";

/// The store key of a record.
#[must_use]
pub fn path(key: &RecordKey) -> String {
    match key {
        RecordKey::Epoch => EPOCH.to_owned(),
        RecordKey::Leader => LEADER.to_owned(),
        RecordKey::Controller(id) => format!("{PREFIX}controllers/{id}"),
        RecordKey::Generation => format!("{PREFIX}gen"),
        RecordKey::Policy => format!("{PREFIX}policy"),
        RecordKey::Rollout => format!("{PREFIX}rollout"),
        RecordKey::Node(node) => format!("{PREFIX}nodes/{node}"),
        RecordKey::Desired(node) => format!("{PREFIX}desired/{node}"),
        RecordKey::Grant(ip, first) => format!("{PREFIX}ports/{ip}/{first:05}"),
        RecordKey::Secret(scope, id) => format!("{PREFIX}secrets/{scope}/{id:010}"),
        RecordKey::NonceKey(id) => format!("{PREFIX}noncekeys/{id:010}"),
        RecordKey::User(hash) => format!("{PREFIX}users/{}", hex(hash)),
        RecordKey::ApiToken(hash) => format!("{PREFIX}apitokens/{}", hex(hash)),
        RecordKey::JoinToken(hash) => format!("{PREFIX}jointokens/{}", hex(hash)),
        RecordKey::Setting(setting) => format!("{PREFIX}settings/{}", setting.name()),
        RecordKey::LastTenant => format!("{PREFIX}tenantids"),
        RecordKey::Tenant(id) => format!("{PREFIX}tenants/{id:010}"),
        RecordKey::Ban(hash) => format!("{PREFIX}bans/{}", hex(hash)),
    }
}

/// The record that a store key belongs to; `None` for a key that this version does not know.
#[must_use]
pub fn parse(path: &str) -> Option<RecordKey> {
    if path == EPOCH {
        return Some(RecordKey::Epoch);
    }
    let rest = path.strip_prefix(PREFIX)?;
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    Some(match kind {
        "leader" if name.is_empty() => RecordKey::Leader,
        "controllers" => RecordKey::Controller(name.parse().ok()?),
        "gen" if name.is_empty() => RecordKey::Generation,
        "policy" if name.is_empty() => RecordKey::Policy,
        "rollout" if name.is_empty() => RecordKey::Rollout,
        "nodes" => RecordKey::Node(name.parse().ok()?),
        "desired" => RecordKey::Desired(name.parse().ok()?),
        "ports" => {
            let (ip, first) = name.split_once('/')?;
            RecordKey::Grant(ip.parse().ok()?, first.parse().ok()?)
        }
        "secrets" => {
            let (scope, id) = name.rsplit_once('/')?;
            RecordKey::Secret(scope.parse().ok()?, id.parse().ok()?)
        }
        "noncekeys" => RecordKey::NonceKey(name.parse().ok()?),
        "users" => RecordKey::User(unhex(name)?),
        "apitokens" => RecordKey::ApiToken(unhex(name)?),
        "jointokens" => RecordKey::JoinToken(unhex(name)?),
        "settings" => RecordKey::Setting(
            Setting::ALL
                .into_iter()
                .find(|known| known.name() == name)?,
        ),
        "tenantids" if name.is_empty() => RecordKey::LastTenant,
        "tenants" => RecordKey::Tenant(name.parse().ok()?),
        "bans" => RecordKey::Ban(unhex(name)?),
        _ => return None,
    })
}

/// A hash in 64 hexadecimal digits.
pub(crate) fn hex(hash: &TokenHash) -> String {
    hash.iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes every text");
            text
        })
}

/// The hash that 64 hexadecimal digits are.
pub(crate) fn unhex(text: &str) -> Option<TokenHash> {
    let mut hash = TokenHash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in hash.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::{SecretScope, token_hash};

    #[test]
    fn every_key_reads_as_it_is_written() {
        for key in [
            RecordKey::Epoch,
            RecordKey::Leader,
            RecordKey::Controller("controller-0".parse().unwrap()),
            RecordKey::Generation,
            RecordKey::Policy,
            RecordKey::Rollout,
            RecordKey::Node("relay-0".parse().unwrap()),
            RecordKey::Desired("a.b".parse().unwrap()),
            RecordKey::Grant("192.0.2.1".parse().unwrap(), 49152),
            RecordKey::Grant("2001:db8::1".parse().unwrap(), 1024),
            RecordKey::Secret(SecretScope::Fleet, 7),
            RecordKey::Secret(SecretScope::Region("a/b:c".into()), u32::MAX),
            RecordKey::Setting(Setting::ConfiguredSecret),
            RecordKey::NonceKey(u32::MAX),
            RecordKey::User(token_hash("a/b")),
            RecordKey::ApiToken(token_hash("x")),
            RecordKey::JoinToken(token_hash("y")),
            RecordKey::Setting(Setting::JoinToken),
            RecordKey::LastTenant,
            RecordKey::Tenant(u32::MAX),
            RecordKey::Ban(token_hash("z")),
        ] {
            assert_eq!(parse(&path(&key)), Some(key));
        }
    }

    #[test]
    fn unknown_keys_are_nobodys() {
        for path in [
            "/tf/v1/x",
            "/tf/v2/gen",
            "/tf/v1/nodes/A",
            "/tf/v1/users/00",
            SCHEMA,
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
