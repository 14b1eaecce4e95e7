//! One client of one server, driven step by step: what is asked for comes back as an answer or as the reason for none.
//!
//! Every wait has an end. It knows no check and judges nothing.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::client::{AllocateOptions, Allocated, Client, Config, Event, Failure, Input};
use turnfleet_turn::wire::{Class, ErrorCode, MessageWriter, Method, TransactionId};
use turnfleet_turn::{ClientHeader, Instant as Moment, PeerAddr, Span, Transport};

use crate::link::Link;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Data of peers that nobody has taken yet; what comes beyond it is dropped.
const MAX_HEARD: usize = 256;
/// Datagrams read with one system call.
const SLOTS: usize = 4;
/// Room behind the payload for padding.
const TAIL: usize = 3;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The server has refused.
    Code(ErrorCode),
    /// The server names another one.
    Elsewhere(SocketAddr),
    /// Nothing has come.
    Silent,
    /// What came is no answer, or the way there is broken.
    Broken(String),
}

impl Refusal {
    /// Whether the server does not know the credentials.
    pub(super) fn is_unauthenticated(&self) -> bool {
        *self == Self::Code(ErrorCode::UNAUTHENTICATED)
    }

    fn broken(error: impl fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "the server refuses with {}", code.code()),
            Self::Elsewhere(server) => write!(f, "the server sends clients on to {server}"),
            Self::Silent => f.write_str("no answer comes"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// A client with at most one allocation; it is given back with the value.
pub(super) struct Session {
    client: Client,
    link: Link,
    poll: Poll,
    events: Events,
    batch: ReceiveBatch,
    began: Instant,
    heard: VecDeque<(SocketAddr, Vec<u8>)>,
    is_allocated: bool,
}

impl Session {
    /// A client over `link` that is called `username`.
    pub(super) fn new(
        link: Link,
        transport: Transport,
        (username, password): (String, String),
        password_algorithms: bool,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let descriptor = link.descriptor();
        poll.registry()
            .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)?;
        Ok(Self {
            client: Client::new(Config {
                transport,
                username,
                password,
                password_algorithms,
                seed: crate::random()?,
            }),
            link,
            poll,
            events: Events::with_capacity(4),
            batch: ReceiveBatch::new(SLOTS),
            began: Instant::now(),
            heard: VecDeque::new(),
            is_allocated: false,
        })
    }

    /// Where its packets go.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The own address as the server sees it.
    pub(super) fn binding(&mut self) -> Result<SocketAddr, Refusal> {
        let _ = self.client.binding(self.now());
        self.answer(|event| {
            if let Event::Bound { mapped } = event {
                Some(*mapped)
            } else {
                None
            }
        })
    }

    /// An allocation.
    pub(super) fn allocate(&mut self, options: AllocateOptions) -> Result<Allocated, Refusal> {
        let _ = self.client.allocate(self.now(), options);
        let allocated = self.answer(|event| {
            if let Event::Allocated(allocated) = event {
                Some(allocated.clone())
            } else {
                None
            }
        })?;
        self.is_allocated = true;
        Ok(allocated)
    }

    /// A permission for `peer`.
    pub(super) fn permit(&mut self, peer: IpAddr) -> Result<(), Refusal> {
        let peers = [PeerAddr(SocketAddr::new(peer, 9))];
        let _ = self.client.create_permission(self.now(), &peers);
        self.answer(|event| matches!(event, Event::PermissionCreated { .. }).then_some(()))
    }

    /// Sends data to a peer that has a permission.
    pub(super) fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), Refusal> {
        let mut buffer = vec![0; ClientHeader::MAX_LEN + data.len() + TAIL];
        let payload = Span {
            start: ClientHeader::MAX_LEN,
            len: data.len(),
        };
        buffer[payload.range()].copy_from_slice(data);
        let client = &mut self.client;
        let Some(span) = client.write_send_indication(PeerAddr(peer), &mut buffer, payload) else {
            return Err(Refusal::broken("the data is too long"));
        };
        let sent = self.link.send(&buffer[span.range()]);
        sent.map(drop).map_err(Refusal::broken)
    }

    /// Sends data that nobody may fragment on its way from the server to the peer.
    pub(super) fn send_whole(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), Refusal> {
        let id = TransactionId(crate::random().map_err(Refusal::broken)?);
        let mut message = Vec::new();
        let mut writer = MessageWriter::new(&mut message, Class::Indication, Method::Send, id);
        writer.xor_peer_address(PeerAddr(peer)).dont_fragment();
        writer.data(data);
        writer.finish();
        let sent = self.link.send(&message);
        sent.map(drop).map_err(Refusal::broken)
    }

    /// The next data of a peer that comes before `until`.
    pub(super) fn hear(&mut self, until: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            if Instant::now() >= until || self.step(until).is_err() {
                return None;
            }
        }
    }

    /// What `pick` finds among the events that come in time.
    fn answer<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> Result<T, Refusal> {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.client.poll_event() {
                if let Some(found) = pick(&event) {
                    return Ok(found);
                }
                refusal(event)?;
            }
            if Instant::now() >= until {
                return Err(Refusal::Silent);
            }
            self.step(until)?;
        }
    }

    /// Sends what is to be sent and takes in what comes; waits for something until `until` where there is nothing.
    fn step(&mut self, until: Instant) -> Result<(), Refusal> {
        self.transmit()?;
        if self.receive()? {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        let due = self.client.poll_timeout();
        let due = due.map_or(left, |due| due.since(self.now()).min(left));
        match self.poll.poll(&mut self.events, Some(due)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(Refusal::broken(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.receive()?;
        let now = self.now();
        self.client.handle_timeout(now);
        self.transmit()
    }

    fn transmit(&mut self) -> Result<(), Refusal> {
        let mut message = Vec::new();
        while self.client.poll_transmit(&mut message) {
            let sent = self.link.send(&message);
            sent.map_err(|error| Refusal::Broken(format!("{error:#}")))?;
            message.clear();
        }
        Ok(())
    }

    /// Whether anything has come.
    fn receive(&mut self) -> Result<bool, Refusal> {
        let now = self.now();
        let Self {
            client,
            link,
            batch,
            heard,
            ..
        } = self;
        let mut any = false;
        let received = link.receive(batch, |message| {
            any = true;
            if let Input::Data { peer, payload, .. } = client.handle_input(now, message)
                && heard.len() < MAX_HEARD
            {
                heard.push_back((peer.0, payload.to_vec()));
            }
        });
        match received {
            Err(error) if !any => Err(Refusal::Broken(format!("{error:#}"))),
            Ok(()) | Err(_) => Ok(any),
        }
    }

    fn now(&self) -> Moment {
        Moment::default().after(self.began.elapsed())
    }
}

/// What an event says against going on.
fn refusal(event: Event) -> Result<(), Refusal> {
    match event {
        Event::Failed { why, .. } => Err(match why {
            Failure::Refused(code) => Refusal::Code(code),
            Failure::Timeout => Refusal::Silent,
            Failure::IntegrityViolated => {
                Refusal::broken("the answers are not signed with the password")
            }
            Failure::BidDown => Refusal::broken(
                "somebody on the way takes password algorithms out of what the server offers",
            ),
            Failure::Malformed => Refusal::broken("the answer lacks what it must have"),
        }),
        Event::Redirected(redirect) => Err(redirect.servers.first().map_or_else(
            || Refusal::broken("the server sends clients on to nowhere"),
            |server| Refusal::Elsewhere(*server),
        )),
        Event::Bound { .. }
        | Event::Allocated(_)
        | Event::Refreshed { .. }
        | Event::PermissionCreated { .. }
        | Event::ChannelBound { .. }
        | Event::Connected { .. }
        | Event::ConnectionAttempt { .. }
        | Event::ConnectionBound { .. }
        | Event::PeerError { .. } => Ok(()),
    }
}

/// Gives the allocation back, so that it counts against nobody: there is no answer to wait for.
impl Drop for Session {
    fn drop(&mut self) {
        if self.is_allocated {
            let _ = self.client.refresh(self.now(), 0);
            let _ = self.transmit();
        }
    }
}
