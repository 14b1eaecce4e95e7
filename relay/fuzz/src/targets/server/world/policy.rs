//! What the server is run by: bounds that are soon reached, two tenants, and bans that come and go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_turn::bans::{Ban, BanTarget, Bans};
use turnfleet_turn::peer_filter::{FleetRange, PeerFilter, PeerOverlay, PeerRules};
use turnfleet_turn::policy::{Limits, Policy, TcpRelaying};
use turnfleet_turn::{TenantId, TenantPolicy, Tenants};

use super::super::Bytes;
use super::{PORTS, REALM, World};

/// Bob's tenant; Alice is of the default one.
const BOBS: TenantId = TenantId(7);

pub(super) fn tenant_of(user: &str) -> TenantId {
    if user == "bob" {
        BOBS
    } else {
        TenantId::DEFAULT
    }
}

pub(super) fn policy(hosts: &[IpAddr], tcp_relaying: TcpRelaying) -> Policy {
    let fleet = hosts.iter().map(|ip| FleetRange {
        ip: *ip,
        first: *PORTS.start(),
        last: *PORTS.end(),
    });
    let filter = PeerFilter::new(PeerRules {
        fleet: fleet.collect(),
        ..PeerRules::default()
    });
    Policy {
        nonce_lifetime: Duration::from_secs(600),
        limits: Limits {
            allocations_per_user: 3,
            allocations: 4,
            permissions_per_allocation: 4,
            channels_per_allocation: 4,
            connections_per_allocation: 4,
            max_lifetime: Duration::from_secs(3600),
            ..Limits::default()
        },
        tcp_relaying,
        tenants: tenants(tcp_relaying, false),
        ..Policy::new(REALM, [1; 32], filter)
    }
}

fn tenants(tcp_relaying: TcpRelaying, suspended: bool) -> Tenants {
    let block = |text: &str| text.parse().expect("a block");
    let bobs = TenantPolicy {
        allocations_per_user: Some(2),
        tcp_relaying,
        // The first of these nobody can open.
        peers: PeerOverlay::new(
            &[block("127.0.0.0/8"), block("9.0.0.0/8")],
            &[block("8.8.0.0/16")],
        ),
        suspended,
    };
    Tenants::from_iter([(BOBS, bobs)])
}

impl World {
    /// Bans and suspends this and that, and lets the server enforce it: what is banned has nothing any more.
    pub(in super::super) fn change_bans(&mut self, choices: &mut Bytes<'_>) {
        let kinds = choices.byte();
        let block = |text: &str| text.parse().expect("a block");
        let all = [
            BanTarget::User {
                tenant: TenantId::DEFAULT,
                user: "alice".into(),
            },
            BanTarget::Tenant(BOBS),
            BanTarget::Source(block("192.0.2.1/32")),
            BanTarget::Source(block("2001:db8::/64")),
            BanTarget::Peer(block("9.0.0.0/8")),
            BanTarget::Peer(block("2606:4700::/32")),
        ];
        let until = (kinds & 0x40 != 0).then_some(self.now.unix + 60);
        let chosen = all.into_iter().enumerate();
        let chosen = chosen.filter(|(place, _)| kinds & 1 << place != 0);
        let chosen = chosen.map(|(_, target)| Ban { target, until });
        self.policy.bans = Bans::new(chosen);
        self.policy.tenants = tenants(self.policy.tcp_relaying, kinds & 0x80 != 0);
        self.server.apply_policy(Arc::new(self.policy.clone()));
        self.advance(Duration::ZERO);
        for client in self.clients {
            let banned = self
                .policy
                .bans
                .of_source(client.client.ip(), self.now.unix);
            assert!(!banned || !self.server.serves(&client), "a banned source");
        }
    }
}
