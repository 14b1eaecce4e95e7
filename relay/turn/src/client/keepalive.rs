//! What the client holds at the server, and when to ask for it again so that it does not end.

use std::net::IpAddr;
use std::time::Duration;

use super::Client;
use super::event::{Allocated, Event};
use super::request::Request;
use crate::addr::PeerAddr;
use crate::time::Instant;
use crate::wire::ChannelNumber;

/// How often permissions and channels are asked for again: a permission, also one that came with a channel, lasts five
/// minutes (RFC 8656 §9), and the retransmissions of one request take up to 39.5 seconds of them.
const INTERVAL: Duration = Duration::from_secs(240);

/// The lowest channel number (RFC 8656 §12).
const FIRST_CHANNEL: u16 = 0x4000;

/// How many channel numbers there are (RFC 8656 §12).
const MAX_CHANNELS: u16 = 0x1000;

#[derive(Debug, Default)]
pub(super) struct Keepalive {
    allocation: Option<Allocation>,
    permissions: Vec<Permission>,
    /// Indexed by channel number. A number is never given to another peer.
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Allocation {
    description: Allocated,
    lifetime: u32,
    refresh_at: Instant,
}

#[derive(Debug)]
struct Permission {
    peer: PeerAddr,
    refresh_at: Instant,
}

#[derive(Debug)]
struct Channel {
    peer: PeerAddr,
    /// `None` before the server has bound it, and after it has refused to.
    refresh_at: Option<Instant>,
}

impl Keepalive {
    pub(super) fn allocation(&self) -> Option<&Allocated> {
        self.allocation.as_ref().map(|it| &it.description)
    }

    /// The peer of a bound channel.
    pub(super) fn peer_of(&self, number: ChannelNumber) -> Option<PeerAddr> {
        let index = usize::from(number.0.checked_sub(FIRST_CHANNEL)?);
        let channel = self.channels.get(index)?;
        channel.refresh_at.map(|_| channel.peer)
    }

    pub(super) fn channel_to(&self, peer: PeerAddr) -> Option<ChannelNumber> {
        numbered(&self.channels)
            .find(|(_, channel)| channel.peer == peer && channel.refresh_at.is_some())
            .map(|(number, _)| number)
    }

    /// The number that `peer` has or gets; `None` where all are taken.
    pub(super) fn number_for(&mut self, peer: PeerAddr) -> Option<ChannelNumber> {
        if let Some((number, _)) = numbered(&self.channels).find(|(_, it)| it.peer == peer) {
            return Some(number);
        }
        let index = u16::try_from(self.channels.len()).ok()?;
        if index >= MAX_CHANNELS {
            return None;
        }
        self.channels.push(Channel {
            peer,
            refresh_at: None,
        });
        Some(ChannelNumber(FIRST_CHANNEL + index))
    }

    /// Whether the client believes that `ip` has a permission.
    pub(super) fn permits(&self, ip: IpAddr) -> bool {
        self.permissions.iter().any(|it| it.peer.0.ip() == ip)
            || self
                .channels
                .iter()
                .any(|it| it.refresh_at.is_some() && it.peer.0.ip() == ip)
    }

    pub(super) fn granted(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Allocated(description) => {
                self.allocation = Some(Allocation {
                    lifetime: description.lifetime,
                    refresh_at: half_life(now, description.lifetime),
                    description: description.clone(),
                });
            }
            Event::Refreshed { lifetime: 0 } => *self = Self::default(),
            Event::Refreshed { lifetime } => {
                if let Some(allocation) = &mut self.allocation {
                    allocation.lifetime = *lifetime;
                    allocation.refresh_at = half_life(now, *lifetime);
                }
            }
            Event::PermissionCreated { peers } => {
                for peer in peers {
                    self.permit(now, *peer);
                }
            }
            Event::ChannelBound { number, .. } => {
                if let Some(channel) = self.channel_mut(*number) {
                    channel.refresh_at = Some(now.after(INTERVAL));
                }
            }
            Event::Bound { .. }
            | Event::Connected { .. }
            | Event::ConnectionAttempt { .. }
            | Event::ConnectionBound { .. }
            | Event::Redirected(_)
            | Event::Failed { .. } => {}
        }
    }

    /// What a refusal takes away: the thing that was to be kept.
    pub(super) fn failed(&mut self, request: &Request) {
        match request {
            Request::Binding
            | Request::Allocate(_)
            | Request::Connect { .. }
            | Request::ConnectionBind { .. } => {}
            Request::Refresh { .. } => *self = Self::default(),
            Request::CreatePermission { peers } => {
                let asked = |ip| peers.iter().any(|peer| peer.0.ip() == ip);
                self.permissions.retain(|it| !asked(it.peer.0.ip()));
            }
            Request::ChannelBind { number, .. } => {
                if let Some(channel) = self.channel_mut(*number) {
                    channel.refresh_at = None;
                }
            }
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let allocation = self.allocation.as_ref()?.refresh_at;
        let permissions = self.permissions.iter().map(|it| it.refresh_at);
        let channels = self.channels.iter().filter_map(|it| it.refresh_at);
        permissions.chain(channels).chain([allocation]).min()
    }

    /// The next request that is due, once: its answer, or the lack of one, decides about the time after.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Request> {
        let allocation = self.allocation.as_mut()?;
        if allocation.refresh_at <= now {
            let lifetime = allocation.lifetime;
            allocation.refresh_at = half_life(now, lifetime);
            return Some(Request::Refresh { lifetime });
        }
        let again = now.after(INTERVAL);
        let due = self
            .permissions
            .iter_mut()
            .filter(|it| it.refresh_at <= now);
        let peers: Box<[PeerAddr]> = due
            .take(Client::MAX_PEERS_PER_REQUEST)
            .map(|permission| {
                permission.refresh_at = again;
                permission.peer
            })
            .collect();
        if !peers.is_empty() {
            return Some(Request::CreatePermission { peers });
        }
        let index = self
            .channels
            .iter()
            .position(|it| it.refresh_at.is_some_and(|at| at <= now))?;
        let channel = &mut self.channels[index];
        channel.refresh_at = Some(again);
        let number = ChannelNumber(FIRST_CHANNEL + u16::try_from(index).ok()?);
        Some(Request::ChannelBind {
            number,
            peer: channel.peer,
        })
    }

    fn permit(&mut self, now: Instant, peer: PeerAddr) {
        let refresh_at = now.after(INTERVAL);
        let ip = peer.0.ip();
        match self.permissions.iter_mut().find(|it| it.peer.0.ip() == ip) {
            Some(permission) => permission.refresh_at = refresh_at,
            None => self.permissions.push(Permission { peer, refresh_at }),
        }
    }

    fn channel_mut(&mut self, number: ChannelNumber) -> Option<&mut Channel> {
        let index = usize::from(number.0.checked_sub(FIRST_CHANNEL)?);
        self.channels.get_mut(index)
    }
}

fn numbered(channels: &[Channel]) -> impl Iterator<Item = (ChannelNumber, &Channel)> {
    (FIRST_CHANNEL..).map(ChannelNumber).zip(channels)
}

/// When half of `lifetime` seconds will have passed; a second at the least, so that a lifetime of one does not spin.
fn half_life(now: Instant, lifetime: u32) -> Instant {
    now.after((Duration::from_secs(u64::from(lifetime)) / 2).max(Duration::from_secs(1)))
}
