//! What a relay's own machine says of it: sockets that listen, the firewall, and limits of the kernel. It reads `/proc` and
//! asks `nft`; it changes nothing.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use turnfleet_proto::PortRange;
use turnfleet_turn::Transport;

use super::catalogue::{HOST_BUFFERS, HOST_CONNTRACK, HOST_FIREWALL, HOST_LISTENERS, HOST_PORTS};
use super::firewall::{Verdict, verdict};
use super::report::Report;
use super::way::Way;

/// What a socket of a busy relay has to hold while the relay is elsewhere.
const BUFFER: u64 = 4 * 1024 * 1024;
/// States of sockets in `/proc/net`: one that listens, and one of UDP without a peer.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// Looks at the machine that the doctor runs on.
pub(super) fn look(ways: &[Way], relay_ports: PortRange, report: &Report) {
    let places: Vec<(Transport, SocketAddr)> = ways
        .iter()
        .map(|way| (way.transport(), way.candidate.address))
        .collect();
    // The system lets nobody have a socket at an address of another machine.
    let ports = own(&places, |ip| UdpSocket::bind((ip, 0)).is_ok());
    if ports.is_empty() && !places.is_empty() {
        let text = "no URI leads to an address of this machine";
        report.skip(HOST_LISTENERS, "", text);
    }
    listeners(&ports, report);
    firewall(&ports, relay_ports, report);
    local_ports(relay_ports, report);
    conntrack(report);
    buffers(report);
}

/// The ports of the places that are at this machine. Behind NAT none has an address that is here: then they are those of one
/// server, which is this machine, or nobody knows which they are.
fn own(
    places: &[(Transport, SocketAddr)],
    is_here: impl Fn(IpAddr) -> bool,
) -> Vec<(Transport, u16)> {
    let mut ips: Vec<IpAddr> = places.iter().map(|(_, place)| place.ip()).collect();
    ips.sort_unstable();
    ips.dedup();
    let here: Vec<IpAddr> = ips.iter().copied().filter(|ip| is_here(*ip)).collect();
    let of_v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
    let is_one = here.is_empty() && of_v4 <= 1 && ips.len() - of_v4 <= 1;
    let mut ports: Vec<(Transport, u16)> = places
        .iter()
        .filter(|(_, place)| is_one || here.contains(&place.ip()))
        .map(|(transport, place)| (*transport, place.port()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp | Transport::Tls => "tcp",
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn listeners(ports: &[(Transport, u16)], report: &Report) {
    for (transport, port) in ports.iter().copied() {
        let name = protocol(transport);
        let state = if transport.is_stream() {
            TCP_LISTEN
        } else {
            UDP_UNCONNECTED
        };
        let tables = [name.to_owned(), format!("{name}6")];
        let tables = tables.map(|table| read(&format!("/proc/net/{table}")));
        let subject = format!("{transport} port {port}");
        // A machine without IPv6 has no table of it.
        if tables.iter().all(Option::is_none) {
            report.skip(
                HOST_LISTENERS,
                &subject,
                "the system does not tell its sockets",
            );
        } else if tables
            .iter()
            .flatten()
            .any(|table| listens(table, port, state))
        {
            report.pass(HOST_LISTENERS, &subject, "a process listens");
        } else {
            report.fail(
                HOST_LISTENERS,
                &subject,
                "no process listens on this machine",
            );
        }
    }
}

/// Whether a table of `/proc/net` has a socket on a port in a state: its second column is `ADDRESS:PORT` in hexadecimal
/// digits, and its fourth the state.
fn listens(table: &str, port: u16, state: &str) -> bool {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let is_here = columns.next().is_some_and(|local| local.ends_with(&wanted));
        is_here && columns.nth(1) == Some(state)
    })
}

fn firewall(ports: &[(Transport, u16)], relay_ports: PortRange, report: &Report) {
    let listed = Command::new("nft")
        .args(["-j", "list", "ruleset"])
        .stdin(Stdio::null())
        .output();
    let ruleset = match listed {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            return report.skip(HOST_FIREWALL, "", format!("nft: {}", said.trim()));
        }
        Err(error) => return report.skip(HOST_FIREWALL, "", format!("no nft here: {error}")),
    };
    let ruleset: Json = match ruleset {
        Ok(ruleset) => ruleset,
        Err(error) => return report.skip(HOST_FIREWALL, "", format!("nft: {error}")),
    };
    let listeners = ports
        .iter()
        .map(|(transport, port)| (protocol(*transport), *port));
    let ends = [relay_ports.first(), relay_ports.last()];
    let relayed = ends.map(|port| ("udp", port));
    let mut wanted: Vec<(&str, u16)> = listeners.chain(relayed).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for (protocol, port) in wanted {
        let subject = format!("{protocol} port {port}");
        match verdict(&ruleset, protocol, port) {
            Verdict::Open => report.pass(
                HOST_FIREWALL,
                &subject,
                "no input chain of nftables drops it",
            ),
            Verdict::Dropped(chain) => {
                report.fail(
                    HOST_FIREWALL,
                    &subject,
                    format!("the chain {chain} drops it"),
                );
            }
            Verdict::Unknown(chain) => report.skip(
                HOST_FIREWALL,
                &subject,
                format!(
                    "the chain {chain} decides by more than the port: see relay.ports, from outside"
                ),
            ),
        }
    }
}

/// Two numbers that a file of `/proc/sys` has, separated by a tab.
fn range_of(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether `FIRST-LAST,PORT,...` has both ends of a range in one part.
fn reserves(reserved: &str, wanted: PortRange) -> bool {
    reserved.trim().split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => first <= wanted.first() && wanted.last() <= last,
            (_, _) => false,
        }
    })
}

fn local_ports(relay_ports: PortRange, report: &Report) {
    const FOLDER: &str = "/proc/sys/net/ipv4";
    let range = read(&format!("{FOLDER}/ip_local_port_range"));
    let Some((first, last)) = range.as_deref().and_then(range_of) else {
        return report.skip(HOST_PORTS, "", "the system does not tell its ports");
    };
    let reserved = read(&format!("{FOLDER}/ip_local_reserved_ports")).unwrap_or_default();
    let (from, to) = (relay_ports.first(), relay_ports.last());
    let is_apart = last < from || to < first;
    if is_apart || reserves(&reserved, relay_ports) {
        let text = format!("the system hands out none of {from}-{to}");
        report.pass(HOST_PORTS, "", text);
    } else {
        report.warn(
            HOST_PORTS,
            "",
            format!(
                "the system hands out {first}-{last} to any program, and relays want {from}-{to}"
            ),
        );
    }
}

fn conntrack(report: &Report) {
    let number = |name: &str| -> Option<u64> {
        let text = read(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))?;
        text.trim().parse().ok()
    };
    let (Some(count), Some(most)) = (number("count"), number("max")) else {
        return report.pass(HOST_CONNTRACK, "", "connections are not tracked");
    };
    let percent = count.saturating_mul(100) / most.max(1);
    let text = format!("{count} of {most} entries are in use");
    match percent {
        0..80 => report.pass(HOST_CONNTRACK, "", text),
        80..95 => report.warn(HOST_CONNTRACK, "", text),
        _ => report.fail(HOST_CONNTRACK, "", text),
    }
}

fn buffers(report: &Report) {
    let most = read("/proc/sys/net/core/rmem_max");
    let most: Option<u64> = most.and_then(|text| text.trim().parse().ok());
    match most {
        None => report.skip(
            HOST_BUFFERS,
            "",
            "the system does not tell net.core.rmem_max",
        ),
        Some(most) if most < BUFFER => report.warn(
            HOST_BUFFERS,
            "",
            format!("net.core.rmem_max is {most}: bursts are lost while a relay is busy"),
        ),
        Some(most) => report.pass(HOST_BUFFERS, "", format!("net.core.rmem_max is {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_known_by_its_port_and_its_state() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
            0: 00000000:0D96 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:1F90 0100007F:0D97 01 00000000:00000000\n";
        assert!(listens(table, 3478, TCP_LISTEN));
        assert!(!listens(table, 8080, TCP_LISTEN));
        assert!(!listens(table, 3479, TCP_LISTEN));
    }

    #[test]
    fn ports_of_other_machines_are_none_of_this_one() {
        let places = ["192.0.2.1:3478", "192.0.2.2:5349"];
        let places = places.map(|place| (Transport::Tcp, place.parse::<SocketAddr>().unwrap()));
        let here = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(own(&places, |ip| ip == here), [(Transport::Tcp, 3478)]);
        assert!(own(&places, |_| false).is_empty());
        // Behind NAT.
        assert_eq!(own(&places[1..], |_| false), [(Transport::Tcp, 5349)]);
    }

    #[test]
    fn reserved_ports_are_those_of_one_part() {
        let wanted = PortRange::new(49_152, 65_535).unwrap();
        assert!(reserves("22,49152-65535\n", wanted));
        assert!(!reserves("49152-60000", wanted));
        assert!(!reserves("\n", wanted));
        assert_eq!(range_of("32768\t60999\n"), Some((32_768, 60_999)));
    }
}
