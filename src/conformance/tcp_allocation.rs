//! Allocations whose peers come by TCP (RFC 6062 §5.1, §5.3).
//!
//! A server need not have them: one that refuses the transport with 442 lets the statements be skipped.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use turnfleet_turn::PeerAddr;
use turnfleet_turn::wire::{AttributeType, Message, MessageWriter, Method, ReservationToken};

use super::answer::Answer;
use super::line::Line;
use super::statement::{Shortfall, Statement, ensure, failed, met, must, skipped};
use super::subject::Subject;

/// REQUESTED-TRANSPORT's number for TCP.
const TCP: u8 = 6;
/// RFC 6062 §6.2.1.
const CONNECTION_ID: AttributeType = AttributeType(0x002A);
/// RFC 6062 §6.1.
const CONNECTION_ATTEMPT: u16 = 0x00C;
/// How long a connection may take to open or to close.
const PATIENCE: Duration = Duration::from_secs(2);

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = granted();
    all.extend(refused());
    all.extend(attempts());
    all
}

/// Asks for a TCP allocation with more attributes.
fn ask(line: &mut Line, more: impl FnOnce(&mut MessageWriter<'_>)) -> Result<Answer, Shortfall> {
    let answer = line.ask(Method::Allocate, |writer| {
        writer.requested_transport(TCP);
        more(writer);
    })?;
    line.remember(&answer);
    if answer.code() == Some(442) {
        return Err(skipped("the server has no TCP allocations"));
    }
    Ok(answer)
}

/// A line over a stream with a TCP allocation.
pub(super) fn allocated(subject: &Subject) -> Result<Line, Shortfall> {
    subject.needs_a_stream()?;
    let mut line = subject.introduced()?;
    ask(&mut line, |_| {})?.granted()?;
    Ok(line)
}

/// A peer's connection to the relayed address of `line`, and where it comes from.
pub(super) fn connect(
    subject: &Subject,
    line: &Line,
) -> Result<(TcpStream, SocketAddr), Shortfall> {
    let peer = subject.peer()?.address.ip();
    let socket = Socket::new(Domain::for_address(line.relayed()?), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(peer, 0).into())?;
    socket
        .connect_timeout(&line.relayed()?.into(), PATIENCE)
        .map_err(|error| failed("a connection to the relayed address", error.to_string()))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let address = stream.local_addr()?;
    Ok((stream, address))
}

fn granted() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.1-success",
            "Allocate for TCP over a stream gives a relayed address",
            |subject| {
                allocated(subject)?.relayed()?;
                met()
            },
        ),
        must(
            "RFC6062-5.1-no-token",
            "A TCP allocation comes without RESERVATION-TOKEN",
            |subject| {
                subject.needs_a_stream()?;
                let mut line = subject.introduced()?;
                let answer = ask(&mut line, |_| {})?;
                answer
                    .granted()?
                    .without(AttributeType::RESERVATION_TOKEN, "RESERVATION-TOKEN")?;
                met()
            },
        ),
        must(
            "RFC6062-5.1-accepts",
            "The relayed address of a TCP allocation accepts connections",
            |subject| {
                let mut line = allocated(subject)?;
                line.permit(&[subject.peer()?.as_peer()])?;
                connect(subject, &line)?;
                met()
            },
        ),
    ]
}

fn refused() -> Vec<Statement> {
    let with = |word: &str, write: fn(&mut MessageWriter<'_>)| {
        must(
            format!("RFC6062-5.1-{word}"),
            format!("Allocate for TCP with {word} gets 400"),
            move |subject| {
                // Where TCP allocations are granted at all.
                drop(allocated(subject)?);
                let mut line = subject.introduced()?;
                ask(&mut line, write)?.refused(400)?;
                met()
            },
        )
    };
    vec![
        must(
            "RFC6062-5.1-udp",
            "Allocate for TCP from a client that comes by UDP gets 400",
            |subject| {
                subject.needs_datagrams()?;
                let mut line = subject.introduced()?;
                ask(&mut line, |_| {})?.refused(400)?;
                met()
            },
        ),
        with("DONT-FRAGMENT", |writer| {
            writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
        }),
        with("EVEN-PORT", |writer| {
            writer.even_port(false);
        }),
        with("RESERVATION-TOKEN", |writer| {
            writer.reservation_token(ReservationToken([1; 8]));
        }),
    ]
}

/// Whether `bytes` is a ConnectionAttempt that names `peer` and a connection.
fn announces(bytes: &[u8], peer: SocketAddr) -> bool {
    Message::parse(bytes).is_ok_and(|message| {
        let id = message.first(CONNECTION_ID);
        message.method_code() == CONNECTION_ATTEMPT
            && message.xor_peer_address() == Some(Ok(PeerAddr(peer)))
            && id.is_some_and(|id| id.value.len() == 4)
    })
}

fn attempts() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.3-attempt",
            "A permitted peer's connection is told in a ConnectionAttempt with its address and an id",
            |subject| {
                let mut line = allocated(subject)?;
                line.permit(&[subject.peer()?.as_peer()])?;
                let (_stream, peer) = connect(subject, &line)?;
                let heard = line.hear()?;
                let seen = heard.escape_ascii().to_string();
                ensure(announces(&heard, peer), "a ConnectionAttempt", seen)?;
                met()
            },
        ),
        must(
            "RFC6062-5.3-attempts-differ",
            "Two connections of a peer have two ids",
            |subject| {
                let mut line = allocated(subject)?;
                line.permit(&[subject.peer()?.as_peer()])?;
                let (_one, _) = connect(subject, &line)?;
                let (_two, _) = connect(subject, &line)?;
                let (first, second) = (line.hear()?, line.hear()?);
                let id = |bytes: &[u8]| {
                    let message = Message::parse(bytes).ok()?;
                    let id = message.first(CONNECTION_ID)?;
                    Some(id.value.to_vec())
                };
                let ids = (id(&first), id(&second));
                ensure(ids.0.is_some() && ids.0 != ids.1, "two ids", ids)?;
                met()
            },
        ),
        must(
            "RFC6062-5.3-stranger",
            "A connection of a peer without a permission is closed, and the client hears nothing of it",
            |subject| {
                let line = allocated(subject)?;
                if let Ok((mut stream, _)) = connect(subject, &line) {
                    let read = stream.read(&mut [0; 1]);
                    let open = read.as_ref().is_err_and(|error| {
                        matches!(
                            error.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        )
                    });
                    ensure(!open, "the end of the connection", read)?;
                }
                line.quiet("nothing of the peer")
            },
        ),
    ]
}
