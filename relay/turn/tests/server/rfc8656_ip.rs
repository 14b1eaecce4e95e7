//! RFC 8656: what the IP headers of relayed datagrams say, and DONT-FRAGMENT (§7.2, §11.2, §13 to §16).

use turnfleet_turn::wire::{AttributeType, Method, ReservationToken};
use turnfleet_turn::{AddressFamily, DropReason, IpMeta, PeerAddr, Transport};

use crate::support::{
    ALICE, Answer, Caller, Net, Outcome, PEER, PEER6, Setup, V4, V6, addr, allocated, host,
};

const ALICE6: &str = "[2001:db8:2::1]:5000";

/// Where clients are, and which family their relayed address has.
const PAIRS: [(&str, AddressFamily, &str); 4] = [
    (ALICE, AddressFamily::V4, PEER),
    (ALICE, AddressFamily::V6, PEER6),
    (ALICE6, AddressFamily::V4, PEER),
    (ALICE6, AddressFamily::V6, PEER6),
];

/// A relay whose driver can set DF.
fn able() -> Net {
    Net::with(Setup {
        dont_fragment: true,
        ..Setup::default()
    })
}

fn header(ttl: u8, tos: u8) -> IpMeta {
    IpMeta {
        ttl: Some(ttl),
        tos: Some(tos),
        dont_fragment: false,
    }
}

/// A client by `transport` with a relayed address of `family`, and a permission for `peer`.
#[track_caller]
fn permitted(
    net: &mut Net,
    client: &str,
    transport: Transport,
    family: AddressFamily,
    peer: &str,
) -> (Caller, std::net::SocketAddr) {
    let mut caller = Caller::of(net, client, transport, "alice");
    let answer = caller.allocate(net, |writer| {
        writer.requested_address_family(family);
    });
    assert_eq!(answer.code(), 200);
    assert_eq!(caller.permit(net, &[peer]).code(), 200);
    (caller, answer.relayed()[0])
}

/// A Send indication with DONT-FRAGMENT.
fn send_unfragmented(caller: &mut Caller, net: &mut Net, peer: &str) -> Outcome {
    let packet = caller.indication(Method::Send, |writer| {
        writer.xor_peer_address(PeerAddr(addr(peer)));
        writer.dont_fragment().data(b"hi");
    });
    net.client_sends(caller.five_tuple, &packet)
}

#[track_caller]
fn assert_relayed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Relayed(..)), "{outcome:?}");
}

#[track_caller]
fn assert_delivered(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Delivered(..)), "{outcome:?}");
}

#[track_caller]
fn assert_refuses_dont_fragment(answer: &Answer) {
    assert_eq!(answer.code(), 420);
    let unknown: Vec<u16> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [AttributeType::DONT_FRAGMENT.0]);
}

// RFC 8656 §7.2 (4)
#[test]
fn a_server_that_can_set_df_grants_an_allocation_with_dont_fragment() {
    let mut net = able();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.dont_fragment();
    });
    assert_eq!(answer.code(), 200);
}

// RFC 8656 §3.7
#[test]
fn dont_fragment_is_refused_where_ipv4_is_translated_to_ipv6_and_the_df_bit_is_not_known() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for additional in [false, true] {
            let mut net = able();
            let mut caller = Caller::of(&mut net, ALICE, transport, "alice");
            let answer = caller.allocate(&mut net, |writer| {
                if additional {
                    writer.additional_address_family(AddressFamily::V6);
                } else {
                    writer.requested_address_family(AddressFamily::V6);
                }
                writer.dont_fragment();
            });
            if transport == Transport::Udp {
                assert_refuses_dont_fragment(&answer);
            } else {
                assert_eq!(answer.code(), 200, "nothing is translated");
            }
        }
    }
}

// RFC 8656 §3.7
#[test]
fn dont_fragment_is_granted_where_nothing_is_translated_from_ipv4_to_ipv6() {
    for (client, family, _) in PAIRS {
        if (client, family) == (ALICE, AddressFamily::V6) {
            continue;
        }
        let mut net = able();
        let mut caller = Caller::new(&mut net, client);
        let answer = caller.allocate(&mut net, |writer| {
            writer.requested_address_family(family).dont_fragment();
        });
        assert_eq!(answer.code(), 200);
    }
}

// RFC 8656 §7.2 (4)
#[test]
fn dont_fragment_beside_another_unknown_attribute_is_not_listed() {
    let mut net = able();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.dont_fragment().attribute(AttributeType(0x7F00), &[]);
    });
    assert_eq!(answer.code(), 420);
    let unknown: Vec<u16> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [0x7F00]);
}

// RFC 8656 §7.2 (4)
#[test]
fn dont_fragment_goes_with_a_reservation_token() {
    let mut net = able();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.reservation_token(ReservationToken([0; 8]));
        writer.dont_fragment();
    });
    assert_eq!(answer.code(), 508, "the token is nobody's");
}

// RFC 8656 §14
#[test]
fn a_send_indication_with_dont_fragment_leaves_with_df_set() {
    let mut net = able();
    let (mut caller, _) = permitted(&mut net, ALICE, Transport::Udp, AddressFamily::V4, PEER);
    assert_relayed(&send_unfragmented(&mut caller, &mut net, PEER));
    assert!(net.leaving.dont_fragment);
}

// RFC 8656 §14
#[test]
fn other_data_leaves_with_df_clear() {
    let mut net = able();
    let (mut caller, relayed) = permitted(&mut net, ALICE, Transport::Udp, AddressFamily::V4, PEER);
    assert_relayed(&send_unfragmented(&mut caller, &mut net, PEER));
    assert_relayed(&caller.send_indication(&mut net, PEER, b"hi"));
    assert!(!net.leaving.dont_fragment);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
    assert_relayed(&caller.channel_data(&mut net, 0x4000, b"hi"));
    assert!(!net.leaving.dont_fragment);
    assert_delivered(&net.peer_sends(PEER, relayed, b"hi"));
    assert!(!net.leaving.dont_fragment);
}

// RFC 8656 §14
#[test]
fn the_df_bit_is_copied_where_the_platform_tells_it() {
    let mut net = able();
    let (mut caller, relayed) = permitted(&mut net, ALICE, Transport::Udp, AddressFamily::V4, PEER);
    net.arriving.dont_fragment = true;
    assert_relayed(&caller.send_indication(&mut net, PEER, b"hi"));
    assert!(net.leaving.dont_fragment);
    net.leaving = IpMeta::default();
    assert_delivered(&net.peer_sends(PEER, relayed, b"hi"));
    assert!(net.leaving.dont_fragment);
}

// RFC 8656 §13
#[test]
fn dont_fragment_is_ignored_where_either_side_is_ipv6() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, _) = permitted(&mut net, client, Transport::Udp, family, peer);
        assert_relayed(&send_unfragmented(&mut caller, &mut net, peer));
        let both_v4 = (client, family) == (ALICE, AddressFamily::V4);
        assert_eq!(net.leaving.dont_fragment, both_v4, "{client} {family:?}");
    }
}

// RFC 8656 §15
#[test]
fn dont_fragment_of_a_client_on_a_stream_sets_df_in_every_family() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, _) = permitted(&mut net, client, Transport::Tls, family, peer);
        assert_relayed(&send_unfragmented(&mut caller, &mut net, peer));
        assert!(net.leaving.dont_fragment, "{client} {family:?}");
        assert_relayed(&caller.send_indication(&mut net, peer, b"hi"));
        assert!(!net.leaving.dont_fragment, "{client} {family:?}");
    }
}

// RFC 8656 §13, §21.1.7
#[test]
fn the_ttl_or_hop_limit_is_one_less_behind_the_relay_in_all_four_pairs_of_families() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, relayed) = permitted(&mut net, client, Transport::Udp, family, peer);
        net.arriving = header(64, 0);
        assert_relayed(&caller.send_indication(&mut net, peer, b"hi"));
        assert_eq!(net.leaving.ttl, Some(63), "{client} {family:?}");
        net.arriving = header(17, 0);
        assert_delivered(&net.peer_sends(peer, relayed, b"hi"));
        assert_eq!(net.leaving.ttl, Some(16), "{client} {family:?}");
    }
}

// RFC 8656 §13
#[test]
fn data_whose_ttl_is_used_up_is_dropped() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, relayed) = permitted(&mut net, client, Transport::Udp, family, peer);
        net.arriving = header(1, 0);
        let expired = Outcome::Dropped(DropReason::TtlExpired);
        assert_eq!(caller.send_indication(&mut net, peer, b"hi"), expired);
        assert_eq!(net.peer_sends(peer, relayed, b"hi"), expired);
        assert_eq!(net.server.counters().drops(DropReason::TtlExpired), 2);
        assert_eq!(net.server.counters().to_peers(Transport::Udp).packets, 0);
        assert_eq!(net.server.counters().to_clients(Transport::Udp).packets, 0);
    }
}

// RFC 8656 §5
#[test]
fn a_request_with_a_ttl_of_one_is_answered() {
    let mut net = able();
    net.arriving = header(1, 0);
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200);
}

// RFC 8656 §14
#[test]
fn dscp_and_ecn_are_kept_in_all_four_pairs_of_families() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, relayed) = permitted(&mut net, client, Transport::Udp, family, peer);
        for tos in [0x00, 0x01, 0x02, 0x03, 0xB8, 0xBA, 0xFF] {
            net.arriving = header(64, tos);
            assert_relayed(&caller.send_indication(&mut net, peer, b"hi"));
            assert_eq!(net.leaving.tos, Some(tos), "{client} {family:?}");
            net.leaving = IpMeta::default();
            assert_delivered(&net.peer_sends(peer, relayed, b"hi"));
            assert_eq!(net.leaving.tos, Some(tos), "{client} {family:?}");
        }
    }
}

// RFC 8656 §13, §14
#[test]
fn fields_that_the_platform_cannot_tell_leave_as_the_system_has_them() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, relayed) = permitted(&mut net, client, Transport::Udp, family, peer);
        assert_relayed(&caller.send_indication(&mut net, peer, b"hi"));
        assert_eq!(net.leaving, IpMeta::default());
        assert_delivered(&net.peer_sends(peer, relayed, b"hi"));
        assert_eq!(net.leaving, IpMeta::default());
    }
}

// RFC 8656 §15
#[test]
fn data_from_a_stream_leaves_with_its_dscp_without_ecn_and_with_the_systems_ttl() {
    for (client, family, peer) in PAIRS {
        let mut net = able();
        let (mut caller, _) = permitted(&mut net, client, Transport::Tcp, family, peer);
        net.arriving = header(1, 0xBB);
        assert_relayed(&caller.send_indication(&mut net, peer, b"hi"));
        let left = IpMeta {
            ttl: None,
            tos: Some(0xB8),
            dont_fragment: false,
        };
        assert_eq!(net.leaving, left, "{client} {family:?}");
    }
}

// RFC 8656 §16
#[test]
fn the_ip_header_of_a_peers_datagram_means_nothing_to_a_stream() {
    let mut net = able();
    let (_caller, relayed) = permitted(&mut net, ALICE, Transport::Tcp, AddressFamily::V4, PEER);
    net.arriving = header(1, 0xBB);
    assert_delivered(&net.peer_sends(PEER, relayed, b"hi"));
    assert_eq!(net.leaving, IpMeta::default());
}

// RFC 8656 §11.2
#[test]
fn a_server_that_cannot_set_df_discards_a_send_indication_with_dont_fragment_and_no_other() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &[PEER]);
    let discarded = Outcome::Dropped(DropReason::UnknownAttributes);
    assert_eq!(send_unfragmented(&mut caller, &mut net, PEER), discarded);
    assert_relayed(&caller.send_indication(&mut net, PEER, b"hi"));
}

// RFC 8656 §13.1
#[test]
fn a_relay_behind_nat_keeps_the_fields_too() {
    let mut net = Net::with(Setup {
        hosts: vec![host("10.0.0.1", V4), host(V6, V6)],
        ..Setup::default()
    });
    let (mut caller, _) = permitted(&mut net, ALICE, Transport::Udp, AddressFamily::V6, PEER6);
    net.arriving = header(9, 0x28);
    assert_relayed(&caller.send_indication(&mut net, PEER6, b"hi"));
    assert_eq!(net.leaving, header(8, 0x28));
}
