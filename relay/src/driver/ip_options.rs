//! What a datagram socket tells about the headers that come, and what it writes into those that leave.
//!
//! Common datagrams cost nothing extra: what most of a socket's datagrams have in common is the socket's own setting,
//! and only the others carry control messages.

#![expect(unsafe_code, reason = "setsockopt reads its value through a pointer")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};
use socket2::SockRef;
use turnfleet_turn::IpMeta;

use super::control::Control;

/// Asks for the TTL and type of service of each datagram that comes, and lets datagrams be fragmented that leave. A system
/// that refuses either has the alternate behaviour of RFC 8656 §13 and §14.
pub fn prepare(socket: BorrowedFd<'_>, is_v6: bool) {
    let told = if is_v6 {
        [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS]
    } else {
        [libc::IP_RECVTTL, libc::IP_RECVTOS]
    };
    for option in told {
        let _ = set(socket, is_v6, option, 1);
    }
    let _ = set_dont_fragment(socket, is_v6, false);
}

/// Lets the kernel keep what the network says about datagrams that the socket has sent (RFC 8656 §11.5).
///
/// # Errors
/// When the system has no such option.
pub fn keep_errors(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    let option = if is_v6 {
        libc::IPV6_RECVERR
    } else {
        libc::IP_RECVERR
    };
    set(socket, is_v6, option, 1)
}

/// Whether nobody may fragment the datagrams that leave from here on.
///
/// IPv4 with DF ignores what the kernel believes of the path's MTU, so that every probe of a client goes out (RFC 8656
/// §3.7). Without DF it is IP_PMTUDISC_OMIT and not IP_PMTUDISC_DONT, with which the kernel would throw "fragmentation
/// needed" away; both let it fragment what is longer than the link. IPv6 is fragmented by its sender only, so there the
/// kernel goes by the path's MTU.
///
/// # Errors
/// When the system has no such option.
pub fn set_dont_fragment(
    socket: BorrowedFd<'_>,
    is_v6: bool,
    dont_fragment: bool,
) -> io::Result<()> {
    let (option, value) = match (is_v6, dont_fragment) {
        (false, false) => (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        (false, true) => (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        (true, false) => (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
        (true, true) => (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    };
    set(socket, is_v6, option, value)
}

/// Whether the system sends datagrams with DF (RFC 8656 §7.2).
pub(crate) fn can_set_dont_fragment() -> bool {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| set_dont_fragment(socket.as_fd(), false, true))
        .is_ok()
}

/// The TTL, or hop limit, of datagrams that a socket sends by itself.
pub(super) fn system_ttl(socket: BorrowedFd<'_>, is_v6: bool) -> Option<u8> {
    let socket = SockRef::from(&socket);
    let ttl = if is_v6 {
        socket.unicast_hops_v6()
    } else {
        socket.ttl_v4()
    };
    u8::try_from(ttl.ok()?).ok()
}

/// What a socket writes into headers where a datagram does not say otherwise. It follows what the datagrams want, so that
/// a socket whose datagrams are all alike needs no control messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Zero for the system's.
    ttl: u8,
    tos: u8,
    /// How many datagrams in a row wanted something else.
    misses: u8,
}

/// After so many datagrams in a row that want something else, the socket is set to what the last of them wanted: the cost
/// of a system call, spread over as many control messages.
const MISSES: u8 = 8;

impl Standing {
    /// Writes the control messages of a datagram to `to` that is to leave with `ip`; returns how many bytes that takes,
    /// and mostly none.
    pub(super) fn control(&mut self, ip: IpMeta, to: SocketAddr, control: &mut Control) -> usize {
        let tos = ip.tos.unwrap_or(0);
        let (ttl, tos) = (
            ip.ttl.filter(|ttl| *ttl != self.ttl),
            (tos != self.tos).then_some(tos),
        );
        if ttl.is_none() && tos.is_none() {
            self.misses = 0;
            return 0;
        }
        self.misses = self.misses.saturating_add(1);
        control.write(to.is_ipv6(), ttl, tos)
    }

    /// Sets the socket to what its last datagram, to `to`, left with, where that is worth it. Called while nothing waits
    /// to be sent by it.
    pub(super) fn follow(&mut self, socket: BorrowedFd<'_>, ip: IpMeta, to: SocketAddr) {
        if self.misses < MISSES {
            return;
        }
        self.misses = 0;
        let (ttl_option, tos_option) = if to.is_ipv6() {
            (libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS)
        } else {
            (libc::IP_TTL, libc::IP_TOS)
        };
        let wanted = [
            (ttl_option, ip.ttl, &mut self.ttl),
            (tos_option, Some(ip.tos.unwrap_or(0)), &mut self.tos),
        ];
        for (option, value, standing) in wanted {
            if let Some(value) = value.filter(|value| value != standing)
                && set(socket, to.is_ipv6(), option, c_int::from(value)).is_ok()
            {
                *standing = value;
            }
        }
    }
}

fn set(socket: BorrowedFd<'_>, is_v6: bool, option: c_int, value: c_int) -> io::Result<()> {
    const LEN: socklen_t = 4;
    let level = if is_v6 {
        libc::IPPROTO_IPV6
    } else {
        libc::IPPROTO_IP
    };
    // SAFETY: the descriptor is open while borrowed, and the kernel reads four bytes of `value`, which is an `int`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            LEN,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
