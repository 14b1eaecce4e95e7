use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Cidr, FleetRange, PeerDenied, PeerFilter, PeerRules, Refused, is_transition};

fn blocks(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn allowing_everything() -> PeerFilter {
    PeerFilter::new(PeerRules {
        allow: blocks(&["0.0.0.0/0", "::/0"]),
        ..PeerRules::default()
    })
}

#[track_caller]
fn assert_both_gates(filter: &PeerFilter, peer: IpAddr, expected: Result<(), PeerDenied>) {
    assert_eq!(filter.check_ip(peer), expected, "permission for {peer}");
    assert_eq!(
        filter.check(SocketAddr::new(peer, 4000)),
        expected,
        "data to {peer}"
    );
}

#[test]
fn what_is_refused_is_told_as_ranges_that_agree_with_the_gates() {
    let filter = PeerFilter::new(PeerRules {
        allow: blocks(&["10.1.0.0/16"]),
        deny: blocks(&["8.8.8.0/24", "2a00::/16"]),
        ..PeerRules::default()
    });
    let refused = filter.refused();
    for range in &refused {
        for ip in [range.first, range.last] {
            assert_eq!(filter.check_ip(ip), Err(range.rule), "{ip}");
        }
    }
    for pair in refused.windows(2) {
        let apart = pair[0].first.is_ipv4() && pair[1].first.is_ipv6();
        assert!(apart || pair[0].last < pair[1].first, "{pair:?}");
    }
    for (peer, expected) in [
        ("0.0.0.0", true),
        ("10.0.255.255", true),
        ("10.1.0.0", false),
        ("10.2.0.0", true),
        ("8.8.8.8", true),
        ("8.8.9.0", false),
        ("255.255.255.255", true),
        ("::", true),
        ("2a00::1", true),
        ("2a01::1", false),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
    ] {
        let ip = ip(peer);
        let inside = |range: &Refused| {
            range.first.is_ipv4() == ip.is_ipv4() && (range.first..=range.last).contains(&ip)
        };
        assert_eq!(refused.iter().any(inside), expected, "{peer}");
    }
}

#[test]
fn what_no_operator_can_open_stays_closed() {
    use PeerDenied::*;
    let filter = allowing_everything();
    for (peer, rule) in [
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("169.254.169.254", LinkLocal),
        ("169.254.170.2", LinkLocal),
        ("100.100.100.200", Metadata),
        ("168.63.129.16", Metadata),
        ("192.0.0.192", Metadata),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("255.255.255.255", Broadcast),
        ("::", Unspecified),
        ("::1", Loopback),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", SiteLocal),
        ("ff02::1", Multicast),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
    ] {
        assert_both_gates(&filter, ip(peer), Err(rule));
        assert_eq!(rule.permitted_by(ip(peer)), None);
    }
}

#[test]
fn every_ipv4_in_ipv6_form_is_refused_whatever_it_holds() {
    use PeerDenied::*;
    let filter = allowing_everything();
    for v4 in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.9",
        "8.8.8.8",
        "255.255.255.255",
    ] {
        let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for (segments, rule) in [
            ([0, 0, 0, 0, 0, 0xffff, high, low], EmbedsIpv4),
            ([0, 0, 0, 0, 0, 0, high, low], EmbedsIpv4),
            ([0, 0, 0, 0, 0xffff, 0, high, low], EmbedsIpv4),
            ([0x64, 0xff9b, 0, 0, 0, 0, high, low], EmbedsIpv4),
            ([0x64, 0xff9b, 1, 0, 0, 0, high, low], EmbedsIpv4),
            ([0x64, 0xff9b, 1, high, low, 0, 0, 0], EmbedsIpv4),
            ([0x2a00, 1, 2, 3, 0, 0x5efe, high, low], EmbedsIpv4),
            ([0x2a00, 1, 2, 3, 0x200, 0x5efe, high, low], EmbedsIpv4),
            ([0x2a00, 1, 2, 3, 0x300, 0x5efe, high, low], EmbedsIpv4),
            ([0xfe80, 0, 0, 0, 0, 0x5efe, high, low], EmbedsIpv4),
            ([0x2001, 0, high, low, 0, 0, !high, !low], Teredo),
            ([0x2002, high, low, 0, 0, 0, 0, 1], SixToFour),
        ] {
            assert_both_gates(&filter, IpAddr::V6(Ipv6Addr::from(segments)), Err(rule));
        }
    }
}

#[test]
fn special_ranges_are_closed_until_an_allow_entry_opens_them() {
    use PeerDenied::*;
    for (peer, rule) in [
        ("10.0.0.1", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("100.64.0.1", SharedAddressSpace),
        ("100.127.255.255", SharedAddressSpace),
        ("198.18.0.1", Benchmarking),
        ("198.19.255.255", Benchmarking),
        ("192.0.2.1", Documentation),
        ("198.51.100.1", Documentation),
        ("203.0.113.1", Documentation),
        ("192.0.0.9", SpecialPurpose),
        ("192.88.99.1", SpecialPurpose),
        ("192.52.193.1", SpecialPurpose),
        ("240.0.0.1", Reserved),
        ("255.255.255.254", Reserved),
        ("fc00::1", UniqueLocal),
        ("fdff::1", UniqueLocal),
        ("100::1", SpecialPurpose),
        ("100:0:0:1::1", SpecialPurpose),
        ("2001:1::1", SpecialPurpose),
        ("2001:2::1", Benchmarking),
        ("2001:10::1", SpecialPurpose),
        ("2001:2f::1", SpecialPurpose),
        ("2001:1ff::1", SpecialPurpose),
        ("2001:db8::1", Documentation),
        ("3fff:fff::1", Documentation),
        ("5f00::1", SpecialPurpose),
        ("4000::1", Reserved),
        ("e000::1", Reserved),
    ] {
        let peer = ip(peer);
        assert_both_gates(&PeerFilter::default(), peer, Err(rule));
        let entry = rule.permitted_by(peer).unwrap();
        let opened = PeerFilter::new(PeerRules {
            allow: vec![entry],
            ..PeerRules::default()
        });
        assert_both_gates(&opened, peer, Ok(()));
    }
}

#[test]
fn ordinary_addresses_pass() {
    let filter = PeerFilter::default();
    for peer in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:db7::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700::1111",
        "2a00::1",
        "3fff:1000::1",
    ] {
        assert_both_gates(&filter, ip(peer), Ok(()));
    }
}

#[test]
fn of_the_operators_entries_the_longest_wins_and_deny_where_they_are_equal() {
    let filter = PeerFilter::new(PeerRules {
        allow: blocks(&["10.0.0.0/8", "8.8.8.0/24", "8.8.4.4/32", "0.0.0.0/1"]),
        deny: blocks(&[
            "10.1.0.0/16",
            "8.8.0.0/16",
            "8.8.4.4/32",
            "0.0.0.0/1",
            "::/0",
        ]),
        ..PeerRules::default()
    });
    for (peer, expected) in [
        ("10.0.0.1", Ok(())),
        ("10.1.0.1", Err(PeerDenied::Operator)),
        ("10.2.0.0", Ok(())),
        ("8.8.8.8", Ok(())),
        ("8.8.7.255", Err(PeerDenied::Operator)),
        ("8.8.9.0", Err(PeerDenied::Operator)),
        ("8.8.4.4", Err(PeerDenied::Operator)),
        ("1.1.1.1", Err(PeerDenied::Operator)),
        ("192.168.0.1", Err(PeerDenied::Private)),
        ("193.0.0.1", Ok(())),
        ("2a00::1", Err(PeerDenied::Operator)),
        ("::1", Err(PeerDenied::Loopback)),
    ] {
        assert_both_gates(&filter, ip(peer), expected);
    }
}

#[test]
fn fleet_addresses_are_peers_on_granted_ports_only_wherever_they_are() {
    let range = |text, first, last| FleetRange {
        ip: ip(text),
        first,
        last,
    };
    let filter = PeerFilter::new(PeerRules {
        deny: blocks(&["0.0.0.0/0"]),
        fleet: vec![
            range("127.0.0.1", 50000, 50099),
            range("198.51.100.9", 49152, 49153),
            range("127.0.0.1", 49152, 49161),
            range("10.0.0.1", 49152, 49161),
            range("9.9.9.9", 1, 0),
        ],
        ..PeerRules::default()
    });
    for (peer, expected) in [
        ("127.0.0.1:49152", Ok(())),
        ("127.0.0.1:50099", Ok(())),
        ("127.0.0.1:49162", Err(PeerDenied::FleetPort)),
        ("127.0.0.1:3478", Err(PeerDenied::FleetPort)),
        ("10.0.0.1:49161", Ok(())),
        ("10.0.0.1:22", Err(PeerDenied::FleetPort)),
        ("198.51.100.9:49153", Ok(())),
        ("198.51.100.9:49154", Err(PeerDenied::FleetPort)),
        ("127.0.0.2:49152", Err(PeerDenied::Loopback)),
        ("[::ffff:127.0.0.1]:49152", Err(PeerDenied::EmbedsIpv4)),
        ("9.9.9.9:1", Err(PeerDenied::FleetPort)),
        ("9.9.9.9:0", Err(PeerDenied::PortZero)),
    ] {
        assert_eq!(filter.check(socket(peer)), expected, "{peer}");
    }
    assert_eq!(filter.check_ip(ip("127.0.0.1")), Ok(()));
    assert_eq!(filter.check_ip(ip("127.0.0.2")), Err(PeerDenied::Loopback));
    assert_eq!(filter.check_ip(ip("9.9.9.9")), Err(PeerDenied::FleetPort));
}

#[test]
fn the_danger_flag_opens_loopback_and_nothing_else() {
    let filter = PeerFilter::new(PeerRules {
        danger_allow_loopback: true,
        fleet: vec![FleetRange {
            ip: ip("127.0.0.1"),
            first: 49152,
            last: 49161,
        }],
        ..PeerRules::default()
    });
    for peer in ["127.0.0.1:49152", "127.0.0.1:9", "127.1.2.3:9", "[::1]:9"] {
        assert_eq!(filter.check(socket(peer)), Ok(()), "{peer}");
        assert_eq!(filter.check_ip(socket(peer).ip()), Ok(()), "{peer}");
    }
    for peer in [
        "0.0.0.0",
        "::",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "10.0.0.1",
        "64:ff9b::7f00:1",
    ] {
        assert!(filter.check_ip(ip(peer)).is_err(), "{peer}");
    }
}

#[test]
fn teredo_and_6to4_clients_are_told_from_others() {
    for (client, expected) in [
        ("2001:0:1::1", true),
        ("2001:1::1", false),
        ("2002:c000:201::1", true),
        ("2003::1", false),
        ("32.1.0.0", false),
        ("::ffff:32.2.0.0", false),
    ] {
        assert_eq!(is_transition(ip(client)), expected, "{client}");
    }
}

#[test]
fn a_cidr_is_read_and_written_and_its_errors_say_what_is_expected() {
    for text in [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "192.0.2.1/32",
        "::/0",
        "fd00::/8",
        "2001:db8::1/128",
    ] {
        assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
    }
    assert_eq!(
        "192.0.2.1".parse::<Cidr>().unwrap().to_string(),
        "192.0.2.1/32"
    );
    assert_eq!("::1".parse::<Cidr>().unwrap().to_string(), "::1/128");
    for (text, part) in [
        ("10.0.0.1/8", "expected 10.0.0.0/8"),
        ("10.0.0.0/33", "between 0 and 32"),
        ("10.0.0.0/+8", "between 0 and 32"),
        ("fd00::/129", "between 0 and 128"),
        ("fd00::/", "between 0 and 128"),
        ("host/8", "such as 10.0.0.0/8"),
        ("", "such as 10.0.0.0/8"),
    ] {
        let error = text.parse::<Cidr>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
