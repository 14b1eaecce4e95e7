//! The server under examination: how it is reached, as whom, and where its peers stand.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use anyhow::{Result, bail};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::{AddressFamily, Transport};

use super::Args;
use super::line::{Line, Retired};
use super::peer::Peer;
use super::statement::{Shortfall, skipped};
use crate::link::Opener;
use crate::target::Credentials;

/// Usernames that are handed out in turn, so that what one statement leaves behind counts against none of the next.
const USERS: u32 = 256;
/// Datagrams read with one system call.
const SLOTS: usize = 8;

/// One server, by one transport.
pub(super) struct Subject {
    opener: Opener,
    transport: Transport,
    credentials: Credentials,
    /// Whether there is more than one user.
    has_many_users: bool,
    peers: Vec<IpAddr>,
    /// Whether peers at the server's own address hear nothing of it.
    is_deaf_at_home: Cell<bool>,
    lines: Cell<usize>,
    batch: Rc<RefCell<ReceiveBatch>>,
    retired: Retired,
}

impl Subject {
    /// Reaches the server once, and finds out where its peers stand where nobody has said it.
    pub(super) fn new(args: &Args) -> Result<Self> {
        let credentials = Credentials::new(&args.secret, args.user.as_deref(), USERS)?;
        let opener = Opener::new(&args.target, args.ca.as_deref())?;
        let local = opener.open()?.local_address()?.ip();
        let peers = match (args.peer.is_empty(), local.is_loopback()) {
            (false, _) => args.peer.clone(),
            (true, true) => vec![
                std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::Ipv6Addr::LOCALHOST.into(),
            ],
            (true, false) => vec![local],
        };
        Ok(Self {
            transport: opener.transport(),
            opener,
            credentials,
            has_many_users: args.user.is_none(),
            peers,
            is_deaf_at_home: Cell::new(false),
            lines: Cell::new(0),
            batch: Rc::new(RefCell::new(ReceiveBatch::new(SLOTS))),
            retired: Retired::default(),
        })
    }

    /// Allocates once: of a server that does not answer, or not to this user, nothing can be said. Then looks whether a peer
    /// on the server's own machine can be one.
    pub(super) fn greet(&self) -> Result<()> {
        match self.allocated() {
            Ok(_) => {}
            Err(Shortfall::Failed { expected, seen }) => {
                let hint = match seen.as_str() {
                    "error 401" => {
                        "; is the secret, or the user, one that the server knows, and are the clocks right?"
                    }
                    _ => "",
                };
                bail!("the server gives no allocation: expected {expected}; seen {seen}{hint}")
            }
            Err(Shortfall::Skipped(why)) => bail!("the server gives no allocation: {why}"),
        }
        let is_home = self
            .peers
            .iter()
            .any(|peer| peer.is_ipv4() && self.is_home(*peer));
        if is_home && self.hears_at_home().is_ok_and(|hears| !hears) {
            self.is_deaf_at_home.set(true);
        }
        Ok(())
    }

    /// Whether the server is at this address too.
    fn is_home(&self, peer: IpAddr) -> bool {
        let server = self.opener.address().ip();
        server == peer || server.is_loopback() && peer.is_loopback()
    }

    /// Whether data reaches a peer at the server's own address, where a server may take other allocations for peers alone.
    fn hears_at_home(&self) -> Result<bool, Shortfall> {
        let (mut line, peer) = (self.allocated()?, self.peer()?);
        line.permit(&[peer.as_peer()])?;
        line.send_indication(peer.as_peer(), b"at home?")?;
        Ok(peer.hear().is_ok())
    }

    /// A way to the server of its own, with a username that the lines before and after it do not have.
    pub(super) fn line(&self) -> Result<Line, Shortfall> {
        let number = self.lines.get();
        self.lines.set(number + 1);
        let link = self.opener.open()?;
        let user = self.credentials.of(number);
        Ok(Line::new(
            link,
            Rc::clone(&self.batch),
            Rc::clone(&self.retired),
            user,
        )?)
    }

    /// A line that knows the server's realm and nonce.
    pub(super) fn introduced(&self) -> Result<Line, Shortfall> {
        let mut line = self.line()?;
        line.introduce()?;
        Ok(line)
    }

    /// A line with an allocation.
    pub(super) fn allocated(&self) -> Result<Line, Shortfall> {
        let mut line = self.introduced()?;
        line.allocate(|_| {})?.granted()?;
        Ok(line)
    }

    /// A username and password other than those of the latest line.
    pub(super) fn somebody_else(&self) -> Result<(String, String), Shortfall> {
        if self.has_many_users {
            Ok(self.credentials.of(self.lines.get()))
        } else {
            Err(skipped("it needs two users: give --secret"))
        }
    }

    /// A peer of the IPv4 family, for that is what an allocation has that asks for none.
    pub(super) fn peer(&self) -> Result<Peer, Shortfall> {
        self.peer_of(AddressFamily::V4)
    }

    /// A peer of `family`.
    pub(super) fn peer_of(&self, family: AddressFamily) -> Result<Peer, Shortfall> {
        let mut peers = self.peers.iter();
        let ip = peers.find(|ip| AddressFamily::of(**ip) == family);
        let ip = ip.ok_or_else(|| skipped(format!("it needs a peer: give --peer, {family:?}")))?;
        if self.is_deaf_at_home.get() && self.is_home(*ip) {
            return Err(skipped(
                "the server sends nothing to its own address: examine it from another machine",
            ));
        }
        Ok(Peer::open(*ip)?)
    }

    /// Whether one datagram is one message.
    pub(super) fn is_udp(&self) -> bool {
        self.transport == Transport::Udp
    }

    /// Skips what can only be said of UDP.
    pub(super) fn needs_datagrams(&self) -> Result<(), Shortfall> {
        if self.is_udp() {
            Ok(())
        } else {
            Err(skipped("it is about UDP"))
        }
    }

    /// Skips what can only be said of TCP and TLS.
    pub(super) fn needs_a_stream(&self) -> Result<(), Shortfall> {
        if self.is_udp() {
            Err(skipped("it is about streams"))
        } else {
            Ok(())
        }
    }
}
