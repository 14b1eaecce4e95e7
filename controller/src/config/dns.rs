//! What the configuration says of the DNS responder, as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An authoritative DNS server for one zone: names whose addresses and SRV records are those of the relays that lists may name
/// at this moment. It answers for the zone alone and never asks another server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawDns {
    /// The zone that its parent delegates to the controllers, such as `relays.example.org`; at most 128 characters. Without it
    /// there is no DNS responder.
    pub zone: Option<String>,
    /// Where it listens by UDP and by TCP, `ip:port`. On a machine with several addresses name each one, so that answers leave
    /// from the address that was asked.
    pub listen: Vec<String>,
    /// The name servers of the zone, 1 to 8, as its parent names them: one for each controller.
    pub name_servers: Vec<RawNameServer>,
    /// The mailbox of who is responsible for the zone. Without it, `hostmaster` in the zone.
    pub contact: Option<String>,
    /// How long resolvers may keep what they were told, in seconds, and that there is nothing: 1 to 3600. A relay that leaves
    /// the lists is no longer named after that time.
    pub ttl_seconds: u32,
    /// Answers a second by UDP to one network, an IPv4 /24 or an IPv6 /56, in bursts of two seconds' worth. Of those beyond it
    /// every second is sent to TCP, the others get nothing. 0 for no bound; loopback addresses have none.
    pub answers_per_second: u32,
    /// Networks without that bound, each `10.1.0.0/16` or an address: resolvers of your own, and balancers that hide who asks.
    pub trusted_sources: Vec<String>,
}

impl Default for RawDns {
    fn default() -> Self {
        Self {
            zone: None,
            listen: vec!["0.0.0.0:53".to_owned()],
            name_servers: Vec::new(),
            contact: None,
            ttl_seconds: 30,
            answers_per_second: 200,
            trusted_sources: Vec::new(),
        }
    }
}

/// A name server of the zone.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawNameServer {
    /// Its full name, such as `ns1.relays.example.org`.
    pub name: String,
    /// Its addresses, where its name is in the zone: the parent needs the same ones as glue.
    #[serde(default)]
    pub addresses: Vec<String>,
}
