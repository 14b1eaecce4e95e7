//! A TURN client without I/O: the other end of the wire for tests, the controller's probe, `doctor` and `bench`.
//!
//! A driver feeds a [`Client`] like this:
//! 1. [`Client::handle_input`] for each datagram, or each message that [`crate::wire::deframe`] finds in the stream;
//! 2. the calls: [`Client::binding`], [`Client::allocate`], [`Client::create_permission`], [`Client::bind_channel`] ...;
//! 3. drain [`Client::poll_transmit`] and send what it writes;
//! 4. drain [`Client::poll_event`];
//! 5. sleep until [`Client::poll_timeout`], then call [`Client::handle_timeout`].
//!
//! The client answers challenges, retransmits, checks that answers are authentic, and keeps its allocation, permissions and
//! channels alive. Data passes through the caller's buffers without copies.
//!
//! It authenticates by the long-term credential mechanism: with [`Config::password_algorithms`] it takes the algorithm that
//! the server prefers, and MESSAGE-INTEGRITY-SHA256 (RFC 8489 §9.2.5); without, MD5 and MESSAGE-INTEGRITY, as a client of
//! RFC 5389 does, which such servers serve too (§9.2.4).

mod event;
mod keepalive;
mod redirections;
mod request;
mod response;
mod transaction;

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

pub use event::{Allocated, Event, Failure, Redirect};
pub use redirections::Redirections;
pub use request::AllocateOptions;

use crate::addr::{PeerAddr, Transport};
use crate::decision::{ClientHeader, Span};
use crate::time::Instant;
use crate::wire::{
    self, ChannelData, ChannelNumber, Class, ConnectionId, Fingerprint, Message, Method,
    TransactionId,
};
use keepalive::Keepalive;
use request::Request;
use transaction::{Signature, Transaction};

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the server is reached: streams need no retransmission, and pad ChannelData.
    pub transport: Transport,
    /// The USERNAME.
    pub username: String,
    /// The password that belongs to it.
    pub password: String,
    /// Whether to take up the password algorithms that a server offers, and to insist on what its nonce says that it offers
    /// (RFC 8489 §9.2.1).
    pub password_algorithms: bool,
    /// Where transaction ids come from: the same seed gives the same ids, so it must differ between clients.
    pub seed: [u8; 32],
}

/// One client of a TURN server: at most one allocation, and the requests that concern it.
pub struct Client {
    transport: Transport,
    username: Box<str>,
    password: Box<str>,
    password_algorithms: bool,
    ids: TransactionIds,
    challenge: Option<Challenge>,
    transactions: Vec<Transaction>,
    keepalive: Keepalive,
    events: VecDeque<Event>,
}

/// What the client made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'p> {
    /// Application data.
    Data {
        /// Who sent it.
        peer: PeerAddr,
        /// The channel that it came on; `None` for a Data indication.
        channel: Option<ChannelNumber>,
        /// What was sent.
        payload: &'p [u8],
    },
    /// An answer that was waited for, or word of a peer's connection: [`Client::poll_event`] and [`Client::poll_transmit`] may have something.
    Response,
    /// Nothing that concerns this client, or nothing that it may believe.
    Ignored,
}

/// Why a call was not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// As many requests wait for their answers as may.
    TooManyRequests,
    /// A CreatePermission names no peer, or more than fit into one datagram.
    PeerCount,
    /// Every channel number is taken.
    NoChannelLeft,
}

/// What the server asked for in a 401 or 438 (RFC 8489 §9.2.5).
struct Challenge {
    realm: Box<str>,
    nonce: Box<[u8]>,
    /// The value of PASSWORD-ALGORITHMS, where one of them was taken.
    algorithms: Option<Box<[u8]>>,
    signature: Signature,
}

/// Draws transaction ids that nobody without the seed can guess.
struct TransactionIds {
    seed: [u8; 32],
    drawn: u64,
}

impl Client {
    /// As many requests may wait for their answers at a time.
    pub const MAX_REQUESTS: usize = 1024;

    /// As many peers may stand in one CreatePermission, so that it stays within a datagram of 1,280 bytes.
    pub const MAX_PEERS_PER_REQUEST: usize = 24;

    /// As many events are kept; beyond it the oldest are lost.
    pub const MAX_EVENTS: usize = 1024;

    /// A client that has said nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            transport: config.transport,
            username: config.username.into_boxed_str(),
            password: config.password.into_boxed_str(),
            password_algorithms: config.password_algorithms,
            ids: TransactionIds {
                seed: config.seed,
                drawn: 0,
            },
            challenge: None,
            transactions: Vec::new(),
            keepalive: Keepalive::default(),
            events: VecDeque::new(),
        }
    }

    /// The allocation, while it lives.
    #[must_use]
    pub fn allocation(&self) -> Option<&Allocated> {
        self.keepalive.allocation()
    }

    /// The channel that is bound to `peer`.
    #[must_use]
    pub fn channel_to(&self, peer: PeerAddr) -> Option<ChannelNumber> {
        self.keepalive.channel_to(peer)
    }

    /// How many requests wait for their answers.
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.transactions.len()
    }

    /// A datagram from the server, or one message deframed from its stream.
    pub fn handle_input<'p>(&mut self, now: Instant, packet: &'p [u8]) -> Input<'p> {
        if let Ok(message) = ChannelData::parse(packet) {
            return match self.keepalive.peer_of(message.number) {
                Some(peer) => Input::Data {
                    peer,
                    channel: Some(message.number),
                    payload: &packet[message.payload.range()],
                },
                None => Input::Ignored,
            };
        }
        let Ok(message) = Message::parse(packet) else {
            return Input::Ignored;
        };
        if message.fingerprint() == Fingerprint::Invalid {
            return Input::Ignored;
        }
        match message.class() {
            Class::Request => Input::Ignored,
            Class::Indication => self.handle_indication(packet, message),
            Class::SuccessResponse | Class::ErrorResponse => {
                if self.handle_response(now, message) {
                    Input::Response
                } else {
                    Input::Ignored
                }
            }
        }
    }

    /// A Data or ConnectionAttempt indication; one from a peer without permission is not believed (RFC 8656 §11.4).
    fn handle_indication<'p>(&mut self, packet: &'p [u8], message: Message<'p>) -> Input<'p> {
        if message.method() == Some(Method::ConnectionAttempt) {
            return self.handle_attempt(message);
        }
        if message.method() != Some(Method::Data) || message.unknown_required().next().is_some() {
            return Input::Ignored;
        }
        match (message.xor_peer_address(), message.data()) {
            (Some(Ok(peer)), Some(data)) if self.keepalive.permits(peer.0.ip()) => Input::Data {
                peer,
                channel: None,
                payload: &packet[data.range()],
            },
            (_, _) => Input::Ignored,
        }
    }

    /// RFC 6062 §4.4.
    fn handle_attempt<'p>(&mut self, message: Message<'_>) -> Input<'p> {
        match (message.xor_peer_address(), message.connection_id()) {
            (Some(Ok(peer)), Some(Ok(connection)))
                if self.keepalive.permits(peer.0.ip())
                    && message.unknown_required().next().is_none() =>
            {
                self.emit(Event::ConnectionAttempt { peer, connection });
                Input::Response
            }
            (_, _) => Input::Ignored,
        }
    }

    /// Time has passed: retransmissions, requests without an answer, and what is to be refreshed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(transaction) = self.transactions.get_mut(index) {
            if transaction.handle_timeout(now) {
                index += 1;
            } else {
                let transaction = self.transactions.swap_remove(index);
                let why = transaction.failure_without_answer();
                self.fail(&transaction.request, why);
            }
        }
        while self.transactions.len() < Self::MAX_REQUESTS {
            let Some(request) = self.keepalive.next_due(now) else {
                break;
            };
            self.start(now, request, 0);
        }
    }

    /// Asks for the own server-reflexive address (RFC 8489 §2).
    pub fn binding(&mut self, now: Instant) -> Result<(), CallError> {
        self.call(now, Request::Binding)
    }

    /// Asks for an allocation (RFC 8656 §7.1).
    pub fn allocate(&mut self, now: Instant, options: AllocateOptions) -> Result<(), CallError> {
        self.call(now, Request::Allocate(options))
    }

    /// Asks for another lifetime in seconds, or with zero for the end of the allocation (RFC 8656 §8.1).
    pub fn refresh(&mut self, now: Instant, lifetime: u32) -> Result<(), CallError> {
        self.call(now, Request::Refresh { lifetime })
    }

    /// Asks for permissions for the IP addresses of `peers` (RFC 8656 §10.1).
    pub fn create_permission(&mut self, now: Instant, peers: &[PeerAddr]) -> Result<(), CallError> {
        if peers.is_empty() || peers.len() > Self::MAX_PEERS_PER_REQUEST {
            return Err(CallError::PeerCount);
        }
        let peers = peers.into();
        self.call(now, Request::CreatePermission { peers })
    }

    /// Asks for a channel to `peer` (RFC 8656 §12.1) and says which number it will have.
    pub fn bind_channel(
        &mut self,
        now: Instant,
        peer: PeerAddr,
    ) -> Result<ChannelNumber, CallError> {
        if self.transactions.len() >= Self::MAX_REQUESTS {
            return Err(CallError::TooManyRequests);
        }
        let number = self
            .keepalive
            .number_for(peer)
            .ok_or(CallError::NoChannelLeft)?;
        self.call(now, Request::ChannelBind { number, peer })?;
        Ok(number)
    }

    /// Asks the server to connect to `peer` (RFC 6062 §4.3).
    pub fn connect(&mut self, now: Instant, peer: PeerAddr) -> Result<(), CallError> {
        self.call(now, Request::Connect { peer })
    }

    /// Claims a connection for the stream of this client (RFC 6062 §4.3), which is another one than that of the allocation.
    pub fn bind_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
    ) -> Result<(), CallError> {
        self.call(now, Request::ConnectionBind { connection })
    }

    /// Writes a ChannelData message around `payload`, in place, and returns its span. The buffer has
    /// [`ClientHeader::MAX_LEN`] bytes before the payload and three behind it; `None` where the room is missing or the
    /// payload is too long.
    #[must_use]
    pub fn write_channel_data(
        &self,
        number: ChannelNumber,
        buffer: &mut [u8],
        payload: Span,
    ) -> Option<Span> {
        let padded = self.transport.is_stream();
        ClientHeader::ChannelData { number, padded }.write(buffer, payload)
    }

    /// Writes a Send indication (RFC 8656 §11.1) around `payload`, as [`Client::write_channel_data`] does.
    #[must_use]
    pub fn write_send_indication(
        &mut self,
        peer: PeerAddr,
        buffer: &mut [u8],
        payload: Span,
    ) -> Option<Span> {
        wire::write_indication(Method::Send, self.ids.draw(), peer, buffer, payload)
    }

    /// Appends the next request to be sent to `out`; `false` where there is none.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(transaction) = self.transactions.iter_mut().find(|it| it.unsent) else {
            return false;
        };
        transaction.unsent = false;
        out.extend_from_slice(&transaction.message);
        true
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let transactions = self.transactions.iter().map(Transaction::due);
        // Where no request can be started, what is to be refreshed waits for one to end.
        let room = self.transactions.len() < Self::MAX_REQUESTS;
        let keepalive = self.keepalive.due().filter(|_| room);
        transactions.chain(keepalive).min()
    }

    fn call(&mut self, now: Instant, request: Request) -> Result<(), CallError> {
        if self.transactions.len() >= Self::MAX_REQUESTS {
            return Err(CallError::TooManyRequests);
        }
        self.start(now, request, 0);
        Ok(())
    }

    /// Writes `request` under a transaction id of its own, signed once the server has asked for it.
    fn start(&mut self, now: Instant, request: Request, retries: u8) {
        let id = self.ids.draw();
        let challenge = self
            .challenge
            .as_ref()
            .filter(|_| request.is_authenticated());
        let message = request.write(id, challenge, &self.username);
        let signed_with = challenge.map(|challenge| challenge.signature.clone());
        let reliable = self.transport.is_stream();
        self.transactions.push(Transaction::new(
            now,
            id,
            request,
            message,
            signed_with,
            retries,
            reliable,
        ));
    }

    fn fail(&mut self, request: &Request, why: Failure) {
        self.keepalive.failed(request);
        self.emit(Event::Failed {
            method: request.method(),
            peer: request.peer(),
            why,
        });
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() == Self::MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("username", &self.username)
            .field("transport", &self.transport)
            .field("transactions", &self.transactions.len())
            .field("keepalive", &self.keepalive)
            .finish_non_exhaustive()
    }
}

impl TransactionIds {
    fn draw(&mut self) -> TransactionId {
        self.drawn += 1;
        let digest = Sha256::new()
            .chain_update(self.seed)
            .chain_update(self.drawn.to_be_bytes())
            .finalize();
        let mut id = [0; 12];
        id.copy_from_slice(&digest[..12]);
        TransactionId(id)
    }
}
