//! What the network around a server says: headers of datagrams, ICMP messages about peers, and relays that take over.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use turnfleet_turn::alternates::{Alternate, Alternates};
use turnfleet_turn::wire::{Class, Icmp, Message, Method};
use turnfleet_turn::{IpMeta, Transport};

use super::super::Bytes;
use super::World;

/// The header that a datagram of `len` bytes comes with: any, and the same again for the same length.
pub(super) fn header(len: usize) -> IpMeta {
    const TTLS: [Option<u8>; 4] = [None, Some(64), Some(1), Some(0)];
    let low = len.to_le_bytes()[0];
    IpMeta {
        ttl: TTLS[len / 7 % TTLS.len()],
        tos: (low & 1 == 0).then_some(low.wrapping_mul(37)),
        dont_fragment: low & 8 != 0,
    }
}

impl World {
    /// An ICMP message about a datagram that has, or has not, left a relayed socket for a peer.
    pub(in super::super) fn handle_peer_error(&mut self, choices: &mut Bytes<'_>) {
        let (socket, peer) = (choices.byte(), choices.byte());
        let icmp = Icmp {
            kind: choices.byte() % 16,
            code: choices.byte() % 8,
            data: u32::from(choices.u16()),
        };
        let Some(on) = self.socket(socket) else {
            return;
        };
        let mut message = b"what an earlier one left".to_vec();
        let (now, to) = (self.now, self.peer(peer));
        let client = self
            .server
            .handle_peer_error(now, on, to, icmp, &mut message);
        let Some(client) = client else { return };
        assert!(self.clients.contains(&client), "a client that never was");
        let told = Message::parse(&message).expect("what clients are told is sound");
        assert_eq!(told.class(), Class::Indication);
        assert_eq!(told.method(), Some(Method::Data));
        let told = told.icmp().expect("an ICMP").expect("a sound one");
        assert_eq!((told.kind, told.code), (icmp.kind, icmp.code));
        assert!(told.data == 0 || told.data == icmp.data);
    }

    /// The relay drains or not, and there are others in its place or not.
    pub(in super::super) fn change_alternates(&mut self, choices: &mut Bytes<'_>) {
        self.server.set_draining(choices.flag());
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let kinds = choices.byte();
        let named = kinds & 8 != 0;
        let chosen = transports.into_iter().enumerate();
        let chosen = chosen.filter(|(place, _)| kinds & 1 << place != 0);
        let servers = chosen.map(|(_, transport)| Alternate {
            transport,
            v4: (kinds & 16 != 0).then_some(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 3478)),
            v6: (kinds & 32 != 0).then_some(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 3478, 0, 0)),
            domain: named.then(|| "other.example.org".into()),
        });
        let alternates = Alternates {
            domain: named.then(|| "own.example.org".into()),
            servers: servers.collect(),
        };
        self.server.set_alternates(Arc::new(alternates));
    }
}
