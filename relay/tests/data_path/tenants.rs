//! Clients of a tenant over TLS: the name in the handshake reaches the core, on every kind of listener.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted fails it")]

use std::path::Path;
use std::sync::Arc;

use turnfleet_relay::shard::{Certificate, Front, RelayPolicy};
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::LongTermKey;
use turnfleet_turn::{AddressFamily, Candidate, Candidates, Identity, KeySource, Now};
use turnfleet_turn::{TenantId, Transport};

use crate::support::{
    Driver, PASSWORD, Relay, USERNAME, policy, settings, wait_until, write_certificate,
};
use crate::tcp::{connect, expect, listen, signed_bind, tcp_options};

/// Whose server the tests' TLS clients ask for.
const ACME: TenantId = TenantId(7);
const ACME_REALM: &str = "acme.example";

/// One user, who is the tenant's wherever the handshake asks for its server.
struct Tenanted;

fn is_acmes(server_name: Option<&str>) -> bool {
    server_name == Some("turn.example.org")
}

impl KeySource for Tenanted {
    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        let tenant = match is_acmes(identity.server_name) {
            true => ACME,
            false => TenantId::DEFAULT,
        };
        if identity.username == USERNAME {
            out.push(Candidate {
                key: LongTermKey::derive(USERNAME, identity.realm, PASSWORD),
                user: Some(0..USERNAME.len()),
                tenant,
                home: tenant,
                expires_at: None,
                key_id: 0,
            });
        }
    }

    fn realm(&self, server_name: Option<&str>, _asked: Option<&str>) -> Option<&str> {
        is_acmes(server_name).then_some(ACME_REALM)
    }
}

/// A relay that tells tenants apart, with TLS on every stream listener.
fn relay(folder: &Path, shards: u8) -> (Relay, std::path::PathBuf) {
    let (chain, key) = (folder.join("cert"), folder.join("key"));
    write_certificate(&chain, &key);
    let certificate = Certificate::load(&chain, &key).unwrap();
    let mut settings = settings(shards, Some(Arc::new(certificate)));
    for listener in &mut settings.listeners {
        listener.front = Front {
            detects_tls: listener.transport == Transport::Tcp,
            ..Front::default()
        };
    }
    let relay = Relay::start(settings);
    relay.policy.store(Arc::new(RelayPolicy {
        keys: Box::new(Tenanted),
        ..policy(u32::MAX)
    }));
    relay.shards.notify_policy();
    (relay, chain)
}

#[test]
fn whoever_asks_for_a_tenants_server_is_its_user_on_every_listener_that_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, chain) = relay(folder.path(), 2);
    let (tcp, tls) = (
        relay.address(Transport::Tcp, true),
        relay.address(Transport::Tls, true),
    );
    let mut clients = Vec::new();
    for (server, count) in [(tls, 1), (tcp, 2)] {
        let mut client = Driver::tls(server, &chain);
        client.allocate(AllocateOptions::default());
        clients.push(client);
        assert_eq!(relay.ledger.allocations_by_tenant(), [(ACME, count)]);
    }
    for (mut client, count) in [
        (Driver::tcp(tcp), 1),
        (Driver::udp(relay.address(Transport::Udp, true)), 2),
    ] {
        client.allocate(AllocateOptions::default());
        clients.push(client);
        let counted = relay.ledger.allocations_by_tenant();
        assert_eq!(counted, [(TenantId::DEFAULT, count), (ACME, 2)]);
    }
    for client in &mut clients {
        client.refresh(600);
    }
}

#[test]
fn a_client_data_connection_takes_the_name_along_to_whichever_shard_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, chain) = relay(folder.path(), 2);
    let server = relay.address(Transport::Tls, true);
    let mut control = Driver::tls(server, &chain);
    control.allocate(tcp_options(AddressFamily::V4));
    for _ in 0..8 {
        let (listener, _) = listen(true);
        let (id, mut peer) = connect(&mut control, &listener);
        let mut data = Driver::tls(server, &chain);
        let request = signed_bind(&mut data, id);
        data.send_raw(&request);
        assert_eq!(data.receive_raw()[..2], [1, 0x0B]);
        data.send_raw(b"hello");
        expect(&mut peer, b"hello");
    }
    drop(control);
    wait_until("the end of the allocation", || {
        relay.ledger.allocations_by_tenant().is_empty()
    });
}
