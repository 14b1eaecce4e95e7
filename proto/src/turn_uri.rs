//! `stun:`, `turn:` and `turns:` URIs (RFC 7064 §3.1, RFC 7065 §3.1).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where a client finds a STUN or TURN server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TurnUri {
    /// Which protocol, and whether it is secured.
    pub scheme: Scheme,
    /// A DNS name, an IPv4 address, or an IPv6 address without brackets; in lower case.
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

    /// Reads what the grammar allows and a client can use. The host comes out in lower case, its percent-encoding undone.
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
        let (host, port) = split_place(place)?;
        let transport = match query {
            None => None,
            Some(query) if scheme.is_turn() => Some(parse_transport(query)?),
            Some(_) => return Err(TurnUriError::Query),
        };
        Ok(Self {
            scheme,
            host: match host.strip_prefix('[') {
                Some(literal) => parse_literal(literal.trim_end_matches(']'))?,
                None => parse_name(host)?,
            },
            port: port.map_or(Ok(None), parse_port)?,
            transport,
        })
    }
}

/// Host, with its brackets, and port.
fn split_place(place: &str) -> Result<(&str, Option<&str>), TurnUriError> {
    let is_bare_address = place.parse::<Ipv6Addr>().is_ok();
    let host_end = match place.find(']') {
        Some(bracket) if place.starts_with('[') => bracket + 1,
        Some(_) => return Err(TurnUriError::Host),
        None if is_bare_address => return Err(TurnUriError::Host),
        None => place.find(':').unwrap_or(place.len()),
    };
    match place.split_at(host_end) {
        (host, "") => Ok((host, None)),
        (host, port) => Ok((
            host,
            Some(port.strip_prefix(':').ok_or(TurnUriError::Port)?),
        )),
    }
}

/// The `IP-literal` of RFC 3986 §3.2.2, without its brackets.
fn parse_literal(literal: &str) -> Result<String, TurnUriError> {
    if is_future_address(literal) {
        return Err(TurnUriError::FutureAddress);
    }
    literal
        .parse::<Ipv6Addr>()
        .map_err(|_| TurnUriError::Host)?;
    Ok(literal.to_ascii_lowercase())
}

/// The `IPvFuture` of RFC 3986 §3.2.2: `v`, a version in hexadecimal digits, a dot, and an address of that version.
fn is_future_address(literal: &str) -> bool {
    let Some((version, address)) = literal
        .strip_prefix(['v', 'V'])
        .and_then(|rest| rest.split_once('.'))
    else {
        return false;
    };
    let of_address = |byte| is_unreserved(byte) || is_sub_delimiter(byte) || byte == b':';
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !address.is_empty()
        && address.bytes().all(of_address)
}

/// The `IPv4address` or `reg-name` of RFC 3986 §3.2.2, where it is a name that DNS can hold.
fn parse_name(text: &str) -> Result<String, TurnUriError> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => decode(rest.next(), rest.next()).ok_or(TurnUriError::Host)?,
            byte if is_unreserved(byte) || is_sub_delimiter(byte) => byte,
            _ => return Err(TurnUriError::Host),
        };
        if !byte.is_ascii() {
            return Err(TurnUriError::Name);
        }
        name.push(char::from(byte.to_ascii_lowercase()));
    }
    if name.is_empty() {
        return Err(TurnUriError::Host);
    }
    if name.parse::<Ipv4Addr>().is_ok() || is_dns_name(&name) {
        Ok(name)
    } else {
        Err(TurnUriError::Name)
    }
}

/// The byte behind a percent sign.
fn decode(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Whether `name` may stand in DNS. One whose last label is a number is a mistyped address: some resolvers would take it for
/// another one.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// RFC 3986 §3.2.3: any number of digits; none is as good as no port.
fn parse_port(text: &str) -> Result<Option<u16>, TurnUriError> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TurnUriError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(TurnUriError::Port),
        Ok(port) => Ok(Some(port)),
    }
}

/// RFC 7065 §3.1: the literals of a grammar are alike in upper and lower case.
fn parse_transport(query: &str) -> Result<UriTransport, TurnUriError> {
    let (name, value) = query.split_once('=').ok_or(TurnUriError::Query)?;
    let is_value = !value.is_empty() && value.bytes().all(is_unreserved);
    if !name.eq_ignore_ascii_case("transport") || !is_value {
        return Err(TurnUriError::Query);
    }
    [UriTransport::Udp, UriTransport::Tcp]
        .into_iter()
        .find(|known| known.name().eq_ignore_ascii_case(value))
        .ok_or(TurnUriError::Transport)
}

/// The `unreserved` of RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The `sub-delims` of RFC 3986 §2.2.
fn is_sub_delimiter(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

/// What is wrong with a text that should be a TURN URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnUriError {
    /// No scheme, or one that is not STUN's or TURN's.
    #[error("the scheme must be stun, stuns, turn or turns, followed by a colon")]
    Scheme,
    /// The host is missing, or none that the grammar knows.
    #[error("the host must be a DNS name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// The grammar allows the host, but DNS does not.
    #[error(
        "the host is no name that DNS can hold: labels of letters, digits and hyphens, the last one not a number, others \
         in their xn-- form"
    )]
    Name,
    /// An address of a version that is yet to come (IPvFuture).
    #[error("the host is an address of an unknown IP version")]
    FutureAddress,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Something other than the transport follows the question mark, or a `stun:` URI has a query.
    #[error("only turn and turns take a parameter, which is transport=udp or transport=tcp")]
    Query,
    /// A transport that the grammar allows, and nobody here speaks (RFC 5928 §3).
    #[error("the transport must be udp or tcp")]
    Transport,
}
