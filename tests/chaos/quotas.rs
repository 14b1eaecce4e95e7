//! What a tenant may have in the whole fleet: it holds while its users move from relay to relay, and others do not feel it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::figures::{SLACK, print};
use crate::fleet::{CLIENT, Fleet, SECRET, with_fleet};
use crate::tools::eventually;

/// The relays that take part.
const RELAYS: usize = 4;
const LIMIT: usize = 100;
const RATE: u64 = 10_000_000;
/// How long shares may take to follow users.
const FOLLOW: Duration = Duration::from_secs(10);

#[track_caller]
fn limit(fleet: &Fleet<'_>) {
    let quotas = json!({"allocations": LIMIT, "bits_per_second": RATE});
    fleet.set_tenant("acme", &json!({ "quotas": quotas }));
}

fn caller(fleet: &Fleet<'_>, relay: usize, user: &str) -> (Caller, UdpSocket) {
    let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
    let credential = Credential::synapse(SECRET, user);
    let server = fleet.relays[relay].server;
    let caller = Caller::udp(socket.try_clone().unwrap(), server, &credential);
    (caller, socket)
}

/// Opens allocations at one relay, at most `most`, until one is refused.
fn fill(fleet: &Fleet<'_>, relay: usize, most: usize, held: &mut Vec<(usize, Caller)>) -> usize {
    for opened in 0..most {
        let user = format!("acme/user-{}", held.len());
        let (mut caller, _) = caller(fleet, relay, &user);
        match caller.allocate(AllocateOptions::default()) {
            Ok(_) => held.push((relay, caller)),
            Err(code) => {
                assert_eq!(code.code(), 486);
                return opened;
            }
        }
    }
    most
}

#[test]
fn a_tenant_has_as_many_allocations_as_it_may_wherever_its_users_are() {
    with_fleet(|fleet| {
        limit(fleet);
        let mut held: Vec<(usize, Caller)> = Vec::new();
        for round in 0..RELAYS {
            // Users leave the other relays for this one.
            for (_, mut caller) in held.drain(..) {
                caller.end().unwrap();
            }
            let begun = Instant::now();
            while held.len() < LIMIT * 95 / 100 {
                fill(fleet, round, LIMIT, &mut held);
                assert!(held.len() <= LIMIT * 105 / 100, "{}", held.len());
                let waited = begun.elapsed();
                assert!(waited < FOLLOW * SLACK, "{} after {waited:?}", held.len());
            }
            // Nothing is left for anybody, at any relay.
            for relay in 0..RELAYS {
                fill(fleet, relay, LIMIT, &mut held);
            }
            assert!(held.len() <= LIMIT * 105 / 100, "{}", held.len());
            let (mut other, _) = caller(fleet, round, "@alice:example.org");
            assert!(other.allocate(AllocateOptions::default()).is_ok());
            other.end().unwrap();
        }
    });
}

/// Sends to a peer of its own through one relay, twice as much as the tenant may.
struct Flood {
    over: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(fleet: &Fleet<'_>, relay: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(AtomicU64::new(0));
        let peer = UdpSocket::bind((CLIENT, 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let address = peer.local_addr().unwrap();
        let listener = {
            let (over, heard) = (Arc::clone(&over), Arc::clone(&heard));
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !over.load(Ordering::Relaxed) {
                    if let Ok(len) = peer.recv(&mut buffer) {
                        heard.fetch_add(len as u64, Ordering::Relaxed);
                    }
                }
            })
        };
        let (mut caller, _socket) = caller(fleet, relay, "acme/flood");
        caller.allocate(AllocateOptions::default()).unwrap();
        caller.bind(address).unwrap();
        let sender = {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let word = "x".repeat(1000);
                let begun = Instant::now();
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    let due = begun.elapsed().as_micros() * u128::from(2 * RATE) / 8_000_000_000;
                    while sent < due {
                        caller.send(address, &word);
                        sent += 1;
                    }
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                let _ = caller.end();
            })
        };
        Self {
            over,
            heard,
            threads: vec![listener, sender],
        }
    }

    fn bits(&self) -> u64 {
        self.heard.load(Ordering::Relaxed) * 8
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Bits a second that came through, over `span`.
fn rate(floods: &[&Flood], span: Duration) -> u64 {
    let sum = || -> u64 { floods.iter().map(|flood| flood.bits()).sum() };
    let (before, begun) = (sum(), Instant::now());
    while begun.elapsed() < span {
        std::thread::park_timeout(span.saturating_sub(begun.elapsed()));
    }
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap();
    (sum() - before) * 1000 / millis
}

/// The 99th percentile of the way to a peer and back, of another tenant's user at `relay`.
fn latency(fleet: &Fleet<'_>, relay: usize) -> Duration {
    let peer = UdpSocket::bind((CLIENT, 0)).unwrap();
    let address: SocketAddr = peer.local_addr().unwrap();
    let (mut caller, _socket) = caller(fleet, relay, "@alice:example.org");
    caller.allocate(AllocateOptions::default()).unwrap();
    caller.bind(address).unwrap();
    let mut took: Vec<Duration> = Vec::new();
    let mut buffer = [0; 64];
    for number in 0..1000 {
        let begun = Instant::now();
        caller.send(address, &number.to_string());
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        peer.send_to(&buffer[..len], from).unwrap();
        caller.hear();
        took.push(begun.elapsed());
    }
    caller.end().unwrap();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[test]
fn a_tenant_sends_as_much_as_it_may_wherever_its_users_are() {
    with_fleet(|fleet| {
        limit(fleet);
        let undisturbed = latency(fleet, 0);
        let mut before: Option<Flood> = None;
        for relay in 0..RELAYS {
            let flood = Flood::start(fleet, relay);
            // It moves: for a moment it sends from both places.
            if let Some(before) = before.take() {
                let both = rate(&[&before, &flood], Duration::from_secs(3));
                assert!(both <= RATE * 105 / 100, "{both}");
                before.stop();
            }
            eventually("the rate follows its user", FOLLOW * SLACK, || {
                let now = rate(&[&flood], Duration::from_secs(1));
                (now >= RATE * 95 / 100).then_some(())
            });
            // A machine that stands still for a moment keeps some back, and nothing lets more through.
            eventually("the rate is steady", FOLLOW * SLACK, || {
                let steady = rate(&[&flood], Duration::from_secs(3));
                assert!(steady <= RATE * 105 / 100, "{steady}");
                (steady >= RATE * 95 / 100).then_some(())
            });
            before = Some(flood);
        }
        let beside = latency(fleet, RELAYS - 1);
        before.unwrap().stop();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
        let figures = json!({
            "undisturbed_p99_microseconds": micros(undisturbed),
            "beside_a_flood_p99_microseconds": micros(beside),
        });
        print("quotas", figures);
    });
}
