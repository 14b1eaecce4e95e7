//! How a simulated relay is set up: its addresses, ports, limits, and the users that it knows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use turnfleet_turn::policy::{Limits, RelayedHost, TcpRelaying};
use turnfleet_turn::wire::{LongTermKey, PasswordAlgorithm};
use turnfleet_turn::{Candidate, Candidates, Identity, KeySource, Ledger, Now, TenantId};

pub(crate) const REALM: &str = "turnfleet.local";

/// The tenant of users with names that begin with `acme/`, and of whoever asks for [`ACME_NAME`].
pub(crate) const ACME: TenantId = TenantId(7);

pub(crate) const ACME_NAME: &str = "turn.acme.example";

pub(crate) const ACME_REALM: &str = "acme.example";

/// The user who is nobody's.
pub(crate) const PROBE_NAME: &str = "probe";

pub(crate) const V4: &str = "198.51.100.1";

pub(crate) const V6: &str = "2001:db8:1::1";

pub(crate) const PEER: &str = "203.0.113.9:9";

pub(crate) const PEER6: &str = "[2001:db8:9::9]:9";

pub(crate) const START_UNIX: u64 = 1_800_000_000;

/// What the server offers in its challenges.
pub(crate) const OFFERED: [PasswordAlgorithm; 2] =
    [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];

/// The ports that a relay of the tests is granted on each of its addresses.
pub(crate) const PORTS: (u16, u16) = (49152, 49161);

/// Names with passwords, which are the keys 1, 2, 3 of their names; what starts with a number and a colon ends at that second, as ephemeral credentials do.
#[derive(Default)]
pub(crate) struct Keys {
    passwords: BTreeMap<String, Vec<String>>,
    /// The keys that requests were signed with.
    pub(crate) used: RefCell<Vec<u32>>,
}

impl Keys {
    pub(crate) fn set(&mut self, username: &str, passwords: &[&str]) {
        let passwords = passwords.iter().map(ToString::to_string).collect();
        self.passwords.insert(username.into(), passwords);
    }
}

impl KeySource for Keys {
    fn realm(&self, server_name: Option<&str>, _asked: Option<&str>) -> Option<&str> {
        (server_name == Some(ACME_NAME)).then_some(ACME_REALM)
    }

    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        let Identity {
            username,
            realm,
            server_name,
        } = identity;
        let named = username.strip_prefix("acme/");
        let home = named.map_or(TenantId::DEFAULT, |_| ACME);
        let shown = server_name.filter(|name| *name == ACME_NAME);
        let tenant = match username {
            PROBE_NAME => TenantId::PROBE,
            _ => shown.map_or(home, |_| ACME),
        };
        let (expires_at, user) = match username.split_once(':') {
            Some((seconds, _)) => (seconds.parse().ok(), seconds.len() + 1..username.len()),
            None => {
                let start = username.len() - named.unwrap_or(username).len();
                (None, start..username.len())
            }
        };
        let passwords = self.passwords.get(username).into_iter().flatten();
        for (password, key_id) in passwords.zip(1..) {
            out.push(Candidate {
                key: LongTermKey::derive_with(out.algorithm(), username, realm, password),
                user: Some(user.clone()),
                tenant,
                home,
                expires_at,
                key_id,
            });
        }
    }

    fn used(&self, key_id: u32, _now: Now) {
        self.used.borrow_mut().push(key_id);
    }
}

/// How a machine is set up.
pub(crate) struct Setup {
    pub(crate) hosts: Vec<RelayedHost>,
    pub(crate) ports: (u16, u16),
    pub(crate) limits: Limits,
    pub(crate) rfc5766_channel_numbers: bool,
    pub(crate) tcp_relaying: TcpRelaying,
    pub(crate) dont_fragment: bool,
    pub(crate) shard: u8,
    pub(crate) ledger: Option<Arc<Ledger>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            hosts: vec![host(V4, V4), host(V6, V6)],
            ports: PORTS,
            limits: Limits::default(),
            rfc5766_channel_numbers: false,
            tcp_relaying: TcpRelaying::Off,
            dont_fragment: false,
            shard: 0,
            ledger: None,
        }
    }
}

pub(crate) fn host(local: &str, public: &str) -> RelayedHost {
    RelayedHost {
        local: local.parse().unwrap(),
        public: public.parse().unwrap(),
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
