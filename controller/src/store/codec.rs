//! The bytes of records: prost messages, sealed where they hold a secret.

use prost::Message;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{NodeId, PortRange, store as wire};

mod rollout;
mod tenants;

use super::keys;
use super::{Entry, Sealer, StoreError, seal};
use crate::fleet::record::{
    ApiToken, Cession, ControllerRecord, Desired, JoinToken, Lineage, Membership, NodeRecord,
    NonceKey, Policy, PortGrant, Record, RecordKey, Rollout, SecretGeneration, SecretState,
    StaticUser,
};
use crate::fleet::{Capacity, Identity, Listener};

/// The store key and the bytes of `record`, written in `generation`.
///
/// # Errors
/// When a secret cannot be sealed.
pub fn encode(
    record: &Record,
    sealer: &Sealer,
    generation: u64,
) -> Result<(String, Vec<u8>), StoreError> {
    let path = keys::path(&record.key());
    let place = (path.as_str(), generation);
    let bytes = match record {
        Record::Leader(controller) => encode_leader(controller).1,
        Record::Controller(controller) => encode_controller(controller).1,
        Record::Epoch(lineage) => encode_lineage(lineage).encode_to_vec(),
        Record::Generation(generation) => wire::GenerationRecord {
            generation: *generation,
        }
        .encode_to_vec(),
        Record::Policy(policy) => encode_policy(policy).encode_to_vec(),
        Record::Rollout(rollout) => rollout::encode(rollout).encode_to_vec(),
        Record::Node(node) => encode_node(node).encode_to_vec(),
        Record::Desired(_, desired) => wire::DesiredRecord {
            draining: desired.draining,
            drain_deadline: desired.drain_deadline.unwrap_or(0),
            kill: desired.kill.map_or_else(Vec::new, Into::into),
        }
        .encode_to_vec(),
        Record::Grant(grant) => encode_grant(grant).encode_to_vec(),
        Record::Secret(secret) => sealed(sealer, place, &encode_secret(secret))?,
        Record::NonceKey(key) => {
            let message = wire::NonceKeyRecord {
                id: key.id,
                key: key.key.to_vec(),
                created_at: key.created_at,
                staged: key.staged,
                since_generation: key.since_generation,
            };
            sealed(sealer, place, &message)?
        }
        Record::User(user) => {
            let message = wire::StaticUserRecord {
                username: user.name.clone(),
                key: user.key.to_vec(),
                key_sha256: user.key_sha256.map_or_else(Vec::new, Into::into),
            };
            sealed(sealer, place, &message)?
        }
        Record::ApiToken(_, token) => wire::ApiTokenRecord {
            name: token.name.clone(),
            scopes: token
                .scopes
                .iter()
                .map(|scope| scope.name().to_owned())
                .collect(),
            tenant: token.tenant.clone().unwrap_or_default(),
            expires_at: token.expires_at.unwrap_or(0),
            by_operator: token.by_operator,
        }
        .encode_to_vec(),
        Record::JoinToken(_, token) => encode_join_token(token).encode_to_vec(),
        Record::Setting(_, value) => sealed(
            sealer,
            place,
            &wire::SettingRecord {
                value: value.clone(),
            },
        )?,
        Record::LastTenant(id) => wire::LastTenantRecord { id: *id }.encode_to_vec(),
        Record::Tenant(tenant) => tenants::encode_tenant(tenant).encode_to_vec(),
        Record::Ban(ban) => tenants::encode_ban(ban).encode_to_vec(),
    };
    Ok((path, bytes))
}

fn encode_grant(grant: &PortGrant) -> wire::PortGrantRecord {
    let ceded = grant.ceded.as_ref();
    let ceded_to = ceded.and_then(|ceded| ceded.to.as_ref());
    wire::PortGrantRecord {
        node_id: grant.node.to_string(),
        public_ip: grant.public_ip.to_string(),
        first: grant.range.first().into(),
        last: grant.range.last().into(),
        ceded_from: ceded.map_or(0, |ceded| ceded.from.into()),
        ceded_to: ceded_to.map_or_else(String::new, ToString::to_string),
        not_after: grant.not_after.unwrap_or(0),
        unconfirmed_generation: grant.unconfirmed.unwrap_or(0),
        quarantined_until: grant.quarantined_until.unwrap_or(0),
        fence: grant.fence,
    }
}

/// The record that `entry` holds; `None` where its key belongs to no record of this version.
///
/// # Errors
/// When the value does not read as what its key promises, or does not open.
pub fn decode(entry: &Entry, sealer: &Sealer) -> Result<Option<Record>, StoreError> {
    let Some(key) = keys::parse(&entry.key) else {
        return Ok(None);
    };
    let reader = Reader { entry, sealer };
    let record = match key {
        RecordKey::Leader => {
            let message: wire::LeaderRecord = reader.plain()?;
            let id = message.controller_id.parse();
            Record::Leader(reader.check(id, "not the name of a controller")?)
        }
        RecordKey::Controller(id) => Record::Controller(reader.controller(id)?),
        RecordKey::Epoch => Record::Epoch(reader.lineage()?),
        RecordKey::Generation => {
            Record::Generation(reader.plain::<wire::GenerationRecord>()?.generation)
        }
        RecordKey::Policy => Record::Policy(reader.policy()?),
        RecordKey::Rollout => Record::Rollout(reader.rollout()?),
        RecordKey::Node(_) => Record::Node(reader.node()?),
        RecordKey::Desired(node) => {
            let message: wire::DesiredRecord = reader.plain()?;
            let deadline = Some(message.drain_deadline).filter(|deadline| *deadline != 0);
            Record::Desired(
                node,
                Desired {
                    draining: message.draining,
                    drain_deadline: deadline,
                    kill: message.kill.try_into().ok(),
                },
            )
        }
        RecordKey::Grant(..) => Record::Grant(reader.grant()?),
        RecordKey::Secret(..) => Record::Secret(reader.secret()?),
        RecordKey::NonceKey(_) => Record::NonceKey(reader.nonce_key()?),
        RecordKey::User(_) => Record::User(reader.user()?),
        RecordKey::ApiToken(hash) => Record::ApiToken(hash, reader.api_token()?),
        RecordKey::JoinToken(hash) => {
            Record::JoinToken(hash, join_token(reader.plain::<wire::JoinTokenRecord>()?))
        }
        RecordKey::Setting(setting) => {
            Record::Setting(setting, reader.sealed::<wire::SettingRecord>()?.value)
        }
        RecordKey::LastTenant => Record::LastTenant(reader.plain::<wire::LastTenantRecord>()?.id),
        RecordKey::Tenant(_) => {
            let tenant = tenants::tenant(reader.plain()?);
            Record::Tenant(reader.check(tenant, "a peer network does not parse")?)
        }
        RecordKey::Ban(_) => {
            let ban = tenants::ban(reader.plain()?);
            Record::Ban(reader.check(ban, "what is banned does not parse")?)
        }
    };
    // A plain value is bound to its key by what it says of itself, as a sealed one is by its seal.
    reader.check(
        if keys::path(&record.key()) == entry.key {
            Ok(())
        } else {
            Err(())
        },
        "the value belongs to another key",
    )?;
    Ok(Some(record))
}

/// The generation in which the value of `entry` was sealed; `None` for one that is not.
#[must_use]
pub fn sealed_in(entry: &Entry) -> Option<u64> {
    let key = keys::parse(&entry.key)?;
    let is_sealed = matches!(
        key,
        RecordKey::Secret(..) | RecordKey::NonceKey(_) | RecordKey::User(_) | RecordKey::Setting(_)
    );
    is_sealed.then(|| seal::generation(&entry.value)).flatten()
}

/// The store key and the bytes of the leader's name.
#[must_use]
pub fn encode_leader(controller: &NodeId) -> (String, Vec<u8>) {
    let message = wire::LeaderRecord {
        controller_id: controller.to_string(),
    };
    (keys::LEADER.to_owned(), message.encode_to_vec())
}

/// The store key and the bytes of a controller's word on itself.
#[must_use]
pub fn encode_controller(controller: &ControllerRecord) -> (String, Vec<u8>) {
    let message = wire::ControllerRecord {
        controller_id: controller.id.to_string(),
        grpc_url: controller.grpc_url.clone(),
        http_address: controller.http_address.clone(),
        region: controller.region.clone(),
        version: controller.version.clone(),
    };
    let key = RecordKey::Controller(controller.id.clone());
    (keys::path(&key), message.encode_to_vec())
}

/// The gRPC URL and the HTTP address at which the controller is reached whose record has these bytes; `None` where they do not
/// read.
#[must_use]
pub fn controller_addresses(bytes: &[u8]) -> Option<(String, String)> {
    let message = wire::ControllerRecord::decode(bytes).ok()?;
    Some((message.grpc_url, message.http_address))
}

fn sealed(
    sealer: &Sealer,
    (path, generation): (&str, u64),
    message: &impl Message,
) -> Result<Vec<u8>, StoreError> {
    let plaintext = zeroize::Zeroizing::new(message.encode_to_vec());
    Ok(sealer.seal(path, generation, &plaintext)?)
}

fn encode_lineage(lineage: &Lineage) -> wire::EpochRecord {
    let former = lineage.former.iter();
    wire::EpochRecord {
        epoch: lineage.epoch.to_vec(),
        former: former
            .map(|(epoch, generation)| wire::FormerEpoch {
                epoch: epoch.to_vec(),
                generation: *generation,
            })
            .collect(),
    }
}

fn encode_policy(policy: &Policy) -> wire::PolicyRecord {
    let texts = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect();
    wire::PolicyRecord {
        realm: policy.realm.clone(),
        allow_peers: texts(&policy.allow_peers),
        deny_peers: texts(&policy.deny_peers),
        danger_allow_loopback: policy.danger_allow_loopback,
        allocations_per_user: policy.allocations_per_user.into(),
        max_lifetime_seconds: policy.max_lifetime_seconds,
        max_session_seconds: policy.max_session_seconds,
        strict_expiry: policy.strict_expiry,
        tcp_relaying: policy.tcp_relaying,
    }
}

fn encode_join_token(token: &JoinToken) -> wire::JoinTokenRecord {
    wire::JoinTokenRecord {
        name: token.name.clone(),
        region: token.region.clone().unwrap_or_default(),
        tenant: token.tenant.clone().unwrap_or_default(),
        expires_at: token.expires_at.unwrap_or(0),
        by_operator: token.by_operator,
    }
}

fn join_token(message: wire::JoinTokenRecord) -> JoinToken {
    JoinToken {
        name: message.name,
        region: Some(message.region).filter(|text| !text.is_empty()),
        tenant: Some(message.tenant).filter(|text| !text.is_empty()),
        expires_at: Some(message.expires_at).filter(|end| *end != 0),
        by_operator: message.by_operator,
    }
}

fn encode_node(node: &NodeRecord) -> wire::NodeRecord {
    let membership = &node.membership;
    let bare = wire::NodeRecord {
        node_id: node.id.to_string(),
        credential_hash: node.credential.to_vec(),
        bound_region: membership.region.clone().unwrap_or_default(),
        bound_tenant: membership.tenant.clone().unwrap_or_default(),
        credential_since: membership.since,
        next_credential_hash: membership.next.map_or_else(Vec::new, Into::into),
        certified: membership.certified,
        ..wire::NodeRecord::default()
    };
    let Some(identity) = &node.identity else {
        return bare;
    };
    wire::NodeRecord {
        region: identity.region.clone(),
        zone: identity.zone.clone(),
        version: identity.version.clone(),
        hostname: identity.hostname.clone().unwrap_or_default(),
        listeners: identity
            .listeners
            .iter()
            .map(|listener| wire::NodeListener {
                transport: listener.transport.name().to_owned(),
                address: listener.address.to_string(),
                local_address: listener
                    .local
                    .map_or_else(String::new, |local| local.to_string()),
            })
            .collect(),
        public_ips: identity
            .public_ips
            .iter()
            .map(ToString::to_string)
            .collect(),
        allocations: identity.capacity.allocations,
        file_descriptors: identity.capacity.file_descriptors,
        memory_bytes: identity.capacity.memory_bytes,
        takes_certificates: identity.takes_certificates,
        ..bare
    }
}

fn encode_secret(secret: &SecretGeneration) -> wire::SecretRecord {
    use wire::secret_record::State;
    let mut record = wire::SecretRecord {
        id: secret.id,
        secret: secret.secret.as_bytes().to_vec(),
        scope: secret.scope.to_string(),
        created_at: secret.created_at,
        since_generation: secret.since_generation,
        ..wire::SecretRecord::default()
    };
    let state = match secret.state {
        SecretState::Staged => State::Staged,
        SecretState::Active => State::Active,
        SecretState::Pinned => State::Pinned,
        SecretState::Retiring { accept_until } => {
            record.accept_until = accept_until;
            State::Retiring
        }
        SecretState::Revoked { at, cut } => {
            (record.revoked_at, record.cut) = (at, cut);
            State::Revoked
        }
    };
    record.set_state(state);
    record
}

struct Reader<'a> {
    entry: &'a Entry,
    sealer: &'a Sealer,
}

impl Reader<'_> {
    fn check<T, E>(&self, value: Result<T, E>, reason: &'static str) -> Result<T, StoreError> {
        value.map_err(|_| StoreError::Damaged {
            key: self.entry.key.clone(),
            reason,
        })
    }

    fn plain<M: Message + Default>(&self) -> Result<M, StoreError> {
        self.check(
            M::decode(self.entry.value.as_slice()),
            "not the message that belongs here",
        )
    }

    fn sealed<M: Message + Default>(&self) -> Result<M, StoreError> {
        let plaintext = self
            .sealer
            .open_sealed(&self.entry.key, &self.entry.value)?;
        self.check(
            M::decode(plaintext.as_slice()),
            "not the message that belongs here",
        )
    }

    fn lineage(&self) -> Result<Lineage, StoreError> {
        let message: wire::EpochRecord = self.plain()?;
        let epoch = |bytes: Vec<u8>| self.check(bytes.try_into(), "an epoch has 16 bytes");
        let former = message.former.into_iter();
        Ok(Lineage {
            epoch: epoch(message.epoch)?,
            former: former
                .map(|former| Ok((epoch(former.epoch)?, former.generation)))
                .collect::<Result<_, StoreError>>()?,
        })
    }

    fn controller(&self, id: NodeId) -> Result<ControllerRecord, StoreError> {
        let message: wire::ControllerRecord = self.plain()?;
        Ok(ControllerRecord {
            id,
            grpc_url: message.grpc_url,
            http_address: message.http_address,
            region: message.region,
            version: message.version,
        })
    }

    fn api_token(&self) -> Result<ApiToken, StoreError> {
        let message: wire::ApiTokenRecord = self.plain()?;
        let scopes = message.scopes.iter().map(|scope| scope.parse()).collect();
        Ok(ApiToken {
            name: message.name,
            scopes: self.check::<_, ()>(scopes, "a scope is not known")?,
            tenant: Some(message.tenant).filter(|tenant| !tenant.is_empty()),
            expires_at: Some(message.expires_at).filter(|end| *end != 0),
            by_operator: message.by_operator,
        })
    }

    fn nonce_key(&self) -> Result<NonceKey, StoreError> {
        let message: wire::NonceKeyRecord = self.sealed()?;
        let key = self.check(message.key.try_into(), "a nonce key has 32 bytes")?;
        Ok(NonceKey {
            id: message.id,
            key,
            created_at: message.created_at,
            staged: message.staged,
            since_generation: message.since_generation,
        })
    }

    fn user(&self) -> Result<StaticUser, StoreError> {
        let message: wire::StaticUserRecord = self.sealed()?;
        let key = self.check(message.key.try_into(), "a user's key has 16 bytes")?;
        let key_sha256 = match message.key_sha256 {
            absent if absent.is_empty() => None,
            key => Some(self.check(key.try_into(), "a user's SHA-256 key has 32 bytes")?),
        };
        Ok(StaticUser {
            name: message.username,
            key,
            key_sha256,
        })
    }

    fn rollout(&self) -> Result<Rollout, StoreError> {
        let message: wire::RolloutRecord = self.plain()?;
        let base = self.policy_of(message.base.clone().unwrap_or_default())?;
        self.check(rollout::decode(message, base), "not a stage of a rollout")
    }

    fn policy(&self) -> Result<Policy, StoreError> {
        self.policy_of(self.plain()?)
    }

    fn policy_of(&self, message: wire::PolicyRecord) -> Result<Policy, StoreError> {
        let nets = |texts: &[String]| texts.iter().map(|text| text.parse()).collect();
        let reason = "a peer network does not parse";
        Ok(Policy {
            realm: message.realm,
            allow_peers: self
                .check::<_, ipnet::AddrParseError>(nets(&message.allow_peers), reason)?,
            deny_peers: self
                .check::<_, ipnet::AddrParseError>(nets(&message.deny_peers), reason)?,
            danger_allow_loopback: message.danger_allow_loopback,
            allocations_per_user: self.check(
                message.allocations_per_user.try_into(),
                "a limit is out of bounds",
            )?,
            max_lifetime_seconds: message.max_lifetime_seconds,
            max_session_seconds: message.max_session_seconds,
            strict_expiry: message.strict_expiry,
            tcp_relaying: message.tcp_relaying,
        })
    }

    fn node(&self) -> Result<NodeRecord, StoreError> {
        let message: wire::NodeRecord = self.plain()?;
        let reason = "an address does not parse";
        let listeners = message
            .listeners
            .iter()
            .map(|listener| {
                Ok(Listener {
                    transport: self
                        .check(listener.transport.parse(), "a transport is not known")?,
                    address: self.check(listener.address.parse(), reason)?,
                    local: Some(&listener.local_address)
                        .filter(|text| !text.is_empty())
                        .map(|text| self.check(text.parse(), reason))
                        .transpose()?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let public_ips = message
            .public_ips
            .iter()
            .map(|ip| self.check(ip.parse(), reason))
            .collect::<Result<Vec<_>, _>>()?;
        let membership = Membership {
            region: Some(message.bound_region).filter(|text| !text.is_empty()),
            tenant: Some(message.bound_tenant).filter(|text| !text.is_empty()),
            since: message.credential_since,
            next: message.next_credential_hash.try_into().ok(),
            certified: message.certified,
        };
        let identity = Identity {
            region: message.region,
            zone: message.zone,
            version: message.version,
            hostname: Some(message.hostname).filter(|name| !name.is_empty()),
            listeners,
            public_ips,
            capacity: Capacity {
                allocations: message.allocations,
                file_descriptors: message.file_descriptors,
                memory_bytes: message.memory_bytes,
            },
            takes_certificates: message.takes_certificates,
        };
        Ok(NodeRecord {
            id: self.check(message.node_id.parse(), "not a node id")?,
            credential: self.check(message.credential_hash.try_into(), "a SHA-256 has 32 bytes")?,
            identity: Some(identity).filter(|identity| *identity != Identity::default()),
            membership,
        })
    }

    fn grant(&self) -> Result<PortGrant, StoreError> {
        let message: wire::PortGrantRecord = self.plain()?;
        let port = |port: u32| self.check(u16::try_from(port), "not a port");
        let range = PortRange::new(port(message.first)?, port(message.last)?);
        let node = |text: &str| self.check(text.parse(), "not a node id");
        let told = |seconds: u64| Some(seconds).filter(|seconds| *seconds != 0);
        let to = Some(&message.ceded_to).filter(|to| !to.is_empty());
        let ceded = match message.ceded_from {
            0 => None,
            from => Some(Cession {
                from: port(from)?,
                to: to.map(|to| node(to)).transpose()?,
            }),
        };
        Ok(PortGrant {
            node: node(&message.node_id)?,
            public_ip: self.check(message.public_ip.parse(), "not an IP address")?,
            range: self.check(range, "not a port range")?,
            ceded,
            not_after: told(message.not_after),
            unconfirmed: told(message.unconfirmed_generation),
            quarantined_until: told(message.quarantined_until),
            fence: message.fence,
        })
    }

    fn secret(&self) -> Result<SecretGeneration, StoreError> {
        use wire::secret_record::State;
        let message: wire::SecretRecord = self.sealed()?;
        let state = match message.state() {
            State::Staged => SecretState::Staged,
            State::Active => SecretState::Active,
            State::Pinned => SecretState::Pinned,
            State::Revoked => SecretState::Revoked {
                at: message.revoked_at,
                cut: message.cut,
            },
            State::Retiring => SecretState::Retiring {
                accept_until: message.accept_until,
            },
            State::Unspecified => self.check(Err(()), "a secret without a state")?,
        };
        Ok(SecretGeneration {
            id: message.id,
            scope: self.check(message.scope.parse(), "the scope of a secret is not known")?,
            created_at: message.created_at,
            since_generation: message.since_generation,
            secret: SharedSecret::new(message.secret),
            state,
        })
    }
}
