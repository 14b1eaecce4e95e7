//! By what a node becomes a member: a join token, or a certificate of an authority that the operator trusts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use turnfleet_proto::NodeId;

use crate::config::is_name;
use crate::error::FleetError;

/// What a node that wants to enrol shows.
#[derive(Clone, Debug)]
pub enum Admission {
    /// A join token.
    JoinToken(String),
    /// A certificate that has been verified.
    Certificate(Arc<Certified>),
}

/// Who a relay is by its certificate. Its text is a SPIFFE ID (an URI in the certificate's subject alternative name):
/// `spiffe://DOMAIN/turnfleet/region/REGION/relay/NODE`, or `…/region/REGION/tenant/TENANT/relay/NODE` for a relay of one
/// tenant. Which domains there are is up to the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its name.
    pub node: NodeId,
    /// Where it is, whatever it says itself.
    pub region: String,
    /// Whose users it is for; `None` for everybody's.
    pub tenant: Option<String>,
}

impl Certified {
    /// That `claimed` is it.
    ///
    /// # Errors
    /// When it is another one.
    pub(super) fn require(&self, claimed: &NodeId) -> Result<(), FleetError> {
        if self.node == *claimed {
            return Ok(());
        }
        Err(FleetError::NotCertified {
            certified: self.node.clone(),
            claimed: claimed.clone(),
        })
    }
}

impl FromStr for Certified {
    type Err = NoRelayName;

    fn from_str(text: &str) -> Result<Self, NoRelayName> {
        let read = || {
            let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
            let parts: Vec<&str> = path.split('/').collect();
            let (region, tenant, node) = match parts[..] {
                ["turnfleet", "region", region, "relay", node] => (region, None, node),
                [
                    "turnfleet",
                    "region",
                    region,
                    "tenant",
                    tenant,
                    "relay",
                    node,
                ] => (region, Some(tenant), node),
                _ => return None,
            };
            let named = !domain.is_empty() && is_name(region) && tenant.is_none_or(is_name);
            named.then_some(Self {
                node: node.parse().ok()?,
                region: region.to_owned(),
                tenant: tenant.map(str::to_owned),
            })
        };
        read().ok_or_else(|| NoRelayName(text.chars().take(200).collect()))
    }
}

impl fmt::Display for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, region, .. } = self;
        match &self.tenant {
            Some(tenant) => write!(f, "relay {node} in region {region} for tenant {tenant}"),
            None => write!(f, "relay {node} in region {region}"),
        }
    }
}

/// A URI that names no relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no relay")]
pub struct NoRelayName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_named_with_its_region_and_perhaps_a_tenant() {
        let read = |text: &str| text.parse::<Certified>().map(|it| it.to_string());
        assert_eq!(
            read("spiffe://example.org/turnfleet/region/eu-west/relay/relay-1").unwrap(),
            "relay relay-1 in region eu-west"
        );
        assert_eq!(
            read("spiffe://example.org/turnfleet/region/EU/tenant/acme/relay/r.1").unwrap(),
            "relay r.1 in region EU for tenant acme"
        );
    }

    #[test]
    fn anything_else_names_nobody() {
        for text in [
            "",
            "https://example.org/turnfleet/region/eu/relay/relay-1",
            "spiffe:///turnfleet/region/eu/relay/relay-1",
            "spiffe://example.org/turnfleet/relay/relay-1",
            "spiffe://example.org/turnfleet/region/eu/relay/relay-1/",
            "spiffe://example.org//turnfleet/region/eu/relay/relay-1",
            "spiffe://example.org/turnfleet/region//relay/relay-1",
            "spiffe://example.org/turnfleet/region/eu/relay/Relay_1",
            "spiffe://example.org/turnfleet/region/eu/tenant//relay/relay-1",
            "spiffe://example.org/turnfleet/tenant/acme/region/eu/relay/relay-1",
            "spiffe://example.org/turnfleet/region/e%75/relay/relay-1",
        ] {
            assert!(text.parse::<Certified>().is_err(), "{text}");
        }
    }
}
