//! Opens the sockets that clients come to.
//!
//! The shards of a relay share each listener's port by SO_REUSEPORT. A port is first bound without it, so that a second
//! process on the same port fails loudly instead of taking half of the clients.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, Socket, Type};
use turnfleet_turn::Transport;
use turnfleet_turn::peer_filter::Cidr;

use crate::driver::ip_options;
use crate::shard::token::Source;

/// The kernel's queue of connections that are not accepted yet, for each shard.
const TCP_BACKLOG: i32 = 1024;
/// Asked for on UDP listeners, where every client of a shard meets in one buffer. The kernel grants what its own limit
/// (`net.core.rmem_max`) allows.
const UDP_BUFFER: usize = 4 << 20;

/// A transport and a local address that clients reach the relay by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// How clients speak to it.
    pub transport: Transport,
    /// A concrete local address: answers and relayed data leave by the address that the client reached, which a
    /// wildcard address cannot tell. Port 0 takes any free port.
    pub address: SocketAddr,
    /// What stands before TURN on its streams.
    pub front: Front,
}

/// What stands before TURN on the streams of a listener. The default is nothing; UDP listeners have nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// Whether a TCP listener takes TLS too, told by a stream's first bytes.
    pub detects_tls: bool,
    /// Whether clients are told so.
    pub announces_tls: bool,
    /// Balancers whose streams begin with a PROXY protocol header, which tells the client's address. Where there are
    /// some, streams of others are closed.
    pub proxy_protocol_from: Vec<Cidr>,
    /// Where TLS goes whose ClientHello asks for HTTP.
    pub https_backend: Option<SocketAddr>,
}

impl Front {
    /// Whether a stream from `source` is taken at all.
    pub(crate) fn admits(&self, source: IpAddr) -> bool {
        let balancers = &self.proxy_protocol_from;
        balancers.is_empty() || balancers.iter().any(|block| block.contains(source))
    }

    /// Whether a stream begins with a PROXY protocol header.
    pub(crate) fn has_proxy_header(&self) -> bool {
        !self.proxy_protocol_from.is_empty()
    }
}

impl Listener {
    /// A listener with TURN on it and nothing before.
    #[must_use]
    pub fn new(transport: Transport, address: SocketAddr) -> Self {
        Self {
            transport,
            address,
            front: Front::default(),
        }
    }

    /// The transports that clients are told of.
    pub(crate) fn transports(&self) -> impl Iterator<Item = Transport> + use<> {
        let tls = self.front.announces_tls.then_some(Transport::Tls);
        [self.transport].into_iter().chain(tls)
    }

    /// Whether it needs a certificate.
    pub(crate) fn takes_tls(&self) -> bool {
        self.transport == Transport::Tls || self.front.detects_tls
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let also = if self.front.announces_tls { "+tls" } else { "" };
        write!(f, "{}{also} {}", self.transport, self.address)
    }
}

/// Why a relay could not open its listeners.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The operating system refused.
    #[error("cannot listen on {listener}")]
    Socket {
        /// The listener that failed; its address has the port.
        listener: Listener,
        /// What the operating system said.
        source: io::Error,
    },
    /// A wildcard address was given.
    #[error("cannot listen on {listener}: a listener needs a concrete address")]
    Wildcard {
        /// The listener in question.
        listener: Listener,
    },
    /// A TLS listener was given, and no certificate.
    #[error("cannot listen on {listener}: there is no certificate")]
    NoCertificate {
        /// The listener in question.
        listener: Listener,
    },
    /// The certificate's settings were refused.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The event queue of a shard could not be made.
    #[error("cannot make the event queue of a shard")]
    EventQueue(#[source] io::Error),
}

/// The sockets of one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardListeners {
    pub(crate) udp: Vec<(UdpSocket, SocketAddr)>,
    pub(crate) streams: Vec<(TcpListener, Listener)>,
}

impl ShardListeners {
    /// Asks for events about every socket.
    pub(crate) fn register(&self, registry: &Registry) -> io::Result<()> {
        for (index, (socket, _)) in self.udp.iter().enumerate() {
            let token = Source::Udp(index).token();
            registry.register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
        }
        for (index, (socket, _)) in self.streams.iter().enumerate() {
            let token = Source::Acceptor(index).token();
            registry.register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
        }
        Ok(())
    }
}

/// Opens every listener once for each of `shards` and returns them with the addresses that they got.
pub(crate) fn open(
    listeners: &[Listener],
    shards: u8,
) -> Result<(Vec<ShardListeners>, Vec<Listener>), BindError> {
    let mut opened: Vec<ShardListeners> = Vec::new();
    opened.resize_with(usize::from(shards), ShardListeners::default);
    let mut addresses = Vec::with_capacity(listeners.len());
    for listener in listeners {
        if listener.address.ip().is_unspecified() {
            let listener = listener.clone();
            return Err(BindError::Wildcard { listener });
        }
        let bound = open_one(listener, &mut opened).map_err(|source| BindError::Socket {
            listener: listener.clone(),
            source,
        })?;
        addresses.push(bound);
    }
    Ok((opened, addresses))
}

/// Opens `listener` for each shard of `opened` and returns it with its address.
fn open_one(listener: &Listener, opened: &mut [ShardListeners]) -> io::Result<Listener> {
    let exclusive = bind(listener, false)?;
    let address = exclusive
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let bound = Listener {
        address,
        ..listener.clone()
    };
    if let [only] = opened {
        add(&bound, exclusive, only)?;
        return Ok(bound);
    }
    drop(exclusive);
    for shard in opened {
        add(&bound, bind(&bound, true)?, shard)?;
    }
    Ok(bound)
}

fn add(listener: &Listener, socket: Socket, shard: &mut ShardListeners) -> io::Result<()> {
    match listener.transport {
        Transport::Udp => shard.udp.push((socket.into(), listener.address)),
        Transport::Tcp | Transport::Tls => {
            socket.listen(TCP_BACKLOG)?;
            shard.streams.push((socket.into(), listener.clone()));
        }
    }
    Ok(())
}

fn bind(listener: &Listener, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(listener.address);
    let (kind, protocol) = match listener.transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp | Transport::Tls => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
    if listener.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match listener.transport {
        Transport::Udp => {
            // A smaller buffer than asked for is no reason not to start.
            let _ = socket.set_recv_buffer_size(UDP_BUFFER);
            let _ = socket.set_send_buffer_size(UDP_BUFFER);
            ip_options::prepare(socket.as_fd(), listener.address.is_ipv6());
        }
        // Connections of a previous process in TIME_WAIT do not keep a restarted relay from its port.
        Transport::Tcp | Transport::Tls => socket.set_reuse_address(true)?,
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&listener.address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port(transport: Transport) -> Listener {
        Listener::new(transport, "127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn every_shard_gets_a_socket_on_the_same_port() {
        let asked = [any_port(Transport::Udp), any_port(Transport::Tcp)];
        let (shards, addresses) = open(&asked, 3).unwrap();
        assert_eq!(shards.len(), 3);
        for shard in &shards {
            let [(udp, udp_address)] = &shard.udp[..] else {
                panic!("one UDP socket a shard")
            };
            assert_eq!(udp.local_addr().unwrap(), *udp_address);
            assert_eq!(*udp_address, addresses[0].address);
            assert_eq!(shard.streams[0].1, addresses[1]);
        }
    }

    #[test]
    fn a_port_in_use_is_refused_and_named() {
        for (transport, shards) in [
            (Transport::Udp, 1),
            (Transport::Udp, 2),
            (Transport::Tcp, 2),
        ] {
            let (_first, addresses) = open(&[any_port(transport)], shards).unwrap();
            let error = open(&addresses, shards).unwrap_err();
            let port = addresses[0].address.port().to_string();
            assert!(error.to_string().contains(&port), "{error}");
        }
    }

    #[test]
    fn a_wildcard_address_is_refused() {
        let wildcard = Listener::new(Transport::Udp, "[::]:0".parse().unwrap());
        let refused = open(std::slice::from_ref(&wildcard), 1);
        assert!(matches!(refused, Err(BindError::Wildcard { listener }) if listener == wildcard));
    }
}
