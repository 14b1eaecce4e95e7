//! How far packets get on a path that is cut: each has a limited life, and the router where it ends says so, as with
//! traceroute. The last that says something is where to look.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use turnfleet_relay::datagram::{keep_errors, take_error};
use turnfleet_turn::Transport;

/// Routers on a path that is looked at.
const MAX_HOPS: u32 = 20;
/// How long routers may take to say something.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often the sockets are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A packet that lives for so many hops, and what was said of it.
struct Probe {
    hops: u32,
    socket: Socket,
    said: Option<IpAddr>,
}

/// Says in words how far packets to `server` get.
pub(super) fn trace(server: SocketAddr, transport: Transport) -> String {
    let mut probes: Vec<Probe> = (1..=MAX_HOPS)
        .filter_map(|hops| probe(server, transport, hops).ok())
        .collect();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        for probe in &mut probes {
            while let Ok(error) = take_error(probe.socket.as_fd()) {
                let by = error.and_then(|error| error.by);
                probe.said = by.or(probe.said);
            }
        }
        if probes.iter().any(|probe| probe.said == Some(server.ip())) {
            break;
        }
        std::thread::park_timeout(LOOK);
    }
    words(server.ip(), probes.iter().map(|it| (it.hops, it.said)))
}

/// The answers, the nearest first, in a sentence.
fn words(server: IpAddr, said: impl Iterator<Item = (u32, Option<IpAddr>)>) -> String {
    let said: Vec<(u32, IpAddr)> = said.filter_map(|(hops, by)| Some((hops, by?))).collect();
    let nearest = |wanted: IpAddr| said.iter().find(|(_, by)| *by == wanted);
    if let Some((hops, _)) = nearest(server) {
        return format!(
            "packets get to {server} itself, {hops} hops away, which refuses them: the port is closed there"
        );
    }
    // A router that refuses what comes says so whatever life is left: where it begins is where it stands.
    match said.last().and_then(|(_, by)| nearest(*by)) {
        Some((hops, by)) => {
            format!("the last hop that answers is number {hops}, {by}: look there and behind it")
        }
        None => "no router on the way says anything: the network here, or one that hides, drops it"
            .to_owned(),
    }
}

/// Sends a packet that lives for so many hops: a datagram, or the beginning of a connection.
fn probe(server: SocketAddr, transport: Transport, hops: u32) -> io::Result<Probe> {
    let (kind, protocol) = if transport.is_stream() {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(Domain::for_address(server), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if server.is_ipv4() {
        socket.set_ttl_v4(hops)?;
    } else {
        socket.set_unicast_hops_v6(hops)?;
    }
    keep_errors(socket.as_fd(), server.is_ipv6())?;
    // A connection is on its way from here on; what becomes of it stands in the queue of errors.
    let connected = socket.connect(&server.into());
    if !transport.is_stream() {
        connected?;
        socket.send(b"turnfleet doctor")?;
    }
    Ok(Probe {
        hops,
        socket,
        said: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_hop_that_answers_is_named() {
        let server = ip("192.0.2.9");
        let said = [
            (1, Some(ip("10.0.0.1"))),
            (2, None),
            (3, Some(ip("10.0.0.3"))),
        ];
        let told = words(server, said.into_iter());
        assert!(told.contains("number 3, 10.0.0.3"), "{told}");
        let told = words(server, [(1, None), (2, Some(server))].into_iter());
        assert!(told.contains("2 hops away, which refuses"), "{told}");
        assert!(words(server, [(1, None)].into_iter()).contains("no router"));
    }

    #[test]
    fn a_closed_port_of_this_machine_is_told_from_a_path_that_is_cut() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = free.local_addr().unwrap();
        drop(free);
        let told = trace(closed, Transport::Udp);
        assert!(told.contains("the port is closed there"), "{told}");
    }
}
