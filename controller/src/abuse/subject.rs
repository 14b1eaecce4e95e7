//! Whom a rule found.

use std::fmt;

use ipnet::IpNet;

use crate::fleet::bans::Whom;
use crate::fleet::quota;

/// Whom a rule found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A user that has proved who it is.
    User {
        /// The number of its tenant.
        tenant: u32,
        /// The username without its time and tenant.
        user: String,
    },
    /// A user that requests name, as they name it.
    Claim(String),
    /// Clients from this network.
    Network(IpNet),
}

impl Subject {
    /// Whom a ban would concern; `None` where somebody else could be behind it.
    #[must_use]
    pub fn whom(&self) -> Option<Whom> {
        match self {
            Self::User { tenant, user } => Some(Whom::User {
                tenant: *tenant,
                user: user.clone(),
            }),
            Self::Claim(_) => None,
            Self::Network(network) => Some(Whom::Source(*network)),
        }
    }

    /// Whose quota a throttle concerns; `None` for all but users who have proved who they are.
    #[must_use]
    pub fn quota(&self) -> Option<quota::Subject> {
        match self {
            Self::User { tenant, user } => Some(quota::Subject {
                tenant: *tenant,
                user: Some(user.as_str().into()),
            }),
            Self::Claim(_) | Self::Network(_) => None,
        }
    }

    /// `user` or `source`, as bans call it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } | Self::Claim(_) => "user",
            Self::Network(_) => "source",
        }
    }

    /// The number of the tenant that it is of, where it is of one.
    #[must_use]
    pub fn tenant(&self) -> Option<u32> {
        match self {
            Self::User { tenant, .. } => Some(*tenant),
            Self::Claim(_) | Self::Network(_) => None,
        }
    }
}

/// The user or the network, without the tenant.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { user, .. } | Self::Claim(user) => user.escape_debug().fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}
