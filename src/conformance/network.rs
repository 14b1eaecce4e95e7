//! What the network below has to say: ICMP messages about peers (RFC 8656 §11.5), DONT-FRAGMENT (§11.2), and the fields of
//! IP headers that pass the relay (§13, §14).

use turnfleet_turn::wire::{AttributeType, Class, Message, MessageWriter, Method};

use super::line::{Line, message};
use super::peer::Peer;
use super::statement::{Shortfall, Statement, ensure, failed, may, met, must, should, skipped};
use super::subject::Subject;

/// Types of service: each ECN codepoint, and DSCPs that calls are marked with.
const SERVICES: [u8; 6] = [0x00, 0x01, 0x02, 0x03, 0xB8, 0x88];

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = unreachable_peers();
    all.push(dont_fragment());
    all.extend(types_of_service());
    all.push(time_to_live());
    all
}

/// An allocation with a permission for a peer that is not there.
fn deserted(subject: &Subject) -> Result<(Line, Peer), Shortfall> {
    let (mut line, peer) = (subject.allocated()?, subject.peer()?);
    line.permit(&[peer.as_peer()])?;
    Ok((line, peer.leave()?))
}

/// The value of the ICMP attribute in the next Data indication, which is about `peer`.
fn hears_of(line: &mut Line, peer: &Peer) -> Result<Vec<u8>, Shortfall> {
    let bytes = line.hear()?;
    let expected = format!("a Data indication about {} with ICMP", peer.address);
    let Ok(message) = Message::parse(&bytes) else {
        return Err(failed(expected, "a message that is no STUN"));
    };
    let is_data = (message.class(), message.method()) == (Class::Indication, Some(Method::Data));
    let about = message.xor_peer_address().and_then(Result::ok);
    // A server that does not know the port says zero.
    let is_peer = about.is_some_and(|about| {
        let port = about.0.port();
        about.0.ip() == peer.address.ip() && (port == 0 || port == peer.address.port())
    });
    let icmp = message.first(AttributeType::ICMP);
    match icmp {
        Some(icmp) if is_data && is_peer && !message.has(AttributeType::DATA) => {
            Ok(icmp.value.to_vec())
        }
        Some(_) | None => Err(failed(
            expected,
            format!("{:?} about {about:?}", message.class()),
        )),
    }
}

fn unreachable_peers() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-11.5-closed-port",
            "That a peer's port is closed comes in a Data indication with ICMP of type 3 and code 3",
            |subject| {
                let (mut line, peer) = deserted(subject)?;
                line.send_indication(peer.as_peer(), b"anybody there?")?;
                let value = hears_of(&mut line, &peer)?;
                ensure(value.get(2..4) == Some(&[3, 3]), "type 3, code 3", value)?;
                met()
            },
        ),
        must(
            "RFC8656-12.5-icmp-of-bound-peer",
            "ICMP about a bound peer comes in a Data indication too",
            |subject| {
                let (mut line, peer) = (subject.allocated()?, subject.peer()?);
                line.bind(0x4000, peer.as_peer())?;
                let peer = peer.leave()?;
                line.send_channel_data(0x4000, b"anybody there?")?;
                hears_of(&mut line, &peer)?;
                met()
            },
        ),
        must(
            "RFC8656-18.13-zeros",
            "ICMP has eight bytes, of which the reserved ones are zero, and the error data where it is no MTU",
            |subject| {
                let (mut line, peer) = deserted(subject)?;
                line.send_indication(peer.as_peer(), b"anybody there?")?;
                let value = hears_of(&mut line, &peer)?;
                let holds = matches!(*value, [0, 0, _, _, 0, 0, 0, 0]);
                ensure(holds, "zeros around type and code", value)?;
                met()
            },
        ),
    ]
}

fn dont_fragment() -> Statement {
    must(
        "RFC8656-11.2-dont-fragment",
        "Where Allocate with DONT-FRAGMENT is granted, a Send indication with it brings its data to the peer",
        |subject| {
            let (mut line, peer) = (subject.introduced()?, subject.peer()?);
            let answer = line.allocate(|writer| {
                writer.dont_fragment();
            })?;
            if answer.code() == Some(420) {
                return Err(skipped("DONT-FRAGMENT is not supported"));
            }
            answer.granted()?;
            line.permit(&[peer.as_peer()])?;
            line.send(&message(
                Class::Indication,
                Method::Send,
                |writer: &mut MessageWriter<'_>| {
                    writer.xor_peer_address(peer.as_peer());
                    writer.dont_fragment().data(b"in one piece");
                },
            ))?;
            peer.hears(b"in one piece")?;
            met()
        },
    )
}

fn types_of_service() -> Vec<Statement> {
    let each = SERVICES.into_iter().map(|tos| {
        should(
            format!("RFC8656-14-service-{tos:02x}"),
            format!("Data in a datagram with DSCP and ECN {tos:#04x} reaches the peer in one that has them too"),
            move |subject| {
                subject.needs_datagrams()?;
                let (mut line, peer) = (subject.allocated()?, subject.peer()?);
                line.permit(&[peer.as_peer()])?;
                line.set_header(64, tos)?;
                line.send_indication(peer.as_peer(), b"marked")?;
                let seen = peer.hear_header()?.tos;
                ensure(seen == Some(tos), format!("{tos:#04x}"), seen)?;
                met()
            },
        )
    });
    each.collect()
}

fn time_to_live() -> Statement {
    may(
        "RFC8656-21.1.7-ttl",
        "Data goes on with what is left of its time to live, and not with all that a server can give",
        |subject| {
            subject.needs_datagrams()?;
            let (mut line, peer) = (subject.allocated()?, subject.peer()?);
            line.permit(&[peer.as_peer()])?;
            let mut seen = [None; 2];
            for (ttl, seen) in [100, 90].into_iter().zip(&mut seen) {
                line.set_header(ttl, 0)?;
                line.send_indication(peer.as_peer(), b"ageing")?;
                *seen = peer.hear_header()?.ttl;
            }
            let [Some(longer), Some(shorter)] = seen else {
                return Err(skipped("this system does not tell the TTL"));
            };
            let holds = longer < 100 && longer.checked_sub(shorter) == Some(10);
            ensure(holds, "less than 100, and 10 less than that", seen)?;
            met()
        },
    )
}
