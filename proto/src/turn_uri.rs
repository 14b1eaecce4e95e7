//! `stun:`, `turn:` and `turns:` URIs (RFC 7064 §3.1, RFC 7065 §3.1).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where a client finds a STUN or TURN server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TurnUri {
    /// Which protocol, and whether it is secured.
    pub scheme: Scheme,
    /// A DNS name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port, where it is named.
    pub port: Option<u16>,
    /// The `transport` parameter; a `stun:` URI has none.
    pub transport: Option<UriTransport>,
}

/// The scheme of a [`TurnUri`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// STUN over UDP or TCP.
    Stun,
    /// STUN over TLS or DTLS.
    Stuns,
    /// TURN over UDP or TCP.
    Turn,
    /// TURN over TLS or DTLS.
    Turns,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Stun, Self::Stuns, Self::Turn, Self::Turns];

    /// The scheme as it stands before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Stuns => "stuns",
            Self::Turn => "turn",
            Self::Turns => "turns",
        }
    }

    /// The port that a URI without one means.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Stun | Self::Turn => 3478,
            Self::Stuns | Self::Turns => 5349,
        }
    }

    fn is_turn(self) -> bool {
        match self {
            Self::Stun | Self::Stuns => false,
            Self::Turn | Self::Turns => true,
        }
    }
}

/// The value of the `transport` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UriTransport {
    /// UDP, or DTLS over UDP with a secure scheme.
    Udp,
    /// TCP, or TLS over TCP with a secure scheme.
    Tcp,
}

impl UriTransport {
    /// The transport as it stands behind the equals sign.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for TurnUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme.name())?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if let Some(transport) = self.transport {
            write!(f, "?transport={}", transport.name())?;
        }
        Ok(())
    }
}

impl FromStr for TurnUri {
    type Err = TurnUriError;

    fn from_str(text: &str) -> Result<Self, TurnUriError> {
        let (scheme, rest) = text.split_once(':').ok_or(TurnUriError::Scheme)?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(scheme))
            .ok_or(TurnUriError::Scheme)?;
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let transport = match query {
            None => None,
            Some(query) if scheme.is_turn() => Some(parse_transport(query)?),
            Some(_) => return Err(TurnUriError::Query),
        };
        let (host, port) = parse_place(place)?;
        Ok(Self {
            scheme,
            host,
            port,
            transport,
        })
    }
}

fn parse_transport(query: &str) -> Result<UriTransport, TurnUriError> {
    let value = query
        .strip_prefix("transport=")
        .ok_or(TurnUriError::Query)?;
    [UriTransport::Udp, UriTransport::Tcp]
        .into_iter()
        .find(|known| known.name().eq_ignore_ascii_case(value))
        .ok_or(TurnUriError::Query)
}

fn parse_place(place: &str) -> Result<(String, Option<u16>), TurnUriError> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or(TurnUriError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| TurnUriError::Host)?;
        match behind {
            "" => (host, None),
            _ => (
                host,
                Some(behind.strip_prefix(':').ok_or(TurnUriError::Port)?),
            ),
        }
    } else {
        let (host, port) = match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        if !is_ipv4_or_name(host) {
            return Err(TurnUriError::Host);
        }
        (host, port)
    };
    let port = match port {
        None => None,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => Some(port),
            Ok(_) | Err(_) => return Err(TurnUriError::Port),
        },
    };
    Ok((host.to_owned(), port))
}

fn is_ipv4_or_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    host.parse::<Ipv4Addr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

/// What is wrong with a text that should be a TURN URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnUriError {
    /// No scheme, or one that is not STUN's or TURN's.
    #[error("the scheme must be stun, stuns, turn or turns, followed by a colon")]
    Scheme,
    /// The host is missing, or neither a name nor an address.
    #[error("the host must be a DNS name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Something other than the transport follows the question mark, or a `stun:` URI has a query.
    #[error("only turn and turns take a parameter, which is transport=udp or transport=tcp")]
    Query,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_read_as_they_are_written() {
        for text in [
            "turn:example.org",
            "turns:example.org",
            "turn:example.org:8000",
            "turn:example.org?transport=udp",
            "turns:example.org?transport=tcp",
            "turn:192.0.2.1:3478?transport=udp",
            "turn:[2001:db8::1]:3478?transport=tcp",
            "stun:example.org",
            "stun:[2001:db8::1]",
            "stuns:example.org:5349",
        ] {
            assert_eq!(
                text.parse::<TurnUri>().map(|uri| uri.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn a_bad_uri_says_which_part_is_bad() {
        for (text, error) in [
            ("example.org", TurnUriError::Scheme),
            ("http:example.org", TurnUriError::Scheme),
            ("turn:", TurnUriError::Host),
            ("turn:2001:db8::1", TurnUriError::Port),
            ("turn:[192.0.2.1]", TurnUriError::Host),
            ("turn:a b", TurnUriError::Host),
            ("turn:a:0", TurnUriError::Port),
            ("turn:a:+80", TurnUriError::Port),
            ("turn:a:99999", TurnUriError::Port),
            ("turn:a?transport=sctp", TurnUriError::Query),
            ("turn:a?x=1", TurnUriError::Query),
            ("stun:a?transport=udp", TurnUriError::Query),
        ] {
            assert_eq!(text.parse::<TurnUri>(), Err(error), "{text}");
        }
    }
}
