//! A TURN client on a real socket, shared by the test programs beside this folder.
//!
//! It drives the sans-IO client and blocks: a call sends a request and comes back with what the server answered.

mod credential;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turnfleet_turn::client::{
    AllocateOptions, Allocated, Client, Config, Event, Failure, Input, Redirect,
};
use turnfleet_turn::wire::{ErrorCode, Frame, MAX_FRAME_LEN, deframe};
use turnfleet_turn::{ClientHeader, Instant, PeerAddr, Span, Transport};

pub(crate) use credential::{Credential, unix_now};

/// How long an answer or data may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one look at the socket waits.
const LOOK: Duration = Duration::from_millis(20);

/// A client with at most one allocation.
pub(crate) struct Caller {
    client: Client,
    link: Link,
    began: Clock,
    redirect: Option<Redirect>,
    /// Whether it was granted an allocation that it has not ended.
    holds: bool,
}

enum Link {
    Udp(UdpSocket, SocketAddr),
    Stream(Box<dyn Stream>, Vec<u8>),
}

/// TCP, with TLS or without.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl Caller {
    /// A client of `server` that speaks through `socket`.
    pub(crate) fn udp(socket: UdpSocket, server: SocketAddr, credential: &Credential) -> Self {
        socket.set_read_timeout(Some(LOOK)).unwrap();
        Self::new(Transport::Udp, Link::Udp(socket, server), credential)
    }

    /// A client of the server at the other end of `stream`.
    pub(crate) fn tcp(stream: TcpStream, credential: &Credential) -> Self {
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let link = Link::Stream(Box::new(stream), Vec::new());
        Self::new(Transport::Tcp, link, credential)
    }

    /// The same inside TLS, where the server has a certificate of `ca` for `name`.
    #[track_caller]
    pub(crate) fn tls(
        mut stream: TcpStream,
        name: &str,
        ca: &Path,
        credential: &Credential,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let link = Link::Stream(Box::new(StreamOwned::new(tls, stream)), Vec::new());
        Self::new(Transport::Tls, link, credential)
    }

    fn new(transport: Transport, link: Link, credential: &Credential) -> Self {
        static CALLERS: AtomicU64 = AtomicU64::new(0);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&CALLERS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let client = Client::new(Config {
            transport,
            username: credential.username.clone(),
            password: credential.password.clone(),
            // A client of RFC 8489 by streams, one of RFC 5389 by datagrams.
            password_algorithms: transport.is_stream(),
            seed,
        });
        Self {
            client,
            link,
            began: Clock::now(),
            redirect: None,
            holds: false,
        }
    }

    /// Where the server has sent this client instead of granting an allocation.
    pub(crate) fn redirect(&self) -> Option<&Redirect> {
        self.redirect.as_ref()
    }

    /// Keeps the allocation.
    #[track_caller]
    pub(crate) fn refresh(&mut self) -> Result<(), ErrorCode> {
        // A client that has lived for minutes has kept its channels alive by itself, and tells of that, too.
        while self.client.poll_event().is_some() {}
        self.client.refresh(self.now(), 600).unwrap();
        loop {
            if let Event::Refreshed { .. } = self.answer()? {
                return Ok(());
            }
        }
    }

    /// The allocation that the server grants, or the code with which it refuses.
    #[track_caller]
    pub(crate) fn allocate(&mut self, options: AllocateOptions) -> Result<Allocated, ErrorCode> {
        self.client.allocate(self.now(), options).unwrap();
        let Event::Allocated(allocated) = self.answer()? else {
            panic!("no answer to an Allocate");
        };
        Ok(allocated)
    }

    /// What the server says to an Allocate request; `None` where it says nothing within `limit`.
    pub(crate) fn try_allocate(&mut self, limit: Duration) -> Option<Result<Allocated, ErrorCode>> {
        let options = AllocateOptions::default();
        self.client.allocate(self.now(), options).unwrap();
        match self.answer_within(limit)? {
            Ok(Event::Allocated(allocated)) => Some(Ok(allocated)),
            Ok(_) => None,
            Err(code) => Some(Err(code)),
        }
    }

    /// Ends the allocation.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Result<(), ErrorCode> {
        self.holds = false;
        self.client.refresh(self.now(), 0).unwrap();
        self.answer().map(drop)
    }

    /// Installs a permission for the IP address of `peer`.
    #[track_caller]
    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Result<(), ErrorCode> {
        let peers = [PeerAddr(peer)];
        self.client.create_permission(self.now(), &peers).unwrap();
        let Event::PermissionCreated { .. } = self.answer()? else {
            panic!("no answer to a CreatePermission");
        };
        Ok(())
    }

    /// Binds a channel to `peer`.
    #[track_caller]
    pub(crate) fn bind(&mut self, peer: SocketAddr) -> Result<(), ErrorCode> {
        self.client
            .bind_channel(self.now(), PeerAddr(peer))
            .unwrap();
        let Event::ChannelBound { .. } = self.answer()? else {
            panic!("no answer to a ChannelBind");
        };
        Ok(())
    }

    /// Sends data to `peer`: through its channel where it has one, else in a Send indication.
    #[track_caller]
    pub(crate) fn send(&mut self, peer: SocketAddr, data: &str) {
        let peer = PeerAddr(peer);
        let mut buffer = vec![0; ClientHeader::MAX_LEN + data.len() + ClientHeader::MAX_PADDING];
        let payload = Span {
            start: ClientHeader::MAX_LEN,
            len: data.len(),
        };
        buffer[payload.range()].copy_from_slice(data.as_bytes());
        let message = match self.client.channel_to(peer) {
            Some(number) => self.client.write_channel_data(number, &mut buffer, payload),
            None => self
                .client
                .write_send_indication(peer, &mut buffer, payload),
        };
        self.link.send(&buffer[message.unwrap().range()]);
    }

    /// The next data from a peer, and who it was.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> (SocketAddr, String) {
        let began = Clock::now();
        while began.elapsed() < LIMIT {
            if let Some(heard) = self.turn() {
                return heard;
            }
        }
        panic!("no data within {LIMIT:?}")
    }

    /// What became of the latest request.
    #[track_caller]
    fn answer(&mut self) -> Result<Event, ErrorCode> {
        let answer = self.answer_within(LIMIT);
        answer.unwrap_or_else(|| panic!("no answer within {LIMIT:?}"))
    }

    fn answer_within(&mut self, limit: Duration) -> Option<Result<Event, ErrorCode>> {
        let began = Clock::now();
        while began.elapsed() < limit {
            self.turn();
            match self.client.poll_event() {
                Some(Event::Failed {
                    why: Failure::Refused(code),
                    ..
                }) => return Some(Err(code)),
                Some(Event::Redirected(redirect)) => {
                    self.redirect = Some(redirect);
                    return Some(Err(ErrorCode::TRY_ALTERNATE));
                }
                Some(Event::PeerError { .. }) | None => {}
                Some(other) => {
                    self.holds |= matches!(other, Event::Allocated(_));
                    return Some(Ok(other));
                }
            }
        }
        None
    }

    /// Sends what waits and takes in one message, where one comes soon: data, and who it is from.
    pub(crate) fn turn(&mut self) -> Option<(SocketAddr, String)> {
        self.client.handle_timeout(self.now());
        let mut message = Vec::new();
        while self.client.poll_transmit(&mut message) {
            self.link.send(&message);
            message.clear();
        }
        let message = self.link.receive()?;
        match self.client.handle_input(self.now(), &message) {
            Input::Data { peer, payload, .. } => {
                Some((peer.0, String::from_utf8(payload.to_vec()).unwrap()))
            }
            Input::Response | Input::Ignored => None,
        }
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.began.elapsed())
    }
}

/// Says goodbye by UDP, without waiting for an answer: whoever gets the port next would be refused while the allocation lives.
impl Drop for Caller {
    fn drop(&mut self) {
        let Link::Udp(socket, server) = &self.link else {
            return;
        };
        if !self.holds || self.client.refresh(self.now(), 0).is_err() {
            return;
        }
        let mut message = Vec::new();
        while self.client.poll_transmit(&mut message) {
            let _ = socket.send_to(&message, *server);
            message.clear();
        }
    }
}

impl Link {
    fn send(&mut self, message: &[u8]) {
        match self {
            Self::Udp(socket, server) => {
                socket.send_to(message, *server).unwrap();
            }
            Self::Stream(stream, _) => {
                stream.write_all(message).unwrap();
                stream.flush().unwrap();
            }
        }
    }

    /// The next message; a datagram must come from the very address that was asked.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        match self {
            Self::Udp(socket, server) => {
                let (len, from) = ready(socket.recv_from(&mut buffer))?;
                assert_eq!(from, *server, "the address that an answer came from");
                Some(buffer[..len].to_vec())
            }
            Self::Stream(stream, unread) => {
                if let Frame::Message { len, total } = deframe(unread, MAX_FRAME_LEN) {
                    let message = unread[..len].to_vec();
                    unread.drain(..total);
                    return Some(message);
                }
                let len = ready(stream.read(&mut buffer))?;
                assert!(len > 0, "the server closed the stream");
                unread.extend_from_slice(&buffer[..len]);
                None
            }
        }
    }
}

/// `None` where nothing came in time.
fn ready<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}
