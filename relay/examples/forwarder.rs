//! A UDP forwarder with nothing but the system calls: what the machine could do if TURN cost nothing.
//!
//! `forwarder LISTEN_IP:PORT PEER_IP:PORT` gives each client a socket of its own, sends what clients send to the peer, and
//! what comes to a client's socket to that client. It reads and writes in batches, as the relay does, and looks at no
//! payload. `turnfleet bench plain:LISTEN_IP:PORT --peer PEER_IP:PORT` measures it.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use turnfleet_relay::datagram::{ReceiveBatch, SendBatch, Standing};
use turnfleet_turn::IpMeta;

/// Datagrams read from the listener, and sent to clients, with one system call.
const BATCH: usize = 64;
/// Datagrams read from a client's socket with one system call.
const SMALL_BATCH: usize = 8;
const LISTENER: Token = Token(usize::MAX);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || {
        arguments
            .next()
            .ok_or("usage: forwarder LISTEN_IP:PORT PEER_IP:PORT")
    };
    let (listen, peer): (SocketAddr, SocketAddr) = (address()?.parse()?, address()?.parse()?);
    let mut forwarder = Forwarder::new(listen, peer)?;
    loop {
        forwarder.turn()?;
    }
}

struct Forwarder {
    poll: Poll,
    events: Events,
    listener: UdpSocket,
    peer: SocketAddr,
    flows: Vec<(UdpSocket, SocketAddr)>,
    by_client: HashMap<SocketAddr, usize>,
    batch: ReceiveBatch,
    to_clients: SendBatch,
    standing: Standing,
}

impl Forwarder {
    fn new(listen: SocketAddr, peer: SocketAddr) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let listener = UdpSocket::bind(listen)?;
        listener.set_nonblocking(true)?;
        let _ = socket2::SockRef::from(&listener).set_recv_buffer_size(4 << 20);
        let descriptor = listener.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&descriptor), LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            listener,
            peer,
            flows: Vec::new(),
            by_client: HashMap::new(),
            batch: ReceiveBatch::new(BATCH),
            to_clients: SendBatch::new(BATCH),
            standing: Standing::default(),
        })
    }

    /// Waits, and forwards what has come.
    fn turn(&mut self) -> std::io::Result<()> {
        self.poll.poll(&mut self.events, None)?;
        let ready: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
        let mut filled = 0;
        for token in ready {
            if token == LISTENER {
                self.flush(&mut filled);
                self.relay_from_clients()?;
            } else {
                self.relay_from_peer(token.0, &mut filled);
            }
        }
        self.flush(&mut filled);
        Ok(())
    }

    fn relay_from_clients(&mut self) -> std::io::Result<()> {
        loop {
            let Ok(received) = self.batch.receive(self.listener.as_fd(), 0..BATCH) else {
                return Ok(());
            };
            for slot in 0..received {
                let Some(client) = self.batch.sender(slot) else {
                    continue;
                };
                let flow = self.flow_of(client)?;
                let _ = self.flows[flow]
                    .0
                    .send_to(self.batch.datagram(slot), self.peer);
            }
            if received < BATCH {
                return Ok(());
            }
        }
    }

    /// Datagrams stay in the batch until they are sent, so the next socket's go behind them.
    fn relay_from_peer(&mut self, flow: usize, filled: &mut usize) {
        loop {
            if *filled + SMALL_BATCH > BATCH {
                self.flush(filled);
            }
            let (socket, client) = &self.flows[flow];
            let slots = *filled..*filled + SMALL_BATCH;
            let Ok(received) = self.batch.receive(socket.as_fd(), slots) else {
                return;
            };
            for slot in *filled..*filled + received {
                let start = ReceiveBatch::start(slot);
                let span = start..start + self.batch.len(slot);
                self.to_clients.push(span, *client, IpMeta::default());
            }
            *filled += received;
            if received < SMALL_BATCH {
                return;
            }
        }
    }

    fn flush(&mut self, filled: &mut usize) {
        if !self.to_clients.is_empty() {
            let (socket, bytes) = (self.listener.as_fd(), self.batch.bytes());
            self.to_clients.flush(socket, &mut self.standing, bytes);
        }
        *filled = 0;
    }

    fn flow_of(&mut self, client: SocketAddr) -> std::io::Result<usize> {
        if let Some(flow) = self.by_client.get(&client) {
            return Ok(*flow);
        }
        let socket = UdpSocket::bind((self.listener.local_addr()?.ip(), 0))?;
        socket.set_nonblocking(true)?;
        let flow = self.flows.len();
        let descriptor = socket.as_raw_fd();
        self.poll.registry().register(
            &mut SourceFd(&descriptor),
            Token(flow),
            Interest::READABLE,
        )?;
        self.flows.push((socket, client));
        self.by_client.insert(client, flow);
        Ok(flow)
    }
}
