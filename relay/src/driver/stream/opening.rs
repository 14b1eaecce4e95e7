//! The beginning of a stream: whose it is, whether TLS is on it, and whether it is for TURN at all.
//!
//! Everything is decided on bytes that stay in the kernel's buffer, so that a stranger who sends half of something costs
//! no memory here, and TLS or an HTTPS server behind gets every byte as it came. A stream has a five-tuple, and the core
//! hears of it, only when its beginning is over; that has to be soon.

use std::io::{self, Read as _};
use std::net::SocketAddr;

use mio::Registry;
use mio::net::TcpStream;
use turnfleet_turn::wire::{Frame, deframe};
use turnfleet_turn::{Instant, Transport};

use super::client_hello::{self, Asks, Hello};
use super::connection::{Carrier, StreamEnd};
use super::proxy_protocol::{self, Ends, ProxyHeader};
use super::strangers::Stranger;
use super::{DriverCounters, Streams};
use crate::driver::tls::Inside;
use crate::listeners::Listener;

/// Bytes by which plain TURN is told from anything else: up to the end of the magic cookie.
const STUN_SIGN_LEN: usize = 8;

/// Where a stream stands before its first message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// The listener that it came by.
    pub(super) acceptor: usize,
    /// Whether a PROXY protocol header comes next.
    pub(super) awaits_header: bool,
}

/// What the first bytes of a stream say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NeedMore,
    /// A PROXY protocol header of `len` bytes, and the ends that it names.
    Header {
        len: usize,
        ends: Option<Ends>,
    },
    Plain,
    /// TLS with TURN inside, or with the answer to a challenge.
    Tls(Inside),
    /// TLS for the HTTPS server at this address.
    Https(SocketAddr),
    NoHeader,
    NoTls,
    NoTurn,
}

/// What `seen`, the first unread bytes of a stream, say at `listener`. No message may be longer than `limit`.
fn judge(seen: &[u8], listener: &Listener, awaits_header: bool, limit: usize) -> Verdict {
    if awaits_header {
        return match proxy_protocol::parse(seen) {
            ProxyHeader::NeedMore => Verdict::NeedMore,
            ProxyHeader::Whole { len, ends } => Verdict::Header { len, ends },
            ProxyHeader::Invalid => Verdict::NoHeader,
        };
    }
    let Some(&first) = seen.first() else {
        return Verdict::NeedMore;
    };
    let front = &listener.front;
    let detected = front.detects_tls && client_hello::is_tls(first);
    if listener.transport != Transport::Tls && !detected {
        return judge_plain(seen, first, limit);
    }
    match (client_hello::read(seen), front.https_backend) {
        (Hello::NeedMore, _) => Verdict::NeedMore,
        (Hello::Invalid, _) => Verdict::NoTls,
        (Hello::Whole(Asks::Http), Some(backend)) => Verdict::Https(backend),
        (Hello::Whole(Asks::Stun), _) => Verdict::Tls(Inside::Negotiated),
        (Hello::Whole(Asks::Acme), _) => Verdict::Tls(Inside::Answer),
        (Hello::Whole(Asks::Http | Asks::Nothing), _) => Verdict::Tls(Inside::Anything),
    }
}

fn judge_plain(seen: &[u8], first: u8, limit: usize) -> Verdict {
    // ChannelData needs a channel, and so never comes first.
    let is_stun = first & 0xC0 == 0;
    match deframe(seen, limit) {
        Frame::NeedMore(_) if is_stun && seen.len() < STUN_SIGN_LEN => Verdict::NeedMore,
        Frame::NeedMore(_) | Frame::Message { .. } if is_stun => Verdict::Plain,
        Frame::NeedMore(_) | Frame::Message { .. } | Frame::Garbage => Verdict::NoTurn,
    }
}

impl Streams {
    /// Leads the stream at `index` as far towards its first message as its bytes go; `true` where messages may be read.
    pub(crate) fn open_up(
        &mut self,
        index: usize,
        registry: &Registry,
        now: Instant,
        counters: &mut DriverCounters,
    ) -> bool {
        let limit = self.limits.unauthenticated_message;
        while let Some(connection) = self.connections.at_mut(index) {
            let Some(opening) = connection.opening else {
                return true;
            };
            let listener = &self.acceptors[opening.acceptor].listener;
            let Ok(count) = peek(&connection.socket, &mut self.scratch) else {
                self.close(index);
                return false;
            };
            let seen = &self.scratch[..count];
            match judge(seen, listener, opening.awaits_header, limit) {
                Verdict::NeedMore => {
                    // What is missing would never be seen.
                    if connection.hung_up || count == self.scratch.len() {
                        self.close(index);
                    }
                    return false;
                }
                Verdict::Header { len, ends } => {
                    connection.opening = Some(Opening {
                        awaits_header: false,
                        ..opening
                    });
                    // Behind another balancer there may be another client with the same address.
                    if let Some(Ends { client, server }) = ends {
                        connection.client.client = client;
                        connection.client.server = server;
                    }
                    if connection.socket.read(&mut self.scratch[..len]).ok() == Some(len) {
                        self.learn_source(index, counters);
                    } else {
                        self.close(index);
                    }
                }
                Verdict::Plain => self.begin(index, Transport::Tcp, Some(Carrier::Plain)),
                Verdict::Tls(inside) => {
                    let session = self.tls.as_ref().and_then(|tls| tls.session(inside));
                    let carrier = session.map(|session| Carrier::Tls(Box::new(session)));
                    self.begin(index, Transport::Tls, carrier);
                }
                Verdict::Https(backend) => {
                    self.pass_on(index, backend, registry, now, counters);
                }
                Verdict::NoHeader => {
                    counters.proxy_headers_malformed += 1;
                    self.turn_away(index);
                }
                Verdict::NoTls => {
                    counters.tls_failures += 1;
                    self.turn_away(index);
                }
                Verdict::NoTurn => {
                    counters.streams_malformed += 1;
                    self.turn_away(index);
                }
            }
        }
        false
    }

    /// Counts a stream by the client that its header names.
    fn learn_source(&mut self, index: usize, counters: &mut DriverCounters) {
        let Some(connection) = self.connections.at(index) else {
            return;
        };
        let source = self.source_of(connection.client.client);
        let Some(stranger) = connection.stranger else {
            return;
        };
        self.strangers.remove(index, stranger);
        self.make_room(source, counters);
        let stranger = Stranger { source, ..stranger };
        self.strangers.insert(index, stranger);
        if let Some(connection) = self.connections.at_mut(index) {
            connection.stranger = Some(stranger);
        }
    }

    /// Ends the beginning of a stream: from here on it is the five-tuple's. Without a carrier it is closed.
    fn begin(&mut self, index: usize, transport: Transport, carrier: Option<Carrier>) {
        let (Some(connection), Some(carrier)) = (self.connections.at_mut(index), carrier) else {
            return self.close(index);
        };
        connection.carrier = carrier;
        connection.client.transport = transport;
        connection.opening = None;
        let client = connection.client;
        if let Some(stranger) = &mut connection.stranger {
            self.strangers.remove(index, *stranger);
            stranger.until = stranger.since.after(self.limits.idle);
            self.strangers.insert(index, *stranger);
        }
        self.name(index, client);
    }

    /// Closes a stream that is not what it should be. What it brought is taken first: the client sees an end, no reset.
    fn turn_away(&mut self, index: usize) {
        if let Some(connection) = self.connections.at_mut(index) {
            let _ = connection.socket.read(&mut self.scratch);
        }
        self.close(index);
    }

    /// Gives the stream at `index` to those that are passed on to an HTTPS server.
    fn pass_on(
        &mut self,
        index: usize,
        backend: SocketAddr,
        registry: &Registry,
        now: Instant,
        counters: &mut DriverCounters,
    ) {
        let Some(connection) = self.connections.take(index) else {
            return;
        };
        if let Some(stranger) = connection.stranger {
            self.strangers.remove(index, stranger);
        }
        self.forwards
            .open(connection, backend, registry, now, counters);
    }
}

/// Looks at what waits without taking it; zero where nothing does.
fn peek(socket: &TcpStream, buffer: &mut [u8]) -> Result<usize, StreamEnd> {
    loop {
        return match socket.peek(buffer) {
            Ok(0) => Err(StreamEnd::Closed),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Err(StreamEnd::Closed),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listeners::Front;

    const BINDING: [u8; 20] = [
        0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];

    fn at(transport: Transport, detects_tls: bool, seen: &[u8]) -> Verdict {
        let mut listener = Listener::new(transport, "192.0.2.1:443".parse().unwrap());
        listener.front = Front {
            detects_tls,
            ..Front::default()
        };
        judge(seen, &listener, false, 4096)
    }

    #[test]
    fn a_plain_stream_shows_the_magic_cookie_before_anything_is_kept() {
        for detects_tls in [false, true] {
            for cut in 0..STUN_SIGN_LEN {
                let verdict = at(Transport::Tcp, detects_tls, &BINDING[..cut]);
                assert_eq!(verdict, Verdict::NeedMore);
            }
            for cut in STUN_SIGN_LEN..=BINDING.len() {
                let verdict = at(Transport::Tcp, detects_tls, &BINDING[..cut]);
                assert_eq!(verdict, Verdict::Plain);
            }
        }
    }

    #[test]
    fn what_is_neither_stun_nor_tls_is_told_by_its_first_bytes() {
        for seen in [
            &b"GET / HTTP/1.1"[..],
            b"G",
            &[0x40, 0, 0, 4],
            &[0x80],
            &[0, 1, 0, 0, 0x21, 0x13],
            &[0, 1, 0, 2],
            &[0, 1, 0x20, 0],
        ] {
            for detects_tls in [false, true] {
                let verdict = at(Transport::Tcp, detects_tls, seen);
                assert_eq!(verdict, Verdict::NoTurn, "{seen:?}");
            }
        }
    }

    #[test]
    fn a_client_hello_is_tls_where_tls_is_spoken() {
        let begun = [22, 3, 1, 2, 0, 1];
        assert_eq!(at(Transport::Tcp, true, &begun), Verdict::NeedMore);
        assert_eq!(at(Transport::Tls, false, &begun), Verdict::NeedMore);
        let on_plain = [&begun[..], &[0, 1, 252]].concat();
        assert_eq!(at(Transport::Tcp, false, &on_plain), Verdict::NoTurn);
        assert_eq!(at(Transport::Tcp, true, &[22, 2]), Verdict::NoTls);
        assert_eq!(at(Transport::Tls, false, &BINDING), Verdict::NoTls);
    }
}
