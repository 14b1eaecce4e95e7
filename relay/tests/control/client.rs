//! A TURN client over UDP that does no more than allocate.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use turnfleet_proto::credentials::{SharedSecret, mint};
use turnfleet_turn::client::{AllocateOptions, Client, Config, Event};
use turnfleet_turn::{Instant, Transport};

/// Makes an allocation at `server`; it lives on when this returns.
#[track_caller]
pub(crate) fn allocate(server: SocketAddr, secret: &str) {
    let event = try_allocate(server, secret);
    assert!(
        matches!(event, Event::Allocated(_)),
        "no allocation: {event:?}"
    );
}

/// What an Allocate request comes to.
pub(crate) fn try_allocate(server: SocketAddr, secret: &str) -> Event {
    Holder::new(server, secret).allocate()
}

/// A client that may go on after its allocation was made.
pub(crate) struct Holder {
    socket: UdpSocket,
    client: Client,
    origin: Clock,
}

impl Holder {
    pub(crate) fn new(server: SocketAddr, secret: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let credential = mint(&SharedSecret::new(secret), "a", unix.as_secs() + 60);
        let client = Client::new(Config {
            transport: Transport::Udp,
            username: credential.username,
            password: credential.password,
            password_algorithms: false,
            seed: [1; 32],
        });
        Self {
            socket,
            client,
            origin: Clock::now(),
        }
    }

    pub(crate) fn allocate(&mut self) -> Event {
        let now = self.now();
        let options = AllocateOptions::default();
        self.client.allocate(now, options).unwrap();
        self.until_event()
    }

    pub(crate) fn refresh(&mut self, lifetime: u32) -> Event {
        let now = self.now();
        self.client.refresh(now, lifetime).unwrap();
        self.until_event()
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.origin.elapsed())
    }

    fn until_event(&mut self) -> Event {
        let mut buffer = [0; 1500];
        loop {
            let mut message = Vec::new();
            while self.client.poll_transmit(&mut message) {
                self.socket.send(&message).unwrap();
                message.clear();
            }
            let received = self.socket.recv(&mut buffer);
            let now = self.now();
            match received {
                Ok(len) => drop(self.client.handle_input(now, &buffer[..len])),
                Err(_) => self.client.handle_timeout(now),
            }
            if let Some(event) = self.client.poll_event() {
                return event;
            }
        }
    }
}
