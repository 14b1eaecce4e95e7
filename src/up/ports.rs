//! Finds out before anything starts whether the ports of a plan can be opened.

use std::io::ErrorKind;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::plan::Plan;
use turnfleet_proto::{ConfigError, ConfigErrors};

impl Plan {
    /// Finds out that no port is taken, by this plan twice or by another process, before anything starts.
    ///
    /// # Errors
    /// With every port that is taken, and the flag that names it.
    pub(crate) fn check_ports(&self) -> Result<(), ConfigErrors> {
        // All are held until the last is open, so that two flags that name one port are found too.
        let mut held = Vec::new();
        let mut problems = ConfigErrors::default();
        let mut open = |flag, kind, place| match open(kind, place) {
            Ok(socket) => held.push(socket),
            Err(error) => problems.push(taken(flag, kind, place, &error)),
        };
        open("--http", Type::STREAM, self.http);
        open("--grpc", Type::STREAM, self.grpc);
        for relay in &self.relays {
            open("--metrics-port", Type::STREAM, relay.metrics);
            for ip in &self.listen_ips {
                open("--port", Type::DGRAM, SocketAddr::new(*ip, relay.port));
                open("--port", Type::STREAM, SocketAddr::new(*ip, relay.port));
                open(
                    "--tls-port",
                    Type::STREAM,
                    SocketAddr::new(*ip, relay.tls_port),
                );
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

/// Opens a socket as a listener does, for no other purpose than to find out whether it can be opened.
fn open(kind: Type, place: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(place), kind, None)?;
    if place.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier run that linger do not hold the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&place.into())?;
    if kind == Type::STREAM {
        socket.listen(1)?;
    }
    Ok(socket)
}

fn taken(flag: &str, kind: Type, place: SocketAddr, error: &std::io::Error) -> ConfigError {
    let kind = if kind == Type::STREAM { "TCP" } else { "UDP" };
    let port = place.port();
    let expected = if error.kind() == ErrorKind::AddrInUse {
        format!("a free port: {kind} port {port} is taken")
    } else if error.kind() == ErrorKind::PermissionDenied {
        format!("a port that this user may open: {kind} port {port} is not")
    } else if error.kind() == ErrorKind::AddrNotAvailable {
        format!("an address of this machine: {} is none", place.ip())
    } else {
        format!("a {kind} port that can be opened ({error})")
    };
    ConfigError::new(flag, Some(place.to_string()), expected)
}
