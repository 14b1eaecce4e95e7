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
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let credential = mint(&SharedSecret::new(secret), "a", unix.as_secs() + 60);
    let mut client = Client::new(Config {
        transport: Transport::Udp,
        username: credential.username,
        password: credential.password,
        password_algorithms: false,
        seed: [1; 32],
    });
    let origin = Clock::now();
    let now = || Instant::default().after(origin.elapsed());
    client.allocate(now(), AllocateOptions::default()).unwrap();
    let mut buffer = [0; 1500];
    loop {
        let mut message = Vec::new();
        while client.poll_transmit(&mut message) {
            socket.send(&message).unwrap();
            message.clear();
        }
        match socket.recv(&mut buffer) {
            Ok(len) => drop(client.handle_input(now(), &buffer[..len])),
            Err(_) => client.handle_timeout(now()),
        }
        if let Some(event) = client.poll_event() {
            return event;
        }
    }
}
