//! The addresses of this machine, and which of them a wildcard listen address stands for.
//!
//! What the machine has is read from `/proc/net`, and the kernel is asked where its default routes begin; the choice is a
//! function of both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses of the internet's root servers. A route to one is looked up, and nothing is sent to it.
const FAR_AWAY: [&str; 2] = ["198.41.0.4:9", "[2001:503:ba3e::2:30]:9"];

/// The addresses of a machine that others can reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Neither loopback nor link-local, in no order.
    addresses: Vec<IpAddr>,
    /// Those that packets to the internet leave from, at most one of each family.
    outward: Vec<IpAddr>,
}

impl Machine {
    /// Reads the addresses of this machine.
    #[must_use]
    pub fn read() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let v4 = parse_fib_trie(&read("/proc/net/fib_trie"));
        let v6 = parse_if_inet6(&read("/proc/net/if_inet6"));
        let addresses = v4.into_iter().map(IpAddr::V4);
        Self::new(
            addresses.chain(v6.into_iter().map(IpAddr::V6)).collect(),
            FAR_AWAY.into_iter().filter_map(source_towards).collect(),
        )
    }

    pub(crate) fn new(addresses: Vec<IpAddr>, outward: Vec<IpAddr>) -> Self {
        Self { addresses, outward }
    }

    /// The addresses that `wildcard`, an unspecified one, stands for.
    ///
    /// They are the public ones of its family. Where it has none, the private one that packets to the internet leave from,
    /// and only where there is no way out all of them: a bridge of containers is an address of the machine too, but one
    /// that other machines have as well, and that none of them can reach. Those in `paired` have an external address by
    /// the operator's word, and always belong. The address of the default route comes first, the others ascend.
    #[must_use]
    pub fn wildcard(&self, wildcard: IpAddr, paired: &[IpAddr]) -> Vec<IpAddr> {
        let mut family: Vec<IpAddr> = self.addresses.clone();
        family.retain(|ip| ip.is_ipv4() == wildcard.is_ipv4());
        family.sort_unstable_by_key(|ip| (!self.outward.contains(ip), *ip));
        family.dedup();
        let has_public = family.iter().any(|ip| !is_private(*ip));
        let has_outward = family.iter().any(|ip| self.outward.contains(ip));
        family.retain(|ip| {
            paired.contains(ip)
                || if has_public {
                    !is_private(*ip)
                } else {
                    !has_outward || self.outward.contains(ip)
                }
        });
        family
    }
}

/// Whether other networks may have the same address: RFC 1918, RFC 6598 and RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || is_shared
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// The address that packets to `far` would leave from. Connecting a UDP socket asks the routes, and sends nothing.
fn source_towards(far: &str) -> Option<IpAddr> {
    let far: SocketAddr = far.parse().ok()?;
    let any = match far {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Local addresses in the kernel's IPv4 routes: a line `|-- ADDRESS` with a line `/32 host LOCAL` below it.
fn parse_fib_trie(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut above = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            above = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(above.filter(|ip| !ip.is_loopback() && !ip.is_link_local()));
        }
    }
    found
}

/// Lines of address, interface, prefix length, scope, flags (all in hexadecimal) and interface name.
fn parse_if_inet6(text: &str) -> Vec<Ipv6Addr> {
    const GLOBAL: &str = "00";
    // IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED and IFA_F_TENTATIVE: addresses that are soon gone, or not there.
    const PASSING: u32 = 0x01 | 0x08 | 0x20 | 0x40;
    let address = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let scope = fields.nth(2)?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        (scope == GLOBAL && flags & PASSING == 0).then(|| Ipv6Addr::from_bits(address))
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wildcard(any: &str, addresses: &[&str], outward: &str, paired: &[&str]) -> Vec<String> {
        let parse = |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect();
        let machine = Machine::new(parse(addresses), outward.parse().into_iter().collect());
        let paired: Vec<IpAddr> = parse(paired);
        let meant = machine.wildcard(any.parse().unwrap(), &paired);
        meant.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bridge_of_containers_is_not_meant_where_there_is_a_public_address() {
        let machine = ["172.17.0.1", "203.0.113.8", "2001:db8::8", "fd00::1"];
        assert_eq!(
            wildcard("0.0.0.0", &machine, "203.0.113.8", &[]),
            ["203.0.113.8"]
        );
        assert_eq!(wildcard("::", &machine, "", &[]), ["2001:db8::8"]);
    }

    #[test]
    fn behind_nat_the_address_of_the_default_route_is_meant() {
        let machine = ["172.17.0.1", "10.0.0.7", "192.168.122.1"];
        assert_eq!(wildcard("0.0.0.0", &machine, "10.0.0.7", &[]), ["10.0.0.7"]);
        let paired = ["192.168.122.1"];
        assert_eq!(
            wildcard("0.0.0.0", &machine, "10.0.0.7", &paired),
            ["10.0.0.7", "192.168.122.1"]
        );
    }

    #[test]
    fn without_a_way_out_every_private_address_is_meant() {
        let machine = ["172.17.0.1", "100.64.0.1", "10.0.0.7"];
        assert_eq!(
            wildcard("0.0.0.0", &machine, "", &[]),
            ["10.0.0.7", "100.64.0.1", "172.17.0.1"]
        );
    }

    #[test]
    fn the_address_of_the_default_route_comes_first() {
        let machine = ["198.51.100.1", "203.0.113.8", "192.0.2.1"];
        assert_eq!(
            wildcard("0.0.0.0", &machine, "203.0.113.8", &[]),
            ["203.0.113.8", "192.0.2.1", "198.51.100.1"]
        );
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let v4 = "Local:\n  +-- 0.0.0.0/0 2 0 2\n     |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.7\n        \
                  /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(parse_fib_trie(v4), [Ipv4Addr::new(192, 0, 2, 7)]);
        let v6 = "20010db8000000000000000000000007 02 40 00 80     eth0\n\
                  20010db8000000000000000000000008 02 40 00 01     eth0\n\
                  fe800000000000000000000000000001 02 40 20 80     eth0\n\
                  00000000000000000000000000000001 01 80 10 80       lo\n";
        let expected: Ipv6Addr = "2001:db8::7".parse().unwrap();
        assert_eq!(parse_if_inet6(v6), [expected]);
    }
}
