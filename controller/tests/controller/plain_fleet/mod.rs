//! The least that an owner of a fleet is told: for tests that change one thing of it, or nothing.

use turnfleet_controller::config::{PortPlan, ProbeMode};
use turnfleet_controller::fleet::record::Policy;
use turnfleet_controller::fleet::{ListSettings, Settings, Wishes};

/// A policy with no rule of its own, and nobody besides.
pub(crate) fn wishes(realm: &str) -> Wishes {
    Wishes {
        policy: Policy {
            realm: realm.into(),
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            danger_allow_loopback: false,
            allocations_per_user: 100,
            max_lifetime_seconds: 3600,
            max_session_seconds: 0,
            strict_expiry: false,
            tcp_relaying: false,
        },
        users: Vec::new(),
        shared_secret: None,
        join_token: None,
        api_tokens: Vec::new(),
        tenants: Vec::new(),
    }
}

/// Without a probe: sessions alone decide who is listed.
pub(crate) fn settings() -> Settings {
    Settings {
        region: "north".into(),
        ports: PortPlan {
            range: "50000-50099".parse().unwrap(),
            relays_per_address: 1,
        },
        rotate_secrets_every: None,
        probe: ProbeMode::Off,
        lists: ListSettings::default(),
    }
}
