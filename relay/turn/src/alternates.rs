//! Other servers of the fleet, and which of them a client is sent to when this one takes no allocation (RFC 8489 §10).

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::addr::{AddressFamily, FiveTuple, Transport};
use crate::wire::{IntegrityKind, MessageWriter};

/// Where clients may go instead. Replaced whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternates {
    /// The name that the certificate of this server itself is for.
    pub domain: Option<Box<str>>,
    /// The others; one that takes no allocations either must not be among them.
    pub servers: Vec<Alternate>,
}

/// One server by one transport. Without an address it is good for nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternate {
    /// How clients reach it.
    pub transport: Transport,
    /// Where those on IPv4 reach it.
    pub v4: Option<SocketAddrV4>,
    /// Where those on IPv6 reach it.
    pub v6: Option<SocketAddrV6>,
    /// The DNS name that its certificate is for, at most 255 bytes.
    pub domain: Option<Box<str>>,
}

impl Alternates {
    /// The server for the client of `from`, whose request chose `integrity`; `None` where none fits. The same client gets
    /// the same one as long as nothing changes, so a retransmission gets the same answer; `hash` spreads the others.
    pub(crate) fn choose(
        &self,
        from: &FiveTuple,
        integrity: IntegrityKind,
        hash: u64,
    ) -> Option<&Alternate> {
        let family = AddressFamily::of(from.client.ip());
        let fitting = || {
            self.servers.iter().filter(move |server| {
                server.transport == from.transport
                    && server.address(family).is_some()
                    && (from.transport != Transport::Tls || self.is_trusted(server, integrity))
            })
        };
        // The upper bits of the product hang on all bits of the hash, whose own lower ones may be alike.
        let spread = u128::from(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let place = (spread * fitting().count() as u128) >> 64;
        fitting().nth(usize::try_from(place).ok()?)
    }

    /// Whether a client on TLS can check the certificate of `server`. Only one that uses MESSAGE-INTEGRITY-SHA256 is known
    /// to understand ALTERNATE-DOMAIN; any other insists on the name that led it here.
    fn is_trusted(&self, server: &Alternate, integrity: IntegrityKind) -> bool {
        match integrity {
            IntegrityKind::Sha256 => server.domain.is_some(),
            IntegrityKind::Sha1 => server.domain.is_some() && server.domain == self.domain,
        }
    }
}

impl Alternate {
    fn address(&self, family: AddressFamily) -> Option<SocketAddr> {
        match family {
            AddressFamily::V4 => self.v4.map(SocketAddr::V4),
            AddressFamily::V6 => self.v6.map(SocketAddr::V6),
        }
    }

    /// Writes what names this server to the client of `from`: the address of the client's own family first.
    pub(crate) fn write(&self, from: &FiveTuple, writer: &mut MessageWriter<'_>) {
        let own = AddressFamily::of(from.client.ip());
        let (first, second) = match own {
            AddressFamily::V4 => (AddressFamily::V4, AddressFamily::V6),
            AddressFamily::V6 => (AddressFamily::V6, AddressFamily::V4),
        };
        for address in [first, second]
            .into_iter()
            .filter_map(|it| self.address(it))
        {
            writer.alternate_server(address);
        }
        if let (Transport::Tls, Some(domain)) = (self.transport, &self.domain) {
            writer.alternate_domain(domain);
        }
    }
}
