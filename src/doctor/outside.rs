//! The relay ports as the world sees them: this machine is the peer, and sends to relayed addresses from a socket of its
//! own. What does not arrive although a permission is there was dropped on the way, or sent to the wrong address. What
//! arrives is answered by the same way: data between two allocations of one relay may never leave it.

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

/// Relayed ports that this machine may send to, and where that came from by what each of them has let through.
struct Range {
    socket: UdpSocket,
    ports: Vec<(Holding, Option<SocketAddr>)>,
}

impl Range {
    /// Sends to every port that nothing has come through, at `ip` where that is another address than the relayed one, and
    /// says how many are open.
    fn try_all(&mut self, ip: Option<IpAddr>) -> usize {
        for _ in 0..ROUNDS {
            for (holding, _) in self.ports.iter().filter(|(_, open)| open.is_none()) {
                let relayed = holding.allocated.relayed;
                let mut place = relayed;
                if let Some(ip) = ip {
                    place.set_ip(ip);
                }
                // A network that refuses it is one that nothing arrives through.
                let _ = self.socket.send_to(&word(relayed), place);
            }
            for (holding, open) in self.ports.iter_mut().filter(|(_, open)| open.is_none()) {
                let expected = word(holding.allocated.relayed);
                let until = Instant::now() + PATIENCE;
                while let Some((from, heard)) = holding.session.hear(until) {
                    if heard == expected {
                        *open = Some(from);
                        break;
                    }
                }
            }
        }
        self.ports.iter().filter(|(_, open)| open.is_some()).count()
    }

    /// Has every port that is open send back to where it was sent to from, and names those of which nothing arrives here.
    fn mute(&mut self) -> Vec<SocketAddr> {
        let open = self.ports.iter().filter(|(_, open)| open.is_some());
        let mut mute: Vec<SocketAddr> = open.map(|(it, _)| it.allocated.relayed).collect();
        let mut buffer = [0; 128];
        for _ in 0..ROUNDS {
            for (holding, open) in &mut self.ports {
                let relayed = holding.allocated.relayed;
                if let Some(here) = open.filter(|_| mute.contains(&relayed)) {
                    // Where it cannot be sent, it does not arrive.
                    let _ = holding.session.send(here, &word(relayed));
                }
            }
            let until = Instant::now() + PATIENCE;
            while !mute.is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                    break;
                }
                // A refusal of what was sent before may come in between.
                if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
                    mute.retain(|relayed| from != *relayed || buffer[..length] != *word(*relayed));
                }
            }
            if mute.is_empty() {
                break;
            }
        }
        mute
    }

    /// The ports that are open, or those that are not.
    fn numbers(&self, wanted: bool) -> String {
        let ports = self.ports.iter();
        let ports = ports.filter(|(_, open)| open.is_some() == wanted);
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
        both_ways(&mut range, &subject, report);
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

/// Everything gets in at the relayed ports: does something get out?
fn both_ways(range: &mut Range, subject: &str, report: &Report) {
    let all = range.ports.len();
    let mute = range.mute();
    let ports: Vec<String> = mute.iter().map(|it| it.port().to_string()).collect();
    let ports = ports.join(", ");
    if mute.is_empty() {
        let text = format!("{all} of {all} tried are open: {}", range.numbers(true));
        return report.pass(RELAY_PORTS, subject, text);
    }
    report.fail_with(
        RELAY_PORTS,
        subject,
        format!("datagrams get in, and nothing gets back from the relayed ports {ports}"),
        "let UDP out that comes from the relay port range, with the relayed address as its source, in the firewall of the relay and in that of its cloud",
    );
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
            Ok(()) => ports.push((holding, None)),
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
