//! Socket addresses as the kernel lays them out (`sockaddr_in`, `sockaddr_in6`), converted byte by byte: cheap, and
//! without `unsafe`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for one address of either family.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub(crate) struct SocketName {
    bytes: [u8; Self::SIZE],
}

/// `sockaddr_in6`: family 2, port 2, flow label 4, address 16, scope 4.
const V6_LEN: u32 = 28;
/// `sockaddr_in`: family 2, port 2, address 4, zeros 8.
const V4_LEN: u32 = 16;

#[expect(
    clippy::cast_possible_truncation,
    reason = "address families are small constants"
)]
const V4_FAMILY: [u8; 2] = (libc::AF_INET as u16).to_ne_bytes();
#[expect(
    clippy::cast_possible_truncation,
    reason = "address families are small constants"
)]
const V6_FAMILY: [u8; 2] = (libc::AF_INET6 as u16).to_ne_bytes();

impl SocketName {
    /// Bytes of the larger family.
    pub(crate) const SIZE: usize = 28;
    /// The same as the kernel's length type.
    pub(crate) const MAX_LEN: libc::socklen_t = V6_LEN;

    /// An address of no family.
    pub(crate) const fn empty() -> Self {
        Self {
            bytes: [0; Self::SIZE],
        }
    }

    /// The name that stands at the beginning of `bytes`, as far as they go.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut name = Self::empty();
        let len = bytes.len().min(Self::SIZE);
        name.bytes[..len].copy_from_slice(&bytes[..len]);
        name
    }

    /// Writes `address` and returns how many bytes of the name it takes.
    pub(crate) fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        let [port_high, port_low] = address.port().to_be_bytes();
        self.bytes = [0; Self::SIZE];
        self.bytes[2] = port_high;
        self.bytes[3] = port_low;
        match address {
            SocketAddr::V4(v4) => {
                self.bytes[..2].copy_from_slice(&V4_FAMILY);
                self.bytes[4..8].copy_from_slice(&v4.ip().octets());
                V4_LEN
            }
            SocketAddr::V6(v6) => {
                self.bytes[..2].copy_from_slice(&V6_FAMILY);
                self.bytes[8..24].copy_from_slice(&v6.ip().octets());
                self.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                V6_LEN
            }
        }
    }

    /// The address that the kernel wrote; `None` where it wrote none.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let bytes = &self.bytes;
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match [bytes[0], bytes[1]] {
            V4_FAMILY => {
                let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
            }
            V6_FAMILY => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[8..24]);
                let scope = u32::from_ne_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
                let ip = Ipv6Addr::from(octets);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_layout() {
        for text in ["192.0.2.1:3478", "[2001:db8::1]:65535", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = SocketName::empty();
            name.set(address);
            assert_eq!(name.address(), Some(address));
        }
        assert_eq!(SocketName::empty().address(), None);
    }

    #[test]
    fn a_short_address_leaves_nothing_of_a_longer_one() {
        let mut name = SocketName::empty();
        name.set("[2001:db8::1]:1".parse().unwrap());
        assert_eq!(name.set("192.0.2.1:2".parse().unwrap()), V4_LEN);
        assert!(name.bytes[8..].iter().all(|&byte| byte == 0));
    }
}
