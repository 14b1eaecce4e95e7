//! What relays are sent.

use turnfleet_controller::fleet::record::{
    NonceKey, PortGrant, Record, SecretGeneration, SecretScope, SecretState,
};
use turnfleet_proto::PortRange;
use turnfleet_proto::credentials::SharedSecret;

use crate::stage::{Stage, id};

#[test]
fn a_snapshot_holds_the_nodes_ports_and_the_fleets() {
    let mut stage = Stage::of(2);
    for number in 0..2 {
        let ip = [192, 0, 2, number].into();
        let grant = PortGrant::held(id(number), ip, PortRange::DYNAMIC);
        stage.store(Record::Grant(grant));
    }
    stage.store(Record::Secret(SecretGeneration {
        scope: SecretScope::Fleet,
        created_at: 0,
        since_generation: 1,
        id: 2,
        secret: SharedSecret::new("south"),
        state: SecretState::Active,
    }));
    stage.store(Record::Secret(SecretGeneration {
        scope: SecretScope::Fleet,
        created_at: 0,
        since_generation: 1,
        id: 1,
        secret: SharedSecret::new("north"),
        state: SecretState::Retiring {
            accept_until: 1_700_086_520,
        },
    }));
    for id in 1..=2 {
        stage.store(Record::NonceKey(NonceKey {
            id,
            key: [7; 32],
            created_at: 0,
            staged: false,
            since_generation: 1,
        }));
    }
    let snapshot = stage.fleet.snapshot(&id(1)).unwrap();
    assert_eq!(
        (snapshot.generation, snapshot.realm.as_str()),
        (7, "example.org")
    );
    let secrets: Vec<_> = snapshot
        .secrets
        .iter()
        .map(|secret| (secret.id, secret.accept_until))
        .collect();
    assert_eq!(secrets, [(2, 0), (1, 1_700_086_520)]);
    let keys: Vec<_> = snapshot.nonce_keys.iter().map(|key| key.id).collect();
    assert_eq!(keys, [2, 1]);
    let own: Vec<_> = snapshot
        .port_grants
        .iter()
        .map(|grant| grant.public_ip.as_str())
        .collect();
    assert_eq!(own, ["192.0.2.1"]);
    assert_eq!(snapshot.peer_policy.unwrap().fleet.len(), 2);
}
