//! What a relay sends to an address that somebody else's packets claim to come from, and whether its true owner gets in.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use turnfleet_turn::wire::Method;

use crate::client::Caller;
use crate::outpost::{Outpost, RELAY, source};
use crate::strangers::{gets_in, request, someone};

/// Ports that the flood comes from, the requests that each sends at once, and the time between: 8,000 requests a second.
const PORTS: usize = 8;
const VOLLEY: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// What an address gets at once (THREATS: 1,000 answers of 100 bytes), and what it gets a second after that.
const BURST: usize = 100_000;
const RATE: usize = 10_000;
/// How long answers are counted.
const WINDOW: Duration = Duration::from_secs(3);
/// Clients on the flooded address.
const OWNERS: usize = 20;

/// Floods `server` from every socket until `over`, and returns the bytes that it answers to them.
fn flood(sockets: &[UdpSocket], server: SocketAddr, over: impl Fn() -> bool + Sync) -> usize {
    let over = &over;
    std::thread::scope(|scope| {
        let floods: Vec<_> = sockets
            .iter()
            .map(|socket| scope.spawn(move || flood_from(socket, server, over)))
            .collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    })
}

/// Asks for allocations without credentials, each request another one.
fn flood_from(socket: &UdpSocket, server: SocketAddr, over: impl Fn() -> bool) -> usize {
    socket.connect(server).unwrap();
    let (mut number, mut received) = (0, 0);
    let mut due = Instant::now();
    while !over() {
        for _ in 0..VOLLEY {
            number += 1;
            socket.send(&request(Method::Allocate, number)).unwrap();
        }
        due += PAUSE;
        received += receive(socket, due);
    }
    received
}

/// The bytes that arrive until `end`.
fn receive(socket: &UdpSocket, end: Instant) -> usize {
    let mut received = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return received;
        }
        socket.set_read_timeout(Some(left)).unwrap();
        received += socket.recv(&mut [0; 512]).unwrap_or(0);
    }
}

#[test]
fn a_flooded_address_gets_few_answers_and_its_owners_get_in() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let server = outpost.server(RELAY[0]);
    let victim = source(0);
    let flooding = [(); PORTS].map(|()| outpost.world.socket(victim));

    let began = Instant::now();
    let received = flood(&flooding, server, || began.elapsed() > WINDOW);
    let milliseconds = usize::try_from(began.elapsed().as_millis()).unwrap();
    let most = BURST + RATE * milliseconds / 1000;
    assert!(
        (BURST / 4..most).contains(&received),
        "{received} bytes in {milliseconds} ms"
    );

    let over = AtomicBool::new(false);
    let got_in = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&flooding, server, || over.load(Ordering::Relaxed)));
        let owners: Vec<_> = (0..OWNERS)
            .map(|_| outpost.world.socket(victim))
            .map(|socket| scope.spawn(move || gets_in(Caller::udp(socket, server, &someone()))))
            .collect();
        let got_in = owners
            .into_iter()
            .filter_map(|owner| owner.join().ok())
            .count();
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        got_in
    });
    assert!(got_in * 100 >= OWNERS * 95, "{got_in} of {OWNERS}");
}
