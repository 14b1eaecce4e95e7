//! The relay ports as the world sees them: this machine is the peer, and sends to relayed addresses from a socket of its
//! own. What does not arrive although a permission is there was dropped on the way, or sent to the wrong address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use turnfleet_turn::AddressFamily;
use turnfleet_turn::wire::ErrorCode;

use super::allocation::Granted;
use super::catalogue::{REACH_UDP, RELAY_ADDRESS, RELAY_PORTS};
use super::identity::Identity;
use super::report::Report;
use super::session::Refusal;
use super::way::{Holding, Way};

/// Ports that are tried.
const PORTS: usize = 6;
/// How often each is sent to, since UDP may lose it, ...
const ROUNDS: usize = 4;
/// ... and how long each time may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// The first user of these allocations; others have been in use before.
const FIRST_USER: usize = 3;

/// Relayed ports that this machine may send to, and which of them have let something through.
struct Range {
    socket: UdpSocket,
    ports: Vec<(Holding, bool)>,
}

impl Range {
    /// Sends to every port that nothing has come through, at `ip` where that is another address than the relayed one, and
    /// says how many are open.
    fn try_all(&mut self, ip: Option<IpAddr>) -> usize {
        for _ in 0..ROUNDS {
            for (holding, _) in self.ports.iter().filter(|(_, open)| !*open) {
                let relayed = holding.allocated.relayed;
                let mut place = relayed;
                if let Some(ip) = ip {
                    place.set_ip(ip);
                }
                // A network that refuses it is one that nothing arrives through.
                let _ = self.socket.send_to(&word(relayed), place);
            }
            for (holding, open) in self.ports.iter_mut().filter(|(_, open)| !*open) {
                let expected = word(holding.allocated.relayed);
                let until = Instant::now() + PATIENCE;
                while let Some((_, heard)) = holding.session.hear(until) {
                    if heard == expected {
                        *open = true;
                        break;
                    }
                }
            }
        }
        self.ports.iter().filter(|(_, open)| *open).count()
    }

    /// The ports that are open, or those that are not.
    fn numbers(&self, wanted: bool) -> String {
        let ports = self.ports.iter().filter(|(_, open)| *open == wanted);
        let ports: Vec<String> = ports
            .map(|(holding, _)| holding.allocated.relayed.port().to_string())
            .collect();
        ports.join(", ")
    }
}

fn word(relayed: SocketAddr) -> Vec<u8> {
    format!("turnfleet doctor from outside to {relayed}").into_bytes()
}

/// Tries the relay ports of one server.
pub(super) fn ports(granted: &Granted, identity: &Identity, report: &Report) {
    let subject = granted.way.to_string();
    let mut range = match range_of(granted, identity, report) {
        Ok(range) => range,
        Err(why) => {
            if !report.has_failed(&[RELAY_ADDRESS]) {
                report.skip(RELAY_ADDRESS, &subject, why.as_str());
            }
            return report.skip(RELAY_PORTS, &subject, why);
        }
    };
    let (all, Some(relayed)) = (
        range.ports.len(),
        range.ports.first().map(|(it, _)| it.allocated.relayed.ip()),
    ) else {
        return;
    };
    let open = range.try_all(None);
    let server = granted.way.candidate.address.ip();
    if open == all {
        report.pass(
            RELAY_PORTS,
            &subject,
            format!("{open} of {all} tried are open: {}", range.numbers(true)),
        );
        if !report.has_failed(&[RELAY_ADDRESS]) {
            let text = format!("what is sent to {relayed} arrives");
            report.pass(RELAY_ADDRESS, &subject, text);
        }
    } else if open > 0 {
        report.fail(
            RELAY_PORTS,
            &subject,
            format!(
                "of the relayed ports at {relayed}, {} let datagrams in, and {} do not",
                range.numbers(true),
                range.numbers(false)
            ),
        );
    } else if relayed == server {
        let numbers = range.numbers(false);
        report.fail(
            RELAY_PORTS,
            &subject,
            format!("no datagram to {relayed} gets in, at the ports {numbers}"),
        );
    } else {
        misplaced(&mut range, relayed, server, &subject, report);
    }
}

/// Nothing arrives at a relayed address that is not the server's: which of both is wrong?
fn misplaced(range: &mut Range, relayed: IpAddr, server: IpAddr, subject: &str, report: &Report) {
    let elsewhere = relayed.is_ipv4() == server.is_ipv4() && range.try_all(Some(server)) > 0;
    let text = if elsewhere {
        format!(
            "relayed addresses are at {relayed}, where nothing arrives; what is sent to {server} does: the external address is wrong"
        )
    } else {
        format!(
            "relayed addresses are at {relayed}, where nothing arrives, and clients come to {server}: the external address is wrong, or a firewall drops what is for it"
        )
    };
    let fix = format!(
        "set the external address of the relay to the one that the world sees, {server} (turnfleet up --public-ip EXTERNAL/LOCAL), or open the relay ports of {relayed}"
    );
    report.fail_with(RELAY_ADDRESS, subject, text, fix);
    report.skip(
        RELAY_PORTS,
        subject,
        "relay.address comes first: its address is not the one that works",
    );
}

/// The range, where this machine is one that can say something of it.
fn range_of(granted: &Granted, identity: &Identity, report: &Report) -> Result<Range, String> {
    let here = granted.mapped.ip();
    let family = AddressFamily::of(here);
    if !granted.has(family) {
        return Err("relayed addresses are not of the family that this machine has".to_owned());
    }
    let mut relayed = granted.relayed.iter().map(SocketAddr::ip);
    if here == granted.way.candidate.address.ip() || relayed.any(|relayed| relayed == here) {
        return Err("this machine is the relay: run the doctor from outside".to_owned());
    }
    if report.has_failed(&[REACH_UDP]) {
        let why = "UDP does not even get to the server from here, as reach.udp explains";
        return Err(why.to_owned());
    }
    open(granted, identity, family)
}

/// Allocations, each with a permission for this machine.
fn open(granted: &Granted, identity: &Identity, family: AddressFamily) -> Result<Range, String> {
    let any: IpAddr = match family {
        AddressFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(|error| format!("no UDP socket: {error}"))?;
    let mut ports = Vec::new();
    let mut problem = String::from("no allocation");
    for user in FIRST_USER..FIRST_USER + PORTS {
        let mut holding = match granted.way.allocate(identity, user, Way::family(family)) {
            Ok(holding) => holding,
            // A quota may leave room for fewer.
            Err(refusal) => {
                problem = refusal.to_string();
                break;
            }
        };
        let here = holding.allocated.mapped.ip();
        match holding.session.permit(here) {
            Ok(()) => ports.push((holding, false)),
            Err(Refusal::Code(ErrorCode::FORBIDDEN)) => {
                return Err(format!(
                    "the relay takes {here}, which is this machine, for no peer: run the doctor from outside of its network"
                ));
            }
            Err(refusal) => {
                problem = refusal.to_string();
                break;
            }
        }
    }
    if ports.is_empty() {
        return Err(problem);
    }
    Ok(Range { socket, ports })
}
