//! Whom rules leave alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::subject::Subject;
use crate::fleet::tenants::DEFAULT_NAME;

/// Whom the operator wants left alone: no rule looks at them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exempt {
    /// Networks of clients.
    pub networks: Vec<IpNet>,
    /// Users by name; `NAME/user` for one of the tenant NAME.
    pub users: BTreeSet<String>,
    /// All users of the tenants of these names, one of which may be `default`.
    pub tenants: BTreeSet<String>,
}

/// What of the fleet itself no verdict may concern, and what rules have to know of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleetwide {
    /// Where relays and controllers are.
    pub addresses: Vec<IpAddr>,
    /// Trusted proxies.
    pub proxies: Vec<IpNet>,
    /// Users of the default tenant with a password of their own: the operator has given it to whom it likes.
    pub static_users: BTreeSet<String>,
    /// Tenants by number.
    pub tenants: Vec<(u32, String)>,
}

impl Fleetwide {
    /// The name of a tenant; `None` for the default one, and for one that is gone.
    #[must_use]
    pub fn tenant(&self, id: u32) -> Option<&str> {
        let known = self.tenants.iter().find(|(known, _)| *known == id);
        known.map(|(_, name)| name.as_str())
    }

    /// Whether a verdict about `subject` would concern the fleet itself.
    #[must_use]
    pub fn is_own(&self, subject: &Subject) -> bool {
        let Subject::Network(network) = subject else {
            return false;
        };
        self.addresses.iter().any(|own| network.contains(own))
            || self.proxies.iter().any(|own| overlap(own, network))
    }
}

impl Exempt {
    /// Whether `subject` is left alone. A network is, where any address of it is.
    #[must_use]
    pub fn covers(&self, subject: &Subject, fleet: &Fleetwide) -> bool {
        match subject {
            Subject::Network(network) => self.networks.iter().any(|it| overlap(it, network)),
            Subject::Claim(user) => self.users.contains(user),
            Subject::User { tenant, user } => {
                let name = fleet.tenant(*tenant);
                let listed = match name {
                    None => self.users.contains(user),
                    Some(name) => self.users.contains(&format!("{name}/{user}")),
                };
                listed || self.tenants.contains(name.unwrap_or(DEFAULT_NAME))
            }
        }
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
