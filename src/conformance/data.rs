//! Data between client and peer: Send and Data indications (RFC 8656 §11) and ChannelData messages (§12.4 to §12.7).

use turnfleet_turn::PeerAddr;
use turnfleet_turn::wire::{AttributeType, Class, MessageWriter, Method};

use super::line::{Line, message};
use super::peer::{Peer, text_of};
use super::permission::MALFORMED_PEERS;
use super::statement::{
    Outcome, Shortfall, Statement, Verdict, ensure, failed, may, met, must, should,
};
use super::subject::Subject;

/// Lengths of payloads: every remainder of four, nothing, and what fills a packet.
const LENGTHS: [usize; 7] = [0, 1, 2, 3, 4, 160, 1200];

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = lengths();
    all.extend(from_where());
    all.extend(discarded_indications());
    all.extend(ignored_in_indications());
    all.extend(channel_data());
    all.extend(discarded_channel_data());
    all.extend(without_allocation());
    all.extend(between_clients());
    all
}

/// A payload of `length` whose bytes differ.
fn payload(length: usize) -> Vec<u8> {
    (1..=250).cycle().take(length).collect()
}

/// An allocation with a permission for a peer.
fn permitted(subject: &Subject) -> Result<(Line, Peer), Shortfall> {
    let (mut line, peer) = (subject.allocated()?, subject.peer()?);
    line.permit(&[peer.as_peer()])?;
    Ok((line, peer))
}

/// An allocation with the channel 0x4000 to a peer.
fn bound(subject: &Subject) -> Result<(Line, Peer), Shortfall> {
    let (mut line, peer) = (subject.allocated()?, subject.peer()?);
    line.bind(0x4000, peer.as_peer())?;
    Ok((line, peer))
}

/// Nothing reaches the peer but what is sent after it; the line is kept, so that a late datagram still has a way.
fn unheard(line: Line, peer: Peer) -> Verdict {
    peer.hears(b"after it")?;
    Ok(Outcome::MetIfQuiet(Box::new(move || {
        let heard = peer.unheard()?;
        drop(line);
        match heard {
            None => met(),
            Some(data) => Err(failed("nothing at the peer", text_of(&data))),
        }
    })))
}

fn lengths() -> Vec<Statement> {
    let mut all = Vec::new();
    for length in LENGTHS {
        all.push(must(
            format!("RFC8656-11.2-length-{length}"),
            format!("A Send indication with {length} bytes brings them to the peer"),
            move |subject| {
                let (mut line, peer) = permitted(subject)?;
                line.send_indication(peer.as_peer(), &payload(length))?;
                peer.hears(&payload(length))?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-11.3-length-{length}"),
            format!("A datagram of {length} bytes from a peer comes in a Data indication that names the peer"),
            move |subject| {
                let (mut line, peer) = permitted(subject)?;
                peer.send(line.relayed()?, &payload(length))?;
                line.hears_indication(peer.as_peer(), &payload(length))?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-12.6-length-{length}"),
            format!("A ChannelData message with {length} bytes brings them to the peer"),
            move |subject| {
                let (mut line, peer) = bound(subject)?;
                line.send_channel_data(0x4000, &payload(length))?;
                peer.hears(&payload(length))?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-12.7-length-{length}"),
            format!(
                "A datagram of {length} bytes from a bound peer comes in a ChannelData message"
            ),
            move |subject| {
                let (mut line, peer) = bound(subject)?;
                peer.send(line.relayed()?, &payload(length))?;
                line.hears_on_channel(0x4000, &payload(length))?;
                met()
            },
        ));
    }
    all
}

fn from_where() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-11.2-source",
            "Data of a Send indication comes from the relayed address",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                line.send_indication(peer.as_peer(), b"whence")?;
                let (from, _) = peer.hear()?;
                ensure(from == line.relayed()?, line.relayed()?.to_string(), from)?;
                met()
            },
        ),
        must(
            "RFC8656-12.6-source",
            "Data of a ChannelData message comes from the relayed address",
            |subject| {
                let (mut line, peer) = bound(subject)?;
                line.send_channel_data(0x4000, b"whence")?;
                let (from, _) = peer.hear()?;
                ensure(from == line.relayed()?, line.relayed()?.to_string(), from)?;
                met()
            },
        ),
        must(
            "RFC8656-12.7-channel-always",
            "A bound peer is heard by its channel, also when the client answered it in an indication",
            |subject| {
                let (mut line, peer) = bound(subject)?;
                line.send_indication(peer.as_peer(), b"over")?;
                peer.hears(b"over")?;
                peer.send(line.relayed()?, b"and back")?;
                line.hears_on_channel(0x4000, b"and back")?;
                met()
            },
        ),
        must(
            "RFC8656-11.2-no-answer",
            "A Send indication gets no answer",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                line.send_indication(peer.as_peer(), b"no answer")?;
                peer.hears(b"no answer")?;
                line.quiet("no answer")
            },
        ),
        must(
            "RFC8656-11.2-order",
            "Data keeps its order on its way to the peer",
            |subject| {
                let (mut line, peer) = bound(subject)?;
                for data in [b"first", b"then.", b"last."] {
                    line.send_channel_data(0x4000, data)?;
                }
                for data in [b"first", b"then.", b"last."] {
                    peer.hears(data)?;
                }
                met()
            },
        ),
    ]
}

/// A Send indication with other attributes than it should have is discarded: what comes after it arrives alone.
fn indication_discarded(
    id: impl Into<String>,
    text: impl Into<String>,
    write: impl Fn(&mut MessageWriter<'_>, PeerAddr) + 'static,
) -> Statement {
    must(id, text, move |subject| {
        let (mut line, peer) = permitted(subject)?;
        line.send(&message(Class::Indication, Method::Send, |writer| {
            write(writer, peer.as_peer());
        }))?;
        line.send_indication(peer.as_peer(), b"after it")?;
        unheard(line, peer)
    })
}

fn discarded_indications() -> Vec<Statement> {
    let mut all = vec![
        indication_discarded(
            "RFC8656-11.2-no-peer",
            "A Send indication without XOR-PEER-ADDRESS is discarded",
            |writer, _| {
                writer.data(b"to nobody");
            },
        ),
        indication_discarded(
            "RFC8656-11.2-no-data",
            "A Send indication without DATA is discarded",
            |writer, peer| {
                writer.xor_peer_address(peer);
            },
        ),
        indication_discarded(
            "RFC8489-6.3.2-unknown-required",
            "A Send indication with an unknown required attribute is discarded",
            |writer, peer| {
                writer
                    .xor_peer_address(peer)
                    .data(b"with more")
                    .attribute(AttributeType(0x7FFF), &[]);
            },
        ),
        must(
            "RFC8656-11.2-no-permission",
            "A Send indication to a peer without a permission is discarded",
            |subject| {
                let (mut line, peer) = (subject.allocated()?, subject.peer()?);
                line.send_indication(peer.as_peer(), b"not permitted")?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                line.permit(&[peer.as_peer()])?;
                line.send_indication(peer.as_peer(), b"after it")?;
                unheard(line, peer)
            },
        ),
        indication_discarded(
            "RFC8656-11.2-family",
            "A Send indication to a peer of another family is discarded",
            |writer, _| {
                let other = ([0x2001, 0xDB8, 0, 0, 0, 0, 0, 1], 9).into();
                writer
                    .xor_peer_address(PeerAddr(other))
                    .data(b"to another family");
            },
        ),
    ];
    for (word, value) in MALFORMED_PEERS {
        all.push(indication_discarded(
            format!("RFC8656-11.2-peer-{word}"),
            format!("A Send indication with a malformed peer ({word}) is discarded"),
            move |writer, _| {
                writer
                    .attribute(AttributeType::XOR_PEER_ADDRESS, value)
                    .data(b"to nobody");
            },
        ));
    }
    all
}

fn ignored_in_indications() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-6.3-optional-indication",
            "An unknown optional attribute of a Send indication is ignored",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                line.send(&message(Class::Indication, Method::Send, |writer| {
                    writer
                        .attribute(AttributeType(0xC0DE), &[1, 2])
                        .xor_peer_address(peer.as_peer())
                        .data(b"and data");
                }))?;
                peer.hears(b"and data")?;
                met()
            },
        ),
        may(
            "RFC8489-14-first-data",
            "Of two DATA attributes the first counts",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                line.send(&message(Class::Indication, Method::Send, |writer| {
                    writer
                        .xor_peer_address(peer.as_peer())
                        .data(b"one")
                        .data(b"two");
                }))?;
                peer.hears(b"one")?;
                met()
            },
        ),
        may(
            "RFC8489-14-first-peer",
            "Of two peers of a Send indication the first counts",
            |subject| {
                let (mut line, peer) = permitted(subject)?;
                let other = subject.peer()?;
                line.send(&message(Class::Indication, Method::Send, |writer| {
                    writer
                        .xor_peer_address(peer.as_peer())
                        .xor_peer_address(other.as_peer())
                        .data(b"to the first");
                }))?;
                peer.hears(b"to the first")?;
                met()
            },
        ),
    ]
}

fn channel_data() -> Vec<Statement> {
    let mut all = Vec::new();
    for padding in 1..=3 {
        all.push(must(
            format!("RFC8656-12.5-padding-{padding}"),
            format!(
                "A ChannelData datagram with {padding} bytes of padding is relayed without them"
            ),
            move |subject| {
                subject.needs_datagrams()?;
                let (mut line, peer) = bound(subject)?;
                let data = payload(4 - padding);
                let mut bytes = vec![0x40, 0, 0, 0];
                bytes[3] = u8::try_from(data.len()).expect("at most three bytes");
                bytes.extend_from_slice(&data);
                bytes.resize(8, 0);
                line.send(&bytes)?;
                peer.hears(&data)?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-12.5-stream-padding-{padding}"),
            format!(
                "ChannelData with {padding} bytes of padding keeps a stream in step, both ways"
            ),
            move |subject| {
                subject.needs_a_stream()?;
                let (mut line, peer) = bound(subject)?;
                let data = payload(4 - padding);
                for _ in 0..3 {
                    line.send_channel_data(0x4000, &data)?;
                    peer.hears(&data)?;
                    peer.send(line.relayed()?, &data)?;
                    line.hears_on_channel(0x4000, &data)?;
                }
                line.ask(Method::Refresh, |_| {})?.granted()?;
                met()
            },
        ));
    }
    all
}

fn discarded_channel_data() -> Vec<Statement> {
    let mut all = Vec::new();
    for (word, text, bytes) in [
        (
            "unbound",
            "on a channel that is not bound",
            &[0x40, 1, 0, 1, 7, 0, 0, 0],
        ),
        (
            "reserved",
            "on a reserved number",
            &[0x50, 0, 0, 1, 7, 0, 0, 0],
        ),
    ] {
        all.push(must(
            format!("RFC8656-12.6-{word}"),
            format!("ChannelData {text} is discarded"),
            move |subject| {
                let (mut line, peer) = bound(subject)?;
                line.send(bytes)?;
                line.send_channel_data(0x4000, b"after it")?;
                unheard(line, peer)
            },
        ));
    }
    for (word, bytes) in [
        ("empty", &[0x40, 0, 0, 9][..]),
        ("short", &[0x40, 0, 0, 9, 1, 2, 3, 4]),
    ] {
        all.push(must(
            format!("RFC8656-12.6-truncated-{word}"),
            format!("A ChannelData datagram shorter than its length says ({word}) is discarded"),
            move |subject| {
                subject.needs_datagrams()?;
                let (mut line, peer) = bound(subject)?;
                line.send(bytes)?;
                line.send_channel_data(0x4000, b"after it")?;
                unheard(line, peer)
            },
        ));
    }
    all
}

fn without_allocation() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-5-send",
            "A Send indication on a five-tuple without an allocation is ignored",
            |subject| {
                let (mut line, peer) = (subject.line()?, subject.peer()?);
                line.send_indication(peer.as_peer(), b"from nobody")?;
                line.ask_unsigned(Method::Binding, |_| {})?.granted()?;
                line.quiet("no answer")
            },
        ),
        must(
            "RFC8656-5-channel-data",
            "ChannelData on a five-tuple without an allocation is ignored",
            |subject| {
                subject.needs_datagrams()?;
                let mut line = subject.line()?;
                line.send_channel_data(0x4000, b"from nobody")?;
                line.ask_unsigned(Method::Binding, |_| {})?.granted()?;
                line.quiet("no answer")
            },
        ),
    ]
}

/// A relayed address is a peer like any other (RFC 8656 §2, with both ends of a call behind one server).
fn between_clients() -> Vec<Statement> {
    let pair = |subject: &Subject| {
        let (one, two) = (subject.allocated()?, subject.allocated()?);
        let (here, there) = (PeerAddr(one.relayed()?), PeerAddr(two.relayed()?));
        Ok::<_, Shortfall>((one, here, two, there))
    };
    vec![
        should(
            "RFC8656-11-between-clients",
            "Two clients of one server reach each other in indications",
            move |subject| {
                let (mut one, here, mut two, there) = pair(subject)?;
                one.permit(&[there])?;
                two.permit(&[here])?;
                one.send_indication(there, b"over")?;
                two.hears_indication(here, b"over")?;
                two.send_indication(here, b"and back")?;
                one.hears_indication(there, b"and back")?;
                met()
            },
        ),
        should(
            "RFC8656-12-between-clients",
            "Two clients of one server reach each other through channels",
            move |subject| {
                let (mut one, here, mut two, there) = pair(subject)?;
                one.bind(0x4000, there)?;
                two.bind(0x4001, here)?;
                one.send_channel_data(0x4000, b"over")?;
                two.hears_on_channel(0x4001, b"over")?;
                two.send_channel_data(0x4001, b"and back")?;
                one.hears_on_channel(0x4000, b"and back")?;
                met()
            },
        ),
        must(
            "RFC8656-9-between-clients",
            "A client does not reach another one of the server that has not permitted it",
            move |subject| {
                let (mut one, _, mut two, there) = pair(subject)?;
                one.permit(&[there])?;
                one.send_indication(there, b"nobody let this in")?;
                one.ask(Method::Refresh, |_| {})?.granted()?;
                two.ask(Method::Refresh, |_| {})?.granted()?;
                two.quiet("nothing of the other client")
            },
        ),
    ]
}
