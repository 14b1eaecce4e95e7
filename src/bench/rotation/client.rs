//! A TURN client over UDP that the runtime drives.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};
use turnfleet_proto::credentials::EphemeralCredential;
use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Failure};
use turnfleet_turn::wire::ErrorCode;
use turnfleet_turn::{Instant as Moment, Transport};

/// The longest answer.
const MAX_ANSWER: usize = 2048;
/// Before a socket that could not be read is read again.
const PAUSE: Duration = Duration::from_millis(20);
/// Ports that are tried where others hold them at the relay.
const MAX_PORTS: usize = 4;
/// What a Refresh asks for, in seconds.
const LIFETIME: u32 = 600;

/// A client of one relay.
pub(super) struct Caller {
    client: Client,
    socket: UdpSocket,
    began: Instant,
}

/// What an attempt to get an allocation came to, and how many ports were somebody else's.
pub(super) struct Attempt {
    pub(super) result: Result<Caller, Failure>,
    pub(super) occupied_ports: u64,
}

impl Caller {
    /// A client with an allocation. A port that is somebody else's at the relay is left for another (RFC 8656 §7.4).
    ///
    /// # Errors
    /// When this machine gives no socket.
    pub(super) async fn allocate(
        relay: SocketAddr,
        credential: &EphemeralCredential,
    ) -> io::Result<Attempt> {
        let mut occupied = Vec::new();
        loop {
            let mut caller = Self::open(relay, credential).await?;
            let now = caller.now();
            // A client that has asked for nothing yet takes every call.
            let _ = caller.client.allocate(now, AllocateOptions::default());
            let answer = caller.answer().await;
            let mismatch = Err(Failure::Refused(ErrorCode::ALLOCATION_MISMATCH));
            if answer == mismatch && occupied.len() + 1 < MAX_PORTS {
                // Kept, so that the machine does not give the same port again.
                occupied.push(caller);
                continue;
            }
            let occupied_ports = u64::try_from(occupied.len()).unwrap_or(u64::MAX);
            return Ok(Attempt {
                result: answer.map(|()| caller),
                occupied_ports,
            });
        }
    }

    async fn open(relay: SocketAddr, credential: &EphemeralCredential) -> io::Result<Self> {
        let any: IpAddr = match relay {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(relay).await?;
        let client = Client::new(Config {
            transport: Transport::Udp,
            username: credential.username.clone(),
            password: credential.password.clone(),
            // As browsers sign.
            password_algorithms: false,
            seed: crate::random().map_err(io::Error::other)?,
        });
        Ok(Self {
            client,
            socket,
            began: Instant::now(),
        })
    }

    /// Keeps the allocation.
    ///
    /// # Errors
    /// When the relay refuses or does not answer.
    pub(super) async fn refresh(&mut self) -> Result<(), Failure> {
        let _ = self.client.refresh(self.now(), LIFETIME);
        self.answer().await
    }

    /// Ends the allocation.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        let _ = self.client.refresh(self.now(), 0);
        self.answer().await
    }

    /// What became of the latest request.
    async fn answer(&mut self) -> Result<(), Failure> {
        let (mut message, mut buffer) = (Vec::new(), [0; MAX_ANSWER]);
        loop {
            while self.client.poll_transmit(&mut message) {
                // What is lost is sent again.
                let _ = self.socket.send(&message).await;
                message.clear();
            }
            match self.client.poll_event() {
                Some(Event::Allocated(_) | Event::Refreshed { .. }) => return Ok(()),
                Some(Event::Failed { why, .. }) => return Err(why),
                Some(Event::Redirected(_)) => {
                    return Err(Failure::Refused(ErrorCode::TRY_ALTERNATE));
                }
                Some(
                    Event::Bound { .. }
                    | Event::PermissionCreated { .. }
                    | Event::ChannelBound { .. }
                    | Event::Connected { .. }
                    | Event::ConnectionAttempt { .. }
                    | Event::ConnectionBound { .. }
                    | Event::PeerError { .. },
                ) => continue,
                None => {}
            }
            let due = self.client.poll_timeout();
            let due = due.map_or(PAUSE, |due| due.since(self.now()));
            match timeout(due, self.socket.recv(&mut buffer)).await {
                Ok(Ok(len)) => {
                    let now = self.now();
                    self.client.handle_input(now, &buffer[..len]);
                }
                // A relay that is not there; the request is sent again when it is time.
                Ok(Err(_)) => sleep(due.min(PAUSE)).await,
                Err(_) => {}
            }
            let now = self.now();
            self.client.handle_timeout(now);
        }
    }

    fn now(&self) -> Moment {
        Moment::default().after(self.began.elapsed())
    }
}
