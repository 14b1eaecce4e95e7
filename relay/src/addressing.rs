//! Which addresses of this machine the node listens and relays on, and what they look like from outside.
//!
//! Expands wildcard listen addresses and pairs external addresses of 1:1 NAT with local ones, as a function of the
//! configuration and of what the machine has.

use std::net::{IpAddr, SocketAddr};

use turnfleet_turn::AddressFamily;
use turnfleet_turn::policy::RelayedHost;

use crate::config::{Config, ConfigErrors, ConfigWarning, Findings, Listener, PublicIp};
use crate::machine::Machine;

/// The concrete addresses of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addressing {
    /// The listeners, each with a concrete address.
    pub(crate) listeners: Vec<Listener>,
    /// The listen addresses, as relayed sockets use them.
    pub(crate) hosts: Vec<RelayedHost>,
    /// What was skipped.
    pub(crate) warnings: Vec<ConfigWarning>,
}

impl Config {
    /// Whether listen addresses and external addresses fit together on this machine; [`crate::Node::start`] does the
    /// same, and then opens them. Returns what would be skipped.
    ///
    /// # Errors
    /// When nothing is left to listen on, or external and local addresses do not pair.
    pub fn check_addresses(&self) -> Result<Vec<ConfigWarning>, ConfigErrors> {
        Addressing::resolve(self, &Machine::read()).map(|found| found.warnings)
    }
}

impl Addressing {
    /// The addresses for `config` on `machine`.
    ///
    /// # Errors
    /// When nothing is left to listen on, or external and local addresses do not pair.
    pub(crate) fn resolve(config: &Config, machine: &Machine) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let mut listeners: Vec<Listener> = Vec::new();
        let paired = config.public_ips.iter().filter_map(|named| named.local);
        let paired: Vec<IpAddr> = paired.collect();
        for (index, listener) in config.listeners.iter().enumerate() {
            let address = listener.address;
            let mut add = |address: SocketAddr| {
                let concrete = Listener {
                    address,
                    ..listener.clone()
                };
                // A wildcard beside a concrete address of the same port does not open it twice.
                if address.port() == 0 || !listeners.contains(&concrete) {
                    listeners.push(concrete);
                }
            };
            if !address.ip().is_unspecified() {
                add(address);
                continue;
            }
            let meant = machine.wildcard(address.ip(), &paired);
            for &ip in &meant {
                add(SocketAddr::new(ip, address.port()));
            }
            if meant.is_empty() {
                let key = format!("listeners[{index}].address");
                let message = format!(
                    "{address} is skipped: the machine has no global address of its family"
                );
                findings.warn(key, message);
            }
        }
        if listeners.is_empty() {
            findings.missing(
                "listeners",
                "a listener on an address that this machine has",
            );
        }
        let locals = distinct(relaying(&listeners).map(|listener| listener.address.ip()));
        let hosts = pair(&locals, &config.public_ips, &mut findings);
        Ok(Self {
            listeners,
            hosts,
            warnings: findings.finish()?,
        })
    }

    /// What clients and peers see instead of `local`.
    pub(crate) fn public(&self, local: IpAddr) -> IpAddr {
        self.hosts
            .iter()
            .find(|host| host.local == local)
            .map_or(local, |host| host.public)
    }

    /// The addresses that peers see.
    pub(crate) fn public_ips(&self) -> Vec<IpAddr> {
        self.hosts.iter().map(|host| host.public).collect()
    }
}

/// The listeners on whose addresses relayed sockets are opened. An address that only balancers reach is no place for peers
/// as long as there is another one of its family.
fn relaying(listeners: &[Listener]) -> impl Iterator<Item = &Listener> {
    let is_direct = |listener: &Listener| !listener.front.has_proxy_header();
    listeners.iter().filter(move |listener| {
        let same_family = |other: &&Listener| other.address.is_ipv4() == listener.address.is_ipv4();
        is_direct(listener) || !listeners.iter().filter(same_family).any(is_direct)
    })
}

/// Finds the external address of each local one.
fn pair(locals: &[IpAddr], public_ips: &[PublicIp], findings: &mut Findings) -> Vec<RelayedHost> {
    for (index, named) in public_ips.iter().enumerate() {
        if let Some(local) = named.local.filter(|local| !locals.contains(local)) {
            let expected = format!("one of the listen addresses behind the slash: {locals:?}");
            let value = format!("{}/{local}", named.public);
            findings.error(format!("public_ips[{index}]"), &value, &expected);
        }
    }
    let paired = |local: IpAddr| public_ips.iter().find(|named| named.local == Some(local));
    let mut hosts: Vec<RelayedHost> = locals
        .iter()
        .map(|&local| RelayedHost {
            local,
            public: paired(local).map_or(local, |named| named.public),
        })
        .collect();
    for family in [AddressFamily::V4, AddressFamily::V6] {
        let bare: Vec<IpAddr> = public_ips
            .iter()
            .filter(|named| named.local.is_none() && AddressFamily::of(named.public) == family)
            .map(|named| named.public)
            .collect();
        let mut open: Vec<&mut RelayedHost> = hosts
            .iter_mut()
            .filter(|host| AddressFamily::of(host.local) == family && paired(host.local).is_none())
            .collect();
        if !bare.is_empty() && bare.len() != open.len() {
            let locals: Vec<IpAddr> = open.iter().map(|host| host.local).collect();
            let expected = format!(
                "as many external addresses without a local one as there are listen addresses for them, {} for {locals:?}; \
                 or EXTERNAL/LOCAL",
                locals.len()
            );
            findings.error("public_ips", &format!("{bare:?}"), &expected);
            continue;
        }
        for (host, public) in open.iter_mut().zip(bare) {
            host.public = public;
        }
    }
    hosts
}

fn distinct(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in addresses {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RawConfig, RawListener};

    fn config(listeners: &[(&str, &str)], public_ips: &[&str]) -> Config {
        let listener = |&(transport, address): &(&str, &str)| RawListener {
            transport: transport.into(),
            address: address.into(),
            ..RawListener::default()
        };
        Config::try_from(RawConfig {
            node_id: "a".into(),
            listeners: listeners.iter().map(listener).collect(),
            public_ips: public_ips.iter().map(|ip| (*ip).into()).collect(),
            ..RawConfig::default()
        })
        .unwrap()
    }

    fn machine(addresses: &[&str]) -> Machine {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap());
        Machine::new(addresses.collect(), Vec::new())
    }

    fn hosts(addressing: &Addressing) -> Vec<String> {
        let text = |host: &RelayedHost| format!("{}/{}", host.public, host.local);
        addressing.hosts.iter().map(text).collect()
    }

    #[test]
    fn peers_are_not_met_where_only_balancers_come() {
        let proxied = |address: &str| RawListener {
            transport: "tcp".into(),
            address: address.into(),
            proxy_protocol_from: vec!["10.0.0.0/8".into()],
            ..RawListener::default()
        };
        let resolve = |listeners: &[RawListener]| {
            let config = Config::try_from(RawConfig {
                node_id: "a".into(),
                listeners: listeners.to_vec(),
                public_ips: vec!["203.0.113.1".into()],
                ..RawConfig::default()
            });
            hosts(&Addressing::resolve(&config.unwrap(), &Machine::default()).unwrap())
        };
        let direct = RawListener {
            proxy_protocol_from: Vec::new(),
            ..proxied("192.0.2.1:3478")
        };
        let balanced = proxied("10.0.0.1:3478");
        assert_eq!(
            resolve(&[balanced.clone(), direct]),
            ["203.0.113.1/192.0.2.1"]
        );
        assert_eq!(resolve(&[balanced]), ["203.0.113.1/10.0.0.1"]);
    }

    #[test]
    fn a_wildcard_is_every_global_address_of_its_family() {
        let config = config(&[("udp", "0.0.0.0:3478"), ("tcp", "192.0.2.1:3478")], &[]);
        let machine = machine(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let addressing = Addressing::resolve(&config, &machine).unwrap();
        let listeners: Vec<String> = addressing
            .listeners
            .iter()
            .map(|listener| format!("{} {}", listener.transport, listener.address))
            .collect();
        assert_eq!(
            listeners,
            [
                "udp 192.0.2.1:3478",
                "udp 192.0.2.2:3478",
                "tcp 192.0.2.1:3478"
            ]
        );
        assert_eq!(
            hosts(&addressing),
            ["192.0.2.1/192.0.2.1", "192.0.2.2/192.0.2.2"]
        );
    }

    #[test]
    fn one_external_address_is_enough_beside_a_bridge_of_containers() {
        let addresses = ["10.0.0.7", "172.17.0.1"].map(|ip| ip.parse().unwrap());
        let machine = Machine::new(addresses.to_vec(), vec![addresses[0]]);
        let config = config(&[("udp", "0.0.0.0:3478")], &["203.0.113.8"]);
        let addressing = Addressing::resolve(&config, &machine).unwrap();
        assert_eq!(hosts(&addressing), ["203.0.113.8/10.0.0.7"]);
    }

    #[test]
    fn a_wildcard_without_addresses_is_skipped_with_a_warning() {
        let config = config(&[("udp", "0.0.0.0:1"), ("udp", "[::]:1")], &[]);
        let addressing = Addressing::resolve(&config, &machine(&["192.0.2.1"])).unwrap();
        assert_eq!(addressing.listeners.len(), 1);
        assert_eq!(addressing.warnings[0].key, "listeners[1].address");
        let errors = Addressing::resolve(&config, &Machine::default()).unwrap_err();
        assert_eq!(errors.0[0].key(), "listeners");
    }

    #[test]
    fn external_addresses_pair_by_order_within_a_family() {
        let config = config(
            &[
                ("udp", "10.0.0.1:1"),
                ("udp", "[fd00::1]:1"),
                ("tcp", "10.0.1.1:1"),
            ],
            &["203.0.113.1", "2001:db8::1", "203.0.113.2"],
        );
        let addressing = Addressing::resolve(&config, &Machine::default()).unwrap();
        assert_eq!(
            hosts(&addressing),
            [
                "203.0.113.1/10.0.0.1",
                "2001:db8::1/fd00::1",
                "203.0.113.2/10.0.1.1"
            ]
        );
    }

    #[test]
    fn named_pairs_leave_the_rest_to_the_order() {
        let two = [("udp", "10.0.0.1:1"), ("udp", "10.0.1.1:1")];
        let addressing = |public_ips: &[&str]| {
            Addressing::resolve(&config(&two, public_ips), &Machine::default())
        };
        let resolved = addressing(&["203.0.113.2/10.0.1.1", "203.0.113.1"]).unwrap();
        assert_eq!(
            hosts(&resolved),
            ["203.0.113.1/10.0.0.1", "203.0.113.2/10.0.1.1"]
        );
        let resolved = addressing(&["203.0.113.2/10.0.1.1"]).unwrap();
        assert_eq!(
            hosts(&resolved),
            ["10.0.0.1/10.0.0.1", "203.0.113.2/10.0.1.1"]
        );
    }

    #[test]
    fn another_count_and_an_unknown_local_address_are_errors() {
        let two = [("udp", "10.0.0.1:1"), ("udp", "10.0.1.1:1")];
        for public_ips in [
            &["203.0.113.1"][..],
            &["203.0.113.1", "203.0.113.2", "203.0.113.3"],
            &["203.0.113.1/10.0.2.1"],
            &["2001:db8::1"],
        ] {
            let errors =
                Addressing::resolve(&config(&two, public_ips), &Machine::default()).unwrap_err();
            assert!(errors.0[0].key().starts_with("public_ips"), "{errors}");
        }
    }
}
