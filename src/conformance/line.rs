//! A line to the server: one link, one user, at most one allocation, and every message by hand.
//!
//! Requests are written well and asked, or spoilt and sent. What comes and answers nothing is kept for who waits for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ring::rand::{SecureRandom as _, SystemRandom};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::wire::{
    ChannelData, ChannelNumber, Class, LongTermKey, Message, MessageWriter, Method,
    PasswordAlgorithm, TransactionId,
};
use turnfleet_turn::{AddressFamily, PeerAddr};

use super::answer::Answer;
use super::peer::text_of;
use super::statement::{Outcome, Shortfall, Verdict, failed, skipped};
use crate::link::Link;

/// How long an answer, or data from a peer, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this a request over UDP is sent again (RFC 8489 §6.2.1).
const RETRANSMISSION: Duration = Duration::from_millis(500);
/// REQUESTED-TRANSPORT's number for UDP.
pub(super) const UDP: u8 = 17;

/// Sockets that are kept only so that no other line gets their ports.
pub(super) type Retired = Rc<RefCell<Vec<UdpSocket>>>;

/// One client of the server.
pub(super) struct Line {
    link: Link,
    poll: Poll,
    batch: Rc<RefCell<ReceiveBatch>>,
    /// What came and was no answer.
    unanswering: VecDeque<Vec<u8>>,
    /// Transactions that are over: what else comes for them answers a retransmission.
    answered: Vec<TransactionId>,
    /// Why nothing more can come.
    closed: Option<String>,
    /// Where sockets stay open whose five-tuple had an allocation: servers may remember it for a while.
    retired: Retired,
    /// Its address, as this machine sees it.
    pub(super) local: SocketAddr,
    /// Who it is.
    pub(super) username: String,
    password: String,
    /// The realm that the server named.
    pub(super) realm: String,
    /// The nonce that the server gave last.
    pub(super) nonce: Vec<u8>,
    /// The relayed address of its allocation.
    relayed: Option<SocketAddr>,
}

impl Line {
    /// A line over `link` for a user.
    pub(super) fn new(
        link: Link,
        batch: Rc<RefCell<ReceiveBatch>>,
        retired: Retired,
        (username, password): (String, String),
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let descriptor = link.descriptor();
        poll.registry()
            .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)?;
        Ok(Self {
            local: link.local_address()?,
            link,
            poll,
            batch,
            unanswering: VecDeque::new(),
            answered: Vec::new(),
            closed: None,
            retired,
            username,
            password,
            realm: String::new(),
            nonce: Vec::new(),
            relayed: None,
        })
    }

    /// Asks without credentials, and remembers the realm and the nonce that come back.
    pub(super) fn introduce(&mut self) -> Result<Answer, Shortfall> {
        let answer = self.ask_unsigned(Method::Allocate, |writer| {
            writer.requested_transport(UDP);
        })?;
        answer.refused(401)?;
        self.learn(&answer)?;
        Ok(answer)
    }

    /// Speaks for the user of another line from here on, with the realm and nonce that were given there.
    pub(super) fn speak_for(&mut self, other: &Self) {
        self.username.clone_from(&other.username);
        self.password.clone_from(&other.password);
        self.realm.clone_from(&other.realm);
        self.nonce.clone_from(&other.nonce);
    }

    /// Takes over the realm and nonce of an answer.
    pub(super) fn learn(&mut self, answer: &Answer) -> Result<(), Shortfall> {
        let message = answer.message();
        let (Some(Ok(realm)), Some(Ok(nonce))) = (message.realm(), message.nonce()) else {
            return Err(failed("REALM and NONCE", answer.summary()));
        };
        self.realm = realm.to_owned();
        self.nonce = nonce.to_vec();
        Ok(())
    }

    /// The key of the line's user.
    pub(super) fn key(&self) -> LongTermKey {
        LongTermKey::derive(&self.username, &self.realm, &self.password)
    }

    /// The key of the line's user by another algorithm.
    pub(super) fn key_with(&self, algorithm: PasswordAlgorithm) -> LongTermKey {
        LongTermKey::derive_with(algorithm, &self.username, &self.realm, &self.password)
    }

    /// Asks for an allocation over UDP with more attributes, and remembers it.
    pub(super) fn allocate(
        &mut self,
        more: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<Answer, Shortfall> {
        let answer = self.ask(Method::Allocate, |writer| {
            writer.requested_transport(UDP);
            more(writer);
        })?;
        self.remember(&answer);
        Ok(answer)
    }

    /// Remembers what an answer to an Allocate granted, so that it is given back.
    pub(super) fn remember(&mut self, answer: &Answer) {
        if let Some(Ok(relayed)) = answer.message().xor_relayed_address() {
            self.relayed = Some(relayed);
        }
    }

    /// The relayed address.
    pub(super) fn relayed(&self) -> Result<SocketAddr, Shortfall> {
        self.relayed
            .ok_or_else(|| failed("XOR-RELAYED-ADDRESS", "an allocation without it"))
    }

    /// Installs permissions; a server that refuses this peer on principle lets the statement be skipped.
    pub(super) fn permit(&mut self, peers: &[PeerAddr]) -> Result<Answer, Shortfall> {
        peer_granted(self.try_permit(peers)?)
    }

    /// Asks for permissions.
    pub(super) fn try_permit(&mut self, peers: &[PeerAddr]) -> Result<Answer, Shortfall> {
        self.ask(Method::CreatePermission, |writer| {
            for peer in peers {
                writer.xor_peer_address(*peer);
            }
        })
    }

    /// Binds a channel, as [`Line::permit`] installs a permission.
    pub(super) fn bind(&mut self, number: u16, peer: PeerAddr) -> Result<Answer, Shortfall> {
        peer_granted(self.try_bind(number, peer)?)
    }

    /// Asks for a channel.
    pub(super) fn try_bind(&mut self, number: u16, peer: PeerAddr) -> Result<Answer, Shortfall> {
        self.ask(Method::ChannelBind, |writer| {
            writer.channel_number(ChannelNumber(number));
            writer.xor_peer_address(peer);
        })
    }

    /// Asks for a lifetime of the allocation.
    pub(super) fn refresh(&mut self, seconds: u32) -> Result<Answer, Shortfall> {
        self.ask(Method::Refresh, |writer| {
            writer.lifetime(seconds);
        })
    }

    /// Asks for a lifetime of one family of the allocation.
    pub(super) fn refresh_family(
        &mut self,
        family: AddressFamily,
        seconds: u32,
    ) -> Result<Answer, Shortfall> {
        self.ask(Method::Refresh, |writer| {
            writer.lifetime(seconds).requested_address_family(family);
        })
    }

    /// Deletes the allocation.
    pub(super) fn delete(&mut self) -> Result<Answer, Shortfall> {
        self.refresh(0)
    }

    /// Asks with a request that is signed.
    pub(super) fn ask(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<Answer, Shortfall> {
        let request = self.signed(method, write);
        self.exchange(&request)
    }

    /// Asks with a request without credentials.
    pub(super) fn ask_unsigned(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<Answer, Shortfall> {
        self.exchange(&message(Class::Request, method, write))
    }

    /// A request with `write`'s attributes, the user's credentials and MESSAGE-INTEGRITY.
    pub(super) fn signed(
        &self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        self.signed_by((&self.username, &self.password), method, write)
    }

    /// As [`Line::signed`], by another user.
    pub(super) fn signed_by(
        &self,
        (username, password): (&str, &str),
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        message(Class::Request, method, |writer| {
            write(writer);
            writer
                .username(username)
                .realm(&self.realm)
                .nonce(&self.nonce)
                .integrity(&LongTermKey::derive(username, &self.realm, password));
        })
    }

    /// A Send indication.
    pub(super) fn send_indication(&mut self, peer: PeerAddr, data: &[u8]) -> Result<(), Shortfall> {
        self.send(&message(Class::Indication, Method::Send, |writer| {
            writer.xor_peer_address(peer).data(data);
        }))
    }

    /// A ChannelData message, padded where the transport asks for it.
    pub(super) fn send_channel_data(&mut self, number: u16, data: &[u8]) -> Result<(), Shortfall> {
        let mut bytes = Vec::new();
        let is_stream = matches!(self.link, Link::Stream(_));
        ChannelData::write(ChannelNumber(number), data, is_stream, &mut bytes);
        self.send(&bytes)
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Shortfall> {
        if let Err(error) = self.link.send(bytes) {
            self.closed = Some(format!("{error:#}"));
        }
        Ok(())
    }

    /// Sends a request and waits for its response; over UDP it is sent again while none comes.
    pub(super) fn exchange(&mut self, request: &[u8]) -> Result<Answer, Shortfall> {
        let id = id_of(request);
        self.answered.retain(|answered| *answered != id);
        let began = Instant::now();
        let mut sent_at = began;
        self.send(request)?;
        while began.elapsed() < PATIENCE {
            if let Some(answer) = self.take_answer(id) {
                return Ok(answer);
            }
            if let Some(why) = &self.closed {
                return Err(failed("an answer", why.as_str()));
            }
            if matches!(self.link, Link::Udp(_)) && sent_at.elapsed() >= RETRANSMISSION {
                sent_at = Instant::now();
                self.send(request)?;
            }
            self.wait(RETRANSMISSION)?;
        }
        Err(failed("an answer", format!("none within {PATIENCE:?}")))
    }

    /// Waits for the response to a request that was sent.
    pub(super) fn answer_to(&mut self, request: &[u8]) -> Result<Answer, Shortfall> {
        let id = id_of(request);
        let began = Instant::now();
        while self.closed.is_none() && began.elapsed() < PATIENCE {
            if let Some(answer) = self.take_answer(id) {
                return Ok(answer);
            }
            self.wait(RETRANSMISSION)?;
        }
        Err(failed("an answer", "none"))
    }

    /// The next message that is no response to anything that was asked: data of a peer.
    pub(super) fn hear(&mut self) -> Result<Vec<u8>, Shortfall> {
        let began = Instant::now();
        loop {
            if let Some(message) = self.unanswering.pop_front() {
                return Ok(message);
            }
            if self.closed.is_some() || began.elapsed() >= PATIENCE {
                return Err(failed("data of the peer", "none"));
            }
            self.wait(PATIENCE)?;
        }
    }

    /// Whether the server closes the line.
    pub(super) fn ends(&mut self) -> Result<(), Shortfall> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.closed.is_some() {
                return Ok(());
            }
            self.wait(PATIENCE)?;
        }
        Err(failed("the end of the connection", "none"))
    }

    /// Whether the next data of a peer is `data` in a ChannelData message.
    pub(super) fn hears_on_channel(&mut self, number: u16, data: &[u8]) -> Result<(), Shortfall> {
        let message = self.hear()?;
        let expected = format!("channel {number:#06x}, {}", text_of(data));
        let Ok(heard) = ChannelData::parse(&message) else {
            return Err(failed(expected, "a message that is no ChannelData"));
        };
        let payload = &message[heard.payload.range()];
        if heard.number == ChannelNumber(number) && payload == data {
            return Ok(());
        }
        let seen = format!("channel {:#06x}, {}", heard.number.0, text_of(payload));
        Err(failed(expected, seen))
    }

    /// Whether the next data of a peer is `data` in a Data indication.
    pub(super) fn hears_indication(
        &mut self,
        peer: PeerAddr,
        data: &[u8],
    ) -> Result<(), Shortfall> {
        let bytes = self.hear()?;
        let expected = format!("a Data indication of {}, {}", peer.0, text_of(data));
        let Ok(message) = Message::parse(&bytes) else {
            return Err(failed(expected, "a message that is no STUN"));
        };
        let heard = message.data().map(|span| &bytes[span.range()]);
        let is_data =
            (message.class(), message.method()) == (Class::Indication, Some(Method::Data));
        if is_data && heard == Some(data) && message.xor_peer_address() == Some(Ok(peer)) {
            return Ok(());
        }
        let payload = text_of(heard.unwrap_or_default());
        Err(failed(
            expected,
            format!("{:?}, {payload}", message.xor_peer_address()),
        ))
    }

    /// Keeps listening: the statement is met where nothing comes but answers.
    pub(super) fn quiet(mut self, what: &'static str) -> Verdict {
        Ok(Outcome::MetIfQuiet(Box::new(move || {
            self.wait(Duration::ZERO)?;
            match self.unanswering.front() {
                None => Ok(Outcome::Met),
                Some(bytes) => Err(failed(what, describe(bytes))),
            }
        })))
    }

    /// Takes the response with this transaction id out of what has come.
    fn take_answer(&mut self, id: TransactionId) -> Option<Answer> {
        let mut messages = self.unanswering.iter();
        let place = messages.position(|bytes| answers(bytes) == Some(id))?;
        self.answered.push(id);
        self.unanswering.remove(place).map(Answer)
    }

    /// Takes in what has come; where that is nothing, waits for something.
    fn wait(&mut self, limit: Duration) -> Result<(), Shortfall> {
        let before = self.unanswering.len();
        self.receive();
        if self.unanswering.len() > before || self.closed.is_some() {
            return Ok(());
        }
        let mut events = Events::with_capacity(1);
        match self.poll.poll(&mut events, Some(limit)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.receive();
        Ok(())
    }

    fn receive(&mut self) {
        let Self {
            link,
            batch,
            unanswering,
            answered,
            closed,
            ..
        } = self;
        let each = |bytes: &[u8]| {
            if !answers(bytes).is_some_and(|id| answered.contains(&id)) {
                unanswering.push_back(bytes.to_vec());
            }
        };
        if closed.is_none() {
            let received = link.receive(&mut batch.borrow_mut(), each);
            *closed = received.err().map(|error| format!("{error:#}"));
        }
    }
}

/// Gives an allocation back, so that it counts against nobody: there is no answer to wait for.
impl Drop for Line {
    fn drop(&mut self) {
        if self.relayed.is_none() || self.closed.is_some() {
            return;
        }
        let request = self.signed(Method::Refresh, |writer| {
            writer.lifetime(0);
        });
        // The server may be gone; the allocation then ends by its lifetime.
        let _ = self.link.send(&request);
        if let Link::Udp(socket) = &self.link {
            self.retired.borrow_mut().extend(socket.try_clone());
        }
    }
}

/// A message with attributes, and a transaction id that nothing else has.
pub(super) fn message(
    class: Class,
    method: Method,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, class, method, transaction_id());
    write(&mut writer);
    writer.finish();
    bytes
}

/// A transaction id that nobody can guess (RFC 8489 §5).
pub(super) fn transaction_id() -> TransactionId {
    let mut id = [0; 12];
    SystemRandom::new()
        .fill(&mut id)
        .expect("the system has randomness");
    TransactionId(id)
}

/// The transaction id of a request of ours.
fn id_of(request: &[u8]) -> TransactionId {
    TransactionId(request[8..20].try_into().expect("a request has a header"))
}

/// Which transaction `bytes` is a response of.
fn answers(bytes: &[u8]) -> Option<TransactionId> {
    let message = Message::parse(bytes).ok()?;
    let classes = [Class::SuccessResponse, Class::ErrorResponse];
    classes
        .contains(&message.class())
        .then(|| message.transaction_id())
}

/// Where a server forbids the peer itself, nothing can be said of what it would do with it.
fn peer_granted(answer: Answer) -> Result<Answer, Shortfall> {
    if answer.code() == Some(403) {
        return Err(skipped("the server forbids the peer: give another --peer"));
    }
    answer.granted()?;
    Ok(answer)
}

/// A message that should not have come.
fn describe(bytes: &[u8]) -> String {
    let Ok(message) = Message::parse(bytes) else {
        return text_of(bytes);
    };
    match message.class() {
        Class::SuccessResponse | Class::ErrorResponse => Answer(bytes.to_vec()).summary(),
        Class::Request | Class::Indication => {
            format!("{:?} {:?}", message.class(), message.method())
        }
    }
}
