//! What a server has granted, seen from its answers alone, and what may pass because of it: the oracle of the simulation.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use turnfleet_turn::wire::{ChannelData, Class, Message, Method};
use turnfleet_turn::{AddressFamily, DropReason, Instant, Span};

use crate::support::{Outcome, data_indication};

/// What the server has granted to the client at one address.
#[derive(Default)]
pub(crate) struct Granted {
    relayed: Vec<(SocketAddr, Instant)>,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
}

/// Clients by their addresses.
#[derive(Default)]
pub(crate) struct Model {
    clients: BTreeMap<SocketAddr, Granted>,
}

impl Model {
    /// Tells the model of an answer.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        client: SocketAddr,
        request: Option<&[u8]>,
        reply: &[u8],
    ) {
        let reply = Message::parse(reply).unwrap();
        if reply.class() != Class::SuccessResponse {
            return;
        }
        let lifetime = reply.lifetime().map(Result::unwrap);
        let expiry = now.after(Duration::from_secs(lifetime.unwrap_or(0).into()));
        match reply.method() {
            Some(Method::Allocate) => {
                let relayed: Vec<_> = reply.xor_relayed_addresses().map(Result::unwrap).collect();
                self.note_allocation(now, client, &relayed, expiry);
            }
            Some(Method::Refresh) => {
                let request = Message::parse(request.unwrap()).unwrap();
                let family = request.requested_address_family().map(Result::unwrap);
                self.note_refresh(client, family, lifetime == Some(0), expiry);
            }
            Some(Method::CreatePermission) => {
                let request = Message::parse(request.unwrap()).unwrap();
                let granted = self
                    .clients
                    .get_mut(&client)
                    .expect("permissions need an allocation");
                for peer in request.xor_peer_addresses() {
                    let expires_at = now.after(Duration::from_secs(300));
                    granted.permissions.insert(peer.unwrap().0.ip(), expires_at);
                }
            }
            Some(Method::ChannelBind) => {
                let request = Message::parse(request.unwrap()).unwrap();
                let number = request.channel_number().unwrap().unwrap().0;
                let peer = request.xor_peer_address().unwrap().unwrap().0;
                let granted = self
                    .clients
                    .get_mut(&client)
                    .expect("channels need an allocation");
                granted
                    .channels
                    .retain(|_, (_, expires_at)| *expires_at > now);
                let bound = granted
                    .channels
                    .iter()
                    .find(|(_, (bound, _))| *bound == peer);
                assert!(
                    bound.is_none_or(|(bound, _)| *bound == number),
                    "{peer} is bound twice"
                );
                let bound = granted.channels.get(&number);
                assert!(
                    bound.is_none_or(|(bound, _)| *bound == peer),
                    "{number:#x} is bound twice"
                );
                let channel = (peer, now.after(Duration::from_secs(600)));
                granted.channels.insert(number, channel);
                granted
                    .permissions
                    .insert(peer.ip(), now.after(Duration::from_secs(300)));
            }
            Some(
                Method::Binding
                | Method::Send
                | Method::Data
                | Method::Connect
                | Method::ConnectionBind
                | Method::ConnectionAttempt,
            )
            | None => {}
        }
    }

    fn note_allocation(
        &mut self,
        now: Instant,
        client: SocketAddr,
        relayed: &[SocketAddr],
        expiry: Instant,
    ) {
        for (owner, granted) in &self.clients {
            for (address, expires_at) in &granted.relayed {
                let taken = relayed.contains(address) && *expires_at > now;
                assert!(!taken || *owner == client, "{address} belongs to {owner}");
            }
        }
        let known = self.clients.get(&client).filter(|granted| {
            let mut relayed = granted.relayed.iter();
            relayed.any(|(_, expires_at)| *expires_at > now)
        });
        if let Some(known) = known {
            let same = known
                .relayed
                .iter()
                .all(|(address, _)| relayed.contains(address));
            assert!(same, "a second allocation for {client}");
            return;
        }
        let relayed = relayed.iter().map(|address| (*address, expiry)).collect();
        let granted = Granted {
            relayed,
            ..Granted::default()
        };
        self.clients.insert(client, granted);
    }

    fn note_refresh(
        &mut self,
        client: SocketAddr,
        family: Option<AddressFamily>,
        deleted: bool,
        expiry: Instant,
    ) {
        let granted = self
            .clients
            .get_mut(&client)
            .expect("a refresh needs an allocation");
        let meant = |ip: IpAddr| family.is_none_or(|family| AddressFamily::of(ip) == family);
        if deleted {
            granted.relayed.retain(|(address, _)| !meant(address.ip()));
            granted.permissions.retain(|ip, _| !meant(*ip));
            granted.channels.retain(|_, (peer, _)| !meant(peer.ip()));
            if granted.relayed.is_empty() {
                self.clients.remove(&client);
            }
            return;
        }
        for (_, expires_at) in granted
            .relayed
            .iter_mut()
            .filter(|(address, _)| meant(address.ip()))
        {
            *expires_at = expiry;
        }
    }

    /// What a client's packet became: it may go only where a channel or a permission of that client lets it.
    pub(crate) fn check_relayed(
        &self,
        now: Instant,
        from: SocketAddr,
        packet: &[u8],
        (bound, to, payload): (SocketAddr, SocketAddr, &[u8]),
    ) {
        let granted = &self.clients[&from];
        assert!(granted.owns(now, bound), "{bound} is not {from}'s");
        match ChannelData::parse(packet) {
            Ok(data) => {
                let channel = granted.channel(now, data.number.0);
                assert_eq!(channel, Some(to), "{from}'s channel");
                assert_eq!(payload, &packet[data.payload.range()]);
            }
            Err(_) => assert_eq!(payload, &packet[sent_to(packet).1.range()]),
        }
        assert!(
            granted.permits(now, to.ip()),
            "{from} has no permission for {to}"
        );
    }

    /// What was dropped for want of something really lacks it.
    pub(crate) fn check_drop(
        &self,
        now: Instant,
        from: SocketAddr,
        packet: &[u8],
        reason: DropReason,
    ) {
        let lives = |granted: &&Granted| granted.relayed.iter().all(|(_, end)| *end > now);
        let Some(granted) = self.clients.get(&from).filter(lives) else {
            return;
        };
        assert_ne!(reason, DropReason::NoAllocation, "{from} has one");
        if reason == DropReason::NoChannel {
            let number = ChannelData::parse(packet).unwrap().number.0;
            assert_eq!(
                granted.channel(now, number),
                None,
                "{from}'s channel {number:#x}"
            );
        }
        if reason == DropReason::NoPermission {
            let peer = match ChannelData::parse(packet) {
                Ok(data) => granted
                    .channel(now, data.number.0)
                    .expect("the channel is checked first"),
                Err(_) => sent_to(packet).0,
            };
            assert!(
                !granted.permits(now, peer.ip()),
                "{from} has a permission for {peer}"
            );
        }
    }

    /// What a peer's datagram became: it reaches the owner of the relayed address if and only if that permits its IP.
    pub(crate) fn check_delivery(
        &self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        outcome: &Outcome,
    ) {
        let owner = self
            .clients
            .iter()
            .find(|(_, granted)| granted.owns(now, to));
        let permitted = owner.filter(|(_, granted)| granted.permits(now, from.ip()));
        let Outcome::Delivered(client, packet) = outcome else {
            assert!(
                permitted.is_none(),
                "{from} is permitted at {to}, but {outcome:?}"
            );
            return;
        };
        let (owner, granted) = permitted.expect("what is delivered is permitted");
        assert_eq!(client.client, *owner);
        match ChannelData::parse(packet) {
            Ok(data) => {
                assert_eq!(granted.channel(now, data.number.0), Some(from));
                assert_eq!(&packet[data.payload.range()], payload);
            }
            Err(_) => {
                let numbers = granted.channels.keys();
                let bound = |number: &&u16| granted.channel(now, **number) == Some(from);
                assert_eq!(numbers.clone().find(bound), None, "{from} has a channel");
                assert_eq!(data_indication(packet), (from, payload.to_vec()));
            }
        }
    }
}

/// The peer and the data of a Send indication.
fn sent_to(packet: &[u8]) -> (SocketAddr, Span) {
    let message = Message::parse(packet).unwrap();
    let peer = message.xor_peer_address().unwrap().unwrap().0;
    (peer, message.data().unwrap())
}

impl Granted {
    fn owns(&self, now: Instant, relayed: SocketAddr) -> bool {
        let mut own = self.relayed.iter();
        own.any(|(address, expires_at)| *address == relayed && *expires_at > now)
    }

    fn permits(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions
            .get(&ip)
            .is_some_and(|expires_at| *expires_at > now)
    }

    /// The peer of a live channel.
    fn channel(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        let (peer, expires_at) = self.channels.get(&number)?;
        (*expires_at > now).then_some(*peer)
    }
}
