//! ChannelBind (RFC 8656 §12, §12.2): numbers, peers, and who may have which.

use turnfleet_turn::wire::{AttributeType, ChannelNumber, Method};

use super::permission::MALFORMED_PEERS;
use super::statement::{Statement, met, must};

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = numbers();
    all.extend(bound());
    all.extend(conflicts());
    all.extend(malformed());
    all
}

fn numbers() -> Vec<Statement> {
    let mut all = Vec::new();
    for number in [0x4000, 0x4001, 0x4ABC, 0x4FFF] {
        all.push(must(
            format!("RFC8656-12-number-{number:#06x}"),
            format!("The channel number {number:#06x} can be bound"),
            move |subject| {
                let peer = subject.peer()?.as_peer();
                subject.allocated()?.bind(number, peer)?;
                met()
            },
        ));
    }
    for number in [0x0000, 0x0001, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF] {
        all.push(must(
            format!("RFC8656-12.2-number-{number:#06x}"),
            format!(
                "ChannelBind with the number {number:#06x}, outside of 0x4000 to 0x4FFF, gets 400"
            ),
            move |subject| {
                let peer = subject.peer()?.as_peer();
                subject.allocated()?.try_bind(number, peer)?.refused(400)?;
                met()
            },
        ));
    }
    all.push(must(
        "RFC8656-18.1-reserved",
        "The reserved bytes of CHANNEL-NUMBER are ignored",
        |subject| {
            let peer = subject.peer()?.as_peer();
            let mut line = subject.allocated()?;
            line.permit(&[peer])?;
            line.ask(Method::ChannelBind, |writer| {
                writer
                    .attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 1, 2])
                    .xor_peer_address(peer);
            })?
            .granted()?;
            met()
        },
    ));
    all
}

fn bound() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-12-again",
            "A channel can be bound to its peer again",
            |subject| {
                let peer = subject.peer()?.as_peer();
                let mut line = subject.allocated()?;
                line.bind(0x4000, peer)?;
                line.bind(0x4000, peer)?;
                met()
            },
        ),
        must(
            "RFC8656-12-several",
            "Two channels can be bound to two peers",
            |subject| {
                let (one, two) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.bind(0x4000, one.as_peer())?;
                line.bind(0x4001, two.as_peer())?;
                line.send_channel_data(0x4000, b"one")?;
                line.send_channel_data(0x4001, b"two")?;
                one.hears(b"one")?;
                two.hears(b"two")?;
                met()
            },
        ),
        must(
            "RFC8656-12-own",
            "A channel of one allocation is none of another",
            |subject| {
                let (one, two) = (subject.peer()?, subject.peer()?);
                let (mut first, mut second) = (subject.allocated()?, subject.allocated()?);
                first.bind(0x4000, one.as_peer())?;
                second.bind(0x4000, two.as_peer())?;
                first.send_channel_data(0x4000, b"first")?;
                second.send_channel_data(0x4000, b"second")?;
                one.hears(b"first")?;
                two.hears(b"second")?;
                met()
            },
        ),
        must(
            "RFC8656-12.2-permission-in",
            "ChannelBind installs a permission: another port of the peer's address reaches the client",
            |subject| {
                let (peer, other) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.bind(0x4000, peer.as_peer())?;
                other.send(line.relayed()?, b"by another port")?;
                line.hears_indication(other.as_peer(), b"by another port")?;
                met()
            },
        ),
        must(
            "RFC8656-12.2-permission-out",
            "ChannelBind installs a permission: a Send indication goes to another port of the address",
            |subject| {
                let (peer, other) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.bind(0x4000, peer.as_peer())?;
                line.send_indication(other.as_peer(), b"to another port")?;
                other.hears(b"to another port")?;
                met()
            },
        ),
    ]
}

fn conflicts() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-12.2-number-taken",
            "ChannelBind of a bound number to another peer gets 400",
            |subject| {
                let (one, two) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.bind(0x4000, one.as_peer())?;
                line.try_bind(0x4000, two.as_peer())?.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8656-12.2-peer-taken",
            "ChannelBind of another number to a bound peer gets 400",
            |subject| {
                let peer = subject.peer()?.as_peer();
                let mut line = subject.allocated()?;
                line.bind(0x4000, peer)?;
                line.try_bind(0x4001, peer)?.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8656-12.2-conflict-harmless",
            "A refused ChannelBind leaves the channel as it was",
            |subject| {
                let (one, two) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.bind(0x4000, one.as_peer())?;
                line.try_bind(0x4000, two.as_peer())?.refused(400)?;
                line.send_channel_data(0x4000, b"as it was")?;
                one.hears(b"as it was")?;
                met()
            },
        ),
    ]
}

fn malformed() -> Vec<Statement> {
    let mut all = vec![
        must(
            "RFC8656-12.2-no-number",
            "ChannelBind without CHANNEL-NUMBER gets 400",
            |subject| {
                let peer = subject.peer()?.as_peer();
                let answer = subject.allocated()?.ask(Method::ChannelBind, |writer| {
                    writer.xor_peer_address(peer);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8656-12.2-no-peer",
            "ChannelBind without XOR-PEER-ADDRESS gets 400",
            |subject| {
                let answer = subject.allocated()?.ask(Method::ChannelBind, |writer| {
                    writer.channel_number(ChannelNumber(0x4000));
                })?;
                answer.refused(400)?;
                met()
            },
        ),
    ];
    for length in [0, 2, 8] {
        all.push(must(
            format!("RFC8656-12.2-number-length-{length}"),
            format!("ChannelBind with a CHANNEL-NUMBER of {length} bytes gets 400"),
            move |subject| {
                let peer = subject.peer()?.as_peer();
                let answer = subject.allocated()?.ask(Method::ChannelBind, |writer| {
                    writer
                        .attribute(AttributeType::CHANNEL_NUMBER, &[0x40; 8][..length])
                        .xor_peer_address(peer);
                })?;
                answer.refused(400)?;
                met()
            },
        ));
    }
    for (word, value) in MALFORMED_PEERS {
        all.push(must(
            format!("RFC8656-12.2-peer-{word}"),
            format!("ChannelBind with a malformed peer ({word}) gets 400"),
            move |subject| {
                let answer = subject.allocated()?.ask(Method::ChannelBind, |writer| {
                    writer
                        .channel_number(ChannelNumber(0x4000))
                        .attribute(AttributeType::XOR_PEER_ADDRESS, value);
                })?;
                answer.refused(400)?;
                met()
            },
        ));
    }
    all
}
