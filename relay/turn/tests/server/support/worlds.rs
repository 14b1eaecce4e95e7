//! Relays and clients as most statements begin with them.

use turnfleet_turn::AddressFamily;
use turnfleet_turn::policy::Limits;
use turnfleet_turn::wire::{AttributeType, Class, LongTermKey, MessageWriter, Method};

use super::{Answer, Caller, Net, OFFERED, Outcome, REALM, Setup, V4, V6, host};

pub(crate) const ALICE: &str = "192.0.2.1:5000";

pub(crate) const ALICE_AGAIN: &str = "192.0.2.1:5001";

pub(crate) const BOB: &str = "192.0.2.2:5000";

pub(crate) fn v4_only() -> Setup {
    Setup {
        hosts: vec![host(V4, V4)],
        ..Setup::default()
    }
}

pub(crate) fn v6_only() -> Setup {
    Setup {
        hosts: vec![host(V6, V6)],
        ..Setup::default()
    }
}

pub(crate) fn limited(limits: Limits) -> Setup {
    Setup {
        limits,
        ..Setup::default()
    }
}

#[track_caller]
pub(crate) fn allocated() -> (Net, Caller, std::net::SocketAddr) {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let relayed = caller.allocated(&mut net);
    (net, caller, relayed)
}

/// An allocation with an IPv4 and an IPv6 relayed address.
#[track_caller]
pub(crate) fn dual() -> (Net, Caller, Vec<std::net::SocketAddr>) {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 200);
    let relayed = answer.relayed();
    assert_eq!(relayed.len(), 2);
    (net, caller, relayed)
}

pub(crate) fn refresh_family(
    caller: &mut Caller,
    net: &mut Net,
    family: AddressFamily,
    lifetime: u32,
) -> Answer {
    caller.request(net, Method::Refresh, |writer| {
        writer.lifetime(lifetime).requested_address_family(family);
    })
}

/// A 401 or 438 with all that its receiver needs to try again, and no more.
#[track_caller]
pub(crate) fn assert_challenge(answer: &Answer, code: u16) {
    assert_eq!(answer.code(), code);
    assert_eq!(answer.message().realm(), Some(Ok(REALM)));
    assert!(answer.message().nonce().is_some_and(|nonce| nonce.is_ok()));
    let offered = answer.message().password_algorithms();
    assert!(offered.is_some_and(|it| it.is(&OFFERED)));
    for kind in [
        AttributeType::USERNAME,
        AttributeType::USERHASH,
        AttributeType::MESSAGE_INTEGRITY,
        AttributeType::MESSAGE_INTEGRITY_SHA256,
    ] {
        assert!(!answer.has(kind), "{answer:?} has {kind:?}");
    }
}

/// An Allocate request by `key` with the attributes before MESSAGE-INTEGRITY chosen by `write`.
pub(crate) fn signed_allocate(
    caller: &mut Caller,
    key: &LongTermKey,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let id = caller.next_id();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::Allocate, id);
    writer.requested_transport(17);
    write(&mut writer);
    writer.finish_signed(key);
    bytes
}

/// An allocation at an even port, with the port behind it reserved.
#[track_caller]
pub(crate) fn reserve(net: &mut Net, client: &str) -> Answer {
    let mut caller = Caller::new(net, client);
    let answer = caller.allocate(net, |writer| {
        writer.even_port(true);
    });
    assert_eq!(answer.code(), 200);
    answer
}

/// A port that one shard holds in reserve, and another shard whose client, Bob, has asked for it.
#[track_caller]
pub(crate) fn claimed() -> (Net, Answer, Net, Caller) {
    let mut owner = Net::new();
    let first = reserve(&mut owner, ALICE);
    let mut asker = Net::with(Setup {
        shard: 1,
        ledger: Some(owner.ledger.clone()),
        ..Setup::default()
    });
    let mut other = Caller::new(&mut asker, BOB);
    let packet = other.signed(Method::Allocate, |writer| {
        writer
            .requested_transport(17)
            .reservation_token(first.token());
    });
    let outcome = asker.client_sends(other.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Pending);
    (owner, first, asker, other)
}
