//! The header by which a balancer tells whose connection it passes on: the PROXY protocol, versions 1 and 2, as the
//! HAProxy specification has it. A pure function of the first bytes of a stream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the first bytes of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// The beginning of a header.
    NeedMore,
    /// A header of this many bytes.
    Whole {
        /// Bytes of the header.
        len: usize,
        /// `None` where the balancer speaks for itself, or knows no address: then the stream's own ends count.
        ends: Option<Ends>,
    },
    /// Something else, or a header for something other than TCP over IP.
    Invalid,
}

/// The ends of the connection that the balancer has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// The client's address.
    pub(super) client: SocketAddr,
    /// The address that the client reached.
    pub(super) server: SocketAddr,
}

/// The twelve bytes that version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses.
const V2_FIXED_LEN: usize = 16;
/// The longest header of version 2: addresses, and what balancers add about TLS and their network.
const V2_MAX_LEN: usize = 4096;
/// What version 1 begins with.
const V1_PREFIX: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, its end included.
const V1_MAX_LEN: usize = 107;

/// Reads the header that `bytes` begin with.
pub(super) fn parse(bytes: &[u8]) -> ProxyHeader {
    let begins_like = |prefix: &[u8]| {
        prefix
            .iter()
            .zip(bytes)
            .all(|(wanted, byte)| wanted == byte)
    };
    let parsed = if begins_like(SIGNATURE) {
        parse_v2(bytes)
    } else if begins_like(V1_PREFIX) {
        parse_v1(bytes)
    } else {
        None
    };
    parsed.unwrap_or(ProxyHeader::Invalid)
}

/// `None` where the header is invalid.
fn parse_v2(bytes: &[u8]) -> Option<ProxyHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_LEN>() else {
        return Some(ProxyHeader::NeedMore);
    };
    let [.., command, family, high, low] = *fixed;
    let addresses_len = usize::from(u16::from_be_bytes([high, low]));
    let len = V2_FIXED_LEN + addresses_len;
    if len > V2_MAX_LEN {
        return None;
    }
    let Some(addresses) = rest.get(..addresses_len) else {
        return Some(ProxyHeader::NeedMore);
    };
    let ends = match (command, family) {
        // LOCAL, or PROXY without an address family.
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) => Some(v2_ends::<4, 12>(addresses)?),
        (0x21, 0x21) => Some(v2_ends::<16, 36>(addresses)?),
        _ => return None,
    };
    Some(ProxyHeader::Whole { len, ends })
}

/// A pair of addresses of `IP` bytes each, `PAIR` bytes with their ports; what follows them is skipped.
fn v2_ends<const IP: usize, const PAIR: usize>(addresses: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; IP]>,
{
    let pair = addresses.first_chunk::<PAIR>()?;
    let (ips, ports) = pair.split_at(2 * IP);
    let end = |ip: &[u8], port: &[u8]| {
        let ip = *ip.first_chunk::<IP>()?;
        let port = u16::from_be_bytes(*port.first_chunk()?);
        Some(address(IpAddr::from(ip), port))
    };
    Some(Ends {
        client: end(ips, ports)?,
        server: end(&ips[IP..], &ports[2..])?,
    })
}

/// `None` where the line is invalid.
fn parse_v1(bytes: &[u8]) -> Option<ProxyHeader> {
    let seen = &bytes[..bytes.len().min(V1_MAX_LEN)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return (seen.len() < V1_MAX_LEN).then_some(ProxyHeader::NeedMore);
    };
    let line = std::str::from_utf8(seen.get(V1_PREFIX.len()..end)?).ok()?;
    let mut words = line.split(' ');
    let ends = match words.next()? {
        "UNKNOWN" => None,
        "TCP4" => Some(v1_ends::<Ipv4Addr>(words)?),
        "TCP6" => Some(v1_ends::<Ipv6Addr>(words)?),
        _ => return None,
    };
    let len = end + 2;
    Some(ProxyHeader::Whole { len, ends })
}

/// What `SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT` says.
fn v1_ends<'a, Ip>(mut words: impl Iterator<Item = &'a str>) -> Option<Ends>
where
    Ip: std::str::FromStr + Into<IpAddr>,
{
    let client: Ip = words.next()?.parse().ok()?;
    let server: Ip = words.next()?.parse().ok()?;
    let ends = Ends {
        client: address(client.into(), v1_port(words.next()?)?),
        server: address(server.into(), v1_port(words.next()?)?),
    };
    words.next().is_none().then_some(ends)
}

fn v1_port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok())?
}

/// A balancer with one socket for both families names IPv4 addresses in the form of IPv6.
fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::stream::noise::Noise;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family, len[0], len[1]]);
        header.extend(addresses);
        header
    }

    const PAIR_V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 0x0D, 0x96];

    fn pair_v6() -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let ends = [ip("2001:db8::1"), ip("2001:db8::2")].concat();
        [&ends[..], &[0x13, 0x88, 0x0D, 0x96]].concat()
    }

    /// The header stands alone, before other bytes, and is not taken for whole at any byte before its end.
    #[track_caller]
    fn names(header: &[u8], ends: Option<[&str; 2]>) {
        let whole = ProxyHeader::Whole {
            len: header.len(),
            ends: ends.map(|ends| Ends {
                client: ends[0].parse().unwrap(),
                server: ends[1].parse().unwrap(),
            }),
        };
        assert_eq!(parse(header), whole);
        assert_eq!(parse(&[header, b"\r\n\r\n\0"].concat()), whole);
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), ProxyHeader::NeedMore, "{cut} bytes");
        }
    }

    #[test]
    fn both_versions_name_clients_of_both_families() {
        let v4 = ["192.0.2.1:5000", "198.51.100.1:3478"];
        let v6 = ["[2001:db8::1]:5000", "[2001:db8::2]:3478"];
        names(&v2(0x21, 0x11, &PAIR_V4), Some(v4));
        names(&v2(0x21, 0x21, &pair_v6()), Some(v6));
        names(b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 3478\r\n", Some(v4));
        names(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 3478\r\n",
            Some(v6),
        );
        names(
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 5000 3478\r\n",
            Some(v4),
        );
    }

    #[test]
    fn a_balancer_may_speak_for_itself() {
        names(&v2(0x20, 0x00, &[]), None);
        names(&v2(0x20, 0x11, &PAIR_V4), None);
        names(&v2(0x21, 0x00, &[]), None);
        names(b"PROXY UNKNOWN\r\n", None);
        names(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None);
    }

    #[test]
    fn what_follows_the_addresses_is_skipped() {
        let with_tlvs = [&PAIR_V4[..], &[0x04, 0, 200], &[0; 200]].concat();
        let ends = ["192.0.2.1:5000", "198.51.100.1:3478"];
        names(&v2(0x21, 0x11, &with_tlvs), Some(ends));
    }

    #[test]
    fn other_families_versions_and_commands_are_invalid() {
        for (command, family) in [
            (0x21, 0x12),
            (0x21, 0x22),
            (0x21, 0x31),
            (0x21, 0x41),
            (0x22, 0x11),
            (0x11, 0x11),
        ] {
            let header = v2(command, family, &pair_v6());
            assert_eq!(parse(&header), ProxyHeader::Invalid, "{command} {family}");
        }
        assert_eq!(parse(&v2(0x21, 0x11, &PAIR_V4[1..])), ProxyHeader::Invalid);
        assert_eq!(parse(&v2(0x21, 0x21, &PAIR_V4)), ProxyHeader::Invalid);
        for line in [
            "PROXY TCP4 2001:db8::1 2001:db8::2 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY \r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), ProxyHeader::Invalid, "{line}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let endless = [&V1_PREFIX[..], &[b'1'; 200]].concat();
        assert_eq!(parse(&endless[..V1_MAX_LEN - 1]), ProxyHeader::NeedMore);
        assert_eq!(parse(&endless[..V1_MAX_LEN]), ProxyHeader::Invalid);
        let huge = v2(0x21, 0x11, &[0; V2_MAX_LEN]);
        assert_eq!(parse(&huge[..V2_FIXED_LEN]), ProxyHeader::Invalid);
    }

    #[test]
    fn no_bytes_confuse_the_parser() {
        let mut noise = Noise::new(1);
        let seeds = [
            v2(0x21, 0x11, &PAIR_V4),
            v2(0x21, 0x21, &pair_v6()),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 3478\r\n".to_vec(),
        ];
        for round in 0..30_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            noise.spoil(&mut bytes);
            if let ProxyHeader::Whole { len, .. } = parse(&bytes) {
                assert!(len <= bytes.len(), "{bytes:?}");
                // The verdict stands on the header alone.
                assert_eq!(parse(&bytes), parse(&bytes[..len]), "{bytes:?}");
            }
        }
    }
}
