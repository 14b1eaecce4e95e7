//! One client's way to a TURN server: a UDP socket, or a stream with or without TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::Transport;
use turnfleet_turn::wire::{Frame, MAX_FRAME_LEN, deframe};

use crate::target::Target;

/// Bytes that may wait for a slow server on one stream; a packet that finds no room is not sent.
const UNSENT_MAX: usize = 256 * 1024;

/// Opens links to one server.
pub(crate) struct Opener {
    server: SocketAddr,
    transport: Transport,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Opener {
    /// Resolves `target`, and for TLS reads the CA that its certificate is checked against.
    pub(crate) fn new(target: &Target, ca: Option<&Path>) -> Result<Self> {
        let transport = target.transport();
        let tls = match transport {
            Transport::Udp | Transport::Tcp => None,
            Transport::Tls => {
                let ca =
                    ca.context("--ca FILE is needed to check the certificate of a turns: server")?;
                let name = ServerName::try_from(target.host())?;
                Some((trust(ca)?, name))
            }
        };
        Ok(Self {
            server: target.address()?,
            transport,
            tls,
        })
    }

    /// One more link.
    pub(crate) fn open(&self) -> Result<Link> {
        match self.transport {
            Transport::Udp => Link::udp(self.server),
            Transport::Tcp | Transport::Tls => Link::stream(self.server, self.tls.as_ref()),
        }
    }
}

fn trust(ca: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca);
    for certificate in certificates.with_context(|| format!("--ca {}", ca.display()))? {
        roots.add(certificate.with_context(|| format!("--ca {}", ca.display()))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A connected way to the server.
pub(crate) enum Link {
    /// One datagram is one message.
    Udp(UdpSocket),
    /// Messages one after the other.
    Stream(Box<Stream>),
}

impl Link {
    /// A UDP socket that sends to `server` and hears nobody else.
    fn udp(server: SocketAddr) -> Result<Self> {
        let any: SocketAddr = if server.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
        socket
            .connect(server)
            .with_context(|| format!("cannot reach {server}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self::Udp(socket))
    }

    /// A TCP connection to `server`, with TLS where `tls` names the host and whom to trust.
    fn stream(
        server: SocketAddr,
        tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&server, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {server}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let tls = match tls {
            Some((config, name)) => Some(ClientConnection::new(Arc::clone(config), name.clone())?),
            None => None,
        };
        Ok(Self::Stream(Box::new(Stream {
            socket,
            tls,
            unread: Vec::new(),
            unsent: Vec::new(),
        })))
    }

    /// The descriptor to wait on.
    pub(crate) fn descriptor(&self) -> RawFd {
        match self {
            Self::Udp(socket) => socket.as_raw_fd(),
            Self::Stream(stream) => stream.descriptor(),
        }
    }

    /// Its own address, as this machine sees it.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Stream(stream) => stream.socket.local_addr(),
        }
    }

    /// Sends one message; `false` where there was no room for it, or a UDP network refused it.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<bool> {
        match self {
            Self::Udp(socket) => Ok(socket.send(message).is_ok()),
            Self::Stream(stream) => stream.send(message),
        }
    }

    /// Hands everything that has come to `each`, message by message.
    pub(crate) fn receive(
        &mut self,
        batch: &mut ReceiveBatch,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        let socket = match self {
            Self::Udp(socket) => socket,
            Self::Stream(stream) => return stream.receive(each),
        };
        loop {
            let slots = batch.slots();
            // An error here is an ICMP message about an earlier packet, or that nothing waits.
            let Ok(received) = batch.receive(socket.as_fd(), 0..slots) else {
                return Ok(());
            };
            for slot in 0..received {
                each(batch.datagram(slot));
            }
            if received < slots {
                return Ok(());
            }
        }
    }
}

/// A byte stream of messages.
pub(crate) struct Stream {
    socket: TcpStream,
    tls: Option<ClientConnection>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Stream {
    /// The descriptor to wait on.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Writes some of `bytes`, which are no messages, and returns how many; zero where there is no room.
    pub(crate) fn write_some(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.tls.is_none() && self.unsent.is_empty() {
            return match self.socket.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                other => other.context("the server closed a stream"),
            };
        }
        self.flush()?;
        if !self.unsent.is_empty() {
            return Ok(0);
        }
        let written = match &mut self.tls {
            Some(tls) => tls.writer().write(bytes)?,
            None => 0,
        };
        self.flush()?;
        Ok(written)
    }

    /// Reads some bytes that are no messages, and returns how many: zero at the end of the stream, `None` where nothing
    /// waits.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        loop {
            let read = match &mut self.tls {
                None => self.socket.read(buffer),
                Some(tls) => tls.reader().read(buffer),
            };
            match (read, &mut self.tls) {
                (Ok(count), _) => return Ok(Some(count)),
                (Err(error), Some(tls)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match tls.read_tls(&mut self.socket) {
                        Ok(_) => {
                            tls.process_new_packets()?;
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                        Err(error) => return Err(error).context("cannot read from a stream"),
                    }
                }
                (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                (Err(error), _) => return Err(error).context("cannot read from a stream"),
            }
        }
    }

    fn send(&mut self, message: &[u8]) -> Result<bool> {
        let room = self.unsent.len() + message.len() <= UNSENT_MAX;
        if room {
            match &mut self.tls {
                Some(tls) => tls.writer().write_all(message)?,
                None => self.unsent.extend_from_slice(message),
            }
        }
        self.flush()?;
        Ok(room)
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.unsent)?;
            }
        }
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the server closed a stream"),
            }
        }
        Ok(())
    }

    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let open = self.read()?;
        let mut start = 0;
        while let Frame::Message { len, total } = deframe(&self.unread[start..], MAX_FRAME_LEN) {
            each(&self.unread[start..start + len]);
            start += total;
        }
        self.unread.drain(..start);
        anyhow::ensure!(open, "the server closed a stream");
        self.flush()
    }

    /// Reads until nothing waits; `false` at the end of the stream.
    fn read(&mut self) -> Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = match &mut self.tls {
                Some(tls) => tls.read_tls(&mut self.socket),
                None => self.socket.read(&mut chunk),
            };
            let read = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error).context("cannot read from a stream"),
            };
            if let Some(tls) = &mut self.tls {
                let waiting = tls.process_new_packets()?.plaintext_bytes_to_read();
                let filled = self.unread.len();
                self.unread.resize(filled + waiting, 0);
                tls.reader().read_exact(&mut self.unread[filled..])?;
            } else {
                self.unread.extend_from_slice(&chunk[..read]);
            }
            if read == 0 {
                return Ok(false);
            }
        }
    }
}
