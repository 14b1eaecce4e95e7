//! One client's way to a TURN server: a UDP socket, or a stream with or without TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::Transport;
use turnfleet_turn::wire::{Frame, MAX_FRAME_LEN, deframe};

use crate::knock::knock;
use crate::resolve::Candidate;
use crate::target::Target;

/// Bytes that may wait for a slow server on one stream; a packet that finds no room is not sent.
const UNSENT_MAX: usize = 256 * 1024;

/// How long a server may take to let a connection in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How TLS is spoken with a server, and the name that its certificate is for.
pub(crate) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// Opens links to one server.
pub(crate) struct Opener {
    candidate: Candidate,
    tls: Option<Tls>,
}

impl Opener {
    /// Finds `target`, and for TLS reads the CA that its certificate is checked against. Where there are several ways to
    /// it, it is the first one on which a TURN server answers (RFC 5928 §3).
    pub(crate) fn new(target: &Target, ca: Option<&Path>) -> Result<Self> {
        let openers: Result<Vec<Self>> = target
            .candidates()?
            .into_iter()
            .map(|candidate| Self::of(candidate, target, ca))
            .collect();
        let mut openers = openers?;
        if openers.len() == 1 {
            return Ok(openers.remove(0));
        }
        let mut problems = Vec::new();
        for opener in openers {
            match opener.open().and_then(|mut link| knock(&mut link)) {
                Ok(()) => return Ok(opener),
                Err(error) => {
                    problems.push(format!("  {}: {error:#}", opener.candidate));
                }
            }
        }
        bail!("{target} does not answer:\n{}", problems.join("\n"))
    }

    fn of(candidate: Candidate, target: &Target, ca: Option<&Path>) -> Result<Self> {
        let tls = match candidate.transport {
            Transport::Udp | Transport::Tcp => None,
            Transport::Tls => {
                let ca =
                    ca.context("--ca FILE is needed to check the certificate of a turns: server")?;
                let name = ServerName::try_from(target.host())?;
                Some((trust(ca)?, name))
            }
        };
        Ok(Self { candidate, tls })
    }

    /// What its links speak.
    pub(crate) fn transport(&self) -> Transport {
        self.candidate.transport
    }

    /// Where the server is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.candidate.address
    }

    /// One more link.
    pub(crate) fn open(&self) -> Result<Link> {
        Link::to(self.candidate, self.tls.as_ref(), CONNECT_TIMEOUT)
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
    /// A way to `candidate`, that lets a stream in within `patience`.
    ///
    /// # Errors
    /// When this machine has no way there, or nobody lets a stream in.
    pub(crate) fn to(candidate: Candidate, tls: Option<&Tls>, patience: Duration) -> Result<Self> {
        match candidate.transport {
            Transport::Udp => Self::udp(candidate.address),
            Transport::Tcp | Transport::Tls => Self::stream(candidate.address, tls, patience),
        }
    }

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
    fn stream(server: SocketAddr, tls: Option<&Tls>, patience: Duration) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&server, patience)
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

    /// The socket of a link over UDP.
    pub(crate) fn datagrams(&self) -> Option<&UdpSocket> {
        match self {
            Self::Udp(socket) => Some(socket),
            Self::Stream(_) => None,
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers each request that comes on a stream with an error without attributes.
    fn refuse_everything(listener: TcpListener) {
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut header = [0; 20];
                while stream.read_exact(&mut header).is_ok() {
                    let mut attributes = vec![0; usize::from(header[3])];
                    stream.read_exact(&mut attributes).unwrap();
                    let answer = [&[0x01, 0x13, 0, 0][..], &header[4..]].concat();
                    stream.write_all(&answer).unwrap();
                }
            }
        });
    }

    #[test]
    fn the_first_way_on_which_a_server_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target: Target = format!("turn:{address}").parse().unwrap();
        refuse_everything(listener);
        let opener = Opener::new(&target, None).unwrap();
        assert_eq!(opener.transport(), Transport::Tcp);
    }

    #[test]
    fn where_nobody_answers_every_way_says_why() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let target: Target = format!("turn:{address}").parse().unwrap();
        let Err(error) = Opener::new(&target, None) else {
            panic!("somebody has answered");
        };
        let text = error.to_string();
        for words in ["over udp: no answer within", "over tcp: cannot connect"] {
            assert!(text.contains(words), "{text}");
        }
    }
}
