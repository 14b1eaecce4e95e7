//! One allocation under load: its client, its link, and what is on its way.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::Result;
use turnfleet_turn::client::{Client, Event, Failure, Input};
use turnfleet_turn::wire::{ChannelNumber, ErrorCode, Method};
use turnfleet_turn::{ClientHeader, Instant, PeerAddr, Span};

use super::payload::{Direction, Stamp};
use crate::link::Link;

/// Where the payload stands in the buffer of a message.
const PAYLOAD_AT: usize = ClientHeader::MAX_LEN;
/// Room behind the payload for padding.
const TAIL: usize = 3;

/// The state of one direction of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    /// Payloads sent since the flow was made: the next one's sequence number.
    pub(super) sequence: u64,
    /// Payloads of this round that have neither arrived nor been given up.
    pub(super) on_their_way: u32,
    /// When the last one was sent or arrived, on the clock of the run.
    pub(super) moved_at: u64,
}

/// One allocation, or one association with a plain forwarder.
pub(super) struct Flow {
    /// `None` towards a plain forwarder.
    client: Option<Client>,
    pub(super) link: Link,
    /// Where peers send to so that the client gets it.
    pub(super) relayed: Option<SocketAddr>,
    /// Whom the client sends to, and on which channel.
    channel: Option<ChannelNumber>,
    pub(super) to_peer: Lane,
    pub(super) to_client: Lane,
    buffer: Vec<u8>,
}

/// What became of a message from the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// A payload, with its stamp.
    Payload(Stamp),
    /// Something that should have been a payload.
    Corrupt,
    /// An answer, or nothing of interest.
    Other,
}

impl Flow {
    /// A flow without an allocation. `client` is `None` towards a plain forwarder.
    pub(super) fn new(client: Option<Client>, link: Link, payload_len: usize) -> Self {
        Self {
            client,
            link,
            relayed: None,
            channel: None,
            to_peer: Lane::default(),
            to_client: Lane::default(),
            buffer: vec![0; PAYLOAD_AT + payload_len + TAIL],
        }
    }

    /// The state of `direction`.
    pub(super) fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::ToPeer => &mut self.to_peer,
            Direction::ToClient => &mut self.to_client,
        }
    }

    /// Asks for the allocation.
    pub(super) fn allocate(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            let _ = client.allocate(now, turnfleet_turn::client::AllocateOptions::default());
        }
    }

    /// Asks for a channel to `peer`.
    pub(super) fn bind(&mut self, now: Instant, peer: SocketAddr) {
        if let Some(client) = &mut self.client {
            let _ = client.bind_channel(now, PeerAddr(peer));
        }
    }

    /// Ends the allocation.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            let _ = client.refresh(now, 0);
        }
    }

    /// Whether the client is ready to send to its peer.
    pub(super) fn is_bound(&self) -> bool {
        self.client.is_none() || self.channel.is_some()
    }

    /// Whether the server is a plain forwarder.
    pub(super) fn is_plain(&self) -> bool {
        self.client.is_none()
    }

    /// Lets time pass for the client, and sends what it wants sent.
    pub(super) fn drive(&mut self, now: Instant) -> Result<()> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        if client.poll_timeout().is_some_and(|due| due <= now) {
            client.handle_timeout(now);
        }
        self.transmit()
    }

    fn transmit(&mut self) -> Result<()> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let mut message = Vec::new();
        while client.poll_transmit(&mut message) {
            self.link.send(&message)?;
            message.clear();
        }
        Ok(())
    }

    /// What the client has to tell since the last call; a failed request is told with its reason.
    pub(super) fn poll(&mut self) -> Option<Result<Told, (Method, Failure)>> {
        let client = self.client.as_mut()?;
        loop {
            match client.poll_event()? {
                Event::Allocated(allocated) => {
                    self.relayed = Some(allocated.relayed);
                    return Some(Ok(Told::Allocated));
                }
                Event::ChannelBound { number, .. } => {
                    let first = self.channel.replace(number).is_none();
                    if first {
                        return Some(Ok(Told::Bound));
                    }
                }
                Event::Refreshed { lifetime: 0 } => {
                    self.relayed = None;
                    return Some(Ok(Told::Released));
                }
                Event::Failed { method, why, .. } => return Some(Err((method, why))),
                // The load is for this server: where else it could go does not matter.
                Event::Redirected(_) => {
                    let why = Failure::Refused(ErrorCode::TRY_ALTERNATE);
                    return Some(Err((Method::Allocate, why)));
                }
                Event::Bound { .. }
                | Event::Refreshed { .. }
                | Event::PermissionCreated { .. }
                | Event::Connected { .. }
                | Event::ConnectionAttempt { .. }
                | Event::PeerError { .. }
                | Event::ConnectionBound { .. } => {}
            }
        }
    }

    /// Sends one payload to the peer; `false` where it could not be sent.
    pub(super) fn send_payload(&mut self, stamp: Stamp) -> Result<bool> {
        let len = self.buffer.len() - PAYLOAD_AT - TAIL;
        let payload = Span {
            start: PAYLOAD_AT,
            len,
        };
        stamp.write(&mut self.buffer[payload.range()]);
        let span = match (&self.client, self.channel) {
            (None, _) => payload,
            (Some(client), Some(number)) => {
                let Some(span) = client.write_channel_data(number, &mut self.buffer, payload)
                else {
                    return Ok(false);
                };
                span
            }
            (Some(_), None) => return Ok(false),
        };
        self.link.send(&self.buffer[span.range()])
    }

    /// Takes in everything that came from the server, and notes in `heard` what is of interest.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        batch: &mut turnfleet_relay::datagram::ReceiveBatch,
        heard: &mut VecDeque<Heard>,
    ) -> Result<()> {
        let Self { client, link, .. } = self;
        link.receive(batch, |message| {
            let payload = match client {
                None => Some(message),
                Some(client) => match client.handle_input(now, message) {
                    Input::Data { payload, .. } => Some(payload),
                    Input::Response | Input::Ignored => None,
                },
            };
            heard.push_back(match payload.map(Stamp::verify) {
                None => Heard::Other,
                Some(None) => Heard::Corrupt,
                Some(Some(stamp)) => Heard::Payload(stamp),
            });
        })?;
        self.transmit()
    }
}

/// A step that a client has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The allocation is there.
    Allocated,
    /// The channel is bound for the first time.
    Bound,
    /// The allocation is ended.
    Released,
}
