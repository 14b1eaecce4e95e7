//! Addresses inside attributes: most are hidden from meddling middleboxes by XOR (RFC 8489 §14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::attribute::AttributeError;
use super::{MAGIC_COOKIE, TransactionId};
use crate::addr::AddressFamily;

/// The longest value of an address attribute: an IPv6 address.
pub(super) const MAX_LEN: usize = 20;

/// The mask that hides nothing.
const PLAIN: [u8; 16] = [0; 16];

/// The family with this code (RFC 8489 §14.1).
pub(super) fn family(code: u8) -> Result<AddressFamily, AttributeError> {
    match code {
        0x01 => Ok(AddressFamily::V4),
        0x02 => Ok(AddressFamily::V6),
        _ => Err(AttributeError::Family),
    }
}

/// The code of `family` (RFC 8489 §14.1).
pub(super) fn family_code(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::V4 => 0x01,
        AddressFamily::V6 => 0x02,
    }
}

/// Reads a XOR-MAPPED-ADDRESS and its like.
pub(super) fn read_xor(value: &[u8], id: TransactionId) -> Result<SocketAddr, AttributeError> {
    read(value, mask(id))
}

/// Reads a MAPPED-ADDRESS and its like (RFC 8489 §14.1).
pub(super) fn read_plain(value: &[u8]) -> Result<SocketAddr, AttributeError> {
    read(value, PLAIN)
}

fn read(value: &[u8], mask: [u8; 16]) -> Result<SocketAddr, AttributeError> {
    let [_, code, port_high, port_low, ip @ ..] = value else {
        return Err(AttributeError::Length);
    };
    let ip = match family(*code)? {
        AddressFamily::V4 => {
            let octets: [u8; 4] = ip.try_into().map_err(|_| AttributeError::Length)?;
            IpAddr::V4(Ipv4Addr::from(xor(octets, &mask)))
        }
        AddressFamily::V6 => {
            let octets: [u8; 16] = ip.try_into().map_err(|_| AttributeError::Length)?;
            IpAddr::V6(Ipv6Addr::from(xor(octets, &mask)))
        }
    };
    let port = u16::from_be_bytes(xor([*port_high, *port_low], &mask));
    Ok(SocketAddr::new(ip, port))
}

/// Writes the value of a XOR-MAPPED-ADDRESS and its like into `value` and returns its length: 8 or 20.
pub(super) fn write_xor(
    value: &mut [u8; MAX_LEN],
    address: SocketAddr,
    id: TransactionId,
) -> usize {
    write(value, address, mask(id))
}

/// Writes the value of a MAPPED-ADDRESS and its like into `value` and returns its length: 8 or 20.
pub(super) fn write_plain(value: &mut [u8; MAX_LEN], address: SocketAddr) -> usize {
    write(value, address, PLAIN)
}

fn write(value: &mut [u8; MAX_LEN], address: SocketAddr, mask: [u8; 16]) -> usize {
    value[0] = 0;
    value[1] = family_code(AddressFamily::of(address.ip()));
    value[2..4].copy_from_slice(&xor(address.port().to_be_bytes(), &mask));
    match address.ip() {
        IpAddr::V4(ip) => {
            value[4..8].copy_from_slice(&xor(ip.octets(), &mask));
            8
        }
        IpAddr::V6(ip) => {
            value[4..20].copy_from_slice(&xor(ip.octets(), &mask));
            20
        }
    }
}

/// The cookie and the transaction id: what ports and addresses are combined with, from its first byte on.
fn mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

fn xor<const N: usize>(mut bytes: [u8; N], mask: &[u8; 16]) -> [u8; N] {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    bytes
}
