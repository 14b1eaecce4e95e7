//! What a TLS client asks for: the ClientHello at the beginning of a stream, read without consuming it (RFC 8446 §4.1.2,
//! RFC 7301 for ALPN). A pure function of the first bytes; TLS itself is rustls's.

/// What the first bytes of a TLS stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// The beginning of a ClientHello.
    NeedMore,
    /// A whole ClientHello.
    Whole(Asks),
    /// Something else, or a ClientHello longer than any honest one.
    Invalid,
}

/// The protocol that a client wants inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// `stun.turn` or `stun.nat-discovery` (RFC 7443).
    Stun,
    /// `h2` or `http/1.1`, and nothing of ours.
    Http,
    /// `acme-tls/1` alone: a certificate authority looks for the answer to its challenge (RFC 8737 §3).
    Acme,
    /// Nothing that is known here. TURN clients send no ALPN as a rule.
    Nothing,
}

/// The content type of handshake records.
const HANDSHAKE: u8 = 22;
/// The handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// The extension with the protocols that the client offers.
const ALPN: u16 = 16;
/// The longest record that is not enciphered.
const MAX_RECORD_LEN: usize = 1 << 14;
/// The longest ClientHello, its header included.
const MAX_HELLO_LEN: usize = 16 << 10;

/// Whether a stream that begins with `first` is TLS rather than STUN (RFC 7983 §7).
pub(super) fn is_tls(first: u8) -> bool {
    first == HANDSHAKE
}

/// Reads the ClientHello that `bytes` begin with; it may be cut into several records.
pub(super) fn read(bytes: &[u8]) -> Hello {
    let Some(message) = unwrap_records(bytes) else {
        return Hello::Invalid;
    };
    let Some((&[kind, high, middle, low], rest)) = message.split_first_chunk::<4>() else {
        let fits = message.first().is_none_or(|&kind| kind == CLIENT_HELLO);
        return if fits {
            Hello::NeedMore
        } else {
            Hello::Invalid
        };
    };
    let len = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
    if kind != CLIENT_HELLO || len > MAX_HELLO_LEN - 4 {
        return Hello::Invalid;
    }
    match rest.get(..len) {
        None => Hello::NeedMore,
        Some(body) => asks(&mut Reader(body)).map_or(Hello::Invalid, Hello::Whole),
    }
}

/// The handshake bytes in `bytes` up to the end of the first message, or the most that one may have; `None` where a record
/// is none.
fn unwrap_records(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    while message.len() < MAX_HELLO_LEN && !bytes.is_empty() && !is_whole(&message) {
        let fits = |wanted: u8, place: usize| bytes.get(place).is_none_or(|byte| *byte == wanted);
        if !fits(HANDSHAKE, 0) || !fits(3, 1) {
            return None;
        }
        let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() else {
            break;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 || len > MAX_RECORD_LEN {
            return None;
        }
        let (payload, behind) = rest.split_at(len.min(rest.len()));
        message.extend_from_slice(payload);
        bytes = behind;
    }
    Some(message)
}

/// Whether `message` holds all that its header announces.
fn is_whole(message: &[u8]) -> bool {
    message
        .split_first_chunk::<4>()
        .is_some_and(|(&[_, high, middle, low], rest)| {
            let len = u32::from_be_bytes([0, high, middle, low]);
            usize::try_from(len).is_ok_and(|len| rest.len() >= len)
        })
}

/// What the body of a ClientHello asks for; `None` where it is malformed.
fn asks(body: &mut Reader<'_>) -> Option<Asks> {
    body.take(2 + 32)?;
    body.short_vector()?;
    body.vector()?;
    body.short_vector()?;
    if body.0.is_empty() {
        return Some(Asks::Nothing);
    }
    let mut extensions = Reader(body.vector()?);
    let mut asked = Asks::Nothing;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector()?;
        if kind == ALPN {
            asked = offered(&mut Reader(content))?;
        }
    }
    body.0.is_empty().then_some(asked)
}

/// What a list of protocol names asks for.
fn offered(alpn: &mut Reader<'_>) -> Option<Asks> {
    let mut names = Reader(alpn.vector()?);
    let mut asked = Asks::Nothing;
    while !names.0.is_empty() {
        match names.short_vector()? {
            b"stun.turn" | b"stun.nat-discovery" => asked = Asks::Stun,
            b"h2" | b"http/1.1" if asked != Asks::Stun => asked = Asks::Http,
            b"acme-tls/1" if asked == Asks::Nothing => asked = Asks::Acme,
            _ => {}
        }
    }
    Some(asked)
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let (&bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(bytes))
    }

    /// Bytes behind their count in one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let count = *self.take(1)?.first()?;
        self.take(count.into())
    }

    /// Bytes behind their count in two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let count = self.u16()?;
        self.take(count.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::driver::stream::noise::Noise;

    /// What rustls sends first as a client that offers `protocols`.
    fn hello(protocols: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
        let name = "turn.example.org".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same ClientHello in records of `len` bytes.
    fn in_records(hello: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in hello[5..].chunks(len) {
            let count = u16::try_from(piece.len()).unwrap().to_be_bytes();
            bytes.extend([HANDSHAKE, 3, 1, count[0], count[1]]);
            bytes.extend(piece);
        }
        bytes
    }

    #[test]
    fn alpn_tells_http_from_turn() {
        for (protocols, wanted) in [
            (&[][..], Asks::Nothing),
            (&["h2"], Asks::Http),
            (&["http/1.1"], Asks::Http),
            (&["spdy/3", "h2", "http/1.1"], Asks::Http),
            (&["stun.turn"], Asks::Stun),
            (&["stun.nat-discovery"], Asks::Stun),
            (&["h2", "stun.turn"], Asks::Stun),
            (&["stun.turn", "h2"], Asks::Stun),
            (&["acme-tls/1"], Asks::Acme),
            (&["acme-tls/1", "h2"], Asks::Http),
            (&["h2", "acme-tls/1"], Asks::Http),
            (&["acme-tls/1", "stun.turn"], Asks::Stun),
        ] {
            assert_eq!(
                read(&hello(protocols)),
                Hello::Whole(wanted),
                "{protocols:?}"
            );
        }
    }

    #[test]
    fn a_hello_may_be_cut_anywhere_and_into_any_records() {
        let hello = hello(&["h2"]);
        for len in [1, 3, 4, 100, hello.len()] {
            let bytes = in_records(&hello, len);
            assert_eq!(read(&bytes), Hello::Whole(Asks::Http), "records of {len}");
            for cut in 0..bytes.len() {
                assert_eq!(
                    read(&bytes[..cut]),
                    Hello::NeedMore,
                    "records of {len}, {cut}"
                );
            }
        }
        let followed = [&hello[..], &[20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(read(&followed), Hello::Whole(Asks::Http));
    }

    #[test]
    fn anything_else_is_invalid_as_soon_as_it_shows() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            &[22, 2],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0x40, 1],
            &[22, 3, 1, 0, 4, 2],
            &[22, 3, 1, 0, 4, 1, 0, 0x40, 0],
            &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        ] {
            assert_eq!(read(bytes), Hello::Invalid, "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_confuse_the_reader() {
        let mut noise = Noise::new(2);
        let seeds = [hello(&["h2", "stun.turn"]), in_records(&hello(&[]), 7)];
        for round in 0..20_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            noise.spoil(&mut bytes);
            let verdict = read(&bytes);
            let longer = [&bytes[..], &[0]].concat();
            if let Hello::Whole(_) = verdict {
                assert_eq!(read(&longer), verdict, "{bytes:?}");
            }
        }
    }
}
