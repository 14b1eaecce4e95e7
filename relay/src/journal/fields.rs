//! The fields of a record, as bytes and back.

use std::net::{IpAddr, SocketAddr};

use turnfleet_turn::{CloseReason, Transport};

use super::record::Key;

/// A body that ends early, or holds what it cannot.
#[derive(Debug)]
pub(super) struct Short;

/// What is left of a body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        self.take(N)?.try_into().map_err(|_| Short)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn key(&mut self) -> Result<Key, Short> {
        Ok(Key {
            shard: self.byte()?,
            number: self.u64()?,
        })
    }

    pub(super) fn transport(&mut self) -> Result<Transport, Short> {
        match self.byte()? {
            1 => Ok(Transport::Udp),
            2 => Ok(Transport::Tcp),
            3 => Ok(Transport::Tls),
            _ => Err(Short),
        }
    }

    pub(super) fn address(&mut self) -> Result<SocketAddr, Short> {
        let ip = match self.byte()? {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return Err(Short),
        };
        let port = u16::from_le_bytes(self.array()?);
        Ok(SocketAddr::new(ip, port))
    }
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_key(out: &mut Vec<u8>, key: Key) {
    out.push(key.shard);
    put_u64(out, key.number);
}

pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

pub(super) fn transport_code(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
        Transport::Tls => 3,
    }
}

/// Kept on disks: a code is never given to another reason.
pub(super) fn reason_code(reason: CloseReason) -> u8 {
    match reason {
        CloseReason::Refreshed => 1,
        CloseReason::Expired => 2,
        CloseReason::ClientGone => 3,
        CloseReason::SocketFailed => 4,
        CloseReason::Shutdown => 5,
        CloseReason::Revoked => 6,
        CloseReason::Banned => 7,
    }
}

pub(super) fn reason_of(code: u8) -> Option<CloseReason> {
    CloseReason::ALL
        .into_iter()
        .find(|reason| reason_code(*reason) == code)
}
