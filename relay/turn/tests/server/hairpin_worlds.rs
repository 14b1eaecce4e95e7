//! Random worlds of clients that are each other's peers: what arrives, and in which framing, is what permissions and
//! channels say that were granted and have not ended, behind 1:1 NAT or not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use turnfleet_turn::wire::ChannelData;
use turnfleet_turn::{DropReason, Instant};

use crate::support::{Caller, Net, Outcome, Setup, data_indication, host};

/// Local and public addresses of the relay; each client uses the one of its number.
const HOSTS: [(&str, &str); 3] = [
    ("198.51.100.1", "198.51.100.1"),
    ("10.0.0.6", "198.51.100.2"),
    ("198.51.100.3", "198.51.100.3"),
];
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
enum Step {
    Permit(usize, usize),
    Bind(usize, usize),
    Send(usize, usize),
    Renew(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pair = || (0..HOSTS.len(), 0..HOSTS.len());
    let step = prop_oneof![
        2 => pair().prop_map(|(client, peer)| Step::Permit(client, peer)),
        2 => pair().prop_map(|(client, peer)| Step::Bind(client, peer)),
        6 => pair().prop_map(|(client, peer)| Step::Send(client, peer)),
        1 => (0..HOSTS.len()).prop_map(Step::Renew),
        // The lifetimes above are sums of these.
        1 => prop_oneof![Just(100), Just(150), Just(299)].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

/// A client and what it was granted.
struct End {
    caller: Caller,
    relayed: SocketAddr,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<SocketAddr, (u16, Instant)>,
    next_number: u16,
}

impl End {
    fn permits(&self, peer: SocketAddr, now: Instant) -> bool {
        let expiry = self.permissions.get(&peer.ip());
        expiry.is_some_and(|expiry| *expiry > now)
    }

    fn channel(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let (number, expiry) = self.channels.get(&peer)?;
        (*expiry > now).then_some(*number)
    }
}

struct World {
    net: Net,
    ends: Vec<End>,
}

impl World {
    fn new() -> Self {
        let mut net = Net::with(Setup {
            hosts: HOSTS.map(|(local, public)| host(local, public)).to_vec(),
            ..Setup::default()
        });
        let ends = HOSTS.iter().zip(1..).map(|((local, _), number)| {
            let mut caller = Caller::new(&mut net, &format!("192.0.2.{number}:5000"));
            caller.five_tuple.server = SocketAddr::new(local.parse().unwrap(), 3478);
            End {
                relayed: caller.allocated(&mut net),
                caller,
                permissions: BTreeMap::new(),
                channels: BTreeMap::new(),
                next_number: 0x4000,
            }
        });
        let ends = ends.collect();
        Self { net, ends }
    }

    fn take(&mut self, step: Step) {
        let now = self.net.now.instant;
        match step {
            Step::Permit(client, peer) => {
                let peer = self.ends[peer].relayed;
                let end = &mut self.ends[client];
                let answer = end.caller.permit(&mut self.net, &[&peer.to_string()]);
                assert_eq!(answer.code(), 200);
                end.permissions.insert(peer.ip(), now.after(PERMISSION));
            }
            Step::Bind(client, peer) => {
                let peer = self.ends[peer].relayed;
                let end = &mut self.ends[client];
                let number = end.channel(peer, now).unwrap_or(end.next_number);
                end.next_number = end.next_number.max(number + 1);
                let answer = end.caller.bind(&mut self.net, number, &peer.to_string());
                assert_eq!(answer.code(), 200);
                end.permissions.insert(peer.ip(), now.after(PERMISSION));
                end.channels.insert(peer, (number, now.after(CHANNEL)));
            }
            Step::Renew(client) => {
                let end = &mut self.ends[client];
                end.caller.refresh(&mut self.net, Some(0));
                end.relayed = end.caller.allocated(&mut self.net);
                end.permissions.clear();
                end.channels.clear();
            }
            Step::Wait(seconds) => {
                self.net.advance_seconds(seconds);
                for end in &mut self.ends {
                    end.caller.learn_nonce(&mut self.net);
                    let answer = end.caller.refresh(&mut self.net, None);
                    assert_eq!(answer.code(), 200);
                }
            }
            Step::Send(client, peer) => self.send(client, peer),
        }
    }

    fn send(&mut self, client: usize, peer: usize) {
        let now = self.net.now.instant;
        let (from, to) = (self.ends[client].relayed, self.ends[peer].relayed);
        let end = &mut self.ends[client];
        let sent = match end.channel(to, now) {
            Some(number) => end.caller.channel_data(&mut self.net, number, b"hi"),
            None => {
                let to = to.to_string();
                end.caller.send_indication(&mut self.net, &to, b"hi")
            }
        };
        let arrived = if let Outcome::Relayed(local, to, payload) = &sent {
            assert!(self.ends[client].permits(self.ends[peer].relayed, now));
            self.net.peer_sends(&local.to_string(), *to, payload)
        } else {
            sent
        };
        let receiver = &self.ends[peer];
        let allowed = self.ends[client].permits(to, now) && receiver.permits(from, now);
        let Outcome::Delivered(client, packet) = &arrived else {
            assert!(!allowed);
            return assert_eq!(arrived, Outcome::Dropped(DropReason::NoPermission));
        };
        assert!(allowed);
        assert_eq!(*client, receiver.caller.five_tuple);
        match receiver.channel(from, now) {
            Some(number) => {
                let message = ChannelData::parse(packet).unwrap();
                assert_eq!(message.number.0, number);
                assert_eq!(&packet[message.payload.range()], b"hi");
            }
            None => assert_eq!(data_indication(packet), (from, b"hi".to_vec())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_payload_between_clients_passes_by_the_grants_of_both(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}
