//! The zone that is answered for, checked.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::Name;
use ipnet::IpNet;

use super::Check;
use crate::config::{RawDns, RawNameServer};

/// The longest name of a zone, in characters: the longest names of regions and nodes fit before it.
const MAX_ZONE: usize = 128;
/// The most name servers, addresses of one of them, and places to listen at.
const MAX_PLACES: usize = 8;

/// The zone that is answered for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The name of the zone, in lower case.
    pub zone: Name,
    /// Where queries come in.
    pub listen: Vec<SocketAddr>,
    /// Its name servers; one at least.
    pub name_servers: Vec<NameServer>,
    /// The mailbox of who is responsible, with a dot for the `@`.
    pub contact: Name,
    /// The TTL of every record, in seconds.
    pub ttl: u32,
    /// Answers a second by UDP to one network; zero for no bound.
    pub answers_per_second: u32,
    /// Networks without that bound.
    pub trusted_sources: Vec<IpNet>,
}

/// A name server of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its name, in lower case.
    pub name: Name,
    /// Its addresses, where its name is in the zone.
    pub addresses: Vec<IpAddr>,
}

impl Check {
    pub(super) fn dns(&mut self, raw: RawDns) -> Option<DnsConfig> {
        let zone = self.domain("dns.zone", raw.zone.as_deref()?)?;
        self.within("dns.ttl_seconds", raw.ttl_seconds.into(), 1, 3600);
        let limit = raw.answers_per_second;
        self.within("dns.answers_per_second", limit.into(), 0, 1_000_000);
        self.places("dns.listen", raw.listen.len());
        self.places("dns.name_servers", raw.name_servers.len());
        let expected = "an address of the form ip:port, such as 192.0.2.53:53";
        let listen = raw.listen.iter();
        let listen: Vec<_> = listen
            .filter_map(|address| self.parse("dns.listen", address, expected))
            .collect();
        let name_servers: Vec<_> = raw
            .name_servers
            .iter()
            .filter_map(|server| self.name_server(server, &zone))
            .collect();
        let contact = match raw.contact {
            Some(contact) => self.mailbox(&contact)?,
            None => zone
                .prepend_label("hostmaster")
                .expect("a label fits before a zone of 128 characters"),
        };
        Some(DnsConfig {
            zone,
            listen,
            name_servers,
            contact,
            ttl: raw.ttl_seconds,
            answers_per_second: limit,
            trusted_sources: self.networks("dns.trusted_sources", &raw.trusted_sources),
        })
    }

    fn places(&mut self, key: &str, count: usize) {
        if !(1..=MAX_PLACES).contains(&count) {
            let expected = format!("1 to {MAX_PLACES} of them, because dns.zone is set");
            self.fail(key, Some(count.to_string()), expected);
        }
    }

    fn name_server(&mut self, raw: &RawNameServer, zone: &Name) -> Option<NameServer> {
        const ADDRESSES: &str = "dns.name_servers.addresses";
        let name = self.domain("dns.name_servers.name", &raw.name)?;
        let addresses: Vec<IpAddr> = raw
            .addresses
            .iter()
            .filter_map(|ip| self.parse(ADDRESSES, ip, "an IP address"))
            .collect();
        if zone.zone_of(&name) {
            self.places(ADDRESSES, raw.addresses.len());
        } else if !addresses.is_empty() {
            let expected = format!("none for {name}, which is not in the zone");
            self.fail(ADDRESSES, None, expected);
        }
        Some(NameServer { name, addresses })
    }

    fn domain(&mut self, key: &str, text: &str) -> Option<Name> {
        let name = domain(text);
        if name.is_none() {
            let expected = format!("a domain name of at most {MAX_ZONE} characters");
            self.fail(key, Some(text.to_owned()), expected);
        }
        name
    }

    fn mailbox(&mut self, text: &str) -> Option<Name> {
        let read = || {
            let (person, host) = text.split_once('@')?;
            let person = person.is_ascii().then_some(person.as_bytes())?;
            domain(host)?.prepend_label(person).ok()
        };
        let name = read();
        if name.is_none() {
            let expected = "a mailbox such as hostmaster@example.org";
            self.fail("dns.contact", Some(text.to_owned()), expected);
        }
        name
    }
}

/// The name that `text` stands for, with or without a dot at its end.
fn domain(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.len() > MAX_ZONE || !text.chars().all(plain) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, RawConfig, RawDns, RawNameServer};

    fn server(name: &str, addresses: &[&str]) -> RawNameServer {
        RawNameServer {
            name: name.to_owned(),
            addresses: addresses.iter().map(|&ip| ip.to_owned()).collect(),
        }
    }

    fn zone() -> RawDns {
        RawDns {
            zone: Some("Relays.Example.org.".to_owned()),
            name_servers: vec![
                server("ns1.relays.example.org", &["192.0.2.53"]),
                server("ns.example.net", &[]),
            ],
            ..RawDns::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut RawDns), keys: &str) {
        let mut raw = RawConfig {
            dns: zone(),
            ..RawConfig::default()
        };
        change(&mut raw.dns);
        let faults = Config::try_from(raw).err().map(|errors| errors.to_string());
        match faults {
            Some(faults) => assert!(!keys.is_empty() && faults.contains(keys), "{faults}"),
            None => assert_eq!(keys, ""),
        }
    }

    #[test]
    fn a_zone_needs_name_servers_and_those_in_it_addresses() {
        check(|_| {}, "");
        check(|dns| *dns = RawDns::default(), "");
        check(|dns| dns.name_servers.clear(), "dns.name_servers");
        check(|dns| dns.listen.clear(), "dns.listen");
        check(|dns| dns.listen = vec!["here".to_owned()], "dns.listen");
        check(|dns| dns.zone = Some("a..b".to_owned()), "dns.zone");
        check(|dns| dns.ttl_seconds = 0, "dns.ttl_seconds");
        let nowhere = |dns: &mut RawDns| dns.trusted_sources = vec!["10.0.0.0/33".to_owned()];
        check(nowhere, "dns.trusted_sources");
        check(|dns| dns.contact = Some("me".to_owned()), "dns.contact");
        let addresses = "dns.name_servers.addresses";
        check(|dns| dns.name_servers[0].addresses.clear(), addresses);
        let outside = |dns: &mut RawDns| dns.name_servers[1].addresses = vec!["::1".to_owned()];
        check(outside, addresses);
    }

    #[test]
    fn names_are_in_lower_case_and_the_contact_is_one_of_them() {
        let raw = RawConfig {
            dns: RawDns {
                contact: Some("o.p@example.org".to_owned()),
                ..zone()
            },
            ..RawConfig::default()
        };
        let dns = Config::try_from(raw).unwrap().dns.unwrap();
        assert_eq!(dns.zone.to_string(), "relays.example.org.");
        assert_eq!(dns.contact.to_string(), "o\\.p.example.org.");
    }
}
