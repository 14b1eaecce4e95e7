use turnfleet_proto::credentials::SharedSecret;
use turnfleet_turn::wire::{LongTermKey, PasswordAlgorithm};
use turnfleet_turn::{Candidate, Candidates, Identity, Now};

use super::*;

mod tenants;

fn local() -> LocalPolicy {
    LocalPolicy {
        public_ips: vec!["203.0.113.1".parse().unwrap()],
        own_ips: vec!["10.0.0.1".parse().unwrap()],
        nonce_lifetime: Duration::from_secs(3600),
        limits: NodeLimits {
            allocations: None,
            permissions_per_allocation: 10,
            channels_per_allocation: 11,
            connections_per_allocation: 12,
            connections_per_user: 13,
        },
        allocations: 1000,
        connections: 14,
        tcp_low_peer_ports: false,
        secret_uses: Arc::default(),
    }
}

fn snapshot() -> fleet::Snapshot {
    fleet::Snapshot {
        generation: 7,
        realm: "turnfleet.local".into(),
        secrets: vec![secret(2, "north", 0), secret(1, "south", 1000)],
        users: vec![fleet::StaticUser {
            username: "1500:both".into(),
            key: vec![9; 16],
            key_sha256: vec![8; 32],
        }],
        nonce_keys: vec![nonce_key(1), nonce_key(3), nonce_key(2)],
        port_grants: vec![port_grant("203.0.113.1", 50000, 50009)],
        peer_policy: Some(fleet::PeerPolicy {
            allow: vec!["10.0.0.0/8".into()],
            fleet: vec![port_grant("203.0.113.1", 50000, 50009)],
            ..fleet::PeerPolicy::default()
        }),
        ..fleet::Snapshot::default()
    }
}

fn secret(id: u32, secret: &str, accept_until: u64) -> fleet::SecretGeneration {
    fleet::SecretGeneration {
        id,
        secret: secret.into(),
        accept_until,
        ..fleet::SecretGeneration::default()
    }
}

fn nonce_key(id: u32) -> fleet::NonceKey {
    let byte = u8::try_from(id).unwrap();
    fleet::NonceKey {
        id,
        key: vec![byte; 32],
        staged: false,
    }
}

fn port_grant(ip: &str, first: u32, last: u32) -> fleet::PortGrant {
    fleet::PortGrant {
        public_ip: ip.into(),
        range: Some(fleet::PortRange { first, last }),
        ..fleet::PortGrant::default()
    }
}

fn candidates(username: &str, unix: u64) -> Vec<Candidate> {
    candidates_by(PasswordAlgorithm::Md5, &snapshot(), username, unix)
}

fn candidates_by(
    algorithm: PasswordAlgorithm,
    snapshot: &fleet::Snapshot,
    username: &str,
    unix: u64,
) -> Vec<Candidate> {
    let identity = Identity {
        username,
        realm: &snapshot.realm,
        server_name: None,
    };
    candidates_for(algorithm, snapshot, identity, unix)
}

fn candidates_for(
    algorithm: PasswordAlgorithm,
    snapshot: &fleet::Snapshot,
    identity: Identity<'_>,
    unix: u64,
) -> Vec<Candidate> {
    let compiled = compile(snapshot, &local()).unwrap();
    let mut out = Candidates::of(algorithm);
    let now = Now {
        unix,
        ..Now::default()
    };
    compiled.policy.keys.candidates(identity, now, &mut out);
    out.iter().cloned().collect()
}

#[track_caller]
fn refused(change: impl FnOnce(&mut fleet::Snapshot), expected: &str) {
    let mut snapshot = snapshot();
    change(&mut snapshot);
    let error = compile(&snapshot, &local()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_good_snapshot_is_compiled_whole() {
    let compiled = compile(&snapshot(), &local()).unwrap();
    let server = &compiled.policy.server;
    assert_eq!(
        (compiled.generation, &*server.realm),
        (7, "turnfleet.local")
    );
    assert_eq!(server.nonce_keys, [[3; 32], [2; 32], [1; 32]]);
    assert_eq!(server.limits.allocations, 1000);
    assert_eq!(server.limits.channels_per_allocation, 11);
    assert_eq!(compiled.granted[0].range.to_string(), "50000-50009");
}

#[test]
fn sessions_are_bounded_only_where_the_snapshot_says_so() {
    let mut snapshot = snapshot();
    for (seconds, strict, expected) in [(0, false, None), (900, true, Some(900))] {
        snapshot.limits = Some(fleet::Limits {
            max_session_seconds: seconds,
            strict_expiry: strict,
            ..fleet::Limits::default()
        });
        let limits = compile(&snapshot, &local()).unwrap().policy.server.limits;
        assert_eq!(limits.max_session, expected.map(Duration::from_secs));
        assert_eq!(limits.strict_expiry, strict);
    }
}

#[test]
fn each_secret_that_is_accepted_gives_one_candidate() {
    let found = candidates("1500:@alice:example.org", 1000);
    let expected = ["north", "south"].map(|secret| {
        let password = SharedSecret::new(secret).password("1500:@alice:example.org");
        LongTermKey::derive("1500:@alice:example.org", "turnfleet.local", &password)
    });
    let keys: Vec<LongTermKey> = found.iter().map(|found| found.key.clone()).collect();
    assert_eq!(keys, expected);
    assert_eq!(found[0].user, Some(5..23));
    assert_eq!(found[0].expires_at, Some(1500));
    assert_eq!(candidates("1500:@alice:example.org", 1001).len(), 1);
}

#[test]
fn users_and_secrets_give_keys_of_the_algorithm_that_is_asked_for() {
    let username = "1500:both";
    let found = candidates_by(PasswordAlgorithm::Sha256, &snapshot(), username, 0);
    let expected = ["north", "south"].map(|secret| {
        LongTermKey::derive_with(
            PasswordAlgorithm::Sha256,
            username,
            "turnfleet.local",
            &SharedSecret::new(secret).password(username),
        )
    });
    let keys: Vec<LongTermKey> = found.iter().map(|found| found.key.clone()).collect();
    assert_eq!(keys[0], LongTermKey::Sha256([8; 32]));
    assert_eq!(keys[1..], expected);
}

#[test]
fn a_user_without_a_sha256_key_is_nobody_by_sha256() {
    let mut snapshot = snapshot();
    snapshot.users[0].username = "ann".into();
    snapshot.users[0].key_sha256.clear();
    for (algorithm, expected) in [(PasswordAlgorithm::Md5, 1), (PasswordAlgorithm::Sha256, 0)] {
        let found = candidates_by(algorithm, &snapshot, "ann", 0);
        assert_eq!(found.len(), expected, "{algorithm:?}");
    }
}

#[test]
fn a_bare_timestamp_names_no_user() {
    for username in ["1500", "1500:"] {
        assert_eq!(candidates(username, 0)[0].user, None);
    }
}

#[test]
fn a_username_that_is_both_tries_both() {
    let found = candidates("1500:both", 0);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].key, LongTermKey::Md5([9; 16]));
    assert_eq!(
        (found[0].expires_at, found[1].expires_at),
        (None, Some(1500))
    );
}

#[test]
fn an_unknown_username_has_no_candidate() {
    assert!(candidates("alice", 0).is_empty());
}

#[test]
fn the_nodes_own_addresses_are_closed_but_for_granted_ports() {
    let compiled = compile(&snapshot(), &local()).unwrap();
    let filter = &compiled.policy.server.peer_filter;
    let passes = |peer: &str| filter.check(peer.parse().unwrap()).is_ok();
    assert!(passes("203.0.113.1:50000"));
    assert!(!passes("203.0.113.1:3478"));
    assert!(passes("10.0.0.2:22"));
    assert!(!passes("10.0.0.1:22"));
}

#[test]
fn what_does_not_fit_is_refused_with_its_field() {
    refused(|s| s.generation = 0, "generation");
    refused(|s| s.realm.clear(), "realm");
    refused(|s| s.realm = "a\nb".into(), "realm");
    refused(|s| s.secrets = vec![secret(1, "", 0)], "secrets");
    refused(|s| s.secrets = vec![secret(1, "a", 0); 65], "65 entries");
    refused(|s| s.users[0].key.clear(), "16 bytes");
    refused(|s| s.users[0].key_sha256.truncate(31), "32 bytes");
    refused(|s| s.users.push(s.users[0].clone()), "named twice");
    refused(|s| s.nonce_keys.clear(), "at least one");
    refused(|s| s.nonce_keys[0].key = vec![1; 31], "32 bytes");
    refused(
        |s| s.port_grants[0].public_ip = "203.0.113.2".into(),
        "not an address of this node",
    );
    refused(|s| s.port_grants.push(s.port_grants[0].clone()), "overlap");
    refused(|s| s.port_grants[0].range = None, "1024");
    refused(
        |s| s.peer_policy.as_mut().unwrap().allow = vec!["10.0.0.0/33".into()],
        "peer_policy.allow",
    );
    let limits = fleet::Limits::default();
    refused(
        |s| {
            s.limits = Some(fleet::Limits {
                max_lifetime_seconds: 599,
                ..limits
            });
        },
        "600",
    );
    refused(
        |s| {
            s.limits = Some(fleet::Limits {
                max_session_seconds: 599,
                ..limits
            });
        },
        "limits.max_session_seconds",
    );
}

#[test]
fn tcp_is_relayed_where_the_controller_says_so_and_to_low_ports_where_the_node_does() {
    let compiled = |on, low| {
        let mut local = local();
        local.tcp_low_peer_ports = low;
        let snapshot = fleet::Snapshot {
            tenant: on,
            ..snapshot()
        };
        compile(&snapshot, &local)
            .unwrap()
            .policy
            .server
            .tcp_relaying
    };
    let rules = |tcp_relaying| Some(fleet::TenantRules { tcp_relaying });
    assert_eq!(compiled(None, true), TcpRelaying::Off);
    assert_eq!(compiled(rules(false), true), TcpRelaying::Off);
    assert_eq!(compiled(rules(true), false), TcpRelaying::On);
    assert_eq!(compiled(rules(true), true), TcpRelaying::OnWithLowPorts);
}

#[test]
fn secrets_are_tried_by_state_and_then_newest_first() {
    use fleet::secret_generation::State;
    let states = [
        (7, State::Staged),
        (1, State::Retiring),
        (3, State::Pinned),
        (5, State::Retiring),
        (2, State::Pinned),
        (6, State::Active),
    ];
    let mut snapshot = snapshot();
    snapshot.secrets = states
        .map(|(id, state)| fleet::SecretGeneration {
            state: state.into(),
            ..secret(id, "north", 0)
        })
        .to_vec();
    let found = candidates_by(PasswordAlgorithm::Md5, &snapshot, "1500:alice", 0);
    let ids: Vec<_> = found.iter().map(|found| found.key_id).collect();
    assert_eq!(ids, [6, 3, 2, 5, 1, 7]);
}

#[test]
fn a_staged_nonce_key_verifies_and_does_not_sign() {
    let mut snapshot = snapshot();
    snapshot.nonce_keys[1].staged = true;
    let server = compile(&snapshot, &local()).unwrap().policy.server;
    assert_eq!(server.nonce_keys, [[2; 32], [1; 32], [3; 32]]);
}

#[test]
fn allocations_end_with_what_was_revoked_for_that_only() {
    let mut snapshot = snapshot();
    let revoked = |id, cut| fleet::RevokedSecret { id, cut };
    snapshot.revoked_secrets = vec![revoked(3, true), revoked(4, false)];
    let server = compile(&snapshot, &local()).unwrap().policy.server;
    assert_eq!(server.revoked_keys, [3]);
}

#[test]
fn what_is_used_is_reported_once_and_outlives_a_snapshot() {
    let local = local();
    let used_at = |snapshot: &fleet::Snapshot, id, unix| {
        let now = Now {
            unix,
            ..Now::default()
        };
        let compiled = compile(snapshot, &local).unwrap();
        compiled.policy.keys.used(id, now);
    };
    let mut snapshot = snapshot();
    let mut reported = std::collections::BTreeMap::new();
    assert_eq!(local.secret_uses.report(&mut reported), []);
    used_at(&snapshot, 1, 1000);
    used_at(&snapshot, 0, 1001);
    let first = fleet::SecretUse {
        id: 1,
        last_used: 1000,
    };
    assert_eq!(local.secret_uses.report(&mut reported), [first]);
    assert_eq!(local.secret_uses.report(&mut reported), []);
    assert_eq!(local.secret_uses.report(&mut Default::default()), [first]);
    snapshot.secrets.remove(1);
    used_at(&snapshot, 1, 1002);
    assert_eq!(local.secret_uses.report(&mut Default::default()), []);
}
