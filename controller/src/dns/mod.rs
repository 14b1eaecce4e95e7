//! The DNS responder: authoritative for one zone, whose names lead to the relays that lists may name at this moment. For
//! clients that are configured with a name once and for all.
//!
//! ```text
//!  view --> Zone (records written once for each view) --> answer: bytes to bytes
//!                                                           ^
//!                                       udp (bounded rates) | tcp (bounded connections)
//! ```
//!
//! `zone`, `relay` and `deck` are what is said, `query` and `answer` how: all of them are pure. `udp` and `tcp` own the
//! sockets. It never asks another server, and keeps nothing of those who ask but a rate.

mod answer;
mod deck;
mod desk;
mod limit;
mod query;
mod relay;
mod tcp;
mod udp;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::DnsConfig;
use crate::door::{Door, stopped};
use crate::error::StartError;
use crate::fleet::FleetView;
use crate::metrics::Metrics;
use crate::wall_clock;
use desk::Desk;
use limit::Limiter;

pub use answer::{Manner, Outcome};
pub use query::{Ignored, Rcode};
pub use zone::Zone;

/// The time from one zone to the next, however often the fleet changes: far below any TTL.
const LULL: Duration = Duration::from_millis(250);
/// Room for queries that come while the task is busy with others, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A responder that runs.
#[derive(Debug)]
pub(crate) struct Responder {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Responder {
    /// Binds the sockets and answers on them.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub(crate) fn start(
        config: &DnsConfig,
        views: watch::Receiver<Arc<FleetView>>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let (stop, stopped) = watch::channel(false);
        let first = Zone::new(config, &views.borrow(), serial());
        let (zone, zones) = watch::channel(Arc::new(first));
        let mut addresses = Vec::with_capacity(config.listen.len());
        let mut tasks = Vec::with_capacity(2 * config.listen.len() + 1);
        for address in &config.listen {
            let bound = bind(*address).map_err(|source| StartError::Bind {
                key: "dns.listen",
                address: *address,
                source,
            })?;
            let (udp, tcp, address) = bound;
            addresses.push(address);
            let desk = Desk::new(zones.clone(), Arc::clone(metrics));
            let limiter = Limiter::new(config.answers_per_second, &config.trusted_sources);
            let by_udp = udp::serve(udp, desk.clone(), limiter, stopped.clone());
            tasks.push(tokio::spawn(by_udp));
            let door = Door::new(tcp::NAME, tcp, tcp::BOUNDS, Arc::clone(metrics));
            tasks.push(tokio::spawn(tcp::serve(door, desk, stopped.clone())));
        }
        tasks.push(tokio::spawn(follow(config.clone(), views, zone, stopped)));
        Ok(Self {
            addresses,
            stop,
            tasks,
        })
    }

    /// Where queries come in, in the order of the configuration.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the sockets.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // One that panicked has stopped as well.
            drop(task.await);
        }
    }
}

/// Writes the zone again whenever the fleet has changed.
async fn follow(
    config: DnsConfig,
    mut views: watch::Receiver<Arc<FleetView>>,
    zone: watch::Sender<Arc<Zone>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = stopped(&mut stop) => return,
        }
        let view = Arc::clone(&views.borrow_and_update());
        zone.send_replace(Arc::new(Zone::new(&config, &view, serial())));
        tokio::select! {
            () = tokio::time::sleep(LULL) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// The serial of a zone that is written at this moment: Unix seconds, which go round as RFC 1982 has it.
fn serial() -> u32 {
    let seconds = wall_clock::since_epoch().as_secs();
    u32::try_from(seconds & u64::from(u32::MAX)).unwrap_or_default()
}

/// Both sockets at one address. The TCP port is taken first where any will do.
fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(BACKLOG)?;
    let tcp = TcpListener::from_std(tcp.into())?;
    let address = tcp.local_addr()?;
    let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
    // Less than that is no reason not to serve.
    drop(udp.set_recv_buffer_size(RECEIVE_BUFFER));
    udp.bind(&address.into())?;
    Ok((UdpSocket::from_std(udp.into())?, tcp, address))
}

/// A socket of one family alone, so that both wildcard addresses can be listened at.
fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
