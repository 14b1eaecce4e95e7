//! What comes back to a client.

use std::net::SocketAddr;

use turnfleet_turn::wire::{AttributeType, Class, Message, Method, ReservationToken};

use super::Caller;

/// A STUN message that came back.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Answer(pub Vec<u8>);

impl Answer {
    #[track_caller]
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).expect("the server sends sound messages")
    }

    /// The error code, or 200.
    #[track_caller]
    pub(crate) fn code(&self) -> u16 {
        match self.message().class() {
            Class::SuccessResponse => 200,
            Class::ErrorResponse => self.message().error_code().unwrap().unwrap().code(),
            Class::Request | Class::Indication => panic!("no answer"),
        }
    }

    #[track_caller]
    pub(crate) fn lifetime(&self) -> u32 {
        self.message().lifetime().unwrap().unwrap()
    }

    #[track_caller]
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        let addresses = self.message().xor_relayed_addresses();
        addresses.map(Result::unwrap).collect()
    }

    #[track_caller]
    pub(crate) fn token(&self) -> ReservationToken {
        self.message().reservation_token().unwrap().unwrap()
    }

    pub(crate) fn has(&self, kind: AttributeType) -> bool {
        self.message()
            .all_attributes()
            .any(|attribute| attribute.kind == kind)
    }

    /// Whether the answer is signed by `caller`.
    #[track_caller]
    pub(crate) fn is_signed_for(&self, caller: &Caller) -> bool {
        self.message().verify_integrity(&caller.key())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = self
            .message()
            .all_attributes()
            .map(|attribute| attribute.kind);
        write!(f, "{} with {:?}", self.code(), kinds.collect::<Vec<_>>())
    }
}

/// A Data indication that came back.
#[track_caller]
pub(crate) fn data_indication(packet: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::parse(packet).unwrap();
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(message.method(), Some(Method::Data));
    let peer = message.xor_peer_address().unwrap().unwrap().0;
    let data = message.data().unwrap();
    (peer, packet[data.range()].to_vec())
}
