//! Address blocks in CIDR notation.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address block in CIDR notation. The bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text or a pair of values is not an address block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// The part before the slash is no IP address.
    Address(AddrParseError),
    /// The part after the slash is not a number between zero and this many bits.
    Prefix(u8),
    /// The address has bits after the prefix; the block that was probably meant is this one.
    HostBits(Cidr),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => {
                write!(
                    f,
                    "{error}: expected an address block such as 10.0.0.0/8 or fd00::/8"
                )
            }
            Self::Prefix(max) => {
                write!(
                    f,
                    "expected a prefix length between 0 and {max} after the slash"
                )
            }
            Self::HostBits(block) => {
                write!(f, "the address has bits after the prefix: expected {block}")
            }
        }
    }
}

impl std::error::Error for CidrError {}

impl Cidr {
    /// The block of all addresses that share the first `prefix` bits of `address`.
    ///
    /// # Errors
    /// Where the prefix is too long, or bits after it are set.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let bits = Self::host(address).prefix;
        if prefix > bits {
            return Err(CidrError::Prefix(bits));
        }
        let block = Self {
            address: masked(address, prefix),
            prefix,
        };
        if block.address == address {
            Ok(block)
        } else {
            Err(CidrError::HostBits(block))
        }
    }

    /// The block of one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let prefix = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, prefix }
    }

    /// A block of the tables; the bits after the prefix must be zero.
    pub(super) const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let [a, b, c, d] = octets;
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    /// A block of the tables; the bits after the prefix must be zero.
    pub(super) const fn v6(segments: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = segments;
        Self {
            address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)),
            prefix,
        }
    }

    /// The lowest address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits the addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `ip` is in the block. An address of the other family never is, IPv4-mapped ones included.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4() && masked(ip, self.prefix) == self.address
    }
}

/// `address` with the bits after `prefix` cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `address/prefix`, or a bare address as the block of that address.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let host = Self::host(address.parse().map_err(CidrError::Address)?);
        match prefix {
            None => Ok(host),
            // Unlike `u8::from_str`, a prefix length has no sign.
            Some(digits) if digits.starts_with('+') => Err(CidrError::Prefix(host.prefix)),
            Some(digits) => {
                let prefix = digits.parse().map_err(|_| CidrError::Prefix(host.prefix))?;
                Self::new(host.address, prefix)
            }
        }
    }
}
