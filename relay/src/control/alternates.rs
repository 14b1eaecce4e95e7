//! The controller's word on where clients go while this node takes no allocations.

use std::net::{AddrParseError, SocketAddr};

use turnfleet_proto::fleet;
use turnfleet_proto::fleet::listener::Transport as WireTransport;
use turnfleet_turn::Transport;
use turnfleet_turn::alternates::{Alternate, Alternates};

/// The most relays that one node is told of.
const MAX_ALTERNATES: usize = 64;
/// The most listeners of one of them: one for each transport and family.
const MAX_LISTENERS: usize = 8;
/// RFC 8489 §14.16.
const MAX_DOMAIN: usize = 255;

/// Why a list is not used; the one before it stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum AlternatesError {
    #[error("more than {MAX_ALTERNATES} relays, or more than {MAX_LISTENERS} listeners of one")]
    TooMany,
    #[error("a domain is no DNS name")]
    Domain,
    #[error(transparent)]
    Address(#[from] AddrParseError),
}

/// Turns `list` into what the shards know; `domain` is the name of this node's own certificate.
pub(super) fn read(
    list: &fleet::Alternates,
    domain: Option<String>,
) -> Result<Alternates, AlternatesError> {
    if list.alternates.len() > MAX_ALTERNATES {
        return Err(AlternatesError::TooMany);
    }
    let mut servers = Vec::new();
    for relay in &list.alternates {
        read_relay(relay, &mut servers)?;
    }
    Ok(Alternates {
        domain: domain.map(Into::into),
        servers,
    })
}

/// Appends `relay`, once for each transport. The first listener of a family is the one.
fn read_relay(
    relay: &fleet::Alternate,
    servers: &mut Vec<Alternate>,
) -> Result<(), AlternatesError> {
    if relay.listeners.len() > MAX_LISTENERS {
        return Err(AlternatesError::TooMany);
    }
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if relay.domain.len() > MAX_DOMAIN || !relay.domain.bytes().all(of_name) {
        return Err(AlternatesError::Domain);
    }
    let first = servers.len();
    for listener in &relay.listeners {
        let transport = match listener.transport() {
            WireTransport::Udp => Transport::Udp,
            WireTransport::Tcp => Transport::Tcp,
            WireTransport::Tls => Transport::Tls,
            // This version has no clients by it.
            WireTransport::Dtls | WireTransport::Unspecified => continue,
        };
        let address: SocketAddr = listener.address.parse()?;
        let known = servers[first..]
            .iter()
            .position(|it| it.transport == transport);
        let place = known.map_or(servers.len(), |place| first + place);
        if known.is_none() {
            servers.push(Alternate {
                transport,
                v4: None,
                v6: None,
                domain: Some(relay.domain.as_str())
                    .filter(|it| !it.is_empty())
                    .map(Into::into),
            });
        }
        let server = &mut servers[place];
        match address {
            SocketAddr::V4(address) => drop(server.v4.get_or_insert(address)),
            SocketAddr::V6(address) => drop(server.v6.get_or_insert(address)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(transport: WireTransport, address: &str) -> fleet::Listener {
        fleet::Listener {
            transport: transport.into(),
            address: address.into(),
            local_address: String::new(),
        }
    }

    fn list(domain: &str, listeners: Vec<fleet::Listener>) -> fleet::Alternates {
        fleet::Alternates {
            alternates: vec![fleet::Alternate {
                domain: domain.into(),
                listeners,
            }],
        }
    }

    #[test]
    fn a_relay_is_one_server_for_each_transport() {
        let listeners = vec![
            listener(WireTransport::Udp, "203.0.113.2:3478"),
            listener(WireTransport::Udp, "[2001:db8::2]:3478"),
            listener(WireTransport::Dtls, "203.0.113.2:5349"),
            listener(WireTransport::Tls, "203.0.113.2:5349"),
            listener(WireTransport::Udp, "203.0.113.3:3478"),
        ];
        let own = Some("a.example.org".to_owned());
        let alternates = read(&list("b.example.org", listeners), own).unwrap();
        assert_eq!(alternates.domain.as_deref(), Some("a.example.org"));
        let domain = Some("b.example.org".into());
        let expected = [
            Alternate {
                transport: Transport::Udp,
                v4: Some("203.0.113.2:3478".parse().unwrap()),
                v6: Some("[2001:db8::2]:3478".parse().unwrap()),
                domain: domain.clone(),
            },
            Alternate {
                transport: Transport::Tls,
                v4: Some("203.0.113.2:5349".parse().unwrap()),
                v6: None,
                domain,
            },
        ];
        assert_eq!(alternates.servers, expected);
    }

    #[test]
    fn what_is_no_address_or_no_name_is_not_used() {
        let good = || vec![listener(WireTransport::Udp, "203.0.113.2:3478")];
        let bad = vec![listener(WireTransport::Udp, "relay.example.org:3478")];
        assert!(read(&list("", good()), None).is_ok());
        assert!(read(&list("", bad), None).is_err());
        assert!(read(&list("b.example.org/x", good()), None).is_err());
        assert!(read(&list(&"b".repeat(256), good()), None).is_err());
        let many = vec![fleet::Alternate::default(); MAX_ALTERNATES + 1];
        assert!(read(&fleet::Alternates { alternates: many }, None).is_err());
    }
}
