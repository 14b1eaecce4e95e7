//! The rules there are.

use std::fmt;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Requests with bad credentials from one network.
    AuthenticationFailures,
    /// Requests with bad credentials that name one user.
    FailuresOfUser,
    /// Challenges that nobody answers: somebody sends requests in the name of that network.
    UnansweredChallenges,
    /// A user who asks for many peers that answer nothing.
    PeerFanOut,
    /// A user who asks for many ports of few peers.
    PortScan,
    /// A user who comes from many addresses.
    SharedCredential,
    /// Many users of one network who are at their limits.
    QuotaEvasion,
    /// A user who opens allocations again and again.
    ReconnectLoop,
    /// A user who asks for many peers that the policy refuses.
    DeniedPeers,
}

/// What a rule counts over its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Happenings, each time: relays tell of the last minute.
    Times,
    /// Different things: relays tell of the last five to ten minutes.
    Different,
}

impl Base {
    /// The shortest window in seconds, of which every window is a multiple.
    #[must_use]
    pub fn step_seconds(self) -> u64 {
        match self {
            Self::Times => 60,
            Self::Different => 300,
        }
    }
}

impl Rule {
    /// Every rule, in the order of [`Self::index`].
    pub const ALL: [Self; 9] = [
        Self::AuthenticationFailures,
        Self::FailuresOfUser,
        Self::UnansweredChallenges,
        Self::PeerFanOut,
        Self::PortScan,
        Self::SharedCredential,
        Self::QuotaEvasion,
        Self::ReconnectLoop,
        Self::DeniedPeers,
    ];

    /// Its place among [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in configuration, events, metrics and bans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthenticationFailures => "authentication_failures",
            Self::FailuresOfUser => "failures_of_user",
            Self::UnansweredChallenges => "unanswered_challenges",
            Self::PeerFanOut => "peer_fan_out",
            Self::PortScan => "port_scan",
            Self::SharedCredential => "shared_credential",
            Self::QuotaEvasion => "quota_evasion",
            Self::ReconnectLoop => "reconnect_loop",
            Self::DeniedPeers => "denied_peers",
        }
    }

    /// What it counts.
    #[must_use]
    pub fn base(self) -> Base {
        match self {
            Self::AuthenticationFailures
            | Self::FailuresOfUser
            | Self::UnansweredChallenges
            | Self::PeerFanOut
            | Self::ReconnectLoop
            | Self::DeniedPeers => Base::Times,
            Self::PortScan | Self::SharedCredential | Self::QuotaEvasion => Base::Different,
        }
    }

    /// Whether it finds users who have proved who they are.
    #[must_use]
    pub fn is_of_users(self) -> bool {
        match self {
            Self::PeerFanOut
            | Self::PortScan
            | Self::SharedCredential
            | Self::ReconnectLoop
            | Self::DeniedPeers => true,
            Self::AuthenticationFailures
            | Self::FailuresOfUser
            | Self::UnansweredChallenges
            | Self::QuotaEvasion => false,
        }
    }

    /// Why it cannot ban, where it cannot: whoever it finds is the victim.
    #[must_use]
    pub fn bans_nobody_because(self) -> Option<&'static str> {
        match self {
            Self::FailuresOfUser => Some("anybody could have a user banned by failing in its name"),
            Self::UnansweredChallenges => Some(
                "the network is the victim of whoever forges its addresses, and a ban would lock its clients out",
            ),
            Self::AuthenticationFailures
            | Self::PeerFanOut
            | Self::PortScan
            | Self::SharedCredential
            | Self::QuotaEvasion
            | Self::ReconnectLoop
            | Self::DeniedPeers => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
