//! Which server is measured or examined, and whose allocations it is asked for.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use turnfleet_proto::credentials::mint;
use turnfleet_proto::{Scheme, TurnUri, UriTransport};
use turnfleet_turn::Transport;

use crate::credentials::SecretArgs;
use crate::resolve::{self, Candidate};

/// How long the credentials of a run are good for.
const TTL_SECONDS: u64 = 86_400;

/// A server to measure or to examine.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A TURN server.
    Turn(TurnUri),
    /// A UDP forwarder that sends what clients send to its peer, and back: what the machine could do without TURN.
    Plain(SocketAddr),
}

impl Target {
    /// The ways to it, in the order in which they are to be tried; at least one.
    pub(crate) fn candidates(&self) -> Result<Vec<Candidate>> {
        match self {
            Self::Plain(address) => Ok(vec![Candidate {
                transport: Transport::Udp,
                address: *address,
            }]),
            Self::Turn(uri) => resolve::candidates(uri),
        }
    }

    /// The name that its certificate is for.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Plain(address) => address.ip().to_string(),
            Self::Turn(uri) => uri.host.clone(),
        }
    }

    /// Whether it speaks TURN.
    pub(crate) fn is_turn(&self) -> bool {
        matches!(self, Self::Turn(_))
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("plain:") {
            let expected = |_| format!("{address:?} is not IP:PORT");
            return address.parse().map(Self::Plain).map_err(expected);
        }
        let uri: TurnUri = text.parse().map_err(|error| format!("{error}"))?;
        match (uri.scheme, uri.transport) {
            (Scheme::Stun | Scheme::Stuns, _) => Err("a turn: or turns: URI is needed".to_owned()),
            (Scheme::Turns, Some(UriTransport::Udp)) => {
                Err("turns: over UDP is DTLS, which is not spoken here".to_owned())
            }
            (Scheme::Turns, Some(UriTransport::Tcp) | None) | (Scheme::Turn, _) => {
                Ok(Self::Turn(uri))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn(uri) => uri.fmt(f),
            Self::Plain(address) => write!(f, "plain:{address}"),
        }
    }
}

/// The usernames of a run with their passwords, handed out in turn.
#[derive(Debug)]
pub(crate) struct Credentials {
    pairs: Vec<(String, String)>,
}

impl Credentials {
    /// One static user where one is named, ephemeral credentials for `users` users otherwise.
    pub(crate) fn new(secret: &SecretArgs, user: Option<&str>, users: u32) -> Result<Self> {
        let pairs = match user {
            None => {
                let secret = secret.read()?;
                let secret = secret.context("give --secret, or --user NAME:PASSWORD")?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                (0..users)
                    .map(|index| {
                        let made = mint(&secret, &format!("tester-{index}"), now + TTL_SECONDS);
                        (made.username, made.password)
                    })
                    .collect()
            }
            Some(user) => {
                let (name, password) = user
                    .split_once(':')
                    .context("--user: expected NAME:PASSWORD")?;
                vec![(name.to_owned(), password.to_owned())]
            }
        };
        Ok(Self { pairs })
    }

    /// The credentials of the allocation with this number.
    pub(crate) fn of(&self, allocation: usize) -> (String, String) {
        self.pairs[allocation % self.pairs.len()].clone()
    }
}
