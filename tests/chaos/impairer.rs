//! A network between clients and relays that brings some datagrams twice, and some late: after those that were sent behind them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket as Socket;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use crate::calls::LONG;
use crate::fleet::CLIENT;

/// One datagram of so many comes twice: 2 %.
const TWICE: usize = 50;
/// One of so many comes late: 25 %.
const LATE: usize = 4;
/// How late: at five words a second another one comes before it.
const DELAY: Duration = Duration::from_millis(300);
/// No datagram of a test is longer.
const MAX_DATAGRAM: usize = 2048;

/// The paths of some clients, each to a relay and back.
pub(crate) struct Impairer {
    runtime: Runtime,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    impairs: AtomicBool,
    /// Datagrams that have passed.
    passed: AtomicUsize,
    /// Words that were brought twice, and late.
    repeated: AtomicUsize,
    late: AtomicUsize,
}

/// One direction of a path.
struct Way {
    socket: Arc<Socket>,
    to: SocketAddr,
}

impl Impairer {
    /// Its sockets live where the caller does.
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self {
            runtime: runtime.unwrap(),
            state: Arc::default(),
        }
    }

    /// A path to `relay` for one client: where it sends to.
    pub(crate) fn path(&self, relay: SocketAddr) -> SocketAddr {
        let socket = || {
            let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (front, back) = (socket(), socket());
        let path = front.local_addr().unwrap();
        let state = Arc::clone(&self.state);
        self.runtime.spawn(carry(front, back, relay, state));
        path
    }

    /// Lets everything through as it comes, or no longer.
    pub(crate) fn impair(&self, impairs: bool) {
        self.state.impairs.store(impairs, Ordering::Relaxed);
    }

    /// Words that were sent on twice.
    pub(crate) fn repeated(&self) -> usize {
        self.state.repeated.load(Ordering::Relaxed)
    }

    /// Words that were held back.
    pub(crate) fn late(&self) -> usize {
        self.state.late.load(Ordering::Relaxed)
    }
}

async fn carry(front: UdpSocket, back: UdpSocket, relay: SocketAddr, state: Arc<State>) {
    let shared = |socket| Arc::new(Socket::from_std(socket).unwrap());
    let (front, back) = (shared(front), shared(back));
    let mut client = None;
    let [mut up, mut down] = [[0; MAX_DATAGRAM]; 2];
    loop {
        let (socket, to, datagram) = tokio::select! {
            Ok((len, from)) = front.recv_from(&mut up) => {
                client = Some(from);
                (&back, Some(relay), &up[..len])
            }
            Ok((len, _)) = back.recv_from(&mut down) => (&front, client, &down[..len]),
            else => return,
        };
        if let Some(to) = to {
            let socket = Arc::clone(socket);
            state.pass(Way { socket, to }, datagram).await;
        }
    }
}

impl State {
    async fn pass(&self, way: Way, datagram: &[u8]) {
        let number = self.passed.fetch_add(1, Ordering::Relaxed);
        let impairs = self.impairs.load(Ordering::Relaxed);
        let is_word = usize::from(datagram.len() > LONG);
        if impairs && number.is_multiple_of(TWICE) {
            self.repeated.fetch_add(is_word, Ordering::Relaxed);
            way.send(datagram).await;
        }
        if impairs && number % LATE == 1 {
            self.late.fetch_add(is_word, Ordering::Relaxed);
            let datagram = datagram.to_vec();
            tokio::spawn(async move {
                sleep(DELAY).await;
                way.send(&datagram).await;
            });
        } else {
            way.send(datagram).await;
        }
    }
}

impl Way {
    async fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).await.unwrap();
    }
}
