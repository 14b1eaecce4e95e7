//! Many datagrams with one system call: `recvmmsg` and `sendmmsg`.
//!
//! A [`ReceiveBatch`] is a row of slots. Each slot has headroom before the datagram, where a ChannelData or Data
//! indication header is written in place, and tail room behind it for padding. A [`SendBatch`] names parts of such a
//! row (or of any other buffer) and where they go; the bytes are borrowed only when the batch is flushed.
//!
//! Every array that the kernel reads or writes is made once. Control messages tell what stands in the IP headers of what
//! comes, and say what shall stand in those of what leaves, where that is not what the socket writes anyway.

#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg take arrays of structures that hold pointers"
)]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_uint, iovec, mmsghdr};
use socket2::SockRef;
use turnfleet_turn::IpMeta;

use super::control::Control;
use super::fixed::Fixed;
use super::ip_options::{self, Standing};
use super::sockaddr::SocketName;

/// Bytes before each datagram: room for the longest header, and a cache line to itself.
pub(crate) const HEADROOM: usize = 64;
/// The longest datagram: more than UDP can carry.
const CAPACITY: usize = 65_536;
/// Bytes behind each datagram for padding to four; a cache line, so that slots begin at different cache sets.
const TAIL_ROOM: usize = 64;
const STRIDE: usize = HEADROOM + CAPACITY + TAIL_ROOM;

fn empty_headers(count: usize) -> Vec<mmsghdr> {
    // SAFETY: mmsghdr is plain data for which all zeros (null pointers, zero lengths) is a valid value.
    vec![unsafe { mem::zeroed() }; count]
}

fn empty_iovecs(count: usize) -> Vec<iovec> {
    let empty = iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    };
    vec![empty; count]
}

/// A row of slots that `recvmmsg` fills.
pub struct ReceiveBatch {
    bytes: Fixed<u8>,
    names: Fixed<SocketName>,
    controls: Fixed<Control>,
    headers: Fixed<mmsghdr>,
    /// Pointed to by `headers`; never read from here.
    _iovecs: Fixed<iovec>,
}

impl ReceiveBatch {
    /// A row of `slots`, untouched memory until datagrams arrive.
    pub fn new(slots: usize) -> Self {
        let bytes = Fixed::new(vec![0; slots * STRIDE]);
        let names = Fixed::new(vec![SocketName::empty(); slots]);
        let controls = Fixed::new(vec![Control::empty(); slots]);
        let mut iovecs = Fixed::new(empty_iovecs(slots));
        let mut headers = Fixed::new(empty_headers(slots));
        for slot in 0..slots {
            iovecs[slot].iov_base = bytes.at(Self::start(slot)).cast();
            iovecs[slot].iov_len = CAPACITY;
            let header = &mut headers[slot].msg_hdr;
            header.msg_name = names.at(slot).cast();
            header.msg_iov = iovecs.at(slot);
            header.msg_iovlen = 1;
            header.msg_control = controls.at(slot).cast();
        }
        Self {
            bytes,
            names,
            controls,
            headers,
            _iovecs: iovecs,
        }
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.names.len()
    }

    /// Receives into the slots of `range`, the first ones first; returns how many were filled. Fewer than asked for
    /// means that the socket was empty.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let headers = &mut self.headers[range];
        for header in &mut *headers {
            // The kernel has written the lengths of what it found; it needs the room again.
            header.msg_hdr.msg_namelen = SocketName::MAX_LEN;
            header.msg_hdr.msg_controllen = Control::LEN;
        }
        let count = c_uint::try_from(headers.len()).unwrap_or(c_uint::MAX);
        // SAFETY: each header points to one name, one control room and one iovec of this batch, and each iovec to CAPACITY
        // bytes of its slot; all of them live as long as `self`, which is borrowed mutably. The descriptor is open while
        // borrowed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Where the datagram of `slot` begins in [`ReceiveBatch::bytes`].
    pub const fn start(slot: usize) -> usize {
        slot * STRIDE + HEADROOM
    }

    /// The length of the datagram in `slot`.
    pub fn len(&self, slot: usize) -> usize {
        self.headers[slot].msg_len as usize
    }

    /// Who sent the datagram in `slot`.
    pub fn sender(&self, slot: usize) -> Option<SocketAddr> {
        self.names[slot].address()
    }

    /// What stood in the IP header of the datagram in `slot`.
    pub fn ip(&self, slot: usize) -> IpMeta {
        self.controls[slot].read(self.headers[slot].msg_hdr.msg_controllen)
    }

    /// The datagram in `slot`.
    pub fn datagram(&self, slot: usize) -> &[u8] {
        let start = Self::start(slot);
        &self.bytes[start..start + self.len(slot)]
    }

    /// All slots with their headroom and tail room.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All slots, for headers, padding and answers that are written in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// What became of the datagrams of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that it refused: a full socket buffer, an unreachable network, a datagram too long.
    pub refused: u64,
}

/// One datagram that waits.
struct Outgoing {
    span: Range<usize>,
    to: SocketAddr,
    ip: IpMeta,
}

/// Datagrams on their way out of one socket: parts of one buffer, where they go, and what their IP headers say.
pub struct SendBatch {
    outgoing: Vec<Outgoing>,
    names: Fixed<SocketName>,
    controls: Fixed<Control>,
    iovecs: Fixed<iovec>,
    headers: Fixed<mmsghdr>,
}

impl SendBatch {
    /// An empty batch with room for `capacity` datagrams.
    pub fn new(capacity: usize) -> Self {
        let names = Fixed::new(vec![SocketName::empty(); capacity]);
        let controls = Fixed::new(vec![Control::empty(); capacity]);
        let iovecs = Fixed::new(empty_iovecs(capacity));
        let mut headers = Fixed::new(empty_headers(capacity));
        for (index, header) in headers.iter_mut().enumerate() {
            header.msg_hdr.msg_name = names.at(index).cast();
            header.msg_hdr.msg_iov = iovecs.at(index);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls.at(index).cast();
        }
        Self {
            outgoing: Vec::with_capacity(capacity),
            names,
            controls,
            iovecs,
            headers,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Whether pushing a datagram with `ip` needs a flush before it: the batch is full, or what waits has another DF bit,
    /// which the socket has to be set to.
    pub fn is_full_for(&self, ip: IpMeta) -> bool {
        self.outgoing.len() == self.names.len()
            || self
                .outgoing
                .last()
                .is_some_and(|last| last.ip.dont_fragment != ip.dont_fragment)
    }

    /// Adds the datagram that stands at `span` of the buffer that the next flush will be given.
    ///
    /// # Panics
    /// If the batch is full.
    pub fn push(&mut self, span: Range<usize>, to: SocketAddr, ip: IpMeta) {
        let index = self.outgoing.len();
        let length = self.names[index].set(to);
        self.headers[index].msg_hdr.msg_namelen = length;
        self.outgoing.push(Outgoing { span, to, ip });
    }

    /// Forgets everything and returns how many datagrams that were.
    pub fn discard(&mut self) -> u64 {
        let count = self.outgoing.len() as u64;
        self.outgoing.clear();
        count
    }

    /// Sends everything from `bytes` through `socket` and empties the batch. What the kernel does not take is lost, as
    /// datagrams may be: waiting here would make one slow path hold up every other.
    pub fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        standing: &mut Standing,
        bytes: &[u8],
    ) -> Flushed {
        let Some(last) = self.outgoing.last() else {
            return Flushed::default();
        };
        let (ip, to) = (last.ip, last.to);
        for (index, outgoing) in self.outgoing.iter().enumerate() {
            let part = &bytes[outgoing.span.clone()];
            self.iovecs[index].iov_base = part.as_ptr().cast_mut().cast();
            self.iovecs[index].iov_len = part.len();
            let control = &mut self.controls[index];
            let length = standing.control(outgoing.ip, outgoing.to, control);
            self.headers[index].msg_hdr.msg_controllen = length;
        }
        let flushed = if ip.dont_fragment {
            self.send_unfragmented(socket, to.is_ipv6())
        } else {
            self.send_all(socket)
        };
        self.outgoing.clear();
        standing.follow(socket, ip, to);
        flushed
    }

    /// Sends with DF, which is a setting of the socket.
    fn send_unfragmented(&mut self, socket: BorrowedFd<'_>, is_v6: bool) -> Flushed {
        // An earlier datagram's error would be taken for one of these, of which one too long for the link is told once.
        let _ = SockRef::from(&socket).take_error();
        if ip_options::set_dont_fragment(socket, is_v6, true).is_err() {
            let refused = self.outgoing.len() as u64;
            return Flushed { sent: 0, refused };
        }
        let mut flushed = Flushed::default();
        for index in 0..self.outgoing.len() {
            match self.send(socket, index..index + 1) {
                Ok(_) => flushed.sent += 1,
                Err(_) => flushed.refused += 1,
            }
        }
        // It has just been set, to the value that it is set to again.
        let _ = ip_options::set_dont_fragment(socket, is_v6, false);
        flushed
    }

    fn send_all(&mut self, socket: BorrowedFd<'_>) -> Flushed {
        let count = self.outgoing.len();
        let mut flushed = Flushed::default();
        let mut next = 0;
        let mut tried_again = false;
        while next < count {
            match self.send(socket, next..count) {
                Ok(sent) => {
                    flushed.sent += sent as u64;
                    next += sent;
                    tried_again = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    flushed.refused += (count - next) as u64;
                    break;
                }
                // What the network said about an earlier datagram comes as an error of the next call, once.
                Err(_) if !tried_again => tried_again = true,
                Err(_) => {
                    // The error belongs to the first datagram; the others may still have a way.
                    flushed.refused += 1;
                    next += 1;
                    tried_again = false;
                }
            }
        }
        flushed
    }

    /// One system call. The caller has pointed the iovecs of `range` to memory that is still borrowed.
    fn send(&mut self, socket: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let first = range.start;
        if range.len() == 1 && self.headers[first].msg_hdr.msg_controllen == 0 {
            let part = self.iovecs[first];
            // SAFETY: the name belongs to `self`, the iovec's memory is borrowed by the caller, and the kernel only reads
            // both.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    part.iov_base,
                    part.iov_len,
                    libc::MSG_DONTWAIT,
                    self.names.at(first).cast(),
                    self.headers[first].msg_hdr.msg_namelen,
                )
            };
            return match sent {
                0.. => Ok(1),
                _ => Err(io::Error::last_os_error()),
            };
        }
        let headers = &mut self.headers[range];
        let count = c_uint::try_from(headers.len()).unwrap_or(c_uint::MAX);
        // SAFETY: as above for each entry of the range; the kernel writes only `msg_len` of headers, which `self` owns.
        let sent: c_int = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket) {
        let left = UdpSocket::bind("127.0.0.1:0").unwrap();
        let right = UdpSocket::bind("127.0.0.1:0").unwrap();
        (left, right)
    }

    #[test]
    fn a_flush_arrives_in_order_with_its_senders_address() {
        let (left, right) = pair();
        let to = right.local_addr().unwrap();
        let bytes: Vec<u8> = (0..30).collect();
        let mut send = SendBatch::new(4);
        for start in [0, 10, 20] {
            send.push(start..start + 10, to, IpMeta::default());
        }
        let flushed = send.flush(left.as_fd(), &mut Standing::default(), &bytes);
        assert_eq!(
            flushed,
            Flushed {
                sent: 3,
                refused: 0
            }
        );
        assert!(send.is_empty());

        let mut receive = ReceiveBatch::new(8);
        assert_eq!(receive.receive(right.as_fd(), 2..8).unwrap(), 3);
        for (slot, expected) in [(2, &bytes[..10]), (3, &bytes[10..20]), (4, &bytes[20..])] {
            assert_eq!(receive.datagram(slot), expected);
            assert_eq!(receive.sender(slot), left.local_addr().ok());
        }
        let empty = receive.receive(right.as_fd(), 0..8).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn one_refused_datagram_does_not_hold_up_the_others() {
        let (left, right) = pair();
        let to = right.local_addr().unwrap();
        let bytes = vec![0; 70_000];
        let mut send = SendBatch::new(4);
        send.push(0..10, to, IpMeta::default());
        send.push(0..70_000, to, IpMeta::default());
        send.push(0..10, to, IpMeta::default());
        let flushed = send.flush(left.as_fd(), &mut Standing::default(), &bytes);
        assert_eq!(
            flushed,
            Flushed {
                sent: 2,
                refused: 1
            }
        );
    }

    #[test]
    fn the_longest_datagram_fits_a_slot() {
        let (left, right) = pair();
        left.send_to(&vec![7; 65_507], right.local_addr().unwrap())
            .unwrap();
        let mut receive = ReceiveBatch::new(1);
        assert_eq!(receive.receive(right.as_fd(), 0..1).unwrap(), 1);
        assert_eq!(receive.len(0), 65_507);
    }
}
