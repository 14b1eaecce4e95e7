//! Connections to peers over TCP (RFC 6062 §5.2): what a Connect request gets.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use turnfleet_turn::PeerAddr;
use turnfleet_turn::wire::{AttributeType, ConnectionId, MessageWriter, Method};

use super::answer::Answer;
use super::line::Line;
use super::statement::{Shortfall, Statement, ensure, failed, may, met, must};
use super::subject::Subject;
use super::tcp_allocation::allocated;

/// How long a connection may take to arrive.
const PATIENCE: Duration = Duration::from_secs(2);

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = granted();
    all.extend(once());
    all.extend(refused());
    all.extend(unreachable());
    all.extend(unauthenticated());
    all
}

/// A peer that listens.
pub(super) struct TcpPeer {
    socket: Socket,
    /// Where it is.
    pub(super) address: SocketAddr,
}

impl TcpPeer {
    /// A peer on `ip` and a port that is free.
    fn listen(ip: IpAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address((ip, 0).into()), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(ip, 0).into())?;
        socket.listen(8)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let address = socket.local_addr()?.as_socket();
        let address = address.unwrap_or_else(|| SocketAddr::new(ip, 0));
        Ok(Self { socket, address })
    }

    /// The next connection, and where it comes from.
    pub(super) fn accept(&self) -> Result<(TcpStream, SocketAddr), Shortfall> {
        let accepted = self.socket.accept();
        let (socket, _) =
            accepted.map_err(|error| failed("a connection at the peer", error.to_string()))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        let from = stream.peer_addr()?;
        Ok((stream, from))
    }
}

/// A line with a TCP allocation, and a peer that it may connect to.
pub(super) fn permitted(subject: &Subject) -> Result<(Line, TcpPeer), Shortfall> {
    let mut line = allocated(subject)?;
    let peer = TcpPeer::listen(subject.peer()?.address.ip())?;
    line.permit(&[PeerAddr(peer.address)])?;
    Ok((line, peer))
}

/// Asks for a connection to `peer`.
pub(super) fn connect(line: &mut Line, peer: SocketAddr) -> Result<Answer, Shortfall> {
    line.ask(Method::Connect, to(peer))
}

/// The attribute of a Connect request.
fn to(peer: SocketAddr) -> impl FnOnce(&mut MessageWriter<'_>) {
    move |writer| {
        writer.xor_peer_address(PeerAddr(peer));
    }
}

/// The connection that an answer or an indication names.
pub(super) fn connection(answer: &Answer) -> Result<ConnectionId, Shortfall> {
    match answer.message().connection_id() {
        Some(Ok(id)) => Ok(id),
        Some(Err(_)) | None => Err(failed("a CONNECTION-ID", answer.summary())),
    }
}

fn granted() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.2-success",
            "Connect to a peer that listens is granted with a CONNECTION-ID",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                connection(connect(&mut line, peer.address)?.granted()?)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-source",
            "The connection to the peer comes from the relayed address",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                connect(&mut line, peer.address)?.granted()?;
                let (_stream, from) = peer.accept()?;
                ensure(from == line.relayed()?, "the relayed address", from)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-ids-differ",
            "Connections to two peers have two ids",
            |subject| {
                let (mut line, one) = permitted(subject)?;
                let two = TcpPeer::listen(one.address.ip())?;
                let first = connection(connect(&mut line, one.address)?.granted()?)?;
                let second = connection(connect(&mut line, two.address)?.granted()?)?;
                ensure(first != second, "two ids", (first, second))?;
                met()
            },
        ),
    ]
}

fn once() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.2-446",
            "A second Connect to the same peer gets 446",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                connect(&mut line, peer.address)?.granted()?;
                connect(&mut line, peer.address)?.refused(446)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-446-meanwhile",
            "A second Connect to the same peer before the first is answered gets 446",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let first = line.signed(Method::Connect, to(peer.address));
                let second = line.signed(Method::Connect, to(peer.address));
                line.send(&[&first[..], &second].concat())?;
                line.answer_to(&second)?.refused(446)?;
                line.answer_to(&first)?.granted()?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-446-other-port",
            "A Connect to another port of the same peer is granted",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let other = TcpPeer::listen(peer.address.ip())?;
                connect(&mut line, peer.address)?.granted()?;
                connect(&mut line, other.address)?.granted()?;
                met()
            },
        ),
    ]
}

fn refused() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.2-437",
            "Connect without an allocation gets 437",
            |subject| {
                // Where TCP allocations are granted at all.
                drop(allocated(subject)?);
                let peer = TcpPeer::listen(subject.peer()?.address.ip())?;
                let mut line = subject.introduced()?;
                connect(&mut line, peer.address)?.refused(437)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-peer-missing",
            "Connect without XOR-PEER-ADDRESS gets 400",
            |subject| {
                let (mut line, _) = permitted(subject)?;
                line.ask(Method::Connect, |_| {})?.refused(400)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-peer-cut-off",
            "Connect with a malformed XOR-PEER-ADDRESS gets 400",
            |subject| {
                let (mut line, _) = permitted(subject)?;
                let answer = line.ask(Method::Connect, |writer| {
                    writer.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2, 3]);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
    ]
}

fn unreachable() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.2-447",
            "Connect to a port that nobody listens on gets 447",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let address = peer.address;
                drop(peer);
                connect(&mut line, address)?.refused(447)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-447-again",
            "After 447 the same peer can be connected to",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let address = peer.address;
                drop(peer);
                connect(&mut line, address)?.refused(447)?;
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(8)?;
                connect(&mut line, address)?.granted()?;
                met()
            },
        ),
        may(
            "RFC6062-5.2-low-port",
            "Connect to a peer's port below 1024 gets 403",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let low = SocketAddr::new(peer.address.ip(), 9);
                connect(&mut line, low)?.refused(403)?;
                met()
            },
        ),
    ]
}

fn unauthenticated() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.2-401",
            "Connect without credentials gets 401",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let answer = line.ask_unsigned(Method::Connect, to(peer.address))?;
                answer.refused(401)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-438",
            "Connect with a nonce that the server did not give gets 438",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                line.nonce = b"0000000000000000".to_vec();
                connect(&mut line, peer.address)?.refused(438)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-441",
            "Connect of a user other than the one that made the allocation gets 441",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let (username, password) = subject.somebody_else()?;
                let other = (&username[..], &password[..]);
                let request = line.signed_by(other, Method::Connect, to(peer.address));
                line.exchange(&request)?.refused(441)?;
                met()
            },
        ),
    ]
}
