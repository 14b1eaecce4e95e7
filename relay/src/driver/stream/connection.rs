//! One client's TCP connection, with or without TLS on it: bytes in, whole messages out.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::ServerConnection;
use turnfleet_turn::FiveTuple;
#[cfg(test)]
use turnfleet_turn::Instant;

use super::opening::Opening;
use super::outgoing::{BufferPool, Outgoing};
use super::strangers::Stranger;

/// Bytes that may wait to be written to a client that has not had an allocation yet: a few answers, and no more memory than
/// its own longest message takes.
const STRANGER_OUTGOING: usize = 4 << 10;

/// What carries the messages on the connection.
pub(crate) enum Carrier {
    /// The TCP stream itself.
    Plain,
    /// TLS, whose own buffers are bounded by rustls.
    Tls(Box<ServerConnection>),
}

/// One client's stream.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    /// Whose stream it is; final once its beginning is over.
    pub(crate) client: FiveTuple,
    /// What is awaited before the first message; `None` once messages are read.
    pub(super) opening: Option<Opening>,
    pub(crate) carrier: Carrier,
    /// The beginning of a message whose rest has not arrived.
    pub(crate) partial: Vec<u8>,
    pub(crate) outgoing: Outgoing,
    /// Bytes that may wait to be written: few until the client has its first allocation.
    pub(super) outgoing_bound: usize,
    /// How long the stream may live without an allocation; `None` while it has one.
    pub(crate) stranger: Option<Stranger>,
    /// Whether the client has closed its side: reading goes on until its end is seen.
    pub(crate) hung_up: bool,
    /// Whether TLS has seen the client's goodbye.
    pub(crate) ended: bool,
    /// Whether TLS was told to say goodbye.
    pub(crate) goodbye: bool,
    /// Whether the kernel takes no more for the time being; an event will say when it does.
    pub(crate) blocked: bool,
    /// Whether the stream stands in the list of those to be written to.
    pub(crate) dirty: bool,
    /// Whether the stream stands in the shard's ready list.
    pub(crate) queued: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Unread bytes at the beginning of the buffer, the partial message included.
    pub(crate) len: usize,
    /// Whether the kernel may hold more.
    pub(crate) more: bool,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The client closed it, or the network did.
    Closed,
    /// Its TLS session failed.
    Tls,
}

impl Connection {
    /// A stream whose beginning is awaited.
    pub(super) fn new(
        socket: TcpStream,
        client: FiveTuple,
        opening: Opening,
        stranger: Stranger,
    ) -> Self {
        Self {
            socket,
            client,
            opening: Some(opening),
            carrier: Carrier::Plain,
            partial: Vec::new(),
            outgoing: Outgoing::default(),
            outgoing_bound: STRANGER_OUTGOING,
            stranger: Some(stranger),
            hung_up: false,
            ended: false,
            goodbye: false,
            blocked: false,
            dirty: false,
            queued: false,
        }
    }

    /// A stream of `client` that has an allocation.
    #[cfg(test)]
    pub(crate) fn opened(socket: TcpStream, client: FiveTuple) -> Self {
        let opening = Opening {
            acceptor: 0,
            awaits_header: false,
        };
        let stranger = Stranger {
            since: Instant(0),
            until: Instant(0),
            source: None,
        };
        Self {
            opening: None,
            stranger: None,
            ..Self::new(socket, client, opening, stranger)
        }
    }

    /// Moves the partial message to the beginning of `unread` and reads behind it, deciphering through `ciphertext`. What
    /// stands in `unread` is the caller's from here on: [`Connection::keep`] takes back what is no whole message.
    pub(crate) fn read(
        &mut self,
        unread: &mut [u8],
        ciphertext: &mut [u8],
    ) -> Result<Arrived, StreamEnd> {
        if self.ended {
            return Err(StreamEnd::Closed);
        }
        let partial = std::mem::take(&mut self.partial);
        let held = partial.len();
        unread[..held].copy_from_slice(&partial);
        let room = &mut unread[held..];
        let (plain, count, filled) = match &mut self.carrier {
            Carrier::Plain => {
                let count = read_some(&mut self.socket, room)?;
                (count, count, count == room.len())
            }
            Carrier::Tls(tls) => {
                let count = read_some(&mut self.socket, ciphertext)?;
                let deciphered = decipher(tls, &ciphertext[..count], room);
                if deciphered.is_err() {
                    // rustls has an alert to send that tells the client why.
                    let _ = tls.write_tls(&mut self.socket);
                }
                let (plain, ended) = deciphered?;
                self.ended = ended;
                (plain, count, count == ciphertext.len())
            }
        };
        Ok(Arrived {
            len: held + plain,
            more: filled || self.ended || (self.hung_up && count > 0),
        })
    }

    /// Keeps the unread beginning of a message until its rest arrives.
    pub(crate) fn keep(&mut self, partial: &[u8]) {
        self.partial = partial.to_vec();
    }

    /// Whether anything waits to be written.
    pub(crate) fn has_output(&self) -> bool {
        let tls = match &self.carrier {
            Carrier::Plain => false,
            Carrier::Tls(tls) => tls.wants_write(),
        };
        tls || !self.outgoing.is_empty()
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, pool: &mut BufferPool) -> Result<(), StreamEnd> {
        while !self.blocked && self.has_output() {
            let written = match &mut self.carrier {
                Carrier::Plain => {
                    let written = self.socket.write(self.outgoing.waiting());
                    if let Ok(count) = written {
                        self.outgoing.advance(count, pool);
                    }
                    written
                }
                Carrier::Tls(tls) => {
                    // What was enciphered before goes first, so that rustls never holds more than one portion.
                    if !tls.wants_write() {
                        let count = tls
                            .writer()
                            .write(self.outgoing.waiting())
                            .map_err(|_| StreamEnd::Tls)?;
                        self.outgoing.advance(count, pool);
                    }
                    if !tls.wants_write() {
                        return Ok(());
                    }
                    tls.write_tls(&mut self.socket)
                }
            };
            match written {
                Ok(0) => return Err(StreamEnd::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(StreamEnd::Closed),
            }
        }
        Ok(())
    }

    /// Says that nothing more will come, once everything is written; `false` where the kernel does not take that yet.
    pub(crate) fn end_output(&mut self) -> bool {
        if let Carrier::Tls(tls) = &mut self.carrier {
            if !self.goodbye {
                self.goodbye = true;
                tls.send_close_notify();
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.blocked = true;
                        return false;
                    }
                    // A client that is gone already needs no word.
                    Err(_) => return true,
                }
            }
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        true
    }

    /// Says goodbye as far as the kernel takes it without waiting. Dropping the connection closes it.
    pub(crate) fn say_goodbye(&mut self, pool: &mut BufferPool) {
        let _ = self.flush(pool);
        if let Carrier::Tls(tls) = &mut self.carrier {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
    }
}

/// Reads once; zero where nothing waits.
pub(crate) fn read_some(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<usize, StreamEnd> {
    loop {
        return match socket.read(buffer) {
            Ok(0) => Err(StreamEnd::Closed),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Err(StreamEnd::Closed),
        };
    }
}

/// Feeds `ciphertext` to the session and collects what it deciphers: how many bytes, and whether they end with the
/// client's goodbye. `room` is larger than `ciphertext` and the one record that the session may hold together.
fn decipher(
    tls: &mut ServerConnection,
    mut ciphertext: &[u8],
    room: &mut [u8],
) -> Result<(usize, bool), StreamEnd> {
    let mut plain = 0;
    while !ciphertext.is_empty() {
        tls.read_tls(&mut ciphertext).map_err(|_| StreamEnd::Tls)?;
        tls.process_new_packets().map_err(|_| StreamEnd::Tls)?;
        loop {
            match tls.reader().read(&mut room[plain..]) {
                Ok(0) => return Ok((plain, true)),
                Ok(count) => plain += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(StreamEnd::Closed),
            }
        }
    }
    Ok((plain, false))
}
