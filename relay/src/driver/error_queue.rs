//! What the network says about datagrams that a socket has sent: the kernel keeps it in the socket's error queue.
//!
//! The queue shares the socket's receive buffer, so whoever asks for it empties it.

#![expect(unsafe_code, reason = "recvmsg takes a structure that holds pointers")]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use turnfleet_turn::AddressFamily;
use turnfleet_turn::wire::Icmp;

use super::control::{Messages, int};
use super::sockaddr::SocketName;

/// Room for the control messages: what the kernel says of the error with the address of who reported it, and what it says
/// of the header that it came with.
#[repr(C, align(8))]
struct Room([u8; 256]);

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// Where it was sent; the port is zero where the kernel does not tell.
    pub to: SocketAddr,
    /// What a router or the peer's host has said, or the own link's limit put as a router would.
    pub icmp: Icmp,
    /// Who has said it; `None` for this machine.
    pub by: Option<IpAddr>,
}

/// Takes the next entry; `None` for one that is no ICMP message.
///
/// # Errors
/// When nothing is left.
pub fn take(socket: BorrowedFd<'_>) -> io::Result<Option<PeerError>> {
    let mut name = SocketName::empty();
    let mut room = Room([0; 256]);
    // SAFETY: msghdr is plain data for which all zeros (null pointers, zero lengths) is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = SocketName::MAX_LEN;
    header.msg_control = (&raw mut room.0).cast();
    header.msg_controllen = room.0.len();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the header points to `name` and `room`, which live until the end of this function, with their lengths; of the
    // datagram itself nothing is asked for. The descriptor is open while borrowed.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    let said = room.0.get(..header.msg_controllen).unwrap_or(&[]);
    Ok(read(&name, said))
}

fn read(name: &SocketName, said: &[u8]) -> Option<PeerError> {
    let to = name.address()?;
    let (level, kind) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let message = Messages::new(said).find(|it| (it.level, it.kind) == (level, kind))?;
    Some(PeerError {
        to,
        icmp: icmp(message.value, AddressFamily::of(to.ip()))?,
        by: said_by(message.value),
    })
}

/// Behind the `sock_extended_err` stands the address of who has sent the ICMP message, or one of no family.
fn said_by(value: &[u8]) -> Option<IpAddr> {
    const AT: usize = 16;
    Some(SocketName::read(value.get(AT..)?).address()?.ip())
}

/// `sock_extended_err`: error 4, origin 1, type 1, code 1, padding 1, information 4.
fn icmp(value: &[u8], family: AddressFamily) -> Option<Icmp> {
    let error = int(value, 0)?;
    let (origin, kind, code) = (*value.get(4)?, *value.get(5)?, *value.get(6)?);
    let data = int(value, 8)?.cast_unsigned();
    match (origin, family) {
        (libc::SO_EE_ORIGIN_ICMP, AddressFamily::V4)
        | (libc::SO_EE_ORIGIN_ICMP6, AddressFamily::V6) => Some(Icmp { kind, code, data }),
        (libc::SO_EE_ORIGIN_LOCAL, _) if error == libc::EMSGSIZE => {
            Some(Icmp::too_big(family, data))
        }
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::driver::ip_options;

    #[track_caller]
    fn error_of(socket: &UdpSocket) -> PeerError {
        let start = Instant::now();
        loop {
            match take(socket.as_fd()) {
                Ok(error) => return error.expect("an ICMP message"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < Duration::from_secs(10), "no error came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_closed_port_is_unreachable() {
        for (ip, kind, code) in [("127.0.0.1:0", 3, 3), ("[::1]:0", 1, 4)] {
            let socket = UdpSocket::bind(ip).unwrap();
            let closed = UdpSocket::bind(ip).unwrap().local_addr().unwrap();
            ip_options::keep_errors(socket.as_fd(), closed.is_ipv6()).unwrap();
            socket.send_to(b"anybody there?", closed).unwrap();
            let error = error_of(&socket);
            let data = 0;
            let icmp = Icmp { kind, code, data };
            let by = Some(closed.ip());
            let to = closed;
            assert_eq!(error, PeerError { to, icmp, by });
            assert!(take(socket.as_fd()).is_err(), "the queue is empty");
        }
    }
}
