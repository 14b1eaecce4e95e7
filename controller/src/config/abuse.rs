//! `[abuse]`: the rules that find abuse.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rules that find abuse. By default each of them looks and tells, with what it would have done, and none acts.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAbuse {
    /// Whom no rule judges. Relays, controllers and trusted proxies are never banned in any case.
    pub exempt: RawExempt,
    /// Requests with bad credentials from one network of clients, an IPv4 /24 or an IPv6 /48.
    pub authentication_failures: RawRule,
    /// Requests with bad credentials that name one user, whoever sends them. It cannot ban: anybody could have a user banned by
    /// failing in its name.
    pub failures_of_user: RawRule,
    /// Challenges to one network that nobody answers: requests come in the name of its addresses. It cannot ban: the network is
    /// the victim, and the relays hold back what they send there by themselves.
    pub unanswered_challenges: RawRule,
    /// Peers that one user asks for and had not asked for before, where they do not answer as those of a call do.
    pub peer_fan_out: RawRule,
    /// Ports of peers that one user asks for beyond the first of each, where they do not answer.
    pub port_scan: RawRule,
    /// Addresses that one user's allocations are made from. It bans only where they are of three networks or more. Users with a
    /// password of their own (`users`) are not judged.
    pub shared_credential: RawRule,
    /// Users of one network of clients who have as many allocations as one may have, and ask for more.
    pub quota_evasion: RawRule,
    /// Allocations that one user opens.
    pub reconnect_loop: RawRule,
    /// Peers that one user asks for and the policy refuses, where they are four times as many as those that it allows.
    pub denied_peers: RawRule,
}

/// Whom no rule judges.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawExempt {
    /// Networks, or addresses, of clients.
    pub networks: Vec<String>,
    /// Users, without the time in their usernames; `NAME/user` for one of the tenant NAME.
    pub users: Vec<String>,
    /// Tenants: none of their users is judged.
    pub tenants: Vec<String>,
}

/// One rule. What is left out is as in the rule by default.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRule {
    /// Whether it looks at anything.
    pub enabled: Option<bool>,
    /// So many within the window are found. At least 1.
    pub threshold: Option<u64>,
    /// The window in seconds, at most 3600: a multiple of 60, or of 300 where different things are counted (`port_scan`,
    /// `shared_credential`, `quota_evasion`), for which relays tell of the last five to ten minutes.
    pub window_seconds: Option<u64>,
    /// What follows.
    pub verdict: Option<RawVerdict>,
    /// How long a ban or a throttle lasts, in seconds: 60 to 2592000. Where the rule only observes, it tells of this ban.
    pub ban_seconds: Option<u64>,
}

/// What follows where a rule finds somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawVerdict {
    /// It is told, with what would have been done.
    #[default]
    Observe,
    /// The user gets no further allocation on any relay, and 100 kbit/s each way for those that it has. Only of rules that find
    /// users.
    Throttle,
    /// Whoever it is is banned on every relay.
    Ban,
}

impl Default for RawAbuse {
    fn default() -> Self {
        let rule = |threshold, window_seconds| RawRule {
            enabled: Some(true),
            threshold: Some(threshold),
            window_seconds: Some(window_seconds),
            verdict: Some(RawVerdict::Observe),
            ban_seconds: Some(3600),
        };
        Self {
            exempt: RawExempt::default(),
            authentication_failures: rule(1000, 60),
            failures_of_user: rule(100, 60),
            unanswered_challenges: rule(1000, 60),
            peer_fan_out: rule(300, 60),
            port_scan: rule(50, 600),
            shared_credential: rule(20, 600),
            quota_evasion: rule(10, 600),
            reconnect_loop: rule(600, 60),
            denied_peers: rule(200, 60),
        }
    }
}
