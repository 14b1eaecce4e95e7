//! Client data connections (RFC 6062 §5.4, §5.5): what a ConnectionBind request gets, and what goes through.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use turnfleet_turn::wire::{ConnectionId, Message, MessageWriter, Method};

use super::answer::Answer;
use super::line::Line;
use super::peer::text_of;
use super::statement::{Shortfall, Statement, ensure, failed, may, met, must};
use super::subject::Subject;
use super::tcp_allocation;
use super::tcp_connect::{connect, connection, permitted};

/// Bytes of a peer that look like a message, so that a line hears them as one.
const FROM_PEER: &[u8] = b"\x40\x01\x00\x08from-it!";
/// Bytes to a peer that look like nothing.
const TO_PEER: &[u8] = b"\xff\x00\x01 as it is \x00\x01\x00\x00";

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = bound();
    all.extend(refused());
    all.extend(left_alone());
    all.extend(closed());
    all
}

/// A connection to a peer that waits to be bound: the control connection, its id, and the peer's end.
fn pending(subject: &Subject) -> Result<(Line, ConnectionId, TcpStream), Shortfall> {
    let (mut control, peer) = permitted(subject)?;
    let id = connection(connect(&mut control, peer.address)?.granted()?)?;
    let (stream, _) = peer.accept()?;
    Ok((control, id, stream))
}

/// A line of its own, over which the user of `control` speaks with what the server has told there.
fn beside(subject: &Subject, control: &Line) -> Result<Line, Shortfall> {
    let mut line = subject.line()?;
    line.speak_for(control);
    Ok(line)
}

fn bind(line: &mut Line, id: ConnectionId) -> Result<Answer, Shortfall> {
    insist(line, |line| line.signed(Method::ConnectionBind, naming(id)))
}

/// Asks again where the nonce was for another line.
fn insist(line: &mut Line, request: impl Fn(&Line) -> Vec<u8>) -> Result<Answer, Shortfall> {
    let answer = line.exchange(&request(line))?;
    if !matches!(answer.code(), Some(401 | 438)) {
        return Ok(answer);
    }
    line.learn(&answer)?;
    line.exchange(&request(line))
}

/// The attribute of a ConnectionBind request.
fn naming(id: ConnectionId) -> impl FnOnce(&mut MessageWriter<'_>) {
    move |writer| {
        writer.connection_id(id);
    }
}

/// A bound connection: the control connection, the client data connection, and the peer's end.
fn spliced(subject: &Subject) -> Result<(Line, Line, TcpStream), Shortfall> {
    let (control, id, stream) = pending(subject)?;
    let mut data = beside(subject, &control)?;
    bind(&mut data, id)?.granted()?;
    Ok((control, data, stream))
}

/// Whether data goes through as it is, both ways.
fn carries(data: &mut Line, stream: &mut TcpStream) -> Result<(), Shortfall> {
    data.send(TO_PEER)?;
    hears(stream, TO_PEER)?;
    stream.write_all(FROM_PEER)?;
    let heard = data.hear()?;
    ensure(heard == FROM_PEER, text_of(FROM_PEER), text_of(&heard))
}

/// Whether `data` is what the peer reads next.
fn hears(stream: &mut TcpStream, data: &[u8]) -> Result<(), Shortfall> {
    let mut heard = vec![0; data.len()];
    match stream.read_exact(&mut heard) {
        Ok(()) => ensure(heard == data, text_of(data), text_of(&heard)),
        Err(error) => Err(failed(text_of(data), error.to_string())),
    }
}

/// Whether the peer's end is at its end.
fn ends(stream: &mut TcpStream) -> Result<(), Shortfall> {
    match stream.read(&mut [0; 64]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(failed("the end of the connection", "data")),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(failed("the end of the connection", error.to_string())),
    }
}

fn bound() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.4-active",
            "After Connect and ConnectionBind data goes both ways as it is",
            |subject| {
                let (_control, mut data, mut stream) = spliced(subject)?;
                carries(&mut data, &mut stream)?;
                met()
            },
        ),
        must(
            "RFC6062-5.4-passive",
            "After ConnectionAttempt and ConnectionBind data goes both ways as it is",
            |subject| {
                let mut control = tcp_allocation::allocated(subject)?;
                control.permit(&[subject.peer()?.as_peer()])?;
                let (mut stream, _) = tcp_allocation::connect(subject, &control)?;
                let attempt = control.hear()?;
                let id = Message::parse(&attempt)
                    .ok()
                    .and_then(|attempt| attempt.connection_id()?.ok());
                let id = id.ok_or_else(|| failed("a ConnectionAttempt", text_of(&attempt)))?;
                let mut data = beside(subject, &control)?;
                bind(&mut data, id)?.granted()?;
                carries(&mut data, &mut stream)?;
                met()
            },
        ),
        must(
            "RFC6062-5.4-early-data",
            "What the peer sends before ConnectionBind arrives after it",
            |subject| {
                let (control, id, mut stream) = pending(subject)?;
                stream.write_all(FROM_PEER)?;
                let mut data = beside(subject, &control)?;
                bind(&mut data, id)?.granted()?;
                let heard = data.hear()?;
                ensure(heard == FROM_PEER, text_of(FROM_PEER), text_of(&heard))?;
                met()
            },
        ),
        must(
            "RFC6062-5.4-same-segment",
            "What the client sends right behind ConnectionBind reaches the peer",
            |subject| {
                let (control, id, mut stream) = pending(subject)?;
                let mut data = beside(subject, &control)?;
                let introduction = data.ask_unsigned(Method::ConnectionBind, naming(id))?;
                data.learn(introduction.refused(401)?)?;
                let request = data.signed(Method::ConnectionBind, naming(id));
                data.send(&[&request[..], TO_PEER].concat())?;
                data.answer_to(&request)?.granted()?;
                hears(&mut stream, TO_PEER)?;
                met()
            },
        ),
        must(
            "RFC6062-5.2-446-bound",
            "A second Connect to a peer whose connection is bound gets 446",
            |subject| {
                let (mut control, _data, stream) = spliced(subject)?;
                connect(&mut control, stream.local_addr()?)?.refused(446)?;
                met()
            },
        ),
    ]
}

fn refused() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.4-id-missing",
            "ConnectionBind without CONNECTION-ID gets 400",
            |subject| {
                let (control, _, _stream) = pending(subject)?;
                let mut data = beside(subject, &control)?;
                let request = |line: &Line| line.signed(Method::ConnectionBind, |_| {});
                insist(&mut data, request)?.refused(400)?;
                met()
            },
        ),
        must(
            "RFC6062-5.4-id-unknown",
            "ConnectionBind with an id that the server did not give gets 400",
            |subject| {
                let (control, id, _stream) = pending(subject)?;
                let mut data = beside(subject, &control)?;
                bind(&mut data, ConnectionId(!id.0))?.refused(400)?;
                met()
            },
        ),
        must(
            "RFC6062-5.4-id-twice",
            "A second ConnectionBind for the same connection gets 400",
            |subject| {
                let (control, id, mut stream) = pending(subject)?;
                let mut data = beside(subject, &control)?;
                bind(&mut data, id)?.granted()?;
                bind(&mut beside(subject, &control)?, id)?.refused(400)?;
                carries(&mut data, &mut stream)?;
                met()
            },
        ),
        must(
            "RFC6062-5.4-udp",
            "ConnectionBind over UDP gets 400",
            |subject| {
                subject.needs_datagrams()?;
                let mut line = subject.introduced()?;
                bind(&mut line, ConnectionId(1))?.refused(400)?;
                met()
            },
        ),
    ]
}

/// A ConnectionBind that is not the user's own is refused, and the connection waits for its user.
fn left_alone() -> Vec<Statement> {
    let after = |code: u16,
                 text: &str,
                 attempt: fn(&Subject, &mut Line, ConnectionId) -> Refusal| {
        must(
            format!("RFC6062-5.4-{code}"),
            format!("ConnectionBind {text} gets {code}, and leaves the pending connection alone"),
            move |subject| {
                let (control, id, mut stream) = pending(subject)?;
                let mut other = beside(subject, &control)?;
                attempt(subject, &mut other, id)?.refused(code)?;
                let mut data = beside(subject, &control)?;
                bind(&mut data, id)?.granted()?;
                carries(&mut data, &mut stream)?;
                met()
            },
        )
    };
    vec![
        after(401, "without credentials", |_, line, id| {
            line.ask_unsigned(Method::ConnectionBind, naming(id))
        }),
        after(
            438,
            "with a nonce that the server did not give",
            |_, line, id| {
                line.nonce = b"0000000000000000".to_vec();
                line.ask(Method::ConnectionBind, naming(id))
            },
        ),
        after(441, "of another user", |subject, line, id| {
            let (username, password) = subject.somebody_else()?;
            let other = (&username[..], &password[..]);
            insist(line, |line| {
                line.signed_by(other, Method::ConnectionBind, naming(id))
            })
        }),
    ]
}

/// What came of an attempt.
type Refusal = Result<Answer, Shortfall>;

fn closed() -> Vec<Statement> {
    vec![
        must(
            "RFC6062-5.5-peer-closes",
            "Where the peer closes, the client data connection ends behind its last data",
            |subject| {
                let (_control, mut data, mut stream) = spliced(subject)?;
                stream.write_all(FROM_PEER)?;
                drop(stream);
                let heard = data.hear()?;
                ensure(heard == FROM_PEER, text_of(FROM_PEER), text_of(&heard))?;
                data.ends()?;
                met()
            },
        ),
        must(
            "RFC6062-5.5-client-closes",
            "Where the client closes, the peer's connection ends behind its last data",
            |subject| {
                let (_control, mut data, mut stream) = spliced(subject)?;
                data.send(TO_PEER)?;
                drop(data);
                hears(&mut stream, TO_PEER)?;
                ends(&mut stream)?;
                met()
            },
        ),
        may(
            "RFC6062-5.5-half-closed",
            "A peer that has only said all that it has to say still gets what the client sends",
            |subject| {
                let (_control, mut data, mut stream) = spliced(subject)?;
                stream.shutdown(Shutdown::Write)?;
                data.send(TO_PEER)?;
                hears(&mut stream, TO_PEER)?;
                met()
            },
        ),
        must(
            "RFC6062-5.5-allocation-ends",
            "Where the allocation ends, its data connections do",
            |subject| {
                let (mut control, mut data, mut stream) = spliced(subject)?;
                control.delete()?.granted()?;
                ends(&mut stream)?;
                data.ends()?;
                met()
            },
        ),
        must(
            "RFC6062-5.5-allocation-ends-pending",
            "Where the allocation ends, its pending connections do",
            |subject| {
                let (mut control, _, mut stream) = pending(subject)?;
                control.delete()?.granted()?;
                ends(&mut stream)?;
                met()
            },
        ),
    ]
}
