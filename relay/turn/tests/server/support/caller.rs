//! A client that signs requests.

use std::net::{IpAddr, SocketAddr};

use turnfleet_turn::wire::{
    ChannelData, ChannelNumber, Class, LongTermKey, MessageWriter, Method, TransactionId,
};
use turnfleet_turn::{AddressFamily, DropReason, FiveTuple, PeerAddr, Transport};

use super::{Answer, Net, Outcome, REALM, V4, V6, addr};

/// A client that signs what it is told to send.
pub(crate) struct Caller {
    pub(crate) five_tuple: FiveTuple,
    pub(crate) username: String,
    pub(crate) password: String,
    /// What it was challenged with.
    pub(crate) realm: String,
    pub(crate) nonce: Vec<u8>,
    last_id: u64,
}

impl Caller {
    /// Alice by UDP, with a nonce.
    pub(crate) fn new(net: &mut Net, client: &str) -> Self {
        Self::of(net, client, Transport::Udp, "alice")
    }

    pub(crate) fn of(net: &mut Net, client: &str, transport: Transport, username: &str) -> Self {
        let client = addr(client);
        let server: IpAddr = match AddressFamily::of(client.ip()) {
            AddressFamily::V4 => V4.parse().unwrap(),
            AddressFamily::V6 => V6.parse().unwrap(),
        };
        let mut caller = Self {
            five_tuple: FiveTuple {
                transport,
                client,
                server: SocketAddr::new(server, 3478),
            },
            username: username.into(),
            password: "secret".into(),
            realm: REALM.into(),
            nonce: Vec::new(),
            last_id: u64::from(client.port()) << 32,
        };
        caller.learn_nonce(net);
        caller
    }

    /// Another client that is known as `username`.
    pub(crate) fn named(net: &mut Net, client: &str, username: &str) -> Self {
        Self::of(net, client, Transport::Udp, username)
    }

    /// Asks for a challenge.
    pub(crate) fn learn_nonce(&mut self, net: &mut Net) {
        let bytes = self.unsigned(Method::Allocate, |_| {});
        let answer = self.send(net, &bytes);
        assert_eq!(answer.code(), 401);
        self.nonce = answer.message().nonce().unwrap().unwrap().to_vec();
        self.realm = answer.message().realm().unwrap().unwrap().into();
    }

    pub(crate) fn key(&self) -> LongTermKey {
        LongTermKey::derive(&self.username, &self.realm, &self.password)
    }

    pub(crate) fn next_id(&mut self) -> TransactionId {
        self.last_id += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.last_id.to_be_bytes());
        TransactionId(id)
    }

    pub(crate) fn unsigned(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        self.message(Class::Request, method, write)
    }

    /// A message that nobody has signed.
    pub(crate) fn message(
        &mut self,
        class: Class,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, class, method, self.next_id());
        write(&mut writer);
        writer.finish();
        bytes
    }

    pub(crate) fn signed(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Request, method, self.next_id());
        write(&mut writer);
        writer
            .username(&self.username)
            .realm(&self.realm)
            .nonce(&self.nonce);
        writer.finish_signed(&self.key());
        bytes
    }

    /// Sends a packet that must be dropped for that reason.
    #[track_caller]
    pub(crate) fn assert_dropped(&self, net: &mut Net, packet: &[u8], reason: DropReason) {
        let outcome = net.client_sends(self.five_tuple, packet);
        assert_eq!(outcome, Outcome::Dropped(reason));
    }

    /// Sends a packet that must be answered.
    #[track_caller]
    pub(crate) fn send(&self, net: &mut Net, packet: &[u8]) -> Answer {
        let outcome = net.client_sends(self.five_tuple, packet);
        let Outcome::Reply(bytes) = outcome else {
            panic!("no answer but {outcome:?}");
        };
        Answer(bytes)
    }

    /// A signed request and its answer.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        net: &mut Net,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Answer {
        let packet = self.signed(method, write);
        self.send(net, &packet)
    }

    /// An Allocate request for UDP.
    #[track_caller]
    pub(crate) fn allocate(
        &mut self,
        net: &mut Net,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Answer {
        self.request(net, Method::Allocate, |writer| {
            writer.requested_transport(17);
            write(writer);
        })
    }

    /// An allocation, and the address that its first relayed socket is bound to.
    #[track_caller]
    pub(crate) fn allocated(&mut self, net: &mut Net) -> SocketAddr {
        let answer = self.allocate(net, |_| {});
        assert_eq!(answer.code(), 200);
        answer.relayed()[0]
    }

    #[track_caller]
    pub(crate) fn refresh(&mut self, net: &mut Net, lifetime: Option<u32>) -> Answer {
        self.request(net, Method::Refresh, |writer| {
            if let Some(lifetime) = lifetime {
                writer.lifetime(lifetime);
            }
        })
    }

    #[track_caller]
    pub(crate) fn permit(&mut self, net: &mut Net, peers: &[&str]) -> Answer {
        self.request(net, Method::CreatePermission, |writer| {
            for peer in peers {
                writer.xor_peer_address(PeerAddr(addr(peer)));
            }
        })
    }

    #[track_caller]
    pub(crate) fn bind(&mut self, net: &mut Net, number: u16, peer: &str) -> Answer {
        self.request(net, Method::ChannelBind, |writer| {
            writer.channel_number(ChannelNumber(number));
            writer.xor_peer_address(PeerAddr(addr(peer)));
        })
    }

    pub(crate) fn send_indication(&mut self, net: &mut Net, peer: &str, payload: &[u8]) -> Outcome {
        let packet = self.indication(Method::Send, |writer| {
            writer.xor_peer_address(PeerAddr(addr(peer))).data(payload);
        });
        net.client_sends(self.five_tuple, &packet)
    }

    pub(crate) fn indication(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        self.message(Class::Indication, method, write)
    }

    pub(crate) fn channel_data(&mut self, net: &mut Net, number: u16, payload: &[u8]) -> Outcome {
        let mut packet = Vec::new();
        let stream = self.five_tuple.transport.is_stream();
        assert!(ChannelData::write(
            ChannelNumber(number),
            payload,
            stream,
            &mut packet
        ));
        net.client_sends(self.five_tuple, &packet)
    }
}
