//! What an event of the operating system is about, packed into the token that `epoll` carries.

use mio::Token;

/// The source of an event. A place may have a new owner by the time its event is handled; every source is
/// non-blocking, so that such an event costs one fruitless call and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Another thread has something for this shard.
    Waker,
    /// The UDP listener at this place.
    Udp(usize),
    /// The TCP or TLS listener at this place.
    Acceptor(usize),
    /// The relayed socket at this place.
    Relayed(usize),
    /// The client's stream at this place.
    Stream(usize),
    /// The listening relayed socket at this place.
    RelayedListener(usize),
    /// The peer data connection at this place.
    PeerConnection(usize),
    /// The client data connection of the peer data connection at this place.
    DataConnection(usize),
    /// The stream at this place that is passed on to an HTTPS server; both of its ends.
    Forward(usize),
}

const KIND_SHIFT: u32 = 48;
const INDEX_MASK: usize = (1 << KIND_SHIFT) - 1;

impl Source {
    /// The token for this source.
    pub(crate) fn token(self) -> Token {
        let (kind, index) = match self {
            Self::Waker => (0, 0),
            Self::Udp(index) => (1, index),
            Self::Acceptor(index) => (2, index),
            Self::Relayed(index) => (3, index),
            Self::Stream(index) => (4, index),
            Self::RelayedListener(index) => (5, index),
            Self::PeerConnection(index) => (6, index),
            Self::DataConnection(index) => (7, index),
            Self::Forward(index) => (8, index),
        };
        Token(kind << KIND_SHIFT | index)
    }

    /// The source that `token` stands for.
    pub(crate) fn of(token: Token) -> Self {
        let index = token.0 & INDEX_MASK;
        match token.0 >> KIND_SHIFT {
            1 => Self::Udp(index),
            2 => Self::Acceptor(index),
            3 => Self::Relayed(index),
            4 => Self::Stream(index),
            5 => Self::RelayedListener(index),
            6 => Self::PeerConnection(index),
            7 => Self::DataConnection(index),
            8 => Self::Forward(index),
            _ => Self::Waker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_source() {
        for source in [
            Source::Waker,
            Source::Udp(3),
            Source::Acceptor(0),
            Source::Relayed(usize::try_from(u32::MAX).unwrap()),
            Source::Stream(70_000),
            Source::RelayedListener(1),
            Source::PeerConnection(2),
            Source::DataConnection(3),
            Source::Forward(1),
        ] {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
