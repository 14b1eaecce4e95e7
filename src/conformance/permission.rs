//! Permissions (RFC 8656 §9, §10.2): who installs them, and whom they let in.

use turnfleet_turn::wire::{AttributeType, Method};

use super::statement::{Statement, met, must};

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = installed();
    all.extend(refused());
    all.extend(malformed());
    all
}

fn installed() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-10.2-success",
            "CreatePermission with a peer succeeds",
            |subject| {
                let peer = subject.peer()?.as_peer();
                subject.allocated()?.permit(&[peer])?;
                met()
            },
        ),
        must(
            "RFC8656-10.2-again",
            "CreatePermission for a peer that has a permission refreshes it",
            |subject| {
                let peer = subject.peer()?.as_peer();
                let mut line = subject.allocated()?;
                line.permit(&[peer])?;
                line.permit(&[peer])?;
                met()
            },
        ),
        must(
            "RFC8656-10.2-several",
            "CreatePermission may name several peers",
            |subject| {
                let (one, two) = (subject.peer()?, subject.peer()?);
                subject
                    .allocated()?
                    .permit(&[one.as_peer(), two.as_peer()])?;
                met()
            },
        ),
        must(
            "RFC8656-9-in",
            "A peer with a permission reaches the client",
            |subject| {
                let peer = subject.peer()?;
                let mut line = subject.allocated()?;
                line.permit(&[peer.as_peer()])?;
                peer.send(line.relayed()?, b"let in")?;
                line.hears_indication(peer.as_peer(), b"let in")?;
                met()
            },
        ),
        must(
            "RFC8656-9-ports-in",
            "A permission lets every port of its address in",
            |subject| {
                let (named, other) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.permit(&[named.as_peer()])?;
                other.send(line.relayed()?, b"by another port")?;
                line.hears_indication(other.as_peer(), b"by another port")?;
                met()
            },
        ),
        must(
            "RFC8656-9-ports-out",
            "A permission lets data out to every port of its address",
            |subject| {
                let (named, other) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.permit(&[named.as_peer()])?;
                line.send_indication(other.as_peer(), b"to another port")?;
                other.hears(b"to another port")?;
                met()
            },
        ),
    ]
}

fn refused() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-9-stranger",
            "A peer without a permission does not reach the client",
            |subject| {
                let peer = subject.peer()?;
                let mut line = subject.allocated()?;
                peer.send(line.relayed()?, b"nobody let this in")?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                line.quiet("nothing of the peer")
            },
        ),
        must(
            "RFC8656-9-own",
            "A permission of one allocation is none of another",
            |subject| {
                let peer = subject.peer()?;
                let (mut with, mut without) = (subject.allocated()?, subject.allocated()?);
                with.permit(&[peer.as_peer()])?;
                peer.send(without.relayed()?, b"nobody let this in")?;
                without.ask(Method::Refresh, |_| {})?.granted()?;
                without.quiet("nothing of the peer")
            },
        ),
        must(
            "RFC8656-10.2-all-or-nothing",
            "CreatePermission with one malformed peer installs a permission for none",
            |subject| {
                let peer = subject.peer()?;
                let mut line = subject.allocated()?;
                let answer = line.ask(Method::CreatePermission, |writer| {
                    writer
                        .xor_peer_address(peer.as_peer())
                        .attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 0, 9]);
                })?;
                answer.refused(400)?;
                peer.send(line.relayed()?, b"nobody let this in")?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                line.quiet("nothing of the peer")
            },
        ),
        must(
            "RFC8656-9-unauthenticated",
            "CreatePermission without credentials installs nothing",
            |subject| {
                let peer = subject.peer()?;
                let mut line = subject.allocated()?;
                let answer = line.ask_unsigned(Method::CreatePermission, |writer| {
                    writer.xor_peer_address(peer.as_peer());
                })?;
                answer.refused(401)?;
                peer.send(line.relayed()?, b"nobody let this in")?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                line.quiet("nothing of the peer")
            },
        ),
        must(
            "RFC8656-10.2-none",
            "CreatePermission without a peer gets 400",
            |subject| {
                subject.allocated()?.try_permit(&[])?.refused(400)?;
                met()
            },
        ),
    ]
}

/// Values of XOR-PEER-ADDRESS that name no peer.
pub(super) const MALFORMED_PEERS: [(&str, &[u8]); 4] = [
    ("empty", &[]),
    ("4-bytes", &[0, 1, 0, 9]),
    ("7-bytes", &[0, 1, 0, 9, 1, 2, 3]),
    ("12-bytes", &[0, 1, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
];

fn malformed() -> Vec<Statement> {
    let statement = |(word, value): (&'static str, &'static [u8])| {
        must(
            format!("RFC8656-10.2-peer-{word}"),
            format!("CreatePermission with a malformed peer ({word}) gets 400"),
            move |subject| {
                let answer = subject
                    .allocated()?
                    .ask(Method::CreatePermission, |writer| {
                        writer.attribute(AttributeType::XOR_PEER_ADDRESS, value);
                    })?;
                answer.refused(400)?;
                met()
            },
        )
    };
    MALFORMED_PEERS.map(statement).into()
}
