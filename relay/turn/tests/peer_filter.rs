//! The compiled peer filter agrees with reading the rules one by one, on random rules and random addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use turnfleet_turn::peer_filter::{Cidr, PeerDenied, PeerFilter, PeerRules};
use turnfleet_turn::random::Random;

/// Any address, of which many share long prefixes, so that blocks nest and addresses fall on their borders.
fn address(random: &mut Random, v4: bool) -> IpAddr {
    let mut bytes: [u8; 16] = random.bytes();
    let few: [u8; 16] = random.bytes();
    for (byte, choice) in bytes.iter_mut().zip(few) {
        *byte = match choice % 4 {
            0 => *byte,
            1 => 0x00,
            2 => 0xff,
            _ => 0x20,
        };
    }
    let [a, b, c, d, ..] = bytes;
    if v4 {
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(bytes).into()
    }
}

fn block(random: &mut Random) -> Cidr {
    let v4 = random.below(2) == 0;
    let max = if v4 { 32 } else { 128 };
    let prefix = u8::try_from(random.below(max + 1)).expect("at most 128");
    let address = match address(random, v4) {
        IpAddr::V4(ip) => {
            let mask = !u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = !u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    };
    Cidr::new(address, prefix).expect("the host bits are cleared")
}

fn is_in(block: Cidr, ip: IpAddr) -> bool {
    let shared = match (block.address(), ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    shared >= u32::from(block.prefix())
}

#[test]
fn a_block_contains_the_addresses_that_share_its_prefix() {
    let mut random = Random::new([5; 32]);
    for _ in 0..200_000 {
        let block = block(&mut random);
        let ip = address(&mut random, block.address().is_ipv4());
        assert_eq!(block.contains(ip), is_in(block, ip), "{block} {ip}");
        assert!(block.contains(block.address()));
        assert_eq!(block.to_string().parse(), Ok(block));
    }
}

#[test]
fn the_filter_agrees_with_reading_the_rules_one_by_one() {
    let mut random = Random::new([6; 32]);
    let plain = PeerFilter::default();
    let open = PeerFilter::new(PeerRules {
        allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        ..PeerRules::default()
    });
    for _ in 0..500 {
        let some = |random: &mut Random| -> Vec<Cidr> {
            (0..random.below(20)).map(|_| block(random)).collect()
        };
        let (allow, deny) = (some(&mut random), some(&mut random));
        let filter = PeerFilter::new(PeerRules {
            allow: allow.clone(),
            deny: deny.clone(),
            ..PeerRules::default()
        });
        for _ in 0..400 {
            let v4 = random.below(2) == 0;
            let ip = match random.below(4) {
                0 => allow
                    .first()
                    .map_or_else(|| address(&mut random, v4), Cidr::address),
                _ => address(&mut random, v4),
            };
            let longest = |blocks: &[Cidr]| {
                blocks
                    .iter()
                    .filter(|&&block| is_in(block, ip))
                    .map(Cidr::prefix)
                    .max()
            };
            let expected = match (open.check_ip(ip), longest(&allow), longest(&deny)) {
                (Err(hard), ..) => Err(hard),
                (Ok(()), None, None) => plain.check_ip(ip),
                (Ok(()), allowed, denied) if allowed > denied => Ok(()),
                (Ok(()), ..) => Err(PeerDenied::Operator),
            };
            assert_eq!(
                filter.check_ip(ip),
                expected,
                "{ip} allow {allow:?} deny {deny:?}"
            );
            assert_eq!(filter.check(SocketAddr::new(ip, 9)), expected);
        }
    }
}

/// The standard library's own notion of special addresses, as far as it has a stable one.
#[test]
fn nothing_that_the_standard_library_calls_special_passes() {
    let mut random = Random::new([7; 32]);
    let filter = PeerFilter::default();
    let mut passed = 0;
    for round in 0..200_000 {
        let ip = address(&mut random, round % 2 == 0);
        if filter.check_ip(ip).is_err() {
            continue;
        }
        passed += 1;
        let special = match ip {
            IpAddr::V4(v4) => {
                v4.is_private() || v4.is_link_local() || v4.is_broadcast() || v4.is_documentation()
            }
            IpAddr::V6(v6) => {
                v6.is_unique_local() || v6.is_unicast_link_local() || v6.to_ipv4().is_some()
            }
        };
        let anywhere = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
        assert!(!special && !anywhere, "{ip}");
    }
    assert!(passed > 10_000, "{passed}");
}
