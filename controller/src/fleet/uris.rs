//! The URIs of one node, written once for all lists.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use turnfleet_proto::{Scheme, TurnUri, UriTransport};

use super::node::{Identity, Transport};

/// A kind of URI in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UriKind {
    /// `stun:`, by UDP.
    Stun,
    /// `turn:` with `transport=udp`.
    Udp,
    /// `turn:` with `transport=tcp`.
    Tcp,
    /// `turns:` with `transport=tcp`.
    Tls,
}

impl UriKind {
    const ALL: [Self; 4] = [Self::Stun, Self::Udp, Self::Tcp, Self::Tls];

    /// What a node must serve for it.
    pub(super) fn transport(self) -> Transport {
        match self {
            Self::Stun | Self::Udp => Transport::Udp,
            Self::Tcp => Transport::Tcp,
            Self::Tls => Transport::Tls,
        }
    }
}

/// Which URIs carry the DNS name of a relay that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// `turns:` alone, which its certificate is made out to. An address needs no resolver, and the name of a certificate
    /// that several relays share would lead to another one.
    #[default]
    Turns,
    /// Every URI: each relay has a name of its own.
    All,
}

impl Names {
    /// What `text` stands for in requests and configuration.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "turns" => Some(Self::Turns),
            "all" => Some(Self::All),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv6() {
            Self::V6
        } else {
            Self::V4
        }
    }
}

/// For each kind the first listener of each family.
#[derive(Debug, Default)]
pub(super) struct Uris {
    by_address: [[Option<Box<str>>; 2]; 4],
    /// Where the node has a name.
    by_name: [[Option<Box<str>>; 2]; 4],
}

impl Uris {
    pub(super) fn new(identity: &Identity) -> Self {
        let mut uris = Self::default();
        for kind in UriKind::ALL {
            for family in [Family::V4, Family::V6] {
                let (kind_at, family_at) = (kind as usize, family as usize);
                let name = identity.hostname.as_deref();
                let of_tls = name.filter(|_| kind == UriKind::Tls);
                uris.by_address[kind_at][family_at] = uri(identity, kind, family, of_tls);
                if name.is_some() {
                    uris.by_name[kind_at][family_at] = uri(identity, kind, family, name);
                }
            }
        }
        uris
    }

    /// The URI for `kind`, where the node has a listener for it.
    pub(super) fn of(&self, kind: UriKind, family: Family, names: Names) -> Option<&str> {
        let (kind, family) = (kind as usize, family as usize);
        let by_name = match names {
            Names::All => self.by_name[kind][family].as_deref(),
            Names::Turns => None,
        };
        by_name.or(self.by_address[kind][family].as_deref())
    }
}

fn uri(identity: &Identity, kind: UriKind, family: Family, name: Option<&str>) -> Option<Box<str>> {
    let (scheme, transport) = match kind {
        UriKind::Stun => (Scheme::Stun, None),
        UriKind::Udp => (Scheme::Turn, Some(UriTransport::Udp)),
        UriKind::Tcp => (Scheme::Turn, Some(UriTransport::Tcp)),
        UriKind::Tls => (Scheme::Turns, Some(UriTransport::Tcp)),
    };
    let fits = |it: &&super::node::Listener| {
        it.transport == kind.transport() && it.address.is_ipv4() == (family == Family::V4)
    };
    let address = identity.listeners.iter().find(fits)?.address;
    let host = name.map_or_else(|| address.ip().to_string(), str::to_owned);
    let uri = TurnUri {
        scheme,
        host,
        port: Some(address.port()),
        transport,
    };
    Some(uri.to_string().into())
}
