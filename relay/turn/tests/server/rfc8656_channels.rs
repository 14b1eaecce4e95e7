//! What RFC 8656 §12 says of channels.

use turnfleet_turn::policy::Limits;
use turnfleet_turn::wire::{AttributeType, ChannelNumber, Method};
use turnfleet_turn::{DropReason, Limit, PeerAddr, Transport};

use crate::support::{
    ALICE, ALICE_AGAIN, Caller, Net, Outcome, PEER, PEER6, Setup, addr, allocated, data_indication,
    limited,
};

// RFC 8656 §12
#[test]
fn a_channel_number_outside_of_the_range_gets_400() {
    let (mut net, mut caller, _) = allocated();
    for number in [0x0000, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF] {
        assert_eq!(
            caller.bind(&mut net, number, PEER).code(),
            400,
            "{number:#x}"
        );
    }
    assert_eq!(caller.bind(&mut net, 0x4FFF, PEER).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 200);
}

// RFC 5766 §11
#[test]
fn channel_numbers_of_rfc_5766_are_accepted_where_they_are_switched_on() {
    let mut net = Net::with(Setup {
        rfc5766_channel_numbers: true,
        ..Setup::default()
    });
    let mut caller = Caller::new(&mut net, ALICE);
    let relayed = caller.allocated(&mut net);
    assert_eq!(caller.bind(&mut net, 0x8000, PEER).code(), 400);
    assert_eq!(caller.bind(&mut net, 0x7FFF, PEER).code(), 200);
    let outcome = caller.channel_data(&mut net, 0x7FFF, b"hi");
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr(PEER), b"hi".to_vec())
    );
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_without_number_or_peer_gets_400() {
    let (mut net, mut caller, _) = allocated();
    let no_peer = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.channel_number(ChannelNumber(0x4000));
    });
    let no_number = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    let bad_number = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0]);
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    for answer in [no_peer, no_number, bad_number] {
        assert_eq!(answer.code(), 400);
    }
}

// RFC 8656 §18.1
#[test]
fn the_reserved_bits_of_channel_number_are_ignored() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0xFF, 0xFF]);
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    assert_eq!(answer.code(), 200);
}

// RFC 8656 §12.2
#[test]
fn a_bound_number_for_another_peer_gets_400() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 400);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.10:9").code(), 400);
}

// RFC 8656 §12.2
#[test]
fn a_bound_peer_for_another_number_gets_400() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    assert_eq!(caller.bind(&mut net, 0x4001, PEER).code(), 400);
    assert_eq!(net.server.counters().channels, 1);
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_for_another_family_gets_443() {
    let (mut net, mut caller, _) = allocated();
    assert_eq!(caller.bind(&mut net, 0x4000, PEER6).code(), 443);
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_to_a_forbidden_peer_gets_403() {
    let (mut net, mut caller, _) = allocated();
    for peer in [
        "127.0.0.1:9",
        "10.0.0.1:9",
        "198.51.100.1:3478",
        "203.0.113.9:0",
    ] {
        assert_eq!(caller.bind(&mut net, 0x4000, peer).code(), 403, "{peer}");
    }
    assert_eq!(net.server.counters().permissions, 0);
}

// RFC 8656 §12.2
#[test]
fn more_channels_than_allowed_get_508() {
    let mut net = Net::with(limited(Limits {
        channels_per_allocation: 2,
        ..Limits::default()
    }));
    let mut caller = Caller::new(&mut net, ALICE);
    caller.allocated(&mut net);
    for (port, code) in [(1, 200), (2, 200), (3, 508), (1, 200)] {
        let answer = caller.bind(&mut net, 0x4000 + port, &format!("203.0.113.9:{port}"));
        assert_eq!(answer.code(), code, "{port}");
    }
    assert_eq!(net.server.counters().limits(Limit::Channels), 1);
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_installs_a_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    assert!(matches!(
        net.peer_sends("203.0.113.9:77", relayed, b"hi"),
        Outcome::Delivered(..)
    ));
    assert!(matches!(
        caller.send_indication(&mut net, PEER, b"hi"),
        Outcome::Relayed(..)
    ));
}

// RFC 8656 §12.2
#[test]
fn a_thousand_channels_work_like_one() {
    let (mut net, mut caller, relayed) = allocated();
    for n in 0..1024 {
        assert_eq!(
            caller
                .bind(&mut net, 0x4000 + n, &format!("203.0.113.9:{}", 1000 + n))
                .code(),
            200
        );
    }
    assert_eq!(caller.bind(&mut net, 0x4400, "203.0.113.9:9").code(), 508);
    let outcome = caller.channel_data(&mut net, 0x43FF, b"hi");
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr("203.0.113.9:2023"), b"hi".to_vec())
    );
    let Outcome::Delivered(_, packet) = net.peer_sends("203.0.113.9:1000", relayed, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(packet, [0x40, 0x00, 0, 2, b'h', b'i']);
    net.advance_seconds(600);
    net.assert_idle();
}

// RFC 8656 §12
#[test]
fn a_channel_lasts_600_seconds_and_its_permission_300() {
    let (mut net, mut caller, relayed) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.bind(&mut net, 0x4000, PEER);
    net.advance_seconds(300);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    caller.permit(&mut net, &[PEER]);
    net.advance_seconds(299);
    let Outcome::Delivered(_, packet) = net.peer_sends(PEER, relayed, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(packet, [0x40, 0x00, 0, 2, b'h', b'i']);
    net.advance_seconds(1);
    let unbound = Outcome::Dropped(DropReason::NoChannel);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), unbound);
    assert_eq!(net.server.counters().channels, 0);
}

// RFC 8656 §9, §21.1.4
#[test]
fn a_channel_whose_permission_is_over_carries_no_data_in_either_direction() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    net.sleep_seconds(299);
    let sent = caller.channel_data(&mut net, 0x4000, b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    net.sleep_seconds(1);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), refused);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    caller.permit(&mut net, &["203.0.113.9:1"]);
    let sent = caller.channel_data(&mut net, 0x4000, b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    assert_eq!(caller.bind(&mut net, 0x4001, PEER).code(), 400);
}

// RFC 8656 §12
#[test]
fn binding_again_refreshes_channel_and_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.refresh(&mut net, Some(3600));
    for _ in 0..5 {
        assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
        net.advance_seconds(299);
        assert!(matches!(
            net.peer_sends(PEER, relayed, b"hi"),
            Outcome::Delivered(..)
        ));
    }
    assert_eq!(net.server.counters().channels, 1);
    assert_eq!(net.server.counters().permissions, 1);
}

// RFC 8656 §12
#[test]
fn an_expired_channel_can_be_bound_otherwise() {
    let (mut net, mut caller, _) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.bind(&mut net, 0x4000, PEER);
    net.sleep_seconds(600);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4001, PEER).code(), 200);
    assert_eq!(net.server.counters().channels, 2);
}

// RFC 8656 §12
#[test]
fn channels_of_one_allocation_are_not_those_of_another() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    other.allocated(&mut net);
    assert_eq!(other.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 200);
    assert_eq!(other.bind(&mut net, 0x4001, PEER).code(), 200);
}

// RFC 8656 §12.5
#[test]
fn data_of_a_bound_peer_always_comes_by_its_channel() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    caller.bind(&mut net, 0x4ABC, PEER);
    let outcome = net.peer_sends(PEER, relayed, b"hello");
    let expected = [&[0x4A, 0xBC, 0, 5][..], b"hello"].concat();
    assert_eq!(outcome, Outcome::Delivered(caller.five_tuple, expected));
    let Outcome::Delivered(_, packet) = net.peer_sends("203.0.113.9:10", relayed, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(data_indication(&packet).0, addr("203.0.113.9:10"));
}

// RFC 8656 §12.5
#[test]
fn channel_data_is_padded_on_streams_only() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut net = Net::new();
        let mut caller = Caller::of(&mut net, ALICE, transport, "alice");
        let relayed = caller.allocated(&mut net);
        caller.bind(&mut net, 0x4000, PEER);
        let outcome = net.peer_sends(PEER, relayed, b"hello");
        let expected = [&[0x40, 0, 0, 5][..], b"hello\0\0\0"].concat();
        assert_eq!(outcome, Outcome::Delivered(caller.five_tuple, expected));
        let outcome = caller.channel_data(&mut net, 0x4000, b"hello");
        assert_eq!(
            outcome,
            Outcome::Relayed(relayed, addr(PEER), b"hello".to_vec())
        );
        assert_eq!(net.server.counters().to_clients(transport).packets, 1);
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_goes_to_its_peer_from_the_relayed_address() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    for payload in [&b""[..], b"h", b"hello", &[7; 1200]] {
        let outcome = caller.channel_data(&mut net, 0x4000, payload);
        assert_eq!(
            outcome,
            Outcome::Relayed(relayed, addr(PEER), payload.to_vec())
        );
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_with_padding_over_udp_is_accepted() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    let packet = [&[0x40, 0, 0, 5][..], b"hello\0\0\0"].concat();
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr(PEER), b"hello".to_vec())
    );
}

// RFC 8656 §12.6
#[test]
fn channel_data_shorter_than_it_claims_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    for packet in [
        &[0x40][..],
        &[0x40, 0, 0],
        &[0x40, 0, 0, 1],
        &[0x40, 0, 0, 5, 1, 2, 3, 4],
    ] {
        let outcome = net.client_sends(caller.five_tuple, packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_on_an_unbound_or_reserved_number_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    for number in [0x4001, 0x4FFF, 0x5000, 0x7FFF] {
        let outcome = caller.channel_data(&mut net, number, b"hi");
        assert_eq!(outcome, Outcome::Dropped(DropReason::NoChannel));
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_refreshes_neither_channel_nor_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.bind(&mut net, 0x4000, PEER);
    for second in (0..300).step_by(100) {
        let outcome = caller.channel_data(&mut net, 0x4000, b"hi");
        assert!(matches!(outcome, Outcome::Relayed(..)), "{second}");
        net.advance_seconds(100);
    }
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), refused);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    net.advance_seconds(300);
    let unbound = Outcome::Dropped(DropReason::NoChannel);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), unbound);
}

// RFC 8656 §12.6
#[test]
fn more_than_a_datagram_holds_is_dropped() {
    let mut net = Net::new();
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tcp, "alice");
    caller.allocated(&mut net);
    caller.bind(&mut net, 0x4000, PEER);
    let outcome = caller.channel_data(&mut net, 0x4000, &vec![0; 65_508]);
    assert_eq!(outcome, Outcome::Dropped(DropReason::TooLong));
    let outcome = caller.channel_data(&mut net, 0x4000, &vec![0; 65_507]);
    assert!(matches!(outcome, Outcome::Relayed(..)));
}
